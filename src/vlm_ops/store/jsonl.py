"""JSON lines: one object a line, read as they are asked for, written whole."""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from vlm_ops.errors import DataError
from vlm_ops.store.files import replacing

R = TypeVar("R", bound=BaseModel)
Record = BaseModel | dict[str, Any]


@contextmanager
def writing_jsonl(path: Path) -> Iterator[Callable[[Record], None]]:
    """Yield what writes a record as a JSON line; the file appears whole when the block ends.

    Raises:
        OutputError: It can't be written.
    """
    with replacing(path) as beside, beside.open("w", encoding="utf-8") as handle:

        def write(record: Record) -> None:
            whole = record.model_dump_json() if isinstance(record, BaseModel) else json_line(record)
            handle.write(whole + "\n")

        yield write


def write_jsonl(path: Path, records: Iterable[Record]) -> int:
    """Write records, one JSON line each, and return how many; the file appears whole.

    Raises:
        OutputError: It can't be written.
    """
    count = 0
    with writing_jsonl(path) as write:
        for record in records:
            write(record)
            count += 1
    return count


def read_jsonl(path: Path, kind: type[R]) -> Iterator[R]:
    """Read the records of a JSON-lines file.

    Raises:
        DataError: The file is not there, or a line is not such a record.
    """
    for number, line in read_lines(path):
        try:
            yield kind.model_validate_json(line)
        except ValidationError as error:
            raise DataError(f"{path}:{number}: not a {kind.__name__}: {error}") from error


def read_objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the objects of a JSON-lines file, with where each stands (``rows.jsonl:12``).

    Raises:
        DataError: The file is not there, is not UTF-8, or a line holds no JSON object.
    """
    for number, line in read_lines(path):
        where = f"{path.name}:{number}"
        try:
            yield where, parse_object(line)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error


def parse_object(line: str) -> dict[str, Any]:
    """Read the object of a line.

    Raises:
        DataError: The line is no JSON, no object, or an object with two values of one name.
    """
    try:
        cells = parse_json(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"not valid JSON ({error}); expected one object a line, as "
            f'{{"image": "images/a.png", "query": "…", "label": "…"}}'
        ) from error
    if not isinstance(cells, dict):
        raise DataError(f"found a {type(cells).__name__}, expected one JSON object a line")
    return cells


def parse_json(text: str) -> Any:
    """Read JSON in which no object has two values of one name.

    Raises:
        ValueError: It is not such JSON.
        RecursionError: It is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of pairs; JSON's own reader would keep the last of two of one name."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two values of the name {twice[:40]!r}")
    return values


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Read the lines of a text file that are not blank, numbered from 1.

    Raises:
        DataError: The file is not there, or is not UTF-8.
    """
    try:
        # By line breaks alone: JSON text may hold other characters that split lines elsewhere.
        with path.open(encoding="utf-8-sig", newline="\n") as handle:
            yield from ((n, line) for n, line in enumerate(handle, start=1) if line.strip())
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error}). Save the file as UTF-8.") from error
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error


def json_line(values: dict[str, Any]) -> str:
    """Write an object on one line; half a character, which JSON may hold, is its code there."""
    return json.dumps(values, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
