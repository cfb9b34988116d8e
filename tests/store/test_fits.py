"""A step that the kernel killed for its memory takes fewer rows at once, and remembers it."""

from pathlib import Path

import pytest

from vlm_ops.errors import ModelError
from vlm_ops.store.fits import keep, rows_at_once
from vlm_ops.watched import OUT_OF_MEMORY


def test_each_kill_halves_what_is_answered_at_once(tmp_path: Path) -> None:
    assert rows_at_once(5, tmp_path) == 5
    assert not list(tmp_path.iterdir())
    for rows in (2, 1):
        (tmp_path / OUT_OF_MEMORY).touch()
        for _ in range(2):  # a kill counts once, what it came to is remembered
            assert rows_at_once(5, tmp_path) == rows
    (tmp_path / OUT_OF_MEMORY).touch()
    with pytest.raises(ModelError, match="memory ran out with one row answered at once"):
        rows_at_once(5, tmp_path)
    assert rows_at_once(5, tmp_path) == 1


def test_never_more_than_is_asked_for(tmp_path: Path) -> None:
    keep(8, tmp_path)
    assert rows_at_once(5, tmp_path) == 5


@pytest.mark.parametrize("left", ["", "[]", '{"batch_size": 0}', '{"rows": 1}'])
def test_a_number_that_is_none_is_not_taken(tmp_path: Path, left: str) -> None:
    (tmp_path / "micro-batch.json").write_text(left)
    assert rows_at_once(5, tmp_path) == 5
