"""Records as TRL's trainers want them: conversational columns beside an image column."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, List, Value

from vlm_ops.data.images import for_other_readers
from vlm_ops.records import ImageRef, PreferencePair, Row

_MESSAGES = List({"role": Value("string"), "content": Value("string")})
Locate = Callable[[str], Path]


def sft_rows(rows: Iterable[Row], locate: Locate) -> Dataset:
    """Make prompt/completion rows, so that TRL supervises the completion alone.

    Args:
        rows: Rows; the first accepted answer is the completion.
        locate: Where a relative image path lies.
    """
    records = [
        {
            "images": _images(row.images, locate),
            "prompt": _message("user", row.question),
            "completion": _message("assistant", row.answers[0]),
        }
        for row in rows
    ]
    return _dataset(records, ("prompt", "completion"))


def preference_rows(pairs: Iterable[PreferencePair], locate: Locate) -> Dataset:
    """Make prompt/chosen/rejected rows.

    Args:
        pairs: Preference pairs.
        locate: Where a relative image path lies.
    """
    records = [
        {
            "images": _images(pair.images, locate),
            "prompt": _message("user", pair.question),
            "chosen": _message("assistant", pair.chosen),
            "rejected": _message("assistant", pair.rejected),
        }
        for pair in pairs
    ]
    return _dataset(records, ("prompt", "chosen", "rejected"))


def _dataset(records: list[dict[str, Any]], columns: Sequence[str]) -> Dataset:
    features = Features({"images": List(Image(mode="RGB")), **dict.fromkeys(columns, _MESSAGES)})
    return Dataset.from_list(records, features=features)


def _images(images: Sequence[ImageRef], locate: Locate) -> list[str | dict[str, Any]]:
    return [for_other_readers(locate(image.path)) for image in images]


def _message(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]
