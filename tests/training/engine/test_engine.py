"""The packed engine trains as TRL does, goes on as if nothing had happened, and survives."""

import itertools
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from trainings import Pairs, pairs_of, prefer_job, sft_job, thumbs_of
from transformers import TrainerCallback

from vlm_ops.artifacts import PreparedData, TrainedAdapter
from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import LoraSettings
from vlm_ops.errors import DataError, TrainingError
from vlm_ops.models.loading import base_ref, load
from vlm_ops.records import Row, Split, Turn
from vlm_ops.tracker import NullTracker
from vlm_ops.training import prefer, sft
from vlm_ops.training.engine.check import read_check
from vlm_ops.training.engine.preferences import PackedDpo
from vlm_ops.training.engine.trainers import ByImage, PackedSft
from vlm_ops.training.stage import Stage
from vlm_ops.training.stage import build as build_trainer


class Rows(PreparedData):
    """The squares in an order of one's own."""

    train: tuple[Row, ...]

    def rows(self, split: Split) -> list[Row]:
        return list(self.train) if split == "train" else super().rows(split)


def build(stage: Stage) -> Any:
    return build_trainer(stage, stage.optim)


def losses_of(trainer: Any) -> list[float]:
    trainer.args.eval_strategy = trainer.args.save_strategy = "no"
    trainer.args.train_sampling_strategy = "sequential"
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def sft_losses(
    base: Path, squares: PreparedData, rows: Sequence[Row], out: Path
) -> dict[str, list[float]]:
    """Train on rows with both engines, in the order of the packed one."""
    losses: dict[str, list[float]] = {}
    for engine in ("packed", "trl"):
        job = sft_job(base, engine=engine, accumulation=2, batch_size=4)
        data = Rows(**squares.model_dump(), folder=squares.folder, train=tuple(rows))
        folder = out / engine
        folder.mkdir()
        trainer = build(sft.sft_stage(job, data, folder, NullTracker()))
        assert trainer.engine == engine
        if engine == "packed":
            rows = [rows[number] for number in trainer._sampler]
        losses[engine] = losses_of(trainer)
    return losses


def test_sft_has_the_losses_of_trl_on_the_same_rows(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    losses = sft_losses(random_base, squares, squares.rows("train"), tmp_path)
    assert losses["packed"] == pytest.approx(losses["trl"], rel=1e-4)
    assert len(losses["trl"]) == 6


def test_chats_and_text_alone_have_the_losses_of_trl_on_the_same_rows(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    """Several turns, each answer a row of its own; two images, one in the text; none."""
    losses = sft_losses(random_base, squares, chats(squares.rows("train")), tmp_path)
    assert losses["packed"] == pytest.approx(losses["trl"], rel=1e-4)
    assert losses["trl"][-1] < losses["trl"][0]


def chats(rows: Sequence[Row]) -> list[Row]:
    """Every fourth row as it is; others go on in a chat, compare two images, show none."""
    system = Turn(role="system", text="Answer in a word.")
    found = []
    for number, row in enumerate(rows):
        other = rows[(number + 7) % len(rows)]
        earlier = (
            Turn(role="user", text=other.question), Turn(role="assistant", text=other.answers[0])
        )  # fmt: skip
        changes: list[dict[str, Any]] = [
            {},
            {"before": (system, *earlier)},
            {
                "images": (*row.images, *other.images),
                "before": (system,),
                "question": f"<image> {row.question} And <image>?",
            },
            {"images": ()},
        ]
        found.append(row.model_copy(update=changes[number % 4]))
    return found


def test_dpo_has_the_losses_of_trl_on_the_same_pairs(
    start: TrainedAdapter, squares: PreparedData, tmp_path: Path
) -> None:
    losses: dict[str, list[float]] = {}
    rows = squares.rows("train")
    mixture = {"loss": ("sigmoid", "bco_pair", "sft"), "loss_weights": (0.8, 0.2, 1.0)}
    for engine in ("packed", "trl"):
        job = prefer_job(engine=engine, **mixture)
        out = tmp_path / engine
        out.mkdir()
        pairs = pairs_of(squares, rows, out)
        trainer = build(prefer.prefer_stage(job, pairs, start, out=out, tracker=NullTracker()))
        if engine == "packed":
            rows = [rows[number] for number in trainer._sampler]
        losses[engine] = losses_of(trainer)
    assert losses["packed"] == pytest.approx(losses["trl"], rel=1e-4)
    assert losses["trl"][-1] < losses["trl"][0]


@pytest.mark.parametrize(
    ("made", "steps", "settings"),
    [
        (thumbs_of, 6, {"loss": "kto", "desirable_weight": 1.4, "undesirable_weight": 0.7}),
        (thumbs_of, 3, {"loss": "apo_zero_unpaired"}),
        (pairs_of, 3, {"loss": "kto", "undesirable_weight": 0.3}),
    ],
    ids=["kto", "apo_zero_unpaired", "kto on pairs"],
)
def test_thumbs_have_the_losses_and_gradients_of_trl_on_the_same_rows(
    made: Callable[..., Pairs],
    steps: int,
    settings: dict[str, Any],
    start: TrainedAdapter,
    squares: PreparedData,
    tmp_path: Path,
) -> None:
    """They start at half of the weights, fall, and the policy moves away from the reference."""
    logged: dict[str, list[dict[str, float]]] = {}
    order: list[int] = []
    for engine in ("packed", "trl"):
        asked = {"beta": 0.5, "batch_size": 8, "max_steps": steps, "evaluations": 1}
        job = prefer_job(engine=engine, **asked, **settings)
        (out := tmp_path / engine).mkdir()
        rows = squares.rows("train")[:: 2 if made is pairs_of else 1]  # one epoch of both
        pairs = made(squares, rows, out)
        trainer = build(prefer.prefer_stage(job, pairs, start, out=out, tracker=NullTracker()))
        assert trainer.engine == engine
        if engine == "packed":
            order = list(trainer._sampler)
        else:
            trainer.train_dataset = trainer.train_dataset.select(order)
        losses_of(trainer)
        logged[engine] = [entry for entry in trainer.state.log_history if "loss" in entry]
    packed, trl = logged["packed"], logged["trl"]
    assert len(trl) == steps
    for name in ("loss", "grad_norm", "kl", "rewards/chosen", "rewards/rejected", "logps/chosen"):
        expected = [entry[name] for entry in trl if name in entry]
        found = [entry[name] for entry in packed if name in entry]
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5), name
    assert trl[-1]["loss"] < trl[0]["loss"]
    assert any(entry["kl"] > 1e-3 for entry in trl) == (settings["loss"] == "kto")


class Break(TrainerCallback):
    """Ends the process' work after a step, as a crash would."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 5:
            raise KeyboardInterrupt


def test_dpo_goes_on_as_if_it_had_not_been_cut_off(
    start: TrainedAdapter, squares: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cut off in the first epoch of six steps, and goes on from the third into the next."""
    pairs = pairs_of(squares, squares.rows("train")[:24], tmp_path)
    job = prefer_job(max_steps=9, evaluations=3)

    def train(out: Path) -> TrainedAdapter:
        return prefer.train_prefer(job, pairs=pairs, sft=start, out=out, tracker=NullTracker())

    whole = train(tmp_path / "whole")

    class Broken(PackedDpo):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            trainer: Any = self
            trainer.add_callback(Break())

    with monkeypatch.context() as patch:
        patch.setattr(prefer, "PackedDpo", Broken)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "cut")
    assert train(tmp_path / "cut").adapter_sha256 == whole.adapter_sha256


def test_memory_that_runs_out_halves_the_pass_and_keeps_the_step(
    random_base: Path,
    squares: PreparedData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sizes: list[int] = []

    class Small(PackedSft):
        def training_step(self, model: Any, inputs: Any, *args: Any) -> Any:
            trainer: Any = self
            sizes.append(len(inputs["rows"]))
            if trainer.state.global_step >= 3 and sizes[-1] > 4:
                raise MemoryError("no room")
            parent: Any = super()
            return parent.training_step(model, inputs, *args)

    monkeypatch.setattr(sft, "PackedSft", Small)
    caplog.set_level(logging.INFO)
    job = sft_job(random_base)
    artifact = sft.train_sft(job, data=squares, out=tmp_path, tracker=NullTracker())
    assert artifact.steps == 6
    assert sizes == [8, 8, 8, 8, 4, 4, 4, 4, 4, 4, 4, 4]
    assert "with 8 rows in a forward pass; going on with 4 and 2 passes a step" in caplog.text
    assert "going on from checkpoint-2" in caplog.text


def test_one_row_that_does_not_fit_is_an_error(
    random_base: Path, squares: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PackedSft, "training_step", full)
    with pytest.raises(TrainingError, match=r"one row in a forward pass.*gradient_checkpointing"):
        sft.train_sft(
            sft_job(random_base, batch_size=2), data=squares, out=tmp_path, tracker=NullTracker()
        )


def test_a_checkpoint_of_other_settings_is_refused(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    job = sft_job(random_base, max_steps=2, evaluations=1)
    sft.train_sft(job, data=squares, out=tmp_path, tracker=NullTracker())
    other = sft_job(random_base, max_steps=4, evaluations=1)
    with pytest.raises(TrainingError, match=r"sft\.max_steps was 2, now 4"):
        sft.train_sft(other, data=squares, out=tmp_path, tracker=NullTracker())


def test_rows_of_an_image_follow_each_other_in_another_order_each_epoch(
    random_base: Path, squares: PreparedData
) -> None:
    from vlm_ops.training.engine.encode import Encoder

    loaded = load(base_ref(ModelSettings(id=str(random_base))))
    rows = Encoder(loaded.processor, 2048).rows(squares.rows("train"))
    order = ByImage(rows, seed=0)
    first = list(order)
    order.set_epoch(1)
    second = list(order)
    assert first != second
    assert sorted(first) == sorted(second) == list(range(len(rows)))
    assert list(ByImage(rows, seed=0)) == first
    images = [rows[number].images[0].sha256 for number in first]
    assert len(list(itertools.groupby(images))) == len(set(images))


def test_a_dora_adapter_in_the_vision_tower_trains_without_a_cache(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    lora = LoraSettings(towers=("text", "vision"), modules=("q_proj",), dora=True)
    job = sft_job(random_base, lora=lora, max_steps=2, evaluations=1)
    trainer = build(sft.sft_stage(job, squares, tmp_path, NullTracker()))
    before = {n: p.clone() for n, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    moved = {
        n for n, p in trainer.model.named_parameters() if n in before and (p != before[n]).any()
    }
    assert any("vision_model" in name for name in moved)
    assert trainer.features.usage.memory_bytes == 0


def test_dora_dropout_and_checkpointing_go_on_as_if_nothing_had_happened(
    random_base: Path, squares: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = LoraSettings(dora=True, dropout=0.2)
    job = sft_job(random_base, lora=lora, gradient_checkpointing=True)
    recomputed: list[bool] = []
    untouched: list[bool] = []

    class Watched(PackedSft):
        def training_step(self, *args: Any) -> Any:
            trainer: Any = self
            layers = trainer.model.get_base_model().model.text_model.layers
            recomputed.append(all(layer.gradient_checkpointing for layer in layers))
            parent: Any = super()
            return parent.training_step(*args)

        def train(self, *args: Any, **options: Any) -> Any:
            trainer: Any = self
            before = frozen(trainer.model)
            parent: Any = super()
            try:
                return parent.train(*args, **options)
            finally:
                after = frozen(trainer.model)
                untouched.append(
                    before.keys() == after.keys()
                    and all(torch.equal(before[name], after[name]) for name in before)
                )

    monkeypatch.setattr(sft, "PackedSft", Watched)
    out = tmp_path / "whole"
    out.mkdir()
    whole = sft.train_sft(job, data=squares, out=out, tracker=NullTracker())
    assert whole.engine == "packed"
    check = read_check(out)
    assert check is not None
    assert check.said.startswith("agrees with the plain model")
    assert all(math.isfinite(value) for value in whole.metrics.values())

    class Broken(Watched):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            trainer: Any = self
            trainer.add_callback(Break())

    (tmp_path / "cut").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(sft, "PackedSft", Broken)
        with pytest.raises(KeyboardInterrupt):
            sft.train_sft(job, data=squares, out=tmp_path / "cut", tracker=NullTracker())
    resumed = sft.train_sft(job, data=squares, out=tmp_path / "cut", tracker=NullTracker())
    assert resumed.adapter_sha256 == whole.adapter_sha256
    assert untouched == [True] * 3
    assert recomputed == [True] * (6 + 5 + 2)


def frozen(model: Any) -> dict[str, torch.Tensor]:
    """Everything that training must leave alone."""
    learned = ("lora_A", "lora_B", "lora_magnitude")
    return {
        name: tensor.detach().clone()
        for name, tensor in model.state_dict().items()
        if not any(part in name for part in learned)
    }


def test_a_row_longer_than_asked_for_is_refused(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    job = sft_job(random_base, max_length=70)
    with pytest.raises(DataError, match=r"row 'train-\d+-color': \d+ tokens .* at most 70 fit"):
        sft.train_sft(job, data=squares, out=tmp_path, tracker=NullTracker())
