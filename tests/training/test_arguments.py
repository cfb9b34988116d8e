"""Every setting reaches the trainer, by the names that transformers has for it."""

import typing
from pathlib import Path
from typing import Any

import pytest
import torch
from cut_off import train_twice
from test_sft import Recorder, job
from transformers import SchedulerType, Trainer
from trl.trainer.sft_config import SFTConfig

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.training import LoraSettings, Optimizer, Scheduler, SftSettings
from vlm_ops.training.arguments import training_arguments
from vlm_ops.training.sft import train_sft

SCHEDULERS = typing.get_args(Scheduler)
STEPS, WARMUP = 20, 4


def trainer(tmp_path: Path, model: torch.nn.Module | None = None, **changes: Any) -> Trainer:
    """A trainer of one linear layer with our arguments."""
    metric = changes.pop("metric", None)
    settings = SftSettings(**{"max_steps": STEPS, "warmup_ratio": 0.2, **changes})
    given: dict[str, Any] = {"rows": 8, "seed": 0, "metric": metric}
    arguments = training_arguments(settings, out=tmp_path, dtype=torch.float32, **given)
    made = Trainer(
        model=model or torch.nn.Linear(2, 2), args=SFTConfig(**arguments), eval_dataset=[{}]
    )
    made.create_optimizer_and_scheduler(STEPS)
    return made


def rates(tmp_path: Path, scheduler: str, gain: float = 0.0) -> list[float]:
    """The learning rate of every step, from 1e-4; the loss falls by so much each time."""
    made: Any = trainer(tmp_path, scheduler=scheduler, learning_rate=1e-4)
    found = []
    for step in range(STEPS):
        found.append(made.optimizer.param_groups[0]["lr"] * 1e4)
        made.optimizer.step()
        by_loss = scheduler in ("reduce_lr_on_plateau", "greedy")
        made.lr_scheduler.step(*(1 - step * gain for _ in range(by_loss)))
    return found


def test_all_that_need_no_argument_are_known() -> None:
    need_one = {"cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay"}
    assert set(SCHEDULERS) == {found.value for found in SchedulerType} - need_one


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_schedule_has_the_shape_of_its_name(tmp_path: Path, scheduler: str) -> None:
    found = rates(tmp_path, scheduler)
    assert max(found) == pytest.approx(1)
    if scheduler in ("constant", "reduce_lr_on_plateau", "greedy"):
        assert found[0] == pytest.approx(1)
    else:
        assert found[: WARMUP + 1] == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert (found[-1] < 0.99) != scheduler.startswith("constant")


def test_the_peak_is_the_peak_however_good_it_gets(tmp_path: Path) -> None:
    """Its own bounds would take it from 1e-4 to 1e-3 at the first validation."""
    assert max(rates(tmp_path, "greedy", gain=0.04)) == pytest.approx(1)


@pytest.mark.parametrize("scheduler", ["reduce_lr_on_plateau", "greedy"])
def test_what_chooses_the_checkpoint_leads_the_learning_rate_too(
    tmp_path: Path, scheduler: str
) -> None:
    for metric, mode in ((None, "min"), ("relaxed_accuracy", "max"), ("boxes_f1", "max")):
        made: Any = trainer(tmp_path, scheduler=scheduler, metric=metric)
        assert made.args.metric_for_best_model == f"eval_{metric or 'loss'}"
        assert made.args.greater_is_better == (mode == "max")
        assert made.lr_scheduler.mode == mode


def test_curves_have_fifty_points_or_one_every_so_many_steps(tmp_path: Path) -> None:
    assert trainer(tmp_path, max_steps=500).args.logging_steps == 10
    assert trainer(tmp_path, max_steps=500, logging_steps=3).args.logging_steps == 3
    assert trainer(tmp_path, max_steps=5).args.logging_steps == 1


def test_curves_are_logged_that_often(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    asked = job(random_base, max_steps=7, evaluations=1, logging_steps=3)
    curves = Recorder()
    train_sft(asked, data=squares, out=tmp_path, tracker=curves)
    # The first and the last step always have a point.
    assert [entry["step"] for entry in curves.seen if "loss" in entry] == [1, 3, 6, 7]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_products_run_in_the_type_that_was_chosen(tmp_path: Path, dtype: torch.dtype) -> None:
    found = training_arguments(SftSettings(max_steps=1), rows=8, seed=0, out=tmp_path, dtype=dtype)
    assert found["bf16"] == (dtype == torch.bfloat16)
    assert found["fp16"] == (dtype == torch.float16)


def test_adamw_is_the_fused_one_that_it_was(tmp_path: Path) -> None:
    assert trainer(tmp_path).args.optim == "adamw_torch_fused"


@pytest.mark.parametrize("optimizer", ["adamw_8bit", "paged_adamw_8bit"])
def test_moments_are_kept_in_8_bits(tmp_path: Path, optimizer: Optimizer) -> None:
    made: Any = trainer(tmp_path, torch.nn.Linear(64, 64), optimizer=optimizer)
    bare: Any = made.optimizer
    for parameter in made.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    bare.step()
    moments = [bare.state[parameter]["state1"].dtype for parameter in made.model.parameters()]
    assert moments == [torch.uint8, torch.float32]
    assert bare.is_paged == optimizer.startswith("paged")


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adamw_8bit"},
        {"optimizer": "paged_adamw_8bit"},
        {"scheduler": "reduce_lr_on_plateau"},
        {"scheduler": "greedy"},
    ],
    ids=lambda changes: "-".join(changes.values()),
)
def test_it_learns_and_goes_on_as_if_it_had_not_been_cut_off(
    random_base: Path, squares: PreparedData, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """With what the optimizer and the scheduler remember."""
    asked = job(random_base, lora=LoraSettings(rank=64), **changes)
    curves = Recorder()
    whole = train_sft(asked, data=squares, out=tmp_path / "whole", tracker=curves)
    losses = curves.values("loss")
    assert losses[-1] < losses[0]
    state = torch.load(tmp_path / "whole/checkpoints/checkpoint-6/optimizer.pt")["state"]
    moments = [part for of in state.values() for part in of.values() if isinstance(part, dict)]
    found = {part["state1"].dtype for part in moments}
    assert found == ({torch.uint8} if "optimizer" in changes else set())
    gone_on = train_twice(asked, squares, tmp_path / "cut", crash=5)
    assert gone_on.adapter_sha256 == whole.adapter_sha256
