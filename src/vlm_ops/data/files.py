"""Rows of a JSONL, CSV or Parquet file, cell by cell as they stand there.

JSONL and CSV are read through ``datasets`` line by line and not by its ``json`` and ``csv``
loaders: those guess types, and a label ``2020-01-01`` becomes a point in time, ``007`` becomes
7, ``NA`` becomes nothing, and a row with one comma too many moves its cells to the left.
"""

import csv
import glob
import json
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from vlm_ops.errors import DataError

Cells = dict[str, Any]
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
        ".parquet": _read_parquet,
    }
    if path.suffix.lower() not in readers:
        raise DataError(
            f"{path}: found the ending {path.suffix!r}, expected .jsonl, .csv or .parquet"
        )
    columns, rows = readers[path.suffix.lower()](path, cache)
    if not columns:
        raise DataError(f"{path.name}: no rows; found an empty file, expected at least one row")
    return columns, rows


def _lines(path: Path, cache: Path) -> Iterator[str]:
    from datasets import load_dataset

    rows = load_dataset(
        "text",
        data_files=glob.escape(str(path)),
        split="train",
        streaming=True,
        cache_dir=str(cache),
        keep_linebreaks=True,
        encoding="utf-8-sig",
    )
    try:
        for row in rows:
            yield row["text"]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}). Save the file as UTF-8.") from error


def _read_jsonl(path: Path, cache: Path) -> Table:
    rows = _json_rows(path, cache)
    first = list(islice(rows, _PEEK))
    columns = list(dict.fromkeys(key for _, cells in first for key in cells))
    return columns, chain(first, rows)


def _json_rows(path: Path, cache: Path) -> Iterator[tuple[str, Cells]]:
    for number, line in enumerate(_lines(path, cache), start=1):
        if not line.strip():
            continue
        where = f"{path.name}:{number}"
        try:
            cells = json.loads(line)
        except ValueError as error:
            raise DataError(
                f"{where}: not valid JSON ({error}); expected one object a line, as "
                f'{{"image": "images/a.png", "query": "…", "label": "…"}}'
            ) from error
        if not isinstance(cells, dict):
            raise DataError(
                f"{where}: found a {type(cells).__name__}, expected one JSON object a line"
            )
        yield where, cells


def _read_csv(path: Path, cache: Path) -> Table:
    reader = csv.reader(_lines(path, cache))
    columns = [name.strip() for name in next(reader, [])]
    return columns, _csv_rows(path, reader, columns)


def _csv_rows(path: Path, reader: Any, columns: list[str]) -> Iterator[tuple[str, Cells]]:
    start = reader.line_num + 1
    try:
        for values in reader:
            where, start = f"{path.name}:{start}", reader.line_num + 1
            if not values:
                continue
            if len(values) != len(columns):
                raise DataError(
                    f"{where}: found {len(values)} cells, expected {len(columns)} as in the "
                    f"first line ({', '.join(columns)}). Quote cells that hold commas."
                )
            yield (
                where,
                {name: _json_list(value) for name, value in zip(columns, values, strict=True)},
            )
    except csv.Error as error:
        raise DataError(f"{path.name}:{start}: not valid CSV ({error})") from error


def _json_list(text: str) -> Any:
    """Read a cell that holds a JSON list, as ``["5", "five"]``; leave all others as text."""
    if not text.lstrip().startswith("["):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, list) else text


def _read_parquet(path: Path, cache: Path) -> Table:
    from datasets import load_dataset

    try:
        rows = load_dataset(
            "parquet",
            data_files=glob.escape(str(path)),
            split="train",
            streaming=True,
            cache_dir=str(cache),
        )
        columns = list(rows.features)
    except Exception as error:  # pyarrow's own errors, wrapped or not
        raise DataError(f"{path}: not a Parquet file ({error})") from error
    return columns, _numbered(path.name, named_labels(rows))


def _numbered(name: str, rows: Iterable[Cells]) -> Iterator[tuple[str, Cells]]:
    for number, cells in enumerate(rows, start=1):
        yield f"{name}:row {number}", cells


def named_labels(rows: Any) -> Iterator[Cells]:
    """Hand out rows of a ``datasets`` set: images as bytes, classes by their names.

    Args:
        rows: An ``IterableDataset`` with known features.
    """
    classes = {name: kind for name, kind in rows.features.items() if hasattr(kind, "int2str")}
    for cells in rows.decode(False):
        for name, kind in classes.items():
            if cells[name] is not None:
                cells[name] = kind.int2str(cells[name])
        yield cells
