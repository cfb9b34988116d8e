"""Rows of a JSON, CSV or Parquet file, cell by cell as they stand there.

``datasets`` does not read them: its loaders guess types, and a label
``2020-01-01`` becomes a point in time, ``007`` becomes 7, ``NA`` becomes nothing, and a row with
one comma too many moves its cells to the left.
"""

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from vlm_ops.data.cells import CellError, shown
from vlm_ops.data.parquet import read_parquet
from vlm_ops.errors import DataError
from vlm_ops.store.jsonl import parse_json, parse_object

Cells = dict[str, Any]
Placed = Iterator[tuple[str, Cells | CellError]]
"""For each row where it stands (``rows.jsonl:12``) and its cells, or why there are none."""
Table = tuple[list[str], Placed]
"""Column names and rows."""

_PEEK = 100
"""JSON rows whose keys count as the columns; a later row may leave some out."""
_DELIMITERS = (",", ";", "\t", "|")
_LONGEST_CELL = 1 << 26
"""Characters; a picture in base64 may stand in a cell."""
_LONGEST_HEADER = 1 << 16
"""Characters of a first line that are looked at for what stands between its cells."""
_AN_OBJECT = 'expected one object a row, as {"image": "a.png", "query": "…", "label": "…"}'
_POINT_ZERO = re.compile(r"\s*-?\d+\.0\s*")
_OTHER_ENCODINGS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_table(path: Path, cache: Path) -> Table:
    """Open a file of rows.

    Args:
        path: ``.jsonl`` or ``.json`` (one object a line, or a list of objects), ``.csv`` or
            ``.tsv`` (with commas, semicolons or tabs), ``.parquet``; text in UTF-8.
        cache: Folder that ``datasets`` may write to.

    Returns:
        The columns, and the rows, read as they are asked for.

    Raises:
        DataError: The file is missing, of another kind or damaged, or two columns have one name;
            while reading, what follows can't be told apart into rows any more.
    """
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*") if p.suffix in _READERS)
        raise DataError(
            f"{path}: there is no such file. Row files in that folder: "
            f"{', '.join(there) or 'none'}. Set data.path (or pairs.path) to one."
        )
    ending = path.suffix.lower()
    if ending not in _READERS:
        raise DataError(
            f"{path}: found the ending {path.suffix!r}, expected .jsonl, .json, .csv, .tsv or "
            f".parquet"
        )
    columns, rows = _READERS[ending](path, cache)
    if not columns:
        raise DataError(f"{path.name}: no rows; found an empty file, expected at least one row")
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise DataError(
            f"{path.name}: two columns are called {shown(twice[0])}; expected each name once. "
            f"Rename or remove one of them."
        )
    return columns, rows


def _open_text(path: Path, newline: str = "\n") -> TextIO:
    """Open a file; bytes that are not UTF-8 stay in the text as what no text may hold."""
    try:
        with path.open("rb") as handle:
            if handle.read(2) in _OTHER_ENCODINGS:
                raise DataError(f"{path}: text in UTF-16, expected UTF-8. Save the file as UTF-8.")
        return path.open(encoding="utf-8-sig", errors="surrogateescape", newline=newline)
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error


def _read_json(path: Path, cache: Path) -> Table:
    with _open_text(path) as handle:
        begins = handle.read(1 << 16).lstrip()[:1]
    rows = _listed(path) if begins == "[" else _json_lines(path)
    first = list(islice(rows, _PEEK))
    read = [cells for _, cells in first if isinstance(cells, dict)]
    if first and not read:
        raise DataError(_no_rows(path, first[0][0], first[0][1]))
    if len(first) == 1:
        _refuse_whole(path, read[0])
    columns = list(dict.fromkeys(key for cells in read for key in cells))
    return columns, chain(first, rows)


def _json_lines(path: Path) -> Placed:
    with _open_text(path) as handle:
        for number, line in enumerate(handle, start=1):
            if line.strip():
                yield f"{path.name}:{number}", _object(line)


def _object(line: str) -> Cells | CellError:
    try:
        return parse_object(line)
    except DataError as error:
        reason = str(error.__cause__ or "no JSON object")
        return CellError(
            "not valid JSON" if error.__cause__ else "no object",
            f"{shown(line.strip())} ({reason[:80]})",
            _AN_OBJECT,
        )


def _listed(path: Path) -> Placed:
    """Read a file that is one list of objects; ``[1]`` on a line of its own is none."""
    try:
        with _open_text(path) as handle:
            items = parse_json(handle.read())
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path.name}: begins as a list and is not valid JSON ({str(error)[:120]}); expected "
            f"a list of objects that ends with ], or one object a line"
        ) from error
    for number, item in enumerate(items, start=1):
        held = item if isinstance(item, dict) else CellError("no object", shown(item), _AN_OBJECT)
        yield f"{path.name}:row {number}", held


def _no_rows(path: Path, where: str, error: Cells | CellError) -> str:
    """Say why a file has no row at its beginning: perhaps it is one object on several lines."""
    try:
        with _open_text(path) as handle:
            _refuse_whole(path, json.loads(handle.read()))
    except (DataError, RecursionError, ValueError) as whole:
        return str(whole) if isinstance(whole, DataError) else f"{where}: {error}"
    return f"{where}: {error}"


def _refuse_whole(path: Path, whole: Any) -> None:
    """Refuse an object that holds all rows."""
    for name, value in whole.items() if isinstance(whole, dict) else ():
        holds_rows = isinstance(value, list) and any(
            isinstance(item, dict) and not {"role", "from"} & item.keys() for item in value
        )
        if holds_rows or (isinstance(value, dict) and {"0", "1"} <= value.keys()):
            raise DataError(
                f"{path.name}: found one object, which holds the rows in {shown(name)}; expected "
                f"a list of rows, or one row a line (in pandas: to_json(…, orient='records', "
                f"lines=True))"
            )


def _read_csv(path: Path, cache: Path) -> Table:
    mark = "\t" if path.suffix.lower() == ".tsv" else _delimiter(path)
    _, columns = next(_csv_lines(path, mark), ("", []))
    if isinstance(columns, CellError):
        raise DataError(f"{path.name}:1: {columns}")
    columns = [name.strip() for name in columns]
    return columns, _csv_rows(path, mark, columns)


def _delimiter(path: Path) -> str:
    """Find out what stands between the cells of the first line; a comma wins."""
    with _open_text(path, newline="") as handle:
        header = handle.readline(_LONGEST_HEADER)
    counts = {mark: len(next(csv.reader([header], delimiter=mark), [])) for mark in _DELIMITERS}
    return "," if counts[","] > 1 else max(_DELIMITERS, key=lambda mark: counts[mark])


def _csv_lines(path: Path, mark: str) -> Iterator[tuple[str, list[str] | CellError]]:
    """Read the cells of each row, with the line on which it starts.

    Raises:
        DataError: A quote that is not closed has swallowed the lines after it.
    """
    csv.field_size_limit(_LONGEST_CELL)
    with _open_text(path, newline="") as handle:
        reader = csv.reader(handle, delimiter=mark, strict=True)
        while True:
            start = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if reader.line_num > start:
                    raise DataError(
                        f"{path.name}:{start}: not valid CSV ({error} on line {reader.line_num}); "
                        f"is a quote opened and not closed? Write a quote in a cell twice."
                    ) from error
                advice = "expected cells in quotes where they hold quotes, each of those twice"
                yield f"{path.name}:{start}", CellError("not valid CSV", str(error), advice)
            else:
                yield f"{path.name}:{start}", values


def _csv_rows(path: Path, mark: str, columns: list[str]) -> Placed:
    fractions = _fractions(path, mark, len(columns))
    for where, values in islice(_csv_lines(path, mark), 1, None):
        if isinstance(values, CellError):
            yield where, values
        elif len(values) != len(columns) and any(values):
            found = f"{len(values)} cells"
            advice = (
                f"expected {len(columns)} as in the first line ({', '.join(columns)[:80]}). Quote "
                f"cells that hold {'commas' if mark == ',' else repr(mark)}."
            )
            yield where, CellError("of another length", found, advice)
        elif any(value.strip() for value in values):
            for number in fractions:
                values[number] = values[number].strip()[:-2]
            yield where, dict(zip(columns, map(_json_list, values), strict=True))


def _json_list(text: str) -> Any:
    """Read a cell that holds a JSON list, as ``["a.png", "b.png"]``; leave all others as text."""
    if not text.lstrip().startswith("["):
        return text
    try:
        value = parse_json(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, list) else text


def _fractions(path: Path, mark: str, width: int) -> set[int]:
    """Find the columns of whole numbers that pandas wrote as fractions, for cells are missing."""
    fractions = set(range(width))
    missing: set[int] = set()
    for _, values in islice(_csv_lines(path, mark), 1, None):
        if isinstance(values, list) and len(values) == width and any(values):
            empty = {n for n in fractions if not values[n].strip()}
            fractions = {n for n in fractions if n in empty or _POINT_ZERO.fullmatch(values[n])}
            missing |= empty
        if not fractions:
            break
    return fractions & missing


_READERS: dict[str, Callable[[Path, Path], Table]] = {
    ".jsonl": _read_json,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": read_parquet,
}
ENDINGS = tuple(_READERS)
"""Of the files that can be read."""
