import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from squares import Models, Seer, make_data, trained

from vlm_ops.artifacts import ANSWERS, AnswerSet, Evaluation, ModelRef, PreparedData
from vlm_ops.config.load import load_config
from vlm_ops.errors import DataError
from vlm_ops.models.replies import Reply
from vlm_ops.records import BARE_QUESTION, Answer, Chat
from vlm_ops.steps.plan import Outputs, perform, plan
from vlm_ops.steps.table import steps_of
from vlm_ops.steps.work import Work
from vlm_ops.store.artifact import Artifact, read_record, write_record
from vlm_ops.store.jsonl import read_jsonl, write_jsonl
from vlm_ops.tracker import NullTracker

SFT = trained("sft", "a-sft")
PREFER = trained("prefer", "b-prefer")


class Notebook(NullTracker):
    """Remembers in which order it was told what."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Any]] = []
        self.numbers: dict[tuple[str | None, str], float] = {}
        self.tables: dict[str, Any] = {}
        self.kept: list[ModelRef] = []

    def metrics(self, values, step=None, model=None):  # type: ignore[no-untyped-def]
        self.said.append(("metrics", model))
        self.numbers.update({(model, key): value for key, value in values.items()})

    def model(self, name, model):  # type: ignore[no-untyped-def]
        self.said.append(("model", name))
        self.kept.append(model)
        return f"models:/m-{name}"

    def dataset(self, name, digest, context, rows, source):  # type: ignore[no-untyped-def]
        self.said.append(("dataset", (context, rows)))

    def file(self, path, folder=""):  # type: ignore[no-untyped-def]
        assert path.is_file()
        self.said.append(("file", path.name))

    def table(self, name, columns):  # type: ignore[no-untyped-def]
        self.tables[name] = columns


def stage(
    data: PreparedData, tracker: NullTracker | None = None, *more: str, **given: Artifact
) -> dict[str, Any]:
    """Take the steps of the stage as the pipeline takes them; return what each one left."""
    runs = data.folder.parent
    config = load_config(
        "demo",
        [f"execution.runs={runs}", "evaluate.batch_size=4", "evaluate.resamples=200", *more],
    )
    outputs: dict[str, Any] = {"prepare": data, "sft": SFT, "prefer": PREFER, **given}
    for name, told in (("choose", NullTracker()), ("evaluate", tracker or NullTracker())):
        for step in steps_of(name, config):
            outputs[step.name] = perform(plan(step.name, config, outputs), told)
    return outputs


def run(data: PreparedData, tracker: NullTracker | None = None) -> Evaluation:
    found = stage(data, tracker)["evaluate"]
    assert isinstance(found, Evaluation)
    return found


@pytest.fixture
def own(tmp_path: Path) -> PreparedData:
    return make_data(tmp_path / "prepare-0", {"train": 8, "validation": 20, "test": 60})


@pytest.fixture
def preferred_sees(models: Models) -> Models:
    """Models of which only the preferred one can see: so it is the candidate."""
    models.cannot_see = {None, "a-sft"}
    return models


def test_everything_is_measured_and_kept(own: PreparedData, preferred_sees: Models) -> None:
    tracker = Notebook()
    found = run(own, tracker)
    assert found.candidate == "preferred"
    assert found.model == PREFER.model
    assert found.validation == {"sft": 0.325, "preferred": 1.0}
    shares = {name: score.value for name, score in found.scores.items()}
    assert shares == {
        "base": pytest.approx(1 / 3),
        "sft": pytest.approx(1 / 3),
        "preferred": 1.0,
        "candidate": 1.0,
        "sft_gray": pytest.approx(1 / 3),
        "candidate_gray": pytest.approx(1 / 3),
        "candidate_swapped": pytest.approx(0.325),
        "majority": pytest.approx(1 / 2),
    }
    assert found.logged_models["candidate"] == "models:/m-candidate"
    # Models are kept before they are scored.
    kinds = [word for word, _ in tracker.said]
    assert max(i for i, word in enumerate(kinds) if word == "model") < kinds.index("metrics")
    assert tracker.numbers["candidate", "relaxed_accuracy"] == 1.0
    assert tracker.numbers["base", "by_kind/color"] == 0.0
    assert tracker.numbers[None, "majority/relaxed_accuracy"] == 0.5
    assert tracker.numbers[None, "validation/preferred/relaxed_accuracy"] == 1.0
    assert ("dataset", ("test", 120)) in tracker.said
    assert read_record(found.folder, Evaluation) == found


def test_each_model_is_asked_every_row_once_and_loaded_as_seldom_as_can_be(
    own: PreparedData, preferred_sees: Models
) -> None:
    run(own)
    assert preferred_sees.asked == 3 * 40 + 6 * 120
    loaded = [ref.adapter_sha256 for ref in preferred_sees.loaded]
    assert loaded == [None, "a-sft", "b-prefer", "a-sft", None]


def test_the_models_are_kept_with_the_prompt_that_they_were_asked_with(
    own: PreparedData, preferred_sees: Models
) -> None:
    prompt = {"prompt": "{question}\nBriefly."}
    sft, prefer = (
        adapter.model_copy(update={"base": adapter.base.model_copy(update=prompt)})
        for adapter in (SFT, PREFER)
    )
    tracker = Notebook()
    data = own.model_copy(update=prompt | {"around": BARE_QUESTION})
    found = stage(data, tracker, sft=sft, prefer=prefer)["evaluate"]
    assert found.model == prefer.model
    assert [model.prompt for model in tracker.kept] == [prompt["prompt"]] * 3
    asked = {question for seer in preferred_sees.seers.values() for question in seer.asked}
    assert asked == {f"{row.question}\nBriefly." for row in own.rows("test")}


def test_the_report_reads_well(own: PreparedData, preferred_sees: Models) -> None:
    found = run(own)
    text = (found.folder / "report.md").read_text(encoding="utf-8")
    assert "The candidate is the preferred model: 100.0 % on validation" in text
    assert "120 test rows about 60 images in 15 groups" in text
    assert "resample whole groups; 15 groups can show little, 20 or more would be good." in text
    assert "| candidate | chosen on validation | 100.0 % | 78.2 to 100.0 | 100.0 % |" in text
    assert "| color | 60 | 0.0 % | 0.0 % | 100.0 % | 100.0 % | 0.0 % | 0.0 % | 21.7 % |" in text
    assert "| test-table0 | 8 |" in text
    report = json.loads((found.folder / "report.json").read_text(encoding="utf-8"))
    assert set(report["models"]) == set(found.scores)
    assert len(report["models"]["sft"]["by_group"]) == 15
    gaps = {(gap["model"], gap["than"]): gap for gap in report["differences"]}
    assert gaps["candidate", "base"]["points"] == pytest.approx(2 / 3)
    assert gaps["candidate", "candidate_gray"]["low"] > 0.5
    assert report["protocol"] == found.protocol


def test_the_most_frequent_answers_are_kept_for_the_gate(own: PreparedData, models: Models) -> None:
    left = stage(own)
    found = left["evaluate"]
    kept = found.majority()
    assert [answer.id for answer in kept] == [row.id for row in own.rows("test")]
    share = sum(answer.relaxed for answer in kept) / len(kept)
    assert share == found.scores["majority"].value
    (found.folder / "majority.jsonl").unlink()
    assert found.completed({"choice": left["choose"]}) is None
    assert run(own).majority() == kept


def test_a_benchmark_that_chooses_is_asked_of_both_and_counts(
    own: PreparedData, preferred_sees: Models, tmp_path: Path
) -> None:
    told = {"name": "mine", "title": "Mine", "data": {"type": "files", "path": "rows.jsonl"}}
    (tmp_path / "mine.yaml").write_text(json.dumps(told))
    rows: dict[str, Any] = {"unseen rows of mine": make_data(tmp_path / "mine", {"test": 12})}
    tasks = f"validation.benchmarks=[{tmp_path / 'mine.yaml'}]"
    left = stage(own, None, tasks, **rows)
    assert [left[f"{who} on mine"].benchmark for who in ("sft", "preferred")] == ["mine"] * 2
    assert len(left["preferred on mine"].read()) == 24
    assert left["choose"].why.startswith("the candidate is the preferred model: weighted score 100")
    assert "; mine: 100.0 % and 33.3 %)" in left["choose"].why
    assert "(8 groups)" in left["choose"].why  # 5 of validation and 3 of the benchmark
    assert "sft on mine" not in stage(own, None, tasks, "stages=[sft]", **rows)


def test_the_report_compares_no_model_with_itself(own: PreparedData, models: Models) -> None:
    models.cannot_see = {None, "b-prefer"}
    found = run(own)
    assert found.candidate == "sft"
    report = json.loads((found.folder / "report.json").read_text(encoding="utf-8"))
    gaps = {(gap["model"], gap["than"]) for gap in report["differences"]}
    assert ("candidate", "sft") not in gaps
    assert {("sft", "sft_gray"), ("candidate", "candidate_gray")} <= gaps


def test_examples_have_pictures_and_every_kind(own: PreparedData, models: Models) -> None:
    tracker = Notebook()
    run(own, tracker)
    table = tracker.tables["answers.json"]
    assert len({len(column) for column in table.values()}) == 1
    assert all(isinstance(picture, Image.Image) for picture in table["image"])
    assert table["right"] == ["yes"] * 12
    assert set(table["kind"]) == {"color", "check"}
    assert "purple" in table["base"]


def test_the_showcase_is_an_image_that_only_seeing_answers(
    own: PreparedData, models: Models
) -> None:
    found = run(own)
    showcase = json.loads((found.folder / "showcase.json").read_text(encoding="utf-8"))
    assert showcase["kind"] == "color"
    assert showcase["answers"]["candidate"] in showcase["expected"]
    assert showcase["answers"]["base"] == "purple"
    assert showcase["answers"]["majority"] not in showcase["expected"]
    with Image.open(found.folder / showcase["image"]) as picture:
        assert picture.width in (8, 12)


def test_a_preferred_model_that_lost_on_validation_is_not_the_candidate(
    own: PreparedData, models: Models
) -> None:
    models.cannot_see = {None, "b-prefer"}
    left = stage(own)
    found = left["evaluate"]
    assert found.candidate == "sft"
    assert found.model == SFT.model
    assert found.why == (
        "the candidate is the sft model, the preferred one is not shown to be better: 32.5 % on "
        "validation against sft's 100.0 %: -67.5 points, which luck alone gives in 100.0 % of "
        "cases (5 groups); 5.0 % are allowed"
    )
    # The candidate is sft: nothing is asked twice.
    assert left["candidate on test"] == left["sft on test"]
    assert left["candidate on gray"] == left["sft on gray"]
    assert models.asked == 3 * 40 + 5 * 120
    assert len(models.seers[PREFER.model.content].asked) == 40 + 120


def test_no_showcase_without_a_gain(own: PreparedData, models: Models) -> None:
    before = run(own)
    assert (before.folder / "showcase.json").exists()
    for pattern in ("answers-*", "evaluate-*"):
        for folder in own.folder.parent.glob(pattern):
            (folder / "record.json").unlink()
    models.seers = {SFT.base.content: Seer(sees=True)}
    found = run(own)
    assert not (found.folder / "showcase.json").exists()


def test_the_same_evaluation_again_asks_nothing(own: PreparedData, models: Models) -> None:
    first = run(own)
    models.seers.clear()
    models.loaded.clear()
    assert run(own) == first
    assert models.asked == 0
    assert models.loaded == []


def test_answers_that_are_gone_are_asked_again_and_nothing_else(
    own: PreparedData, models: Models
) -> None:
    first = stage(own)
    (first["base on test"].folder / "record.json").unlink()
    models.seers.clear()
    assert run(own) == first["evaluate"]
    assert {content: len(seer.asked) for content, seer in models.seers.items()} == {
        SFT.base.content: 120
    }


def test_without_training_rows_there_is_no_baseline(own: PreparedData, models: Models) -> None:
    write_jsonl(own.folder / "train.jsonl", [])
    with pytest.raises(DataError, match="majority baseline needs training rows, found none"):
        run(own)


def test_every_plan_survives_the_way_to_another_process(
    own: PreparedData, models: Models, tmp_path: Path
) -> None:
    adapters: dict[str, Any] = {
        adapter.stage: adapter.model_copy(update={"folder": tmp_path / adapter.stage})
        for adapter in (SFT, PREFER)
    }
    for artifact in (own, *adapters.values()):
        artifact.folder.mkdir(exist_ok=True)
        write_record(artifact)
    outputs: Outputs = stage(own, **adapters)
    config = load_config("demo", [f"execution.runs={tmp_path}"])
    for step in steps_of("choose") + steps_of("evaluate"):
        work = Work((step.name,), config, outputs)
        there = Work.from_request(json.loads(json.dumps(work.request())))
        assert there.first() == work.first()
    assert isinstance(outputs["base on test"], AnswerSet)


class Told(Notebook):
    """Remembers labels too."""

    def __init__(self) -> None:
        super().__init__()
        self.labels: dict[str, str] = {}

    def tags(self, values: Any) -> None:
        self.labels |= values


def test_report_tracker_and_record_name_them_first(
    own: PreparedData, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sft model says one word; the preferred one is right and never stops."""
    models.cannot_see = {None}
    right = models.replies

    def replies(model: Any, chats: Sequence[Chat], *given: Any, **how: Any) -> list[Reply]:
        said = right(model, chats, *given, **how)
        if model.ref.adapter_sha256 == "a-sft":
            return [Reply(text="no")] * len(said)
        if model.ref.adapter_sha256 == "b-prefer":
            return [Reply(text=one.text, cut_off=True) for one in said]
        return said

    monkeypatch.setattr("vlm_ops.models.generation.replies", replies)
    told = Told()
    found = stage(own, told)
    evaluation = found["evaluate"]
    same, endless = evaluation.warnings
    rows = len(own.rows("test"))
    assert same.startswith(f"all {rows} answers of sft are the same, 'no', ")
    # The candidate is the preferred model: said once, under its first name.
    assert endless.startswith(f"{rows} of {rows} answers of preferred do not end by themselves")
    assert told.labels["notices"].split("\n") == [same, endless]
    report = (evaluation.folder / "report.md").read_text()
    _, first, second, why, *_ = report.split("\n\n")
    assert first.startswith(f"**To be looked at:** All {rows} answers of sft are the same")
    assert second.startswith(f"**To be looked at:** {rows} of {rows} answers of preferred")
    assert why.startswith("The candidate is")
    counts = ", ".join(f"{name} {rows} of {rows}" for name in ("preferred", "candidate"))
    assert f"Answers cut off by `evaluate.max_new_tokens`: {counts}" in report
    assert json.loads((evaluation.folder / "report.json").read_text())["notices"] == [same, endless]
    kept = read_jsonl(found["preferred on test"].folder / ANSWERS, Answer)
    assert all(answer.cut_off for answer in kept)
    # A trial reads them off the validation rows.
    assert [said.split(" are the same")[0] for said in found["validation"].warnings][:1] == [
        f"all {len(own.rows('validation'))} answers of sft"
    ]


def test_a_run_in_which_nothing_went_wrong_says_nothing(own: PreparedData, models: Models) -> None:
    models.cannot_see = set()
    told = Told()
    found = stage(own, told)
    assert found["evaluate"].warnings == found["validation"].warnings == ()
    assert "notices" not in told.labels
    report = (found["evaluate"].folder / "report.md").read_text()
    assert "To be looked at" not in report
    assert "cut off" not in report
