"""The reference's table is asked once, and only believed where it is of the same thing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from vlm_ops.training.engine.reference import Reference
from vlm_ops.training.losses import LogProbs

ROWS = 4


class Model:
    """Scores pairs, and counts how many it was asked about."""

    def __init__(self, score: float) -> None:
        self.score = score
        self.asked: list[int] = []

    def __call__(self, batch: dict[str, Any]) -> LogProbs:
        rows = batch["rows"]
        self.asked += rows.tolist()
        scores, tokens = rows * self.score, torch.ones_like(rows)
        return LogProbs(scores, scores - 1, tokens, tokens)


def batches() -> Iterator[dict[str, Any]]:
    yield {"rows": torch.tensor([2, 0])}
    yield {"rows": torch.tensor([3, 1])}


def prepared(path: Path, identity: str, model: Model) -> list[float]:
    reference = Reference(path, identity=identity, rows=ROWS)
    reference.prepare(batches, model)
    found: list[float] = reference.of(torch.arange(ROWS)).chosen.tolist()
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "reference.safetensors"


def test_it_is_asked_once(path: Path) -> None:
    first = Model(-0.5)
    assert prepared(path, "these pairs", first) == [0, -0.5, -1, -1.5]
    assert first.asked == [2, 0, 3, 1]
    second = Model(-7.0)
    assert prepared(path, "these pairs", second) == [0, -0.5, -1, -1.5]
    assert second.asked == []


def test_a_table_of_another_identity_is_asked_again(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepared(path, "these pairs", Model(-0.5))
    other = Model(-7.0)
    assert prepared(path, "other pairs", other) == [0, -7, -14, -21]
    assert other.asked == [2, 0, 3, 1]
    assert "the reference is asked again" in caplog.text
    assert prepared(path, "other pairs", Model(0.0)) == [0, -7, -14, -21]


def test_an_edited_table_is_asked_again(path: Path) -> None:
    prepared(path, "these pairs", Model(-0.5))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    again = Model(-0.5)
    prepared(path, "these pairs", again)
    assert len(again.asked) == ROWS


def test_what_was_asked_before_a_stop_is_kept(path: Path) -> None:
    class Stopped(Model):
        def __call__(self, batch: dict[str, Any]) -> LogProbs:
            if self.asked:
                raise KeyboardInterrupt
            return super().__call__(batch)

    with pytest.raises(KeyboardInterrupt):
        prepared(path, "these pairs", Stopped(-0.5))
    rest = Model(-0.5)
    prepared(path, "these pairs", rest)
    assert rest.asked == [3, 1]
