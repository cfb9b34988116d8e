"""DPO starts at ln 2, learns to prefer, and its reference is the SFT policy."""

import math
from pathlib import Path
from typing import Any

import pytest
from test_sft import Recorder, job

from vlm_ops.artifacts import PreferencePairs, PreparedData, TrainedAdapter
from vlm_ops.config.pairs import SampledPairs
from vlm_ops.config.pipeline import PairsJob, PreferJob
from vlm_ops.config.training import PreferSettings
from vlm_ops.evaluation.metrics import relaxed_match
from vlm_ops.tracker import NullTracker
from vlm_ops.training.pairs import make_pairs
from vlm_ops.training.prefer import prefer_stage, train_prefer
from vlm_ops.training.sft import train_sft


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
    settings = PairsJob(
        seed=3,
        pairs=SampledPairs(samples=8, max_pairs=24, max_validation_pairs=8),
        max_new_tokens=3,
        batch_size=32,
    )
    out = tmp_path_factory.mktemp("pairs")
    return make_pairs(settings, data=squares, sft=sft, out=out, tracker=NullTracker())


def test_pairs_reject_what_the_verifier_finds_wrong(
    pairs: PreferencePairs, squares: PreparedData
) -> None:
    rows = (*squares.rows("train"), *squares.rows("validation"))
    answers = {row.id: row.answers for row in rows}
    train, held_out = pairs.pairs("train"), pairs.pairs("validation")
    assert 16 <= len(train) == pairs.train <= 24
    assert len(held_out) == pairs.validation == 8
    for pair in (*train, *held_out):
        assert relaxed_match(pair.chosen, answers[pair.id])
        assert not relaxed_match(pair.rejected, answers[pair.id])
    assert not {pair.image_id for pair in train} & {pair.image_id for pair in held_out}
    assert "color" in {pair.kind for pair in train}


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
    settings = PreferSettings(max_steps=6, batch_size=8, evaluations=2, learning_rate=2e-3)
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
