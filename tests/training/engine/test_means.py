"""A number of a training is a mean over all that was scored, whatever shared a batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from trainings import Pairs, pairs_of, prefer_job, sft_job, thumbs_of

from vlm_ops.artifacts import PreparedData, TrainedAdapter
from vlm_ops.config.training import Engine
from vlm_ops.records import Row, Split
from vlm_ops.tracker import NullTracker
from vlm_ops.training.prefer import prefer_stage
from vlm_ops.training.sft import sft_stage
from vlm_ops.training.stage import Stage, build
from vlm_ops.training.weights import adapter_weights, set_weights

HOW: tuple[tuple[Engine, int], ...] = (
    ("packed", 1),
    ("packed", 2),
    ("packed", 4),
    ("trl", 1),
    ("trl", 4),
)
"""Five rows are batches of 4 and 1 in the last ones, of 2, 2 and 1 in the second."""
LONG = "Purple and not at all what anybody would call a color"


class Few(PreparedData):
    """Five validation rows of the squares; the last one, alone in its batch, is long."""

    def rows(self, split: Split) -> list[Row]:
        rows = super().rows(split)
        return (
            [*rows[:4], rows[4].model_copy(update={"answers": (LONG,)})]
            if split == "validation"
            else rows
        )


class FewPairs(Pairs):
    """Five of its pairs, or thumbs, held out."""

    def pairs(self, split: Any) -> list[Any]:
        return list(self.every if split == "train" else self.every[:5])


def evaluated(stage: Stage) -> dict[str, float]:
    """Return what a trainer says of the held-out rows, its adapter moved from where it starts."""
    try:
        trainer = build(stage, stage.optim)
    finally:
        stage.stop.let_go()
    generator = torch.Generator().manual_seed(1)
    weights = adapter_weights(trainer.model)
    moved = {
        name: weight + 0.05 * torch.randn(weight.shape, generator=generator)
        for name, weight in sorted(weights.items())
    }
    set_weights(trainer.model, moved)
    found: dict[str, float] = trainer.evaluate()
    return found


def apart(found: list[dict[str, float]], *names: str) -> None:
    """Fail where one way of dealing rows into batches says another number."""
    for name in names:
        first, *others = (one[f"eval_{name}"] for one in found)
        assert others == pytest.approx([first] * len(others), rel=2e-5, abs=1e-6), name


def test_sft_takes_the_mean_over_supervised_tokens(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    found = []
    data = Few(**squares.model_dump(), folder=squares.folder)
    for engine, size in HOW:
        job = sft_job(random_base, engine=engine, batch_size=size)
        out = tmp_path / f"{engine}-{size}"
        found.append(evaluated(sft_stage(job, data, out, NullTracker())))
    apart(found, "loss", "mean_token_accuracy")


LOSSES: dict[str, dict[str, Any]] = {
    "sigmoid": {"loss": "sigmoid"},
    "mpo": {"loss": "mpo"},
    "sft": {"loss": ("sft", "hinge"), "loss_weights": (0.3, 2.0)},
}


@pytest.mark.parametrize("loss", LOSSES)
def test_preferences_take_the_mean_over_pairs(
    loss: str, start: TrainedAdapter, squares: PreparedData, tmp_path: Path
) -> None:
    found = preferred(pairs_of, LOSSES[loss], start, squares, tmp_path)
    apart(found, "loss", "rewards/accuracies", "rewards/margins", "rewards/chosen",
          "logps/rejected", "mean_token_accuracy")  # fmt: skip
    # As many as pairs are right, of five: no other share.
    right = 5 * found[0]["eval_rewards/accuracies"]
    assert right == pytest.approx(round(right))
    assert found[0]["eval_rewards/margins"] != 0


def test_thumbs_take_the_mean_over_thumbs_of_a_kind(
    start: TrainedAdapter, squares: PreparedData, tmp_path: Path
) -> None:
    """One in three is a thumb down; a pass of one thumb has no margin, and all of them have one."""
    found = preferred(thumbs_of, {"loss": "apo_zero_unpaired"}, start, squares, tmp_path)
    apart(found, "loss", "rewards/margins", "rewards/chosen", "rewards/rejected", "logps/chosen")


def preferred(
    made: Callable[..., Pairs],
    settings: dict[str, Any],
    start: TrainedAdapter,
    squares: PreparedData,
    tmp_path: Path,
) -> list[dict[str, float]]:
    """Evaluate with every engine and size, the policy moved away from its reference."""
    found = []
    for engine, size in HOW:
        out = tmp_path / f"{engine}-{size}"
        out.mkdir()
        kept = made(squares, squares.rows("train"), out)
        pairs = FewPairs(**{name: getattr(kept, name) for name in type(kept).model_fields})
        job = prefer_job(engine, batch_size=size, **settings)
        stage = prefer_stage(job, pairs, start, out=out, tracker=NullTracker())
        found.append(evaluated(stage))
    return found
