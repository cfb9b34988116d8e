"""What a version and its rival said is kept with the version, and does not hold it up."""

import json
from pathlib import Path
from typing import Any

import pytest

from vlm_ops.artifacts import ANSWERS, PROTOCOL, AnswerSet
from vlm_ops.errors import DataError, RegistryError
from vlm_ops.evaluation.metrics import find
from vlm_ops.registry.said import Said, said_of
from vlm_ops.reporting.versions import compare
from vlm_ops.store.artifact import write_record
from vlm_ops.store.fingerprint import fingerprint
from vlm_ops.store.jsonl import write_jsonl


def test_what_both_said_is_read_back_and_the_version_can_be_used(
    pipeline: Any, tmp_path: Path
) -> None:
    pipeline.register(0, tested=tuple(pipeline.answers[:2]))
    found = said_of(pipeline.registry, "candidate")
    assert sorted(found, key=str) == sorted(map(Said.of, pipeline.answers[:2]), key=str)
    assert pipeline.registry.promote("1", reason=None, by="test").moved
    logged = pipeline.logged[0].removeprefix("models:/")
    broken = tmp_path / Path(found[0].path).name
    broken.write_text("{}")
    pipeline.client.log_model_artifact(logged, str(broken), "registered")
    with pytest.raises(RegistryError, match=f"{found[0].path} holds no answers"):
        said_of(pipeline.registry, "1")
    # Other tests register the same logged model.
    broken.write_text(found[0].model_dump_json())
    pipeline.client.log_model_artifact(logged, str(broken), "registered")


def test_versions_of_which_nothing_was_kept_are_not_compared(pipeline: Any, tmp_path: Path) -> None:
    pipeline.register(1)
    pipeline.register(2)
    assert said_of(pipeline.registry, "1") == []
    with pytest.raises(DataError, match="version 1 and version 2: found no answers to test rows"):
        compare(pipeline.registry, "1", "2", tmp_path)
    with pytest.raises(RegistryError, match="2 and candidate are one version"):
        compare(pipeline.registry, "2", "candidate", tmp_path)


def test_another_metric_is_kept_and_is_what_versions_are_compared_by(
    pipeline: Any, tmp_path: Path
) -> None:
    """Also where the configuration that was kept says nothing of it."""
    exact = find("exact_match")
    for number in (0, 1):
        said = pipeline.answers[number]
        judged = [
            answer.model_copy(
                update={"terms": tuple(exact.judge([answer.text], [answer.expected])[0])}
            )
            for answer in said.read()
        ]
        folder = tmp_path / f"answers-{number}"
        folder.mkdir()
        write_jsonl(folder / ANSWERS, judged)
        other = said.model_copy(update={"folder": folder, "metric": "exact_match"})
        pipeline.register(number, tested=(other,))
    found = compare(pipeline.registry, "1", "2", tmp_path / "runs")
    assert found.sections["test"].about.startswith("exact match: 16 rows")


def test_versions_are_compared_by_what_they_keep(pipeline: Any, tmp_path: Path) -> None:
    for number in (0, 1):
        pipeline.register(number, tested=(pipeline.answers[number],))
    found = compare(pipeline.registry, "1", "2", tmp_path)
    first, second = (pipeline.answers[number].value for number in (0, 1))
    (numbers,) = found.numbers.values()
    assert numbers["difference"] == pytest.approx(second - first)
    assert numbers["n"] == 16
    assert found.versions == ("1", "2")
    assert found.run_id == pipeline.run_id


def measured(pipeline: Any, runs: Path, number: int, **how: Any) -> AnswerSet:
    """Answers to a benchmark, as `vlm-ops benchmark` leaves them in a runs folder."""
    said: AnswerSet = pipeline.answers[number]
    terms = {"rows": "16, abc", "prompt": "{question}", "metric": "relaxed_accuracy, version 1.1"}
    folder = runs / f"answers-{number}-{len(list(runs.glob('answers-*')))}"
    folder.mkdir(parents=True)
    write_jsonl(folder / ANSWERS, said.read())
    (folder / PROTOCOL).write_text(json.dumps(terms | how))
    found = said.model_copy(
        update={"folder": folder, "split": "test", "benchmark": "charts",
                "protocol": fingerprint(terms | how)}
    )  # fmt: skip
    write_record(found)
    return found


def test_benchmarks_are_compared_where_both_were_asked_the_same(
    pipeline: Any, tmp_path: Path
) -> None:
    for number in (0, 1):
        pipeline.register(number, tested=(pipeline.answers[number],))
    runs = tmp_path / "runs"
    measured(pipeline, runs, 0)
    found = compare(pipeline.registry, "1", "2", runs)
    assert list(found.numbers) == ["test"]
    command = f"vlm-ops benchmark models:/{pipeline.name}/2 charts --runs {runs}"
    assert command in found.not_compared["charts"]
    assert any("not compared on charts" in notice for notice in found.page.notices)

    measured(pipeline, runs, 1, rows="8, def")
    found = compare(pipeline.registry, "1", "2", runs)
    assert "rows 16, abc and 8, def" in found.not_compared["charts"]

    measured(pipeline, runs, 1)
    found = compare(pipeline.registry, "1", "2", runs)
    assert not found.not_compared
    on_charts = dict(found.numbers["charts"])
    assert on_charts.pop("verdict") == "not judged"  # nobody knows what training saw of it
    assert "version 1 and version 2 may have been trained on" in str(on_charts.pop("notice"))
    assert on_charts.items() <= found.numbers["test"].items()
    assert on_charts["level"] == 0.025  # of the difference that the gate kept
    assert "which is the level of its look at version 2" in found.page.outcome
    assert [one.name for one in found.page.sections] == ["test rows", "charts"]


def test_what_both_said_to_a_benchmark_is_kept_with_the_versions(
    pipeline: Any, tmp_path: Path
) -> None:
    for number in (0, 1):
        said = measured(pipeline, tmp_path / "runs", number)
        pipeline.register(number, tested=(pipeline.answers[number], said))
    found = compare(pipeline.registry, "1", "2", tmp_path / "elsewhere")
    assert list(found.numbers) == ["test", "charts"]


def test_what_the_later_run_asked_the_earlier_version_is_enough(
    pipeline: Any, tmp_path: Path
) -> None:
    """The rows have grown since the earlier one's run, and its folder is cleaned."""
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    write_jsonl(fewer / ANSWERS, pipeline.answers[2].read()[:8])
    before = pipeline.answers[2].model_copy(update={"folder": fewer, "protocol": "before"})
    pipeline.register(2, tested=(before,))
    pipeline.register(1, tested=tuple(pipeline.answers[1:]))
    found = compare(pipeline.registry, "1", "2", tmp_path / "runs")
    assert found.numbers["test"]["n"] == 16
    contents = [pipeline.models[2].content]
    assert [one.model for one in said_of(pipeline.registry, "2", contents)] == contents
    pipeline.client.delete_model_version_tag(pipeline.name, "2", "details")
    found = compare(pipeline.registry, "1", "2", tmp_path / "runs")
    assert "the level of a first look, as nothing tells of one at version 2" in found.page.outcome
