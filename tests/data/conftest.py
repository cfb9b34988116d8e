"""Fixtures of the data tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
from own_rows import Rows, own_rows, write_rows


@pytest.fixture
def own_data(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a data set, after ``change`` has had a go at its rows."""

    def make(change: Callable[[Rows], object] | None = None, **kwargs: int) -> Path:
        folder = tmp_path / "own"
        rows = own_rows(folder, **kwargs)
        if change is not None:
            change(rows)
        return write_rows(folder / "rows.jsonl", rows)

    return make
