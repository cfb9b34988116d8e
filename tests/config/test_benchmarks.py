"""A benchmark is one YAML file: those that ship, and those of users with all that may be wrong."""

from pathlib import Path

import pytest
import yaml

from vlm_ops.config.benchmarks import load_benchmark, load_benchmarks, shipped
from vlm_ops.config.gate import GateSettings, differences
from vlm_ops.config.load import from_json, load_config, refuse_margins, resolved_json
from vlm_ops.config.sections import FilesData, HubData
from vlm_ops.errors import ConfigError

NAMES = {
    "amber", "chart-captions", "chart-yesno", "charts", "chartqa-augmented", "chartqa-human",
    "docvqa", "mathvista", "mmmu", "mmstar", "pope", "textvqa",
}  # fmt: skip
OWN = {"name": "own", "title": "Mine", "data": {"type": "files", "path": "rows.jsonl"}}


def written(folder: Path, **changes: object) -> Path:
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(OWN | changes))
    return path


def test_all_that_ship_are_found_by_their_names_and_say_where_they_come_from() -> None:
    assert set(shipped()) == NAMES
    for name in shipped():
        benchmark = load_benchmark(name)
        assert benchmark.name == name
        assert benchmark.licence
        assert benchmark.source
        assert benchmark.chance is None or 0 < benchmark.chance <= 0.5
        if isinstance(benchmark.data, HubData):
            assert len(benchmark.data.revision) == 40, "the hub takes whole commits only"


def test_paths_of_a_file_start_at_its_folder_and_overrides_where_the_user_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    path = written(tmp_path)
    monkeypatch.chdir(tmp_path / "here")
    found = load_benchmark(path).data
    assert isinstance(found, FilesData)
    assert found.path == tmp_path / "rows.jsonl"
    assert found.max_refused == 0.0
    found = load_benchmark("amber", ["data.path=a.jsonl", "data.max_refused=0.5"]).data
    assert isinstance(found, FilesData)
    assert found.path == tmp_path / "here" / "a.jsonl"
    assert found.max_refused == 0.5


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics": "anls"}, "unknown key (did you mean 'metric'?)"),
        ({"prompt": "Say it."}, "prompt must contain {question}, found 'Say it.'"),
        ({"prompt": "<image>{question}"}, "prompt must not contain <image>"),
        ({"chance": 30}, "chance: found 30, expected less than or equal to 1"),
        ({"kinds": ["a"]}, "kinds needs slices"),
        ({"name": "my set"}, "name: found 'my set'"),
        ({"name": "gray"}, "found 'gray', which a run's own rows are called; take another"),
        ({"data": {"type": "hub", "id": "a/b"}}, "data.revision is missing"),
        ({"data": {"type": "charts", "prompt": "Q: {question}"}}, "data.prompt: prompt is a key"),
        (
            {"data": {"type": "files", "path": "a", "columns": {"kind": "k"}}},
            "slices names the column of kinds; leave it out",
        ),
        ({"data": {"type": "charts"}, "split": "val"}, "split: found 'val', charts have"),
        ({"data": {"type": "charts"}, "slices": "k"}, "charts know their own"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        load_benchmark(written(tmp_path, **changes))
    assert said in str(error.value)
    assert "own.yaml" in str(error.value)


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(ConfigError) as error:
        load_benchmark("chartqa-humans")
    assert "did you mean 'chartqa-human'?" in str(error.value)
    assert all(name in str(error.value) for name in NAMES)


def test_two_with_one_name_are_refused(tmp_path: Path) -> None:
    own = written(tmp_path, name="charts")
    with pytest.raises(ConfigError, match=r"two benchmarks are called 'charts': charts and .*own"):
        load_benchmarks(["charts", own])
    assert [one.name for one in load_benchmarks(["charts", "pope"])] == ["charts", "pope"]


@pytest.mark.parametrize(
    "change",
    ["gate.floor=0.1", "benchmarks=[easy.yaml]", "evaluate.metric=anls", "evaluate={metric: anls}"],
)
def test_a_run_that_may_promote_takes_the_bar_from_its_file(change: str) -> None:
    with pytest.raises(ConfigError, match="from its file alone"):
        refuse_margins(["evaluate.batch_size=4", change])


def test_margins_tell_one_benchmark_from_another_of_its_name(tmp_path: Path) -> None:
    own = written(tmp_path)
    hard = load_config("demo", [f"benchmarks=[{own}]"]).margins
    written(tmp_path, title="In other words", licence="none")
    assert load_config("demo", [f"benchmarks=[{own}]"]).margins == hard
    written(tmp_path, data={"type": "files", "path": "easy.jsonl"})
    assert load_config("demo", [f"benchmarks=[{own}]"]).margins != hard
    written(tmp_path, metric="anls")
    assert load_config("demo", [f"benchmarks=[{own}]"]).margins.benchmarks["own"].metric == "anls"
    assert GateSettings.model_validate_json(hard.model_dump_json()) == hard


def test_margins_tell_the_metric_that_they_are_in() -> None:
    plain = load_config("demo").margins
    assert plain == load_config("demo").gate
    assert "metric" not in plain.model_dump()
    assert load_config("demo", ["evaluate.metric=anls"]).margins.metric == "anls"


@pytest.mark.parametrize("key", ["metric", "benchmarks.charts.settings"])
def test_the_gate_is_not_told_what_benchmarks_tell(key: str) -> None:
    with pytest.raises(ConfigError, match=f"gate: {key.rpartition('.')[2]} is not set here"):
        load_config("demo", ["benchmarks=[charts]", f"gate.{key}=anls"])


def test_one_that_is_written_out_in_a_configuration_is_that_of_its_file(tmp_path: Path) -> None:
    named = load_config(_pipeline(tmp_path, [str(written(tmp_path))]))
    assert load_config(_pipeline(tmp_path, [OWN])) == named
    (own,) = named.benchmarks
    assert isinstance(own.data, FilesData)
    assert (own.data.path, own.data.max_refused) == (tmp_path / "rows.jsonl", 0.0)


def test_a_benchmark_is_named_with_gray_images(tmp_path: Path) -> None:
    file = written(tmp_path)
    plain = load_config(_pipeline(tmp_path, [file.name, "charts"]))
    asked: list[object] = [{"name": file.name, "gray": True}, {"name": "charts", "gray": True}]
    gray = load_config(_pipeline(tmp_path, asked))
    assert [one.gray for one in gray.benchmarks] == [True, True]
    assert [one.model_copy(update={"gray": False}) for one in gray.benchmarks] == [
        *plain.benchmarks
    ]
    # It is not in what was written before, and the gate is the same.
    assert all("gray" not in one.model_dump() for one in plain.benchmarks)
    assert gray.margins == plain.margins
    assert from_json(resolved_json(gray)) == gray


@pytest.mark.parametrize(
    ("written_out", "said"),
    [
        ({"name": "chats", "gray": True}, "neither a benchmark nor a file of that name.*'charts'"),
        ({"name": "charts", "gray": "some"}, "gray: found 'some', expected a valid boolean"),
        ({"name": "charts", "gry": True}, "gry.*did you mean 'gray'"),
    ],
)
def test_who_names_it_wrongly_is_told(
    tmp_path: Path, written_out: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=f"(?s){said}"):
        load_config(_pipeline(tmp_path, [written_out]))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_a_dump_says_how_many_rows_may_be_left_out(tmp_path: Path, share: float) -> None:
    """Also where that is the default of a pipeline's own rows, which others leave out."""
    data = {"type": "files", "path": "rows.jsonl", "max_refused": share}
    config = load_config(_pipeline(tmp_path, [str(written(tmp_path, data=data))]))
    again = from_json(resolved_json(config))
    assert again == config
    assert isinstance(found := again.benchmarks[0].data, FilesData)
    assert found.max_refused == share


def _pipeline(folder: Path, benchmarks: list[object]) -> Path:
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump({"extends": "demo", "benchmarks": benchmarks}))
    return path


def test_what_differs_from_the_margins_of_a_model_is_said_in_words(tmp_path: Path) -> None:
    def margins(*changes: str) -> GateSettings:
        return load_config("demo", [*changes]).margins

    file = written(tmp_path)
    pinned = margins(f"benchmarks=[charts, pope, {file}]", "gate.floor=0.2")
    written(tmp_path, data={"type": "files", "path": "easy.jsonl"})
    now = margins(
        f"benchmarks=[charts, docvqa, {file}]",
        "gate.benchmarks={charts: {margin: 0.05, improve: true}}",
    )
    assert differences(now, pinned) == [
        "floor null instead of 0.2",
        "benchmark charts: margin 0.05 instead of 0.02",
        "benchmark charts: improve True instead of False",
        "benchmark docvqa is new",
        "benchmark own asks other rows, or in another way",
        "benchmark pope is not measured any more",
    ]
    assert differences(pinned, pinned) == []
