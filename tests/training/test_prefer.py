"""DPO starts at ln 2, learns to prefer, and its reference is the SFT policy."""

import math
import os
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from test_sft import Recorder, job

from vlm_ops.artifacts import (
    ADAPTER,
    ADAPTER_WEIGHTS,
    PAIR_SPLITS,
    PreferencePairs,
    PreparedData,
    TrainedAdapter,
)
from vlm_ops.config.jobs import PreferJob, Task
from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import Engine, LoraSettings, PreferSettings
from vlm_ops.errors import DataError, ModelError, TrainingError
from vlm_ops.model_ref import Start
from vlm_ops.records import BARE_QUESTION, PreferencePair
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.store.jsonl import write_jsonl
from vlm_ops.tracker import NullTracker
from vlm_ops.training.memory import smaller
from vlm_ops.training.mistakes import Forms, pair_with
from vlm_ops.training.prefer import prefer_stage, train_prefer
from vlm_ops.training.sft import train_sft
from vlm_ops.training.stage import build
from vlm_ops.training.thumbs import unpaired

ENGINES: tuple[Engine, ...] = ("packed", "trl")


@pytest.fixture(scope="module")
def sft(
    random_base: Path, squares: PreparedData, tmp_path_factory: pytest.TempPathFactory
) -> TrainedAdapter:
    out = tmp_path_factory.mktemp("sft")
    return train_sft(job(random_base), data=squares, out=out, tracker=NullTracker())


@pytest.fixture(scope="module")
def pairs(
    squares: PreparedData, sft: TrainedAdapter, tmp_path_factory: pytest.TempPathFactory
) -> PreferencePairs:
    """Each square's color against another one."""
    out = tmp_path_factory.mktemp("pairs")
    made: dict[str, list[PreferencePair]] = {}
    for split in PAIR_SPLITS:
        rows = [row for row in squares.rows(split) if row.kind == "color"]
        forms = Forms(rows)
        made[split] = [pair_with(row, str(forms.near_miss(row))) for row in rows][:16]
        write_jsonl(out / f"{split}.jsonl", made[split])
    return PreferencePairs(
        folder=out,
        content=fingerprint(made),
        train=len(made["train"]),
        validation=len(made["validation"]),
        images=Path(os.path.relpath(squares.folder, out)),
        source="squares",
        around=BARE_QUESTION,
    )


def test_pairs_are_learned_under_the_prompt_of_the_sft_model(
    pairs: PreferencePairs, sft: TrainedAdapter, tmp_path: Path
) -> None:
    """Whether they were sampled or labelled by somebody who knew of no prompt."""
    base = sft.base.model_copy(update={"prompt": "{question}\nOne word:"})
    told = sft.model_copy(update={"base": base})
    prefer = PreferJob(seed=3, prefer=PreferSettings(max_steps=1))
    stage = prefer_stage(prefer, pairs, told, out=tmp_path, tracker=NullTracker())
    learned = [pair.question for pair in stage.records("train")]
    assert learned == [f"{pair.question}\nOne word:" for pair in pairs.pairs("train")]
    assert stage.base.prompt == base.prompt


def test_dpo_starts_at_ln_2_and_learns_to_prefer(
    pairs: PreferencePairs, sft: TrainedAdapter, tmp_path: Path
) -> None:
    curves = Recorder()
    settings = PreferSettings(
        loss=("sigmoid",), max_steps=6, batch_size=8, evaluations=2, learning_rate=2e-3
    )
    prefer = PreferJob(seed=3, prefer=settings)
    artifact = train_prefer(prefer, pairs=pairs, sft=sft, out=tmp_path, tracker=curves)
    start: dict[str, Any] = curves.seen[0]
    assert start["step"] == 0
    assert start["eval_loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert start["eval_rewards/margins"] == pytest.approx(0, abs=1e-4)
    assert curves.values("eval_rewards/accuracies")[-1] > 0.6
    assert artifact.metrics["rewards/margins"] > 0
    assert artifact.base == sft.base
    assert artifact.adapter_sha256 != sft.adapter_sha256


@pytest.fixture(scope="module")
def thumbs(
    squares: PreparedData, pairs: PreferencePairs, tmp_path_factory: pytest.TempPathFactory
) -> PreferencePairs:
    """Each square's color with a thumb up, or another one with a thumb down."""
    out = tmp_path_factory.mktemp("thumbs")
    made = {}
    for split in PAIR_SPLITS:
        both = unpaired(pairs.pairs(split))
        made[split] = [one for n, one in enumerate(both) if one.label == (n // 2 % 2 == 0)]
        write_jsonl(out / f"{split}.jsonl", made[split])
    return pairs.model_copy(
        update={
            "form": "thumbs", "folder": out, "content": fingerprint(made),
            "train": len(made["train"]), "validation": len(made["validation"]),
            "images": Path(os.path.relpath(squares.folder, out)),
        }
    )  # fmt: skip


def test_kto_starts_at_half_and_learns_what_was_liked(
    thumbs: PreferencePairs, sft: TrainedAdapter, tmp_path: Path
) -> None:
    curves = Recorder()
    settings = PreferSettings(
        loss=("kto",), max_steps=6, batch_size=8, evaluations=2, learning_rate=2e-3
    )
    kto = PreferJob(seed=3, prefer=settings)
    artifact = train_prefer(kto, pairs=thumbs, sft=sft, out=tmp_path, tracker=curves)
    start: dict[str, Any] = curves.seen[0]
    assert start["step"] == 0
    assert start["eval_loss"] == pytest.approx(0.5, abs=1e-4)
    assert start["eval_kl"] == pytest.approx(0, abs=1e-4)
    assert artifact.engine == "packed"
    assert artifact.metrics["loss"] < 0.5
    assert artifact.metrics["rewards/margins"] > 0
    assert artifact.adapter_sha256 != sft.adapter_sha256


def test_trls_own_trainer_learns_thumbs_too(
    thumbs: PreferencePairs, sft: TrainedAdapter, tmp_path: Path
) -> None:
    """In a new order in each epoch, since no row borrows from its neighbour."""
    settings = PreferSettings(
        loss=("kto",), max_steps=2, batch_size=4, evaluations=1, validation_rows=4
    )
    job = PreferJob(seed=3, prefer=settings, engine="trl")
    artifact = train_prefer(job, pairs=thumbs, sft=sft, out=tmp_path, tracker=NullTracker())
    assert (artifact.engine, artifact.steps) == ("trl", 2)
    assert artifact.metrics["loss"] == pytest.approx(0.5, abs=0.1)
    assert artifact.adapter_sha256 != sft.adapter_sha256


@pytest.mark.parametrize("loss", ["sigmoid", "kto"])
@pytest.mark.parametrize("engine", ["packed", "trl"])
def test_several_tasks_choose_the_checkpoint(
    pairs: PreferencePairs,
    sft: TrainedAdapter,
    squares: PreparedData,
    tmp_path: Path,
    engine: Engine,
    loss: Any,
) -> None:
    how: dict[str, Any] = {"metric_version": 1, "max_new_tokens": 4}
    tasks = (
        Task(name="rows", share=0.5, metric="tasks:length", **how),
        Task(name="wrong", share=0.5, metric="tasks:MISTAKEN", max_rows=4, **how),
    )
    settings = PreferSettings(
        loss=(loss,), max_steps=2, batch_size=8, evaluations=2, learning_rate=2e-3,
        validation_rows=4,
    )  # fmt: skip
    prefer = PreferJob(seed=3, prefer=settings, engine=engine, validation=tasks)
    curves = Recorder()
    given: dict[str, Any] = {"pairs": pairs, "sft": sft, "rows": squares, "on wrong": squares}
    artifact = train_prefer(prefer, out=tmp_path, tracker=curves, **given)
    assert artifact.engine == engine
    own, other = (curves.values(f"validation/{name}") for name in ("rows", "wrong"))
    total = [0.5 * a + 0.5 * (b - 5) / 5 for a, b in zip(own, other, strict=True)]
    assert curves.values("eval_weighted_score") == pytest.approx(total)
    assert artifact.best_step == 1 + total[1:].index(max(total[1:]))
    assert len(curves.values("eval_loss")) == 3


def test_a_loss_of_two_answers_refuses_thumbs(
    thumbs: PreferencePairs, sft: TrainedAdapter, tmp_path: Path
) -> None:
    job = PreferJob(seed=3, prefer=PreferSettings(max_steps=1))
    said = r"prefer\.loss sigmoid, bco_pair, sft compares two answers .* found thumbs \(squares\)"
    with pytest.raises(DataError, match=said):
        prefer_stage(job, thumbs, sft, out=tmp_path, tracker=NullTracker())


def test_kto_is_never_left_with_one_row_in_a_forward_pass(
    thumbs: PreferencePairs, sft: TrainedAdapter, tmp_path: Path
) -> None:
    job = PreferJob(seed=3, prefer=PreferSettings(loss=("kto",), batch_size=4))
    stage = prefer_stage(job, thumbs, sft, out=tmp_path, tracker=NullTracker())
    two = smaller(stage.optim, MemoryError("no room"), stage.fewest)
    assert (two.batch_size, two.accumulation) == (2, 2)
    with pytest.raises(TrainingError, match="with 2 rows in a forward pass: no room"):
        smaller(two, MemoryError("no room"), stage.fewest)


def test_the_pairs_that_are_scored_can_be_capped(
    pairs: PreferencePairs, sft: TrainedAdapter, tmp_path: Path
) -> None:
    settings = PreferSettings(max_steps=1, evaluations=1, batch_size=8, validation_rows=3)
    prefer = PreferJob(seed=3, prefer=settings)
    stage = prefer_stage(prefer, pairs, sft, out=tmp_path, tracker=NullTracker())
    try:
        assert len(build(stage, stage.optim).eval_dataset) == 3
    finally:
        stage.stop.let_go()
    assert pairs.validation > 3


@pytest.mark.parametrize("engine", ENGINES)
def test_preferences_alone_go_on_from_an_adapter_and_are_measured_against_it(
    random_base: Path, sft: TrainedAdapter, pairs: PreferencePairs, tmp_path: Path, engine: Engine
) -> None:
    model = ModelSettings(id=str(random_base), start=str(sft.folder))
    quick = PreferSettings(max_steps=2, batch_size=4, evaluations=1, loss=("sigmoid",))
    curves = Recorder()
    trained = train_prefer(
        PreferJob(seed=0, model=model, engine=engine, prefer=quick),
        pairs=pairs, out=tmp_path, tracker=curves,
    )  # fmt: skip
    assert curves.values("eval_loss")[0] == pytest.approx(math.log(2), abs=1e-5)
    assert trained.engine == engine
    assert trained.start == Start(name=str(sft.folder), adapter_sha256=str(sft.adapter_sha256))
    file = Path(ADAPTER) / ADAPTER_WEIGHTS
    before, after = (load_file(found.folder / file) for found in (sft, trained))
    moved = max(float((before[name] - after[name]).abs().max()) for name in before)
    assert 0 < moved < 0.01


def test_preferences_alone_refuse_an_adapter_of_another_rank(
    random_base: Path, sft: TrainedAdapter, pairs: PreferencePairs, tmp_path: Path
) -> None:
    model = ModelSettings(id=str(random_base), start=str(sft.folder))
    small = PreferSettings(lora=LoraSettings(rank=4, alpha=16))
    with pytest.raises(ModelError, match=r"prefer.lora.rank is 4, the adapter has 8"):
        train_prefer(
            PreferJob(seed=0, model=model, prefer=small),
            pairs=pairs, out=tmp_path, tracker=NullTracker(),
        )  # fmt: skip
