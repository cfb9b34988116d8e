"""``models``, ``promote``, ``rollback`` and ``gate`` as people call them."""

import io
import json
import os
import pty
import subprocess
import sys
import uuid
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from flows.servers.environment import environment
from vlm_ops.cli.commands import app
from vlm_ops.config.gate import GateSettings
from vlm_ops.registry.registry import Registry


@pytest.fixture
def name(mlflow_server: str) -> str:
    """A registered model without versions."""
    made = f"demo-{uuid.uuid4().hex[:8]}"
    MlflowClient(mlflow_server, mlflow_server).create_registered_model(made)
    return made


def call(server: str, *arguments: str, stdin: int = subprocess.DEVNULL) -> Any:
    return subprocess.run(
        [sys.executable, "-m", "vlm_ops.cli", *arguments], stdin=stdin,
        env={**os.environ, "MLFLOW_TRACKING_URI": server, "COLUMNS": "200"},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


def vlm_ops(server: str, *arguments: str) -> Any:
    """Call in this process, which has loaded already what takes a new one seconds to load."""
    said = io.StringIO()
    with environment({"MLFLOW_TRACKING_URI": server, "COLUMNS": "200"}), redirect_stdout(said):
        app(arguments, standalone_mode=False)
    return json.loads(said.getvalue()) if "--json" in arguments else said.getvalue()


def at_a_terminal(server: str, typed: str, *arguments: str) -> Any:
    """Call with a terminal as stdin, at which somebody types."""
    terminal, keyboard = pty.openpty()
    os.write(terminal, f"{typed}\n".encode())
    try:
        return call(server, *arguments, stdin=keyboard)
    finally:
        os.close(keyboard)
        os.close(terminal)


def test_gate_set_and_show(mlflow_server: str, name: str, tmp_path: Path) -> None:
    assert vlm_ops(mlflow_server, "gate", "show", name, "--json") is None
    assert "no margins yet" in vlm_ops(mlflow_server, "gate", "show", name)
    file = tmp_path / "harder.yaml"
    file.write_text("extends: demo\nbenchmarks: [charts]\ngate:\n  over_champion: 0.03\n")
    said = vlm_ops(mlflow_server, "gate", "set", name, str(file), "--reason", "Harder rows.")
    assert "over_champion: 0.03" in said
    assert "on charts: margin 0.02, improve False, metric relaxed_accuracy" in said
    shown = vlm_ops(mlflow_server, "gate", "show", name, "--json")
    assert GateSettings.model_validate(shown).over_champion == 0.03
    assert "over_champion: 0.03" in vlm_ops(mlflow_server, "gate", "show", name)
    (line,) = Registry(mlflow_server, name).moves()
    assert (line.kind, line.why) == ("gate", "Harder rows.")


def test_gate_set_needs_a_reason(mlflow_server: str, name: str) -> None:
    done = call(mlflow_server, "gate", "set", name, "demo")
    assert done.returncode == 2
    assert "--reason" in done.stderr


def test_margins_that_nothing_can_pass_are_not_pinned(
    mlflow_server: str, name: str, tmp_path: Path
) -> None:
    file = tmp_path / "never.yaml"
    file.write_text("extends: demo\ngate:\n  over_base: 1.0\n")
    done = call(mlflow_server, "gate", "set", name, str(file), "--reason", "Hard.")
    assert done.returncode == 1
    assert "over_base 1.0 can never be passed" in done.stderr
    assert Registry(mlflow_server, name).margins() is None


def test_models_tells_versions_champion_moves_and_looks(pipeline: Any) -> None:
    registry, client = pipeline.registry, pipeline.client
    server, name = registry.uri, pipeline.name
    registry.look("a" * 64, None, "terms", ["g1", "g2"])
    pipeline.register(0)
    client.set_registered_model_alias(name, "champion", "1")
    found = vlm_ops(server, "models", name, "--json")
    assert [version["version"] for version in found["versions"]] == ["1"]
    assert found["champion"]["version"] == "1"
    assert found["champion"]["content"] == pipeline.models[0].content
    assert (found["moves"], found["moved_outside"], found["doubt"]) == ([], True, None)
    assert [look["number"] for look in found["looks"]] == [1]
    assert found["looks"][0]["groups"] == ["g1", "g2"]
    assert "moved in MLflow's pages" in vlm_ops(server, "models", name)

    registry.look("b" * 64, "a" * 64, "terms", ["g1", "g2"])
    client.delete_registered_model_alias(name, "champion")
    found = vlm_ops(server, "models", name, "--json")
    assert found["champion"] is None
    assert "the alias was deleted" in found["doubt"]
    assert [move["kind"] for move in found["moves"]] == ["outside"]
    assert "In doubt:" in vlm_ops(server, "models", name)


@pytest.fixture
def three(pipeline: Any) -> Any:
    """Three champions in turn, of whose files the weights alone are checked."""
    for number, version in enumerate("123"):
        pipeline.register(number)
        pipeline.as_before(version)
        pipeline.registry.promote(version, reason="Seen.", by="ann", decision_required=False)
    return pipeline


def test_rollback_to_a_version_and_a_dry_run(three: Any) -> None:
    server, rollback = three.registry.uri, ("rollback", three.name)
    planned = vlm_ops(server, *rollback, "--reason", "No.", "--dry-run", "--json")
    assert (planned["from"], planned["to"]) == ("3", "2")
    assert "Nothing was changed" in vlm_ops(server, *rollback, "1", "--reason", "x", "--dry-run")
    assert three.registry.standing().champion.version == "3"
    moved = vlm_ops(server, *rollback, "1", "--reason", "No.", "--json")
    assert (moved["number"], moved["from"], moved["to"], moved["why"]) == (4, "3", "1", "No.")
    assert three.registry.standing().champion.version == "1"
    done = call(server, *rollback, "1", "--reason", "No.")
    assert done.returncode == 1
    assert "the champion of" in done.stderr


def test_of_a_version_without_questions_rollback_says_that_only_files_were_checked(
    three: Any,
) -> None:
    done = call(three.registry.uri, "rollback", three.name, "--reason", "No.")
    assert done.returncode == 0, done.stderr
    assert "recorded no questions: only its files were checked" in done.stderr


def test_rollback_asks_what_was_recorded_unless_it_is_told_not_to(pipeline: Any) -> None:
    for number, version in enumerate("123"):
        pipeline.register(number)
        pipeline.registry.promote(version, reason="Seen.", by="ann", decision_required=False)
    server, rollback = pipeline.registry.uri, ("rollback", pipeline.name, "--reason", "No.")
    done = call(server, *rollback, "--json")
    assert (done.returncode, json.loads(done.stdout)["why"]) == (0, "No.")
    assert done.stderr == ""
    moved = vlm_ops(server, *rollback, "--unasked", "--json")
    assert moved["why"] == "It was not asked its recorded questions (--unasked). No."


def test_at_a_terminal_rollback_asks(three: Any) -> None:
    server, rollback = three.registry.uri, ("rollback", three.name, "--reason", "No.")
    refused = at_a_terminal(server, "n", *rollback)
    assert refused.returncode == 1
    assert "from version 3 back to 2?" in refused.stderr
    assert three.registry.standing().champion.version == "3"
    assert at_a_terminal(server, "y", *rollback).returncode == 0
    assert three.registry.standing().champion.version == "2"
    assert at_a_terminal(server, "", *rollback, "--yes").returncode == 0
    assert three.registry.standing().champion.version == "1"


def test_promote_settles_a_doubt(three: Any) -> None:
    server = three.registry.uri
    three.client.delete_registered_model_alias(three.name, "champion")
    done = call(server, "promote", three.name, "3")
    assert done.returncode == 1
    assert "Nothing is promoted until a person has said" in done.stderr
    said = vlm_ops(server, "promote", three.name, "3", "--reason", "It was.")
    assert "Settled:" in said
    assert three.registry.standing().doubt is None


def test_a_version_that_was_never_champion_is_not_rolled_back_to(three: Any) -> None:
    three.register(0, protocol="q" * 64)
    done = call(three.registry.uri, "rollback", three.name, "4", "--reason", "No.")
    assert done.returncode == 1
    assert "was never champion" in done.stderr
