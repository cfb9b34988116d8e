"""Rows of a JSONL, CSV or Parquet file, cell by cell as they stand there.

``datasets`` does not read them: its loaders guess types, and a label
``2020-01-01`` becomes a point in time, ``007`` becomes 7, ``NA`` becomes nothing, and a row with
one comma too many moves its cells to the left.
"""

import csv
import json
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from vlm_ops.data.parquet import Cells, read_parquet
from vlm_ops.errors import DataError
from vlm_ops.store.jsonl import read_objects

Table = tuple[list[str], Iterator[tuple[str, Cells]]]
"""Column names, and for each row where it stands (``rows.jsonl:12``) and its cells."""

_PEEK = 100
"""JSONL rows whose keys count as the columns; a later row may leave some out."""
_ENDINGS = (".jsonl", ".json", ".csv", ".parquet")


def read_table(path: Path, cache: Path) -> Table:
    """Open a file of rows.

    Args:
        path: ``.jsonl``, ``.csv`` or ``.parquet``; text in UTF-8.
        cache: Folder that ``datasets`` may write to.

    Returns:
        The columns, and the rows, read as they are asked for.

    Raises:
        DataError: The file is missing, of another kind or damaged; while reading, a line is
            not what the format asks for.
    """
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*") if p.suffix in _ENDINGS)
        raise DataError(
            f"{path}: there is no such file. Row files in that folder: "
            f"{', '.join(there) or 'none'}. Set data.path (or pairs.path) to one."
        )
    readers = {
        ".jsonl": _read_jsonl,
        ".json": _read_jsonl,
        ".csv": _read_csv,
        ".parquet": read_parquet,
    }
    if path.suffix.lower() not in readers:
        raise DataError(
            f"{path}: found the ending {path.suffix!r}, expected .jsonl, .csv or .parquet"
        )
    columns, rows = readers[path.suffix.lower()](path, cache)
    if not columns:
        raise DataError(f"{path.name}: no rows; found an empty file, expected at least one row")
    return columns, rows


def _read_jsonl(path: Path, cache: Path) -> Table:
    rows = read_objects(path)
    first = list(islice(rows, _PEEK))
    columns = list(dict.fromkeys(key for _, cells in first for key in cells))
    return columns, chain(first, rows)


def _read_csv(path: Path, cache: Path) -> Table:
    lines = _csv_lines(path)
    _, header = next(lines, ("", []))
    columns = [name.strip() for name in header]
    return columns, _csv_rows(lines, columns)


def _csv_lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Read the cells of each row, with the line on which it starts."""
    start = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle)
            for values in reader:
                yield f"{path.name}:{start}", values
                start = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}). Save the file as UTF-8.") from error
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error
    except csv.Error as error:
        raise DataError(f"{path.name}:{start}: not valid CSV ({error})") from error


def _csv_rows(
    lines: Iterator[tuple[str, list[str]]], columns: list[str]
) -> Iterator[tuple[str, Cells]]:
    for where, values in lines:
        if values and len(values) != len(columns):
            raise DataError(
                f"{where}: found {len(values)} cells, expected {len(columns)} as in the "
                f"first line ({', '.join(columns)}). Quote cells that hold commas."
            )
        if values:
            cells = map(_json_list, values)
            yield where, dict(zip(columns, cells, strict=True))


def _json_list(text: str) -> Any:
    """Read a cell that holds a JSON list, as ``["5", "five"]``; leave all others as text."""
    if not text.lstrip().startswith("["):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, list) else text
