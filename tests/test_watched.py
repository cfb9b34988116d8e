"""What a step's process tells of its work, whatever it is about."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from vlm_ops import watched
from vlm_ops.errors import OutputError
from vlm_ops.store import fingerprint, remote
from vlm_ops.store.lock import one_at_a_time
from vlm_ops.store.remote import Remote
from vlm_ops.watched import moved, tell

MIB = 2**20


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    tell(tmp_path / "under-way")
    yield tmp_path / "under-way"
    tell(None)


def test_what_is_done_before_a_step_begins_counts(file: Path) -> None:
    moved()
    assert file.read_text() == ""


def test_waiting_for_another_run_counts(file: Path, tmp_path: Path) -> None:
    with (
        one_at_a_time(tmp_path, "sft-0", "first"),
        pytest.raises(OutputError, match="held by another run"),
        one_at_a_time(tmp_path, "sft-0", "second", wait_minutes=0.005),
    ):
        pass
    assert file.exists()


def test_each_piece_of_a_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A base has tens of GB: to hash it, or to copy it to another disk, may take half an hour."""
    weights, back = tmp_path / "weights", tmp_path / "back"
    weights.write_bytes(bytes(9 * MIB))
    pieces: list[None] = []
    for module in (fingerprint, remote):
        monkeypatch.setattr(module, "moved", lambda: pieces.append(None))

    def count() -> int:
        counted = len(pieces)
        pieces.clear()
        return counted

    digest = fingerprint.sha256_file(weights)
    assert count() == 9
    (tmp_path / "mount").mkdir()
    mount = Remote((tmp_path / "mount").as_uri())
    mount.put(weights, "sft/a")
    assert count() >= 3
    assert mount.get("sft/a", back)
    assert count() >= 3
    assert fingerprint.sha256_file(back) == digest
    assert mount.read("sft/none") is None


def test_nobody_watches(tmp_path: Path) -> None:
    assert watched._file is None
    moved()
    assert not list(tmp_path.iterdir())
