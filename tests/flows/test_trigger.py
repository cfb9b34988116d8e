"""What a deployment's run looks at before it begins."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from little_hub import AWAY, little_hub
from own_rows import own_rows, square, write_rows

from flows import trigger
from flows.trigger import look, refuse_nothing_to_watch
from vlm_ops.config.load import load_config
from vlm_ops.errors import ConfigError, DataError, ServiceError

THUMBS = {"type": "thumbs", "path": "thumbs.jsonl"}


@pytest.fixture
def config(tmp_path: Path) -> str:
    write_rows(tmp_path / "rows.jsonl", own_rows(tmp_path))
    thumb(tmp_path, 0)
    return write(tmp_path)


@pytest.fixture(autouse=True)
def scheduled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a run that Prefect's scheduler made."""
    monkeypatch.setattr(trigger, "scheduled", lambda: True)


def write(folder: Path, **changes: Any) -> str:
    """Write the configuration."""
    values = {
        "extends": "demo",
        "name": "own",
        "data": {"type": "files", "path": "rows.jsonl"},
        "pairs": THUMBS,
        "prefer": {"loss": "kto"},
        "execution": {"runs": str(folder / "runs")},
    }
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(values | changes), encoding="utf-8")
    return str(path)


def thumb(folder: Path, *numbers: int) -> None:
    """Append thumbs."""
    with (folder / "thumbs.jsonl").open("a", encoding="utf-8") as handle:
        for number in numbers:
            said = {"images": [f"images/{number}.png"], "prompt": "What?", "completion": "One."}
            handle.write(json.dumps({**said, "label": number % 2 == 0}) + "\n")


def reason(config: str, data: bool = True, feedback: int | None = None) -> str | None:
    """Look, and take the run as done if there is a reason to run."""
    found = look(config, [], on_new_data=data, on_feedback=feedback)
    if found.trigger is not None:
        found.note()
    return found.trigger


def test_new_rows_pictures_and_settings_are_reasons_and_nothing_else(
    config: str, tmp_path: Path
) -> None:
    assert reason(config) == "the first look"
    again = look(config, [], on_new_data=True, on_feedback=None)
    assert again.trigger is None
    assert f"looked at the configuration, {tmp_path}/rows.jsonl, {tmp_path}/thumbs" in again.said
    assert "nothing changed since 2" in again.said

    square(tmp_path / "images" / "3.png", 77)
    assert reason(config) == f"new data: {tmp_path}/rows.jsonl changed"
    square(tmp_path / "images" / "nobody-names-it.png", 78)
    assert reason(config) is None
    rows = tmp_path / "rows.jsonl"
    rows.write_text(rows.read_text() + '{"image": "images/0.png", "query": "?", "label": "1"}\n')
    assert reason(config) == f"new data: {tmp_path}/rows.jsonl changed"
    thumb(tmp_path, 1)
    assert reason(config) == f"new data: {tmp_path}/thumbs.jsonl changed"
    write(tmp_path, seed=3)
    assert reason(config) == "new data: the configuration changed"
    assert reason(config) is None


def test_new_rows_of_a_benchmark_are_a_reason(tmp_path: Path) -> None:
    rows = own_rows(tmp_path)
    write_rows(tmp_path / "rows.jsonl", rows)
    asked = write_rows(tmp_path / "asked.jsonl", rows[:4])
    one = {"name": "asked", "title": "Ours", "data": {"type": "files", "path": asked.name}}
    (tmp_path / "asked.yaml").write_text(yaml.safe_dump(one))
    config = write(tmp_path, stages=["sft"], benchmarks=["asked.yaml"])
    assert reason(config) == "the first look"
    assert reason(config) is None
    write_rows(asked, rows[:5])
    assert reason(config) == f"new data: {asked} changed"


def test_feedback_counts_from_the_last_run(config: str, tmp_path: Path) -> None:
    assert reason(config, data=False, feedback=3) is None
    thumb(tmp_path, 1, 2)
    assert reason(config, data=False, feedback=3) == "feedback: 3 new rows"
    thumb(tmp_path, 3, 4)
    found = look(config, [], on_new_data=False, on_feedback=3)
    assert (found.trigger, found.said.partition(" since")[0]) == (
        None,
        "2 of 3 new rows of feedback",
    )
    thumb(tmp_path, 5)
    assert reason(config, data=False, feedback=3) == "feedback: 3 new rows"
    (tmp_path / "thumbs.jsonl").unlink()
    thumb(tmp_path, 6, 7, 8)
    assert reason(config, data=False, feedback=3) == "feedback: 3 new rows"


def test_either_is_enough_and_feedback_is_no_data_then(config: str, tmp_path: Path) -> None:
    assert reason(config, feedback=2) == "the first look"
    thumb(tmp_path, 1)
    assert reason(config, feedback=2) is None
    square(tmp_path / "images" / "3.png", 77)
    thumb(tmp_path, 2)
    assert reason(config, feedback=2) == (
        f"new data: {tmp_path}/rows.jsonl changed; feedback: 2 new rows"
    )


def test_a_run_that_failed_is_tried_again_only_where_it_may_go_better(
    config: str, tmp_path: Path
) -> None:
    look(config, [], on_new_data=True, on_feedback=None).note(ServiceError("MLflow is away"))
    assert look(config, [], on_new_data=True, on_feedback=None).trigger == "the first look"
    rows = tmp_path / "rows.jsonl"
    whole = rows.read_text()
    rows.write_text("half a ro")
    look(config, [], on_new_data=True, on_feedback=None).note(DataError("no rows"))
    assert reason(config) is None
    rows.write_text(whole)
    assert reason(config) == f"new data: {tmp_path}/rows.jsonl changed"


def test_a_hand_and_a_clock_need_no_reason(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reason(config, data=False) == "schedule"
    assert reason(config) == "the first look"
    monkeypatch.setattr(trigger, "scheduled", lambda: False)
    assert reason(config) == "by hand"


def test_what_was_seen_is_damaged(config: str, tmp_path: Path) -> None:
    assert reason(config) == "the first look"
    (kept,) = (tmp_path / "runs" / "watched").iterdir()
    kept.write_text('{"when": ', encoding="utf-8")
    assert reason(config) == "the first look"


def test_a_newer_commit_on_the_hub(
    config: str, tmp_path: Path, hub: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = "a" * 40, "b" * 40
    hub.append(old)
    config = write(tmp_path, data={"type": "hub", "id": "team/charts", "revision": old})
    assert reason(config) == "the first look"
    assert reason(config) is None
    hub[0] = new
    found = look(config, [], on_new_data=True, on_feedback=None)
    assert found.trigger == "new data: team/charts changed"
    assert found.config.data.revision == new  # type: ignore[union-attr]
    found.note(ServiceError("the download broke off"))
    assert reason(config) == "new data: team/charts changed"
    hub[0] = AWAY
    away = look(config, [], on_new_data=True, on_feedback=None)
    assert away.trigger is None
    assert "the hub did not say" in away.said


def test_feedback_counts_while_the_hub_is_away(config: str, tmp_path: Path, hub: list[str]) -> None:
    old = "a" * 40
    hub.append(old)
    config = write(tmp_path, data={"type": "hub", "id": "team/charts", "revision": "b" * 40})
    assert reason(config, feedback=2) == "the first look"
    hub[0] = AWAY
    assert reason(config, feedback=2) is None
    thumb(tmp_path, 1, 2)
    found = look(config, [], on_new_data=True, on_feedback=2)
    assert found.trigger == "feedback: 2 new rows"
    assert found.config.data.revision == old  # type: ignore[union-attr]


def test_a_data_set_that_the_hub_has_no_more_is_a_failure(tmp_path: Path, hub: list[str]) -> None:
    config = write(tmp_path, data={"type": "hub", "id": "team/charts", "revision": "a" * 40})
    with pytest.raises(DataError, match="team/charts: the hub knows no such data set"):
        look(config, [], on_new_data=True, on_feedback=None)


def test_what_could_never_fire(config: str, tmp_path: Path) -> None:
    charts = load_config("demo", [])
    with pytest.raises(ConfigError, match=r"--on-new-data: data\.type charts"):
        refuse_nothing_to_watch(charts, on_new_data=True, on_feedback=None)
    with pytest.raises(ConfigError, match=r"--on-feedback: .*pairs\.path"):
        refuse_nothing_to_watch(charts, on_new_data=False, on_feedback=5)
    refuse_nothing_to_watch(load_config(config, []), on_new_data=True, on_feedback=5)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The data set's newest commit on a hub of this machine."""
    with little_hub(monkeypatch) as commits:
        yield commits
