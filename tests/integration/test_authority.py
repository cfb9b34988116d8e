"""What was done to a registry behind the pipeline's back: the gate refuses, and says why.

The tests go on from one another: the steps up to the gate are taken once.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from small import call, environment, kept_up, vlm_ops, write_small

from flows.servers.services import services
from vlm_ops.artifacts import PreparedData

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

OTHER = ("--set", "sft.learning_rate=0.002")
"""Another candidate than the champion."""

MOVED_BY_HAND = """
from mlflow import MlflowClient
from flows import tasks
from vlm_ops.cli.commands import app

register = tasks.register

def and_move(context, known):
    version = register(context, known)
    client = MlflowClient(context.tracking_uri, context.tracking_uri)
    client.set_registered_model_alias("small", "champion", "1")
    return version

tasks.register = and_move
app()
"""
"""The command, in which a person moves the alias between the gate and the promotion."""


@pytest.fixture(scope="module")
def place(
    random_base: Path, squares: PreparedData, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A folder whose registry holds one version, which was refused, and whose servers stay up."""
    folder = tmp_path_factory.mktemp("authority")
    strict = write_small(folder, random_base, squares).read_text(encoding="utf-8")
    strict = strict.replace("over_majority: null", "over_majority: 0.9")
    (folder / "strict.yaml").write_text(strict, encoding="utf-8")
    (folder / "runs" / "mlflow").mkdir(parents=True)
    with kept_up(folder):
        refused = vlm_ops("run", "strict.yaml", "--promote", cwd=folder)
        assert (refused["status"], refused["champion_version"]) == ("kept", None)
        vlm_ops("gate", "set", "small", "small.yaml", "--reason", "a first model may", cwd=folder)
        yield folder


@pytest.fixture
def meddled(place: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Do something to the registry by MLflow's own client."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def do(action: Callable[[MlflowClient], object]) -> None:
        with services(place / "runs", only=("mlflow",)) as found:
            action(MlflowClient(found.mlflow_url, found.mlflow_url))

    return do


def refusal(place: Path) -> str:
    """Try to promote another model; return why the gate refuses."""
    found = vlm_ops("run", "small.yaml", "--promote", *OTHER, cwd=place)
    assert found["status"] == "kept"
    assert found["decision"]["promote"] is False
    (reason,) = found["decision"]["reasons"]
    return str(reason)


def champion(place: Path) -> Any:
    found = vlm_ops("models", "small", cwd=place)
    return found["champion"] and found["champion"]["version"]


def test_an_alias_moved_by_hand_while_a_run_judges_is_judged_against(place: Path) -> None:
    """Accepted against nobody, the candidate would have been promoted."""
    told = subprocess.run(
        [sys.executable, "-c", MOVED_BY_HAND, "run", "small.yaml", "--promote", *OTHER, "--json"],
        cwd=place, env=environment(), capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr[-4000:]
    found = json.loads(told.stdout)
    assert "it is judged again" in told.stderr
    assert (found["status"], found["champion_version"]) == ("kept", "1")
    assert any("the champion (version 1)" in why for why in found["decision"]["reasons"])
    assert found["decision"]["look"] == 3
    kinds = [move["kind"] for move in vlm_ops("models", "small", cwd=place)["moves"]]
    assert kinds == ["gate", "gate", "outside"]


def test_an_edited_ledger_stops_promotions(place: Path, meddled: Callable[..., None]) -> None:
    def edit(client: MlflowClient) -> None:
        tags = client.get_registered_model("small").tags
        (line,) = (item for item in tags.items() if "a first model may" in item[1])
        edited = line[1].replace("a first model may", "everybody agreed")
        client.set_registered_model_tag("small", line[0], edited)

    meddled(edit)
    assert "line 2 of its ledger was edited" in refusal(place)
    assert champion(place) == "1"
    vlm_ops("promote", "small", "1", "--reason", "it is the champion still", cwd=place)
    assert "the champion (version 1)" in refusals(place)


def test_a_deleted_alias_stops_promotions_also_with_a_margin_on_the_command_line(
    place: Path, meddled: Callable[..., None]
) -> None:
    meddled(lambda client: client.delete_registered_model_alias("small", "champion"))
    margin = ("--set", "gate.over_champion=-0.1")
    refused = call("run", "small.yaml", "--promote", *OTHER, *margin, cwd=place)
    assert refused.returncode == 1
    assert "--set gate.over_champion=-0.1: a run that may promote" in refused.stderr
    said = refusal(place)
    assert "its champion is version 1 by its ledger, but the alias was deleted in MLflow" in said
    assert 'vlm-ops promote small VERSION --reason "…"' in said
    assert champion(place) is None
    vlm_ops("promote", "small", "1", "--reason", "it was the champion", cwd=place)
    assert champion(place) == "1"


def test_an_edited_adapter_configuration_of_the_champion_stops_promotions(place: Path) -> None:
    store = place / "runs" / "mlflow"
    kept = {path: path.read_bytes() for path in store.rglob("adapter/adapter_config.json")}
    assert kept
    # What was fetched before was checked then; here the champion is fetched anew.
    for folder in (place / "runs" / "models").iterdir():
        folder.rename(place / folder.name)
    for path, text in kept.items():
        path.write_bytes(text + b" ")
    said = refusal(place)
    for path, text in kept.items():
        path.write_bytes(text)
    assert "the champion, version 1, can't be compared with" in said
    assert "artifacts/adapter/adapter_config.json: expected sha256" in said
    assert champion(place) == "1"


def test_a_deleted_version_of_the_champion_stops_promotions(
    place: Path, meddled: Callable[..., None]
) -> None:
    meddled(lambda client: client.delete_model_version("small", "1"))
    said = refusal(place)
    assert "its champion is version 1 by its ledger, but that version was deleted" in said
    assert champion(place) is None


def refusals(place: Path) -> str:
    """Where nothing is in doubt, the gate compares and gives all its reasons."""
    found = vlm_ops("run", "small.yaml", "--promote", *OTHER, cwd=place)
    assert found["status"] == "kept"
    return "\n".join(found["decision"]["reasons"])
