"""A training in two processes is the training in one: real ones on the CPU. GPUs: not measured."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from accelerate.data_loader import BatchSamplerShard, prepare_data_loader, skip_first_batches
from safetensors.torch import load_file
from test_prefer import pairs, sft  # noqa: F401
from torch.utils.data import BatchSampler, DataLoader
from transformers import TrainerControl

from flows.child import run_in_child
from vlm_ops.artifacts import PreferencePairs, PreparedData
from vlm_ops.config.load import load_config
from vlm_ops.errors import ConfigError, DataError, Interrupted, TransientError
from vlm_ops.steps.work import Work
from vlm_ops.store.artifact import CHECKPOINTS, Artifact
from vlm_ops.tracker import NullTracker
from vlm_ops.training.checkpoints import STATE
from vlm_ops.training.engine.encode import EncodedRow
from vlm_ops.training.engine.trainers import ByImage, PackedTraining

SFT = {"batch_size": 7, "accumulation": 4, "max_steps": 5, "evaluations": 3, "logging_steps": 1,
       "learning_rate": 0.005}  # fmt: skip
"""48 rows make 7 batches, the last of 6 rows: the second step of an epoch has one less than two
processes have. 16 rows of validation make 3."""
PREFER = {**SFT, "batch_size": 6, "accumulation": 2, "max_steps": 3, "evaluations": 2}
"""16 pairs make 3 batches, the last of 4: in the second step a process has none."""


def work(stage: str, base: Path, data: Artifact, runs: Path, gpus: int, **changes: Any) -> Work:
    settings = {
        f"{stage}.{key}": value for key, value in (SFT if stage == "sft" else PREFER).items()
    }
    asked = {"model.id": base, "model.quantization": "none", "model.dtype": "float32",
             "stages": f"[{stage}]", "execution.runs": runs, "execution.gpus": gpus,
             **settings, **changes}  # fmt: skip
    config = load_config("demo", [f"{key}={value}" for key, value in asked.items()])
    return Work((stage,), config, {"prepare" if stage == "sft" else "pairs": data})


def take(step: Work) -> Path:
    """Take a step as a run does, or here where it is one process anyhow; return its folder."""
    if step.gpus == 1:
        step.take(NullTracker())
    else:
        run_in_child(step, tracking=None, threads=1)
    assert not ranks(step)
    return step.first().folder


def ranks(step: Work) -> list[psutil.Process]:
    """Processes of a step, wherever they hang now."""
    asked = {"vlm_ops.steps.process", str(step.first().folder / "request.json")}
    return [p for p in psutil.process_iter(["cmdline"]) if asked <= {*(p.info["cmdline"] or ())}]


def history(folder: Path) -> list[Mapping[str, Any]]:
    """Return what the last checkpoint knows of all steps.

    But how long they took; their share of an epoch, in which a batch that is nobody's is one, too;
    and tokens, which each attempt counts from 0.
    """
    left = ("second", "time", "epoch", "num_tokens")
    states = (folder / CHECKPOINTS).glob(f"*/{STATE}")
    found = [json.loads(state.read_text(encoding="utf-8")) for state in states]
    return [
        {name: value for name, value in entry.items() if not any(word in name for word in left)}
        for entry in max(found, key=lambda state: state["global_step"])["log_history"]
    ]


def are_the_same(one: Path, other: Path) -> None:
    """All numbers of all steps, and the weights but for rounding, which AdamW makes larger."""
    for ours, theirs in zip(history(one), history(other), strict=True):
        assert theirs == pytest.approx(ours, abs=1e-5, rel=1e-4)
    ours, theirs = (load_file(f / "adapter" / "adapter_model.safetensors") for f in (one, other))
    for name, weight in ours.items():
        assert (theirs[name] - weight).norm() <= 1e-3 * weight.norm(), name


@pytest.fixture(scope="module")
def alone(
    random_base: Path, squares: PreparedData, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """SFT in one process."""
    return take(work("sft", random_base, squares, tmp_path_factory.mktemp("alone"), 1))


@pytest.mark.slow
def test_sft_learns_the_same(
    alone: Path, random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    are_the_same(alone, take(work("sft", random_base, squares, tmp_path, 2)))


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["mpo", pytest.param("kto", marks=pytest.mark.thorough)])
def test_preferences_are_learned_the_same(
    loss: str,
    random_base: Path,
    pairs: PreferencePairs,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Also what a loss computes over the rows of a batch: these are the batches of one process."""
    changes: dict[str, Any] = {"prefer.loss": loss}
    one, two = (
        take(work("prefer", random_base, pairs, tmp_path / str(gpus), gpus, **changes))
        for gpus in (1, 2)
    )
    are_the_same(one, two)


def when_it_logs(step: Work, words: str, act: Callable[[], object]) -> threading.Thread:
    """Do something as soon as the step's log has some words."""
    log = step.first().folder / "step.log"

    def watch() -> None:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            if log.exists() and words in log.read_text(encoding="utf-8"):
                act()
                return
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def kill_a_rank(step: Work) -> None:
    next(rank for rank in ranks(step) if rank.environ()["RANK"] == "1").kill()


def stop_the_launcher() -> None:
    [launcher] = [p for p in psutil.Process().children() if "vlm_ops.steps.launch" in p.cmdline()]
    os.kill(launcher.pid, signal.SIGTERM)


@pytest.mark.slow
def test_what_a_process_fails_at_is_told_and_not_that_another_misses_it(
    random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    nowhere = squares.model_copy(update={"folder": tmp_path / "gone"})
    step = work("sft", random_base, nowhere, tmp_path, 2)
    with pytest.raises(DataError, match=r"gone/train\.jsonl: can't be read"):
        take(step)
    assert not ranks(step)


@pytest.mark.thorough
def test_cut_off_twice_it_learns_the_same(
    alone: Path, random_base: Path, squares: PreparedData, tmp_path: Path
) -> None:
    """All are asked to stop, within the second epoch; then one of the processes is killed."""
    step = work("sft", random_base, squares, tmp_path, 2)
    watch = when_it_logs(step, "step 3/5", stop_the_launcher)
    with pytest.raises(Interrupted):
        take(step)
    watch.join()
    assert not ranks(step)
    watch = when_it_logs(step, "step 4/5", lambda: kill_a_rank(step))
    with pytest.raises(TransientError, match="was killed by SIGKILL"):
        take(step)
    watch.join()
    log = (step.first().folder / "step.log").read_text(encoding="utf-8")
    assert "stopped at step 3 of 5; the same command goes on from" in log
    assert "going on from checkpoint-3" in log
    are_the_same(alone, take(step))


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize(("images", "size"), [(5, 4), (1, 4), (7, 3), (8, 3)])
def test_each_row_is_dealt_once_and_each_batch_is_one_of_a_process_alone(
    images: int, size: int, ranks: int
) -> None:
    rows = [EncodedRow(str(n), (), [n // 2], ([1],), ()) for n in range(2 * images)]
    blanks = -len(rows) % (ranks * size)
    order = ByImage(rows, seed=3, blanks=blanks)
    dealt = [
        list(BatchSamplerShard(BatchSampler(order, size, drop_last=False), ranks, number))
        for number in range(ranks)
    ]
    assert len({len(batches) for batches in dealt}) == 1
    turns = [batch for turn in zip(*dealt, strict=True) for batch in turn]
    real = [[number for number in batch if number < len(rows)] for batch in turns]
    assert [batch for batch in real if batch] == list(
        BatchSampler(ByImage(rows, seed=3), size, drop_last=False)
    )
    assert sorted(number for batch in real for number in batch) == list(range(len(rows)))


class Within:
    """As transformers' ``Trainer``, where it goes on within an epoch: it skips the first batch."""

    def _run_epoch(self, model: Any, epoch: int, train_dataloader: Any, met: list[int]) -> None:
        rest = skip_first_batches(train_dataloader, 1)
        rest.set_epoch(epoch)
        met += [int(row) for batch in rest for row in batch]


class Resumed(PackedTraining, Within):
    """A training that goes on, as far as the order is concerned."""

    def __init__(self, order: ByImage) -> None:
        self._sampler = order
        self.control = TrainerControl()


@pytest.mark.parametrize("ranks", [1, 2])
def test_within_a_later_epoch_each_process_goes_on_in_its_order(ranks: int) -> None:
    rows = [EncodedRow(str(n), (), [n // 2], ([1],), ()) for n in range(16)]
    order = ByImage(rows, seed=3)
    numbers: Any = range(len(rows))
    batches: DataLoader[Any] = DataLoader(
        numbers, batch_sampler=BatchSampler(order, 2, drop_last=False)
    )
    dealt = prepare_data_loader(batches, num_processes=ranks, process_index=0)
    dealt.set_epoch(1)
    whole = [int(row) for batch in dealt for row in batch]
    order.set_epoch(0)  # as a process begins
    met: list[int] = []
    Resumed(order)._run_epoch(None, 1, dealt, met)
    assert met == whole[2:]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sft.accumulation": 1, "sft.batch_size": 8},
         r"the 1 forward passes of a step of sft .* 2 GPUs evenly; sft.batch_size: 4 and "
         r"sft.accumulation: 2 take the same rows a step"),
        ({"sft.accumulation": 3}, "choose batch_size and accumulation so that 2 divides"),
        ({"engine": "trl"}, "execution.gpus 2 needs engine: packed"),
        ({"sft.best_by": "accuracy"}, "sft.best_by accuracy asks the model on one GPU"),
    ],
)  # fmt: skip
def test_what_cannot_be_dealt_is_refused_at_once(
    changes: dict[str, Any], said: str, squares: PreparedData, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        work("sft", tmp_path, squares, tmp_path, 2, **changes)
