"""The engine checks itself before it trains: a wrong piece is noticed, and TRL takes over."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from trainings import pairs_of, prefer_job, sft_job

from vlm_ops.artifacts import PreparedData, TrainedAdapter
from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import Engine, LoraSettings
from vlm_ops.models.loading import load
from vlm_ops.tracker import NullTracker
from vlm_ops.training.engine import check, head, last_layer, lora
from vlm_ops.training.engine.preferences import PackedDpo
from vlm_ops.training.engine.trainers import PackedTraining
from vlm_ops.training.prefer import train_prefer
from vlm_ops.training.sft import train_sft


class Tags(NullTracker):
    """Keeps labels in memory."""

    def __init__(self) -> None:
        self.seen: dict[str, str] = {}

    def tags(self, values: Any) -> None:
        self.seen |= values


Train = Callable[[str, Engine], tuple[TrainedAdapter, str]]
"""Trains two steps in a folder of that name, and returns the engine that the tracker was told."""


@pytest.fixture
def sft(random_base: Path, squares: PreparedData, tmp_path: Path) -> Train:
    def train(name: str, engine: Engine) -> tuple[TrainedAdapter, str]:
        tracker = Tags()
        job = sft_job(random_base, engine=engine, max_steps=2, evaluations=1)
        (out := tmp_path / name).mkdir(exist_ok=True)
        return train_sft(job, data=squares, out=out, tracker=tracker), tracker.seen["engine"]

    return train


@pytest.fixture(scope="module")
def of_trl(
    random_base: Path, squares: PreparedData, tmp_path_factory: pytest.TempPathFactory
) -> TrainedAdapter:
    """What the same two steps come to with ``engine: trl``."""
    job = sft_job(random_base, engine="trl", max_steps=2, evaluations=1)
    out = tmp_path_factory.mktemp("trl")
    return train_sft(job, data=squares, out=out, tracker=NullTracker())


@pytest.fixture
def prefer(start: TrainedAdapter, squares: PreparedData, tmp_path: Path) -> Train:
    def train(name: str, engine: Engine) -> tuple[TrainedAdapter, str]:
        tracker = Tags()
        job = prefer_job(engine=engine, max_steps=2, evaluations=1)
        (out := tmp_path / name).mkdir(exist_ok=True)
        pairs = pairs_of(squares, squares.rows("train")[:8], out)
        made = train_prefer(job, pairs=pairs, sft=start, out=out, tracker=tracker)
        return made, tracker.seen["engine"]

    return train


def test_rslora_on_all_linear_layers_is_what_the_plain_model_computes(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    lora = LoraSettings(rank=16, rslora=True, modules=("all-linear",))
    job = sft_job(random_base, max_steps=2, evaluations=1, lora=lora)
    artifact = train_sft(job, data=squares, out=tmp_path, tracker=NullTracker())
    assert artifact.engine == "packed"
    found = check.read_check(tmp_path)
    assert found is not None
    assert found.said.startswith("agrees with")
    again = load(artifact.model).model
    layers = [layer for layer in again.modules() if isinstance(layer, LoraLayer)]
    assert {layer.scaling["default"] for layer in layers} == {lora.alpha / 4}


def test_dpo_on_a_base_in_int8_is_what_the_plain_model_computes(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    """bitsandbytes rounds what comes in, by the whole batch, unless it is in training mode."""
    model = ModelSettings(id=str(random_base), quantization="int8", dtype="float32")
    job = sft_job(random_base, max_steps=1, evaluations=1).model_copy(update={"model": model})
    of = train_sft(job, data=squares, out=tmp_path / "sft", tracker=NullTracker())
    pairs = pairs_of(squares, squares.rows("train")[:8], tmp_path)
    prefers = prefer_job(max_steps=2, evaluations=1)
    made = train_prefer(prefers, pairs=pairs, sft=of, out=tmp_path / "dpo", tracker=NullTracker())
    assert (of.engine, made.engine) == ("packed", "packed")
    found = check.read_check(tmp_path / "dpo")
    assert found is not None
    assert found.said.startswith("agrees with")


def scaled_twice(patch: pytest.MonkeyPatch) -> None:
    """A later PEFT could hold the scaling elsewhere; it shows in gradients and in the loss."""
    forward = lora._LoraProduct.forward
    patch.setattr(
        lora._LoraProduct,
        "forward",
        staticmethod(lambda ctx, x, a, b, base, s: forward(ctx, x, a, b, base, 2 * s)),
    )


def not_rotated(patch: pytest.MonkeyPatch) -> None:
    """A later Llama could rotate otherwise."""
    patch.setattr(last_layer, "_rotated", lambda heads, cos, sin: heads)


def everything_seen(patch: pytest.MonkeyPatch) -> None:
    """A later attention could leave the mask aside: rows would see each other's answers."""
    wants = head._as_attention_wants
    patch.setattr(
        head, "_as_attention_wants", lambda model, seen: wants(model, torch.ones_like(seen))
    )


def of_other_arguments(patch: pytest.MonkeyPatch) -> None:
    """A later layer could be called otherwise."""

    def narrow(*_: Any, new_argument: Any) -> Any:
        return new_argument

    patch.setattr(last_layer, "_narrow", narrow)


FAULTS = pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (scaled_twice, "differs from the plain model on the first rows: loss"),
        (not_rotated, "differs from the plain model on the first rows: loss"),
        (everything_seen, "differs from the plain model on the first rows: loss"),
        (of_other_arguments, "fails where the plain model does not: TypeError"),
    ],
)


@FAULTS
def test_a_wrong_piece_lets_trl_take_over(
    sft: Train,
    of_trl: TrainedAdapter,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    spoil: Callable[[pytest.MonkeyPatch], None],
    said: str,
) -> None:
    spoil(monkeypatch)
    fallen_back, told = sft("fallen back", "packed")
    assert f"sft: the packed engine {said}" in caplog.text
    assert "TRL's own trainer takes over" in caplog.text
    assert (fallen_back.engine, told) == ("trl", "trl")
    marks = list((tmp_path / "fallen back").glob("checkpoints/*/complete.json"))
    assert {json.loads(mark.read_text())["settings"]["engine"] for mark in marks} == {"trl"}
    assert fallen_back.adapter_sha256 == of_trl.adapter_sha256 == of_trl.content
    assert fallen_back.content != of_trl.content


def test_so_it_does_in_preference_training(
    prefer: Train, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    not_rotated(monkeypatch)
    fallen_back, told = prefer("fallen back", "packed")
    assert not list((tmp_path / "fallen back").glob("**/reference.safetensors"))
    assert "prefer: the packed engine differs from the plain model" in caplog.text
    assert (fallen_back.engine, told) == ("trl", "trl")
    assert fallen_back.adapter_sha256 == prefer("asked for", "trl")[0].adapter_sha256


@pytest.mark.parametrize("task", ["sft", "prefer"])
def test_a_sound_engine_trains_as_if_nobody_had_looked(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    task: str,
) -> None:
    train: Train = request.getfixturevalue(task)
    looks: list[int] = []
    plain_loss = PackedTraining.plain_loss

    def counted(self: Any, batch: dict[str, Any]) -> torch.Tensor:
        looks.append(len(batch["input_ids"]))
        return plain_loss(self, batch)

    monkeypatch.setattr(PackedTraining, "plain_loss", counted)
    looked_at, told = train("looked at", "packed")
    assert (looked_at.engine, told) == ("packed", "packed")
    assert looked_at.content == looked_at.adapter_sha256
    # A pair is two rows of TRL's batch.
    assert looks == [check.ROWS * (2 if task == "prefer" else 1)]
    assert "the packed engine" not in caplog.text
    found = check.read_check(tmp_path / "looked at")
    assert found is not None
    assert found.said.startswith("agrees with the plain model")
    again, _ = train("looked at", "packed")
    assert again.adapter_sha256 == looked_at.adapter_sha256
    (tmp_path / "trusted").mkdir()
    (tmp_path / "trusted" / check.CHECK).write_text(found.model_dump_json())
    trusted, _ = train("trusted", "packed")
    assert len(looks) == 1
    assert trusted.adapter_sha256 == looked_at.adapter_sha256


def test_a_finding_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    assert check.read_check(tmp_path) is None
    (tmp_path / check.CHECK).write_text('{"engine": "pa')
    assert check.read_check(tmp_path) is None


def test_where_trl_has_no_room_the_engine_trains_and_says_so(
    sft: Train, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PackedTraining, "plain_loss", full)
    assert sft("tight", "packed")[0].engine == "packed"
    assert "could not be compared with the plain model: there is not enough" in caplog.text


def test_a_reference_of_a_wrong_engine_is_noticed(
    prefer: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DPO begins at ln 2 whatever answers score; the check does not."""
    log_probs = PackedDpo.log_probs

    def wrong(self: Any, model: Any, inputs: Any) -> Any:
        found, scores = log_probs(self, model, inputs)
        found.chosen.mul_(0.5)
        return found, scores

    monkeypatch.setattr(PackedDpo, "log_probs", wrong)
    assert prefer("wrong", "packed")[0].engine == "trl"
