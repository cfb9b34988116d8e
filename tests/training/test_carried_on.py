"""A training that dies on one machine goes on from its newest checkpoint on another."""

import logging
from pathlib import Path

import pytest
from cut_off import Crash
from test_sft import job

from vlm_ops.artifacts import PreparedData, TrainedAdapter
from vlm_ops.config.jobs import SftJob
from vlm_ops.store.fingerprint import sha256_file
from vlm_ops.store.shared import SharedStore
from vlm_ops.tracker import NullTracker
from vlm_ops.training import sft
from vlm_ops.training.engine.trainers import PackedSft

pytestmark = pytest.mark.slow
STEP = "sft-0123456789abcdef"


def train(job: SftJob, data: PreparedData, runs: Path) -> TrainedAdapter:
    (runs / STEP).mkdir(parents=True)
    return sft.train_sft(job, data=data, out=runs / STEP, tracker=NullTracker())


class Dying(PackedSft):
    """Dies after the fifth step; the checkpoint before is of step four."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.add_callback(Crash(5))


def test_with_an_empty_disk_it_comes_to_the_same_weights(
    random_base: Path,
    squares: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    share = tmp_path / "share"
    share.mkdir()
    asked = job(random_base, accumulation=1)
    whole = train(asked, squares, tmp_path / "whole")
    shared = asked.model_copy(update={"store": f"file://{share}"})
    with monkeypatch.context() as patch:
        patch.setattr(sft, "PackedSft", Dying)
        with pytest.raises(KeyboardInterrupt):
            train(shared, squares, tmp_path / "first")
    unfinished = share / STEP / "unfinished"
    optimizer = tmp_path / "first" / STEP / "checkpoints" / "checkpoint-4" / "optimizer.pt"
    assert (unfinished / sha256_file(optimizer)).is_file()
    caplog.clear()
    with caplog.at_level(logging.INFO):
        second = train(shared, squares, tmp_path / "second")
    assert "going on from checkpoint-4" in caplog.text
    assert second.adapter_sha256 == whole.adapter_sha256
    assert second.metrics["loss"] == whole.metrics["loss"]
    # A file of the newest one is damaged by now: an older one serves.
    SharedStore(shared.store or "").send_unfinished(tmp_path / "first" / STEP, lambda _: True)
    (unfinished / sha256_file(optimizer)).write_bytes(b"cut")
    caplog.clear()
    with caplog.at_level(logging.INFO):
        third = train(shared, squares, tmp_path / "third")
    assert "is damaged and not used" in caplog.text
    assert "going on from checkpoint-2" in caplog.text
    assert third.adapter_sha256 == whole.adapter_sha256


def test_a_store_that_fails_does_not_end_it(
    random_base: Path, squares: PreparedData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    share = tmp_path / "share"
    share.mkdir()
    (share / STEP).mkdir()
    (share / STEP / "unfinished").write_text("no folder")
    asked = job(random_base, max_steps=2, evaluations=1)
    shared = asked.model_copy(update={"store": f"file://{share}"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlm_ops.store.asking._PAUSES_S", ())
        patch.setattr("vlm_ops.store.shared.SharedStore.fetch_unfinished", lambda *_: None)
        trained = train(shared, squares, tmp_path / "runs")
    assert trained.steps == 2
    assert "other machines can't go on from this checkpoint yet" in caplog.text
