"""``vlm-ops step evaluate`` and ``vlm-ops step gate``: the same table, without a flow."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from squares import Models, make_data, model_ref, trained

from vlm_ops.artifacts import (
    ADAPTER,
    ADAPTER_FILES,
    PAIR_SPLITS,
    ModelRef,
    PreferencePairs,
    TrainedAdapter,
)
from vlm_ops.cli import step as command
from vlm_ops.cli.commands import app
from vlm_ops.config.load import load_config
from vlm_ops.errors import StepFailed
from vlm_ops.evaluation.looks import level
from vlm_ops.records import Against, Look
from vlm_ops.steps.plan import plan
from vlm_ops.steps.table import AGAINST, CHAMPION
from vlm_ops.store.artifact import Artifact, write_record
from vlm_ops.store.jsonl import write_jsonl

SETTINGS = ("evaluate.batch_size=4", "evaluate.resamples=200")
EXACT = "evaluate.metric=exact_match"


@pytest.fixture(autouse=True)
def the_signals_of_the_tests() -> Iterator[None]:
    """The command has Ctrl-C do what SIGTERM does; the tests go on with their own."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A runs folder in which everything up to ``prefer`` is done, and no registry ever was."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    more = getattr(request, "param", ())
    config = load_config("demo", [f"execution.runs={tmp_path}", *SETTINGS, *more])
    outputs: dict[str, Artifact] = {}

    def done(step: str, artifact: Artifact) -> None:
        planned = plan(step, config, outputs)
        planned.folder.mkdir(exist_ok=True)
        update = {"folder": planned.folder, "fingerprint": planned.fingerprint}
        outputs[step] = artifact.model_copy(update=update)
        if isinstance(artifact, TrainedAdapter):
            (planned.folder / ADAPTER).mkdir()
            for name in ADAPTER_FILES:
                (planned.folder / ADAPTER / name).touch()
        write_record(outputs[step])

    folder = plan("prepare", config, {}).folder
    done("prepare", make_data(folder, {"train": 8, "validation": 20, "test": 48}))
    done("sft", trained("sft", "a-sft"))
    folder = plan("pairs", config, outputs).folder
    folder.mkdir()
    for split in PAIR_SPLITS:
        write_jsonl(folder / f"{split}.jsonl", [])
    pairs = {"train": 0, "validation": 0, "images": Path(), "source": "none"}
    done("pairs", PreferencePairs(folder=folder, content="pairs", **pairs))
    done("prefer", trained("prefer", "b-prefer"))
    return tmp_path


@pytest.fixture
def champion(monkeypatch: pytest.MonkeyPatch) -> ModelRef:
    """A registry with a champion stands in for the real one, which the integration tests ask."""
    found = model_ref("the-champion")
    told = {CHAMPION: found, AGAINST: Against(version="7", look=Look(number=1, position=1.0))}
    monkeypatch.setattr(command, "_judged_against", lambda name, config, outputs: told)
    return found


def step(name: str, runs: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[Any, str]:
    """Take a stage with --json; return what it printed, and what it said on stderr."""
    given = [word for setting in (*SETTINGS, *more) for word in ("--set", setting)]
    app(["step", name, "demo", *given, "--runs", str(runs), "--json"], standalone_mode=False)
    told, said = capsys.readouterr()
    assert told.count("\n") == 1
    return json.loads(told), said


def test_evaluate_takes_all_its_steps_and_is_not_done_twice(
    runs: Path, models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    models.cannot_see = {None, "a-sft"}
    step("choose", runs, capsys)
    assert models.asked == 3 * 40
    told, _ = step("evaluate", runs, capsys)
    assert (told["step"], told["skipped"], told["candidate"]) == ("evaluate", False, "preferred")
    assert set(told["scores"]) == {
        "base", "sft", "preferred", "candidate", "sft_gray", "candidate_gray", "candidate_swapped",
        "majority",
    }  # fmt: skip
    assert told["scores"]["candidate"]["relaxed_accuracy"] == 1.0
    assert (Path(told["folder"]) / "report.md").is_file()
    assert models.asked == 3 * 40 + 6 * 96
    assert step("evaluate", runs, capsys)[0] == told | {"skipped": True}
    assert models.asked == 3 * 40 + 6 * 96


@pytest.mark.parametrize("runs", [(EXACT,)], indirect=True)
def test_another_metric_goes_through_every_stage(
    runs: Path, models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    models.cannot_see = {None, "a-sft"}
    step("choose", runs, capsys, EXACT)
    evaluation, _ = step("evaluate", runs, capsys, EXACT)
    candidate = evaluation["scores"]["candidate"]
    assert (evaluation["metric"], candidate["metric"], candidate["value"]) == (
        "exact_match", "exact_match", 1.0
    )  # fmt: skip
    report = (Path(evaluation["folder"]) / "report.md").read_text(encoding="utf-8")
    assert "| model | what it is | exact match | 95 % |" in report
    assert "elaxed accuracy" not in report
    told, _ = step("gate", runs, capsys, EXACT)
    assert told["verdict"]["accepted"]
    assert told["power"] is not None


def test_gate_names_what_is_missing_before_it_asks_the_champion(
    runs: Path, models: Models, champion: ModelRef, capsys: pytest.CaptureFixture[str]
) -> None:
    step("choose", runs, capsys)
    asked = models.asked
    with pytest.raises(StepFailed, match=r"needs the output of 'evaluate'.*vlm-ops step evaluate"):
        step("gate", runs, capsys)
    assert models.asked == asked
    assert not list(runs.glob("gate-*"))


def test_gate_says_that_there_is_no_champion(
    runs: Path, models: Models, capsys: pytest.CaptureFixture[str]
) -> None:
    step("choose", runs, capsys)
    step("evaluate", runs, capsys)
    told, said = step("gate", runs, capsys)
    assert "demo was never registered: there is no champion to beat" in said
    assert told["verdict"]["accepted"]
    assert [found["than"] for found in told["verdict"]["differences"]] == [
        "gray", "swapped", "base", "majority"
    ]  # fmt: skip
    assert (told["look"]["number"], told["level"]) == (1, level(1.0))
    assert told["champion"] is told["champion_version"] is None
    assert not (runs / "mlflow").exists()


@pytest.mark.parametrize("sees", [False, True])
def test_gate_judges_against_the_champion(
    sees: bool,
    runs: Path,
    models: Models,
    champion: ModelRef,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models.cannot_see |= set() if sees else {champion.adapter_sha256}
    step("choose", runs, capsys)
    step("evaluate", runs, capsys)
    asked = models.asked
    told, said = step("gate", runs, capsys)
    assert "no champion" not in said
    assert models.asked == asked + 96
    assert told["verdict"]["accepted"] is not sees
    assert [found["than"] for found in told["verdict"]["differences"]] == [
        "gray", "swapped", "base", "champion", "majority"
    ]  # fmt: skip
    assert (told["champion"], told["champion_version"]) == (champion.content, "7")
    again, _ = step("gate", runs, capsys)
    assert again == told | {"skipped": True}
    assert models.asked == asked + 96
