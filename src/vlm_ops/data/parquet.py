"""Rows of a Parquet file and of ``datasets`` sets, a few at a time."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlm_ops.errors import DataError
from vlm_ops.store.names import short

Cells = dict[str, Any]

_BATCH_BYTES = 8 << 20
"""About what a batch of rows takes; a whole row group may be the whole file."""
_BUFFER_BYTES = 1 << 20


def read_parquet(path: Path, cache: Path) -> tuple[list[str], Iterator[tuple[str, Cells]]]:
    """Open a Parquet file.

    Args:
        path: The file.
        cache: Not used: nothing of it is written anywhere.

    Returns:
        Its columns, and for each row where it stands and its cells: images as they are stored,
        classes by their names. A few rows are in memory at a time, however long the file is.

    Raises:
        DataError: It is no Parquet file; while reading, a part of it is damaged.
    """
    import pyarrow.parquet as pq
    from datasets import Features

    try:
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        readers = _readers(Features.from_arrow_schema(file.schema_arrow))
    except Exception as error:  # pyarrow's own errors, and those of wrong metadata
        raise _not_parquet(path, error) from error

    def rows() -> Iterator[tuple[str, Cells]]:
        number = 0
        for batch in _batches(file, path):
            for cells in batch:
                number += 1
                yield f"{path.name}:row {number}", _read(cells, readers)

    return list(file.schema_arrow.names), rows()


def holds_bytes_alone(path: Path, column: str) -> bool:
    """Tell by a file's footer whether each cell of a column holds an image and names no file.

    Then nobody needs to read the column to know which files it names: a page of it holds up to
    1,024 pictures where pyarrow wrote it, and is read as a whole.

    Raises:
        DataError: It is no Parquet file.
    """
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path)
    except Exception as error:  # as above
        raise _not_parquet(path, error) from error
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    for number in range(metadata.num_columns):
        leaf = metadata.schema.column(number)
        if leaf.path in (column, f"{column}.bytes") and leaf.logical_type.type != "STRING":
            counts = [group.column(number).statistics for group in groups]
            return all(c is not None and c.has_null_count and not c.null_count for c in counts)
    return False


def named_labels(rows: Any) -> Iterator[Cells]:
    """Hand out rows of a ``datasets`` set: images as bytes, classes by their names.

    Short floats become the number that they were written as: 1.1, not 1.10000002384.

    Args:
        rows: An ``IterableDataset`` with known features.
    """
    readers = _readers(rows.features)
    for cells in rows.decode(False):
        yield _read(cells, readers)


def _readers(features: Mapping[str, Any]) -> dict[str, Callable[[Any], Any]]:
    return {name: read for name, kind in features.items() if (read := _reader(kind))}


def _read(cells: Cells, readers: Mapping[str, Callable[[Any], Any]]) -> Cells:
    for name, read in readers.items():
        cells[name] = read(cells[name])
    return cells


def _reader(kind: Any) -> Callable[[Any], Any] | None:
    """Return what makes a column's values those that were meant; None where they are."""
    if hasattr(kind, "int2str"):
        return lambda value: None if value is None else kind.int2str(value)
    if type(kind).__name__ == "Value" and kind.dtype in ("float16", "float32"):
        short = np.dtype(kind.dtype).type
        return lambda value: None if value is None else float(str(short(value)))
    if isinstance(kind, Mapping):
        readers = _readers(kind)
        return (lambda value: value and _read(dict(value), readers)) if readers else None
    inner = kind[0] if isinstance(kind, list) else getattr(kind, "feature", None)
    if (read := _reader(inner) if inner is not None else None) is None:
        return None
    return lambda values: None if values is None else [read(value) for value in values]


def _not_parquet(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: not a Parquet file ({short(str(error), 150)})")


def _batches(file: Any, path: Path) -> Iterator[Iterable[Cells]]:
    sizes = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    row = max((size.total_byte_size / max(1, size.num_rows) for size in sizes), default=1.0)
    rows = int(min(1000.0, max(1.0, _BATCH_BYTES / max(1.0, row))))
    batches = file.iter_batches(batch_size=rows, use_threads=False)
    while True:
        try:
            batch = next(batches, None)
            if batch is None:
                return
            cells = batch.to_pylist()
        except Exception as error:  # as above: a page that does not decode
            raise DataError(f"{path}: a damaged Parquet file ({short(str(error), 150)})") from error
        yield cells
