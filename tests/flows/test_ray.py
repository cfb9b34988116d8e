"""Steps on machines of Ray: the same weights, wherever they are made, and a machine may go away."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray_machines import Machine, ray_machines
from small import write_small

from flows.child import run_in_child
from flows.context import Context
from flows.servers.services import Services
from flows.watch import Terms
from vlm_ops.artifacts import PreparedData, TrainedAdapter
from vlm_ops.config.load import load_config
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import Interrupted, TransientError
from vlm_ops.evaluation.protocol import ground_of_answers
from vlm_ops.steps.plan import perform, plan
from vlm_ops.steps.work import Work
from vlm_ops.store.shared import FILES
from vlm_ops.tracker import NullTracker

pytestmark = [pytest.mark.slow, pytest.mark.thorough]
SENDER = "flows.ray_process"
LONG = ("sft.max_steps=16", "sft.evaluations=2", "execution.checkpoint_minutes=0.001")


@pytest.fixture(scope="module")
def place(random_base: Path, squares: PreparedData, tmp_path_factory: Any) -> Path:
    folder: Path = tmp_path_factory.mktemp("place")
    write_small(folder, random_base, squares)
    (folder / "share").mkdir()
    return folder


@pytest.fixture(scope="module")
def ray(place: Path) -> Iterator[tuple[str, list[Machine]]]:
    with ray_machines(place) as found:
        yield found


def sft(place: Path, runs: str, *changes: str) -> Work:
    """The training, its rows prepared here."""
    changes = (f"execution.runs={place / runs}", "stages=[sft]", *LONG, *changes)
    config: PipelineConfig = load_config(str(place / "small.yaml"), list(changes))
    prepared = perform(plan("prepare", config, {}), NullTracker())
    return Work(("sft",), config, {"prepare": prepared})


def trained(work: Work, terms: Terms) -> TrainedAdapter:
    found = run_in_child(work, tracking=None, threads=1, terms=terms)["sft"]
    assert isinstance(found, TrainedAdapter)
    return found


def test_a_training_goes_on_on_another_machine(
    place: Path, ray: tuple[str, list[Machine]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    address, machines = ray
    there = (f"execution.store=file://{place}/share", "execution.where=ray",
             f"execution.ray_address={address}")  # fmt: skip
    work, terms = sft(place, "here", *there), Terms(ray="http://nowhere")

    def at(machine: Machine) -> bool:
        return any(machine.runs.glob("ray/sft-*"))

    def kill() -> None:
        deadline = time.monotonic() + 100
        while not list((place / "share").glob(f"sft-*/unfinished/{FILES}")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        next(filter(at, machines)).kill()

    threading.Thread(target=kill, daemon=True).start()
    with pytest.raises(TransientError, match="machine of Ray is lost"):
        trained(work, terms)
    assert [at(machine) for machine in machines].count(True) == 1
    caplog.clear()
    resumed = trained(work, terms)
    assert "going on from checkpoint-" in caplog.text
    assert all(map(at, machines))
    assert resumed.folder.is_relative_to(place / "here")
    whole = trained(sft(place, "alone"), Terms())
    assert resumed.adapter_sha256 == whole.adapter_sha256
    assert (resumed.best_step, resumed.metrics["loss"]) == (whole.best_step, whole.metrics["loss"])


def test_a_run_asks_a_machine_what_answers_are_computed_with(
    place: Path, ray: tuple[str, list[Machine]], pair: Services
) -> None:
    from prefect import flow

    from flows import tasks

    there = (f"execution.store=file://{place}/share", "execution.where=ray",
             f"execution.ray_address={ray[0]}")  # fmt: skip
    context = Context(sft(place, "here", *there).config, "http://nowhere")

    @flow
    def asks() -> None:
        tasks.settle_ground(context)

    asks()
    assert context.config.execution.ground == ground_of_answers(context.config.model)


def test_a_cancelled_step_leaves_its_checkpoint_in_the_store(
    place: Path, ray: tuple[str, list[Machine]]
) -> None:
    """On the machine that is left; its training would take minutes."""
    address, _ = ray
    cancelled = threading.Event()
    work = sft(place, "here", f"execution.store=file://{place}/share", "execution.where=ray",
               f"execution.ray_address={address}", "sft.max_steps=500",
               "execution.checkpoint_minutes=60")  # fmt: skip
    log = work.first().folder / "step.log"

    def cancel() -> None:
        deadline = time.monotonic() + 100
        while not (log.exists() and "step 10/500" in log.read_text(encoding="utf-8")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        cancelled.set()
        (sender,) = (one for one in psutil.Process().children() if SENDER in one.cmdline())
        for _ in range(2):  # asked more than once, it still hears the step out
            sender.terminate()
            time.sleep(0.3)

    threading.Thread(target=cancel, daemon=True).start()
    with pytest.raises(Interrupted, match="the run was cancelled in Prefect, in step 'sft'"):
        trained(work, Terms(ray="http://nowhere", cancelled=cancelled.is_set))
    assert (place / "share" / work.first().folder.name / "unfinished" / FILES).is_file()
