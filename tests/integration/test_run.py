"""The whole pipeline by its command: real servers, real processes, nothing patched."""

import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from small import (
    call,
    command,
    environment,
    kept_up,
    prefect_client,
    versions,
    vlm_ops,
    write_small,
)
from step_processes import is_step

from flows.servers.services import services
from vlm_ops.artifacts import AnswerSet, Choice, PreparedData
from vlm_ops.evaluation.looks import level
from vlm_ops.evaluation.words import percent
from vlm_ops.models.ground import device
from vlm_ops.registry.registry import Registry
from vlm_ops.reporting.versions import compare
from vlm_ops.store.artifact import read_record

pytestmark = pytest.mark.slow

STEPS = ["prepare", "sft", "pairs", "prefer", "choose", "evaluate", "gate"]


@pytest.fixture(scope="module")
def place(
    random_base: Path, squares: PreparedData, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_small(folder, random_base, squares)
    return folder


@pytest.fixture(scope="module")
def first(place: Path) -> Iterator[Any]:
    """What the first run came to, with servers of its own; what comes after it shares servers."""
    done = vlm_ops("run", "small.yaml", "--promote", cwd=place)
    with kept_up(place):
        yield done


def test_the_first_run_promotes(place: Path, first: Any) -> None:
    assert first["status"] == "promoted"
    assert first["decision"]["promote"] is True
    assert first["decision"]["look"] == 1
    assert first["decision"]["level"] == pytest.approx(level(1.0))
    assert first["decision"]["power"] is None  # nothing has to be beaten here
    assert first["skipped"] == []
    assert first["model_version"] == "1"
    assert first["mlflow_run_id"]
    assert first["prefect_run_id"]
    assert set(first["scores"]) >= {
        "base",
        "sft",
        "preferred",
        "candidate",
        "sft_gray",
        "candidate_gray",
        "majority",
    }
    assert set(first["adapter_sha256"]) == {"sft", "candidate"}
    assert list(first["folders"]) == STEPS
    assert set(first["seconds"]) >= set(STEPS)
    trained = _record(first, "sft")["computed"]
    assert {"torch", "transformers", "trl", "peft", "bitsandbytes"} <= trained.keys()
    assert (trained["device"], trained["threads"]) == (device(), "1")
    (version,) = versions(place / "runs")
    assert set(version["aliases"]) == {"candidate", "champion"}


def test_the_same_again_changes_nothing(place: Path, first: Any) -> None:
    # A training of other versions stands; the run says so.
    record = _record(first, "sft")
    record["computed"]["torch"] = "2.0.0"
    (Path(first["folders"]["sft"]) / "record.json").write_text(json.dumps(record))
    done = call("run", "small.yaml", "--promote", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "sft: found again, computed with torch 2.0.0 (now " in done.stderr
    again = json.loads(done.stdout)
    assert again["skipped"] == [*STEPS, "register"]
    for key in ("status", "scores", "decision", "model_version", "adapter_sha256", "folders",
                "report"):  # fmt: skip
        assert again[key] == first[key]
    assert len(versions(place / "runs")) == 1


def test_a_run_leaves_its_page_which_mlflow_keeps_and_prefect_links_to(
    place: Path, first: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(first["report"])
    assert page == Path(first["folders"]["gate"]).parent / "reports/small/1/report.html"
    text = page.read_text()
    assert "<title>small, version 1: accepted</title>" in text
    for heading in ("Scores: test rows", "Training", "Data", "Looks at the test rows",
                    "Time and memory", "Versions and seeds", "How to make it again"):  # fmt: skip
        assert f">{heading}</h2>" in text
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with services(place / "runs") as found:
        client = MlflowClient(found.mlflow_url, found.mlflow_url)
        kept = client.download_artifacts(first["mlflow_run_id"], "report.html")
        (version,) = client.search_model_versions("name='small'")
        with prefect_client(found.prefect_api_url, place / "runs") as prefect:
            asked = {"artifacts": {"key": {"any_": ["report"]}}}
            (link,) = prefect.post("/artifacts/latest/filter", json=asked).json()
    assert Path(kept).read_text() == text
    shown = f"runs/{first['mlflow_run_id']}/artifacts/report.html"
    assert shown in link["data"]
    assert f"[report.html](#/experiments/1/{shown}" in str(version.description)


def _record(run: Any, step: str) -> Any:
    return json.loads((Path(run["folders"][step]) / "record.json").read_text())


def test_the_gate_as_a_step_finds_the_decision_that_made_the_champion(
    place: Path, first: Any
) -> None:
    found = vlm_ops("step", "gate", "small.yaml", cwd=place)
    assert found["skipped"] is True
    assert found["folder"] == first["folders"]["gate"]
    assert found["verdict"]["accepted"] is True
    said = call("step", "gate", "small.yaml", cwd=place)
    assert f"nothing changed, found in {found['folder']}" in said.stdout
    assert "no champion" not in said.stderr


def test_the_versions_are_listed_for_people_too(place: Path, first: Any) -> None:
    listed = call("models", "small", cwd=place)
    assert listed.returncode == 0, listed.stderr
    assert "@candidate @champion" in listed.stdout
    assert percent(first["scores"]["candidate"]["relaxed_accuracy"]) in listed.stdout
    assert "none → 1" in listed.stdout


def test_a_trial_reads_no_test_rows_and_registers_nothing(place: Path, first: Any) -> None:
    before = {folder.name for folder in (place / "runs").glob("answers-*")}
    trial = vlm_ops("run", "small.yaml", "--set", "prefer.beta=0.3", cwd=place)
    assert trial["status"] == "trial"
    assert trial["split"] == "validation"
    assert set(trial["scores"]) == {"base", "sft", "preferred", "candidate", "majority"}
    assert trial["decision"] is None
    assert Path(trial["report"]) == Path(trial["folders"]["choose"]) / "small/report.html"
    assert "<title>small, a trial: trial</title>" in Path(trial["report"]).read_text()
    assert trial["left_out"] == {}
    assert list(trial["folders"]) == STEPS[:5]
    assert len(versions(place / "runs")) == 1
    new = {folder.name for folder in (place / "runs").glob("answers-*")} - before
    asked = [json.loads((place / "runs" / name / "record.json").read_text()) for name in new]
    assert [answers["split"] for answers in asked] == ["validation"]


def test_without_pairs_enough_the_preference_stage_is_left_out(place: Path, first: Any) -> None:
    sampled = "pairs={type: sampled, samples: 2}"  # three validation rows never make eight pairs
    trial = vlm_ops("run", "small.yaml", "--set", sampled, cwd=place)
    assert "it takes 16 and 8" in trial["left_out"]["prefer"]
    assert set(trial["scores"]) == {"base", "sft", "candidate", "majority"}
    assert trial["candidate"] == "the candidate is the sft model; no preferred one was trained"
    assert list(trial["folders"]) == ["prepare", "sft", "pairs", "choose"]
    told = call("step", "prefer", "small.yaml", "--set", sampled, cwd=place)
    assert told.returncode == 0
    assert "prefer: left out: " in told.stdout


def test_sft_alone(place: Path, first: Any) -> None:
    trial = vlm_ops("run", "small.yaml", "--set", "stages=[sft]", cwd=place)
    assert list(trial["folders"]) == ["prepare", "sft", "choose"]
    assert trial["left_out"] == {}
    assert trial["adapter_sha256"]["candidate"] == first["adapter_sha256"]["sft"]
    told = call("step", "prefer", "small.yaml", "--set", "stages=[sft]", cwd=place)
    assert told.returncode == 1
    assert "the configuration has no step 'prefer': its stages are [sft]" in told.stderr


@pytest.mark.thorough
def test_preferences_alone_go_through_to_a_version_that_answers_the_same(
    place: Path, first: Any
) -> None:
    text = (place / "small.yaml").read_text().replace("name: small", "name: straight")
    (place / "straight.yaml").write_text(text + "stages: [prefer]\n")
    run = vlm_ops("run", "straight.yaml", "--promote", cwd=place)
    assert list(run["folders"]) == [name for name in STEPS if name != "sft"]
    assert "sft" not in run["scores"]
    assert set(run["scores"]) >= {"base", "preferred", "candidate", "candidate_gray", "majority"}
    assert run["candidate"] == "the candidate is the preferred model; there is no sft model"
    assert list(run["adapter_sha256"]) == ["candidate"]
    assert run["status"] == "promoted"
    again = vlm_ops("run", "straight.yaml", "--promote", cwd=place)
    assert again["skipped"] == [*again["folders"], "register"]
    (asked,) = candidates_answers(run)
    rows = (Path(run["folders"]["prepare"]) / "test.jsonl").read_text().splitlines()
    row = json.loads(rows[0])
    image = place / "runs" / row["images"][0]["path"]
    told = vlm_ops(
        "predict", "models:/straight@champion", "--image", str(image), row["question"],
        "--max-new-tokens", "3", cwd=place,
    )  # fmt: skip
    assert told["answer"] == asked.read()[0].text


def candidates_answers(run: Any) -> list[AnswerSet]:
    """The candidate's answers to the test rows."""
    choice = read_record(Path(run["folders"]["choose"]), Choice)
    assert choice is not None
    runs = Path(run["folders"]["choose"]).parent
    found = [read_record(folder, AnswerSet) for folder in runs.glob("answers-*")]
    mine = [a for a in found if a is not None and a.model == choice.model.content]
    return [a for a in mine if a.split == "test" and not a.gray and not a.swapped]


def test_margins_on_the_command_line_of_a_promotion_are_refused(place: Path) -> None:
    refused = call("run", "small.yaml", "--promote", "--set", "gate.over_gray=0", cwd=place)
    assert refused.returncode == 1
    assert "--set gate.over_gray=0: a run that may promote" in refused.stderr
    assert "vlm-ops gate set" in refused.stderr


def test_other_margins_than_the_models_own_are_refused_until_a_person_sets_them(
    place: Path, first: Any
) -> None:
    strict = (place / "small.yaml").read_text().replace("over_gray: null", "over_gray: 0.9")
    (place / "strict.yaml").write_text(strict)
    refused = call("run", "strict.yaml", "--promote", "--set", "prefer.beta=0.5", cwd=place)
    assert refused.returncode == 1
    assert "over_gray 0.9 instead of null" in refused.stderr
    reason = ("--reason", "stricter from now on")
    vlm_ops("gate", "set", "small", "strict.yaml", *reason, cwd=place)
    move = vlm_ops("models", "small", cwd=place)["moves"][-1]
    assert (move["kind"], move["why"]) == ("gate", "stricter from now on")


def test_a_changed_setting_runs_the_steps_behind_it_and_a_refusal_leaves_the_alias(
    place: Path, first: Any
) -> None:
    """Under the strict margins of the test before."""
    other = ("--set", "sft.learning_rate=0.002")
    changed = vlm_ops("run", "strict.yaml", "--promote", *other, cwd=place)
    assert changed["skipped"] == ["prepare"]
    assert changed["status"] == "kept"
    reasons = changed["decision"]["reasons"]
    assert any("do not depend on the image" in reason for reason in reasons)
    lost = "refused: not shown to be better than the champion (version 1): "
    (against,) = (reason for reason in reasons if reason.startswith(lost))
    assert against.endswith("whose lower end is not above the needed +0.0")
    newer, older = versions(place / "runs")
    assert newer["aliases"] == ["candidate"]
    assert older["aliases"] == ["champion"]


def test_two_versions_are_compared_on_the_rows_that_both_were_asked(
    place: Path, first: Any
) -> None:
    found = vlm_ops("models", "compare", "small", "1", "candidate", cwd=place)
    assert (found["versions"], found["not_compared"]) == (["1", "2"], {})
    (numbers,) = found["benchmarks"].values()
    assert numbers["low"] <= numbers["difference"] <= numbers["high"]
    assert numbers["n"] == first["scores"]["candidate"]["n"]
    page = (place / found["report"]).read_text()
    assert "sft.learning_rate" in page
    # What the versions keep is enough, where their runs are not at hand.
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    with services(place / "runs", only=("mlflow",)) as server:
        registry = Registry(server.mlflow_url, "small")
        assert compare(registry, "1", "2", elsewhere).numbers == found["benchmarks"]


def test_a_champion_that_comes_out_again_stays_as_it_was(place: Path, first: Any) -> None:
    """On other rows: there is nothing to promote, and no look is spent."""
    vlm_ops("gate", "set", "small", "small.yaml", "--reason", "as before", cwd=place)
    looks = vlm_ops("models", "small", cwd=place)["looks"]
    found = vlm_ops("run", "small.yaml", "--promote", "--set", "evaluate.max_rows=6", cwd=place)
    assert vlm_ops("models", "small", cwd=place)["looks"] == looks
    assert found["status"] == "kept"
    assert found["champion_version"] == "1"
    (reason,) = found["decision"]["reasons"]
    assert "is the champion (version 1) already" in reason
    (champion,) = (v for v in versions(place / "runs") if "champion" in v["aliases"])
    assert champion["decision"] == "accepted"


def test_predict_asks_the_champion(place: Path, first: Any) -> None:
    image = next(place.glob("train-*.png"))
    found = vlm_ops(
        "predict", "models:/small@champion", "--image", image, "What color is the square?",
        cwd=place,
    )  # fmt: skip
    assert isinstance(found["answer"], str)


def test_a_second_run_of_the_model_that_does_not_wait_is_told_who_holds_it(
    place: Path, first: Any
) -> None:
    from vlm_ops.config.load import load_config
    from vlm_ops.steps.working import working

    at_once = ("--set", "execution.wait_minutes=0")
    config = load_config(place / "small.yaml", [f"execution.runs={place / 'runs'}"])
    with working(config, "another one"):
        refused = call("run", "small.yaml", "--promote", *at_once, cwd=place)
    assert refused.returncode == 1
    assert "held by another run (process " in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_killed_step_and_a_killed_pipeline_end_as_an_undisturbed_one(
    place: Path, first: Any
) -> None:
    runs = place / "cut"
    _kill_in_sft(place, runs, whole_group=True)
    resumed = _kill_in_sft(place, runs, whole_group=False)
    assert resumed["adapter_sha256"] == first["adapter_sha256"]
    assert resumed["skipped"] == ["prepare"]
    with sqlite3.connect(runs / "mlflow" / "mlflow.db") as database:
        found = database.execute("select name, status from runs").fetchall()
    names = [name for name, _ in found if name in STEPS]
    assert sorted(names) == sorted(STEPS)
    # The pipeline, and its steps: those that were killed went on in the runs they had.
    assert len(found) == len(STEPS) + 1
    assert {status for _, status in found} == {"FINISHED"}


def _kill_in_sft(place: Path, runs: Path, *, whole_group: bool) -> Any:
    """Start the pipeline and kill it, or its sft child alone, between two checkpoints."""
    before = set(runs.glob("sft-*/checkpoints/*/complete.json"))
    run = subprocess.Popen(
        command("run", "small.yaml", "--promote", "--runs", runs, "--json"),
        cwd=place, env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    child = _wait_for_checkpoint(run, runs, before)
    if whole_group:
        run.kill()
        run.wait()
        _wait_until_gone(child)
        return None
    child.send_signal(signal.SIGKILL)
    out, _ = run.communicate(timeout=500)
    assert run.returncode == 0
    return json.loads(out)


def _wait_for_checkpoint(
    run: "subprocess.Popen[str]", runs: Path, before: set[Path]
) -> psutil.Process:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert run.poll() is None
        if set(runs.glob("sft-*/checkpoints/*/complete.json")) - before:
            for child in psutil.Process(run.pid).children(recursive=True):
                if is_step(child):
                    return child
        time.sleep(0.02)
    raise AssertionError("no checkpoint appeared")


def _wait_until_gone(child: psutil.Process) -> None:
    """The child of a killed pipeline must not go on writing."""
    psutil.wait_procs([child], timeout=10)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_registering_what_an_earlier_run_left_is_not_nothing(
    place: Path, first: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a run that lost its MLflow server behind the gate."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with services(place / "runs", only=("mlflow",)) as found:
        client = MlflowClient(found.mlflow_url, found.mlflow_url)
        told = client.get_run(first["mlflow_run_id"]).data.tags
        client.delete_registered_model("small")
    assert (told["verdict"], told["status"], told["model_version"]) == ("accepted", "promoted", "1")
    again = vlm_ops("run", "small.yaml", "--promote", cwd=place)
    assert again["status"] == "promoted"
    assert again["mlflow_run_id"]
    assert "register" not in again["skipped"]
