"""Records as TRL's trainers want them: conversational columns beside an image column."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, List, Value

from vlm_ops.data.images import for_other_readers
from vlm_ops.records import Chat, ImageRef, PreferencePair, Row
from vlm_ops.training.thumbs import Mismatched

_PARTS = List({"type": Value("string"), "text": Value("string")})
_MESSAGES = List({"role": Value("string"), "content": _PARTS})
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
            "prompt": row.chat,
            "completion": _said(row.answers[0]),
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
            "prompt": pair.chat,
            "chosen": _said(pair.chosen),
            "rejected": _said(pair.rejected),
        }
        for pair in pairs
    ]
    return _dataset(records, ("prompt", "chosen", "rejected"))


def thumb_rows(thumbs: Iterable[Mismatched], locate: Locate) -> Dataset:
    """Make prompt/completion/label rows, with another row's completion in ``other``.

    Args:
        thumbs: Thumbs.
        locate: Where a relative image path lies.
    """
    records = [
        {
            "images": _images(thumb.images, locate),
            "prompt": thumb.chat,
            "completion": _said(thumb.completion),
            "other": _said(thumb.other),
            "label": thumb.label,
        }
        for thumb in thumbs
    ]
    return _dataset(records, ("prompt", "completion", "other"), {"label": Value("bool")})


def _dataset(
    records: list[dict[str, Any]], columns: Sequence[str], others: Mapping[str, Any] | None = None
) -> Dataset:
    images = {"images": List(Image(mode="RGB"))}
    features = Features(images | dict.fromkeys(columns, _MESSAGES) | dict(others or {}))
    return Dataset.from_list(records, features=features)


def _images(images: Sequence[ImageRef], locate: Locate) -> list[str | dict[str, Any]]:
    return [for_other_readers(locate(image.path)) for image in images]


def _said(words: str) -> Chat:
    return [{"role": "assistant", "content": [{"type": "text", "text": words}]}]
