"""``vlm-ops export`` of a registered version, and what it refuses."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flows.servers.environment import environment
from vlm_ops.cli.commands import app
from vlm_ops.errors import RegistryError


def vlm_ops(server: str, *arguments: str | Path) -> Any:
    """Call in this process and return what it printed."""
    said = io.StringIO()
    with environment({"MLFLOW_TRACKING_URI": server}), redirect_stdout(said):
        app([*map(str, arguments), "--json"], standalone_mode=False)
    return json.loads(said.getvalue())


@pytest.fixture
def registered(pipeline: Any) -> Any:
    """A pipeline with a version."""
    pipeline.register(0)
    return pipeline


def test_a_version_is_exported_with_its_story(registered: Any, tmp_path: Path) -> None:
    uri, name = registered.registry.uri, registered.name
    out = tmp_path / "out"
    options = ("--runs", tmp_path / "runs")
    done = vlm_ops(uri, "export", f"models:/{name}@candidate", out, *options)
    # The four recorded questions, and the fixed ones.
    assert done == {
        "output": str(out), "form": "merged", "notices": [], "asked": 200, "same": 200,
        "as_served": None,
    }  # fmt: skip
    told = (out / "README.md").read_text()
    for line in (
        f"# {name}, version 1",
        "charts of 60 tables. Rows: train 900, validation 900, test 900.",
        "| candidate | 71.0 % | 68.0 to 74.0 | 900 | 300 | 12 |",
        "Against no champion: **accepted**.",
        "- The candidate is better than the base.",
        "learning_rate: ",
    ):
        assert line in told
    assert str(tmp_path) not in told
    alone = vlm_ops(uri, "export", f"models:/{name}/1", tmp_path / "alone", "--adapter", *options)
    assert (alone["form"], alone["same"]) == ("adapter", 200)


def test_a_version_of_before_has_no_questions(registered: Any) -> None:
    assert len(registered.registry.story("1").recorded.questions) == 4
    registered.as_before("1")
    story = registered.registry.story("candidate")
    assert story.recorded is None
    assert story.details is not None


def test_edited_questions_are_refused(registered: Any, tmp_path: Path) -> None:
    found = registered.registry.story("1")
    (path,) = (path for path in found.details.files if path.startswith("registered/questions-"))
    file = registered.kept_file(registered.logged[0], path)
    edited = tmp_path / file.name
    edited.write_bytes(file.read_bytes() + b" ")
    logged = registered.logged[0].removeprefix("models:/")
    registered.client.log_model_artifact(logged, str(edited), "registered")
    try:
        with pytest.raises(RegistryError, match=rf"{path}: expected sha256"):
            registered.registry.story("1")
    finally:
        registered.client.log_model_artifact(logged, str(file), "registered")


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    for model, words in (
        ("models:/", "expected models:/name@champion"),
        ("no/such-model", "not on this machine"),
    ):
        done = CliRunner().invoke(app, ["export", model, str(tmp_path / "out")])
        assert words in str(done.exception)
    assert list(tmp_path.iterdir()) == []
