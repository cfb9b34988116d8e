"""The packed engine trains as TRL does, goes on as if nothing had happened, and survives."""

import itertools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from transformers import TrainerCallback

from vlm_ops.artifacts import PreferencePairs, PreparedData, TrainedAdapter
from vlm_ops.config.pipeline import PreferJob, SftJob
from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import Engine, LoraSettings, PreferSettings, SftSettings
from vlm_ops.errors import DataError, TrainingError
from vlm_ops.models.loading import base_ref, load
from vlm_ops.records import PreferencePair, Row, Split
from vlm_ops.tracker import NullTracker
from vlm_ops.training import prefer, sft
from vlm_ops.training.engine.trainers import ByImage, PackedDpo, PackedSft
from vlm_ops.training.stage import Stage
from vlm_ops.training.stage import build as build_trainer


class Rows(PreparedData):
    """The squares in an order of one's own."""

    train: tuple[Row, ...]

    def rows(self, split: Split) -> list[Row]:
        return list(self.train) if split == "train" else super().rows(split)


class Pairs(PreferencePairs):
    """Pairs in memory."""

    every: tuple[PreferencePair, ...]
    root: Path

    def pairs(self, split: Literal["train", "validation"]) -> list[PreferencePair]:
        return list(self.every if split == "train" else self.every[:4])

    def image_path(self, relative: str) -> Path:
        return self.root / relative


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums are made in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def start(
    random_base: Path, squares: PreparedData, tmp_path_factory: pytest.TempPathFactory
) -> TrainedAdapter:
    """An SFT model to prefer with."""
    out = tmp_path_factory.mktemp("start")
    job = sft_job(random_base, max_steps=2, evaluations=1)
    return sft.train_sft(job, data=squares, out=out, tracker=NullTracker())


def sft_job(base: Path, engine: Engine = "packed", **changes: Any) -> SftJob:
    settings = SftSettings(
        **{"max_steps": 6, "batch_size": 8, "evaluations": 3, "learning_rate": 1e-3, **changes}
    )
    model = ModelSettings(id=str(base), dtype="float32")
    return SftJob(seed=3, model=model, sft=settings, engine=engine)


def prefer_job(engine: Engine = "packed", **changes: Any) -> PreferJob:
    settings = PreferSettings(
        **{"max_steps": 6, "batch_size": 4, "evaluations": 3, "learning_rate": 1e-3, **changes}
    )
    return PreferJob(seed=3, prefer=settings, engine=engine)


def pairs_of(squares: PreparedData, rows: Sequence[Row], out: Path) -> Pairs:
    pairs = tuple(
        PreferencePair(
            id=row.id,
            images=row.images,
            question=row.question,
            chosen=row.answers[0],
            rejected="Purple" if row.kind == "color" else "2",
            kind=row.kind,
        )
        for row in rows
    )
    return Pairs(
        folder=out, content="pairs", train=len(pairs), validation=4, images=Path(),
        source="squares", every=pairs, root=squares.folder,
    )  # fmt: skip


def build(stage: Stage) -> Any:
    return build_trainer(stage, stage.optim)


def losses_of(trainer: Any) -> list[float]:
    trainer.args.eval_strategy = trainer.args.save_strategy = "no"
    trainer.args.train_sampling_strategy = "sequential"
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_sft_has_the_losses_of_trl_on_the_same_rows(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    losses: dict[str, list[float]] = {}
    rows = squares.rows("train")
    for engine in ("packed", "trl"):
        job = sft_job(random_base, engine=engine, accumulation=2, batch_size=4)
        data = Rows(**squares.model_dump(), folder=squares.folder, train=tuple(rows))
        out = tmp_path / engine
        out.mkdir()
        trainer = build(sft.sft_stage(job, data, out, NullTracker()))
        if engine == "packed":
            rows = [rows[number] for number in trainer._sampler]
        losses[engine] = losses_of(trainer)
    assert losses["packed"] == pytest.approx(losses["trl"], rel=1e-4)
    assert len(losses["trl"]) == 6


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


class Break(TrainerCallback):
    """Ends the process' work after a step, as a crash would."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 5:
            raise KeyboardInterrupt


def test_dpo_goes_on_as_if_it_had_not_been_cut_off(
    start: TrainedAdapter, squares: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = pairs_of(squares, squares.rows("train"), tmp_path)
    job = prefer_job(max_steps=18, evaluations=9)

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


def test_a_row_longer_than_asked_for_is_refused(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    job = sft_job(random_base, max_length=70)
    with pytest.raises(DataError, match=r"row 'train-\d+-color': \d+ tokens .* at most 70 fit"):
        sft.train_sft(job, data=squares, out=tmp_path, tracker=NullTracker())
