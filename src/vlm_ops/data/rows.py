"""Rows as they come out of a source, and the complaints about them.

A source hands on what stands in it, cell by cell; what a cell means is decided here, once for
files, hub and preference data.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_ops.data.image_cells import ImageCell
from vlm_ops.errors import DataError
from vlm_ops.records import Split
from vlm_ops.store.frozen import Frozen
from vlm_ops.store.jsonl import write_jsonl
from vlm_ops.store.names import nearest

_WHOLE = re.compile(r"-?\d+\.0+")

REFUSED = "refused.jsonl"
SHOWN = 10
"""Problems that a message shows; the file holds all of them."""


@dataclass(frozen=True)
class RawRow:
    """One row of a source, not yet checked.

    Attributes:
        where: As ``rows.jsonl:12``: where a person finds it.
        id: Unique id; sources that have none number their rows.
        images: In the order the prompt shows them; empty if the row has none.
        question: The cell with the question.
        answers: The cell with the answer or the list of accepted answers.
        kind: What is asked.
        group: What must not be split; None leaves it to the images.
        split: The split that the source puts the row in; None if it has no splits.
    """

    where: str
    id: str
    images: tuple[ImageCell, ...]
    question: Any
    answers: Any
    kind: str
    group: str | None
    split: Split | None


class Problem(Frozen):
    """Why a row can't be used.

    Attributes:
        where: As ``rows.jsonl:12``.
        id: The row's id.
        what: What is wrong.
        found: What stands there.
        expected: What should stand there.
    """

    where: str
    id: str
    what: str
    found: str
    expected: str

    def __str__(self) -> str:
        """Return the problem as one line."""
        return f"{self.where} (id {self.id}): {self.what}: found {self.found}; {self.expected}"


def refuse(problems: Sequence[Problem], rows: int, out: Path, source: str) -> None:
    """Write all problems to ``refused.jsonl`` and raise if there are any.

    Args:
        problems: What is wrong, in the order of the rows.
        rows: How many rows were looked at.
        out: Folder for ``refused.jsonl``.
        source: Where the rows come from.

    Raises:
        DataError: There is at least one problem.
    """
    write_jsonl(out / REFUSED, problems)
    if not problems:
        return
    bad = len({problem.where for problem in problems})
    lines = [f"  {problem}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        lines.append(f"  … and {len(problems) - SHOWN} more")
    raise DataError(
        f"{source}: {bad} of {rows} rows can't be used:\n"
        + "\n".join(lines)
        + f"\nAll of them are in {out / REFUSED}. Mend or remove these rows and start again."
    )


def check_columns(wanted: Mapping[str, str | None], there: Sequence[str], where: str) -> None:
    """Make sure that the columns a configuration names are there.

    Args:
        wanted: Column by setting, as ``{"data.columns.question": "query"}``; None is not asked.
        there: Columns of the source.
        where: The file or the data set.

    Raises:
        DataError: At least one is not there.
    """
    lines = []
    for setting, column in wanted.items():
        if column is None or column in there:
            continue
        lines.append(f"there is no column {column!r}{nearest(column, there)}; {setting} names it")
    if lines:
        raise DataError(
            f"{where}: {'; '.join(lines)}. Columns there: {', '.join(there) or 'none'}. "
            f"Set the column's name in the configuration."
        )


def answer_texts(value: Any) -> tuple[str, ...]:
    """Read the accepted answers of a row, trimmed; an empty one stays as an empty text.

    Args:
        value: A text, a number, or a list of these.
    """
    items = value if isinstance(value, (list, tuple)) else [value]
    return tuple(plain_text(item) for item in items)


def group_text(value: Any) -> str:
    """Return the name of a group: ``7``, ``7.0`` and ``"7.0"`` are one.

    A column of numbers becomes one of fractions as soon as a cell is missing.
    """
    if isinstance(value, float):
        value = int(value) if value.is_integer() else None if math.isnan(value) else value
    text = plain_text(value)
    return text.partition(".")[0] if _WHOLE.fullmatch(text) else text


def plain_text(value: Any) -> str:
    """Return a cell's text, trimmed; empty for a cell that holds nothing."""
    return "" if value is None else str(value).strip()
