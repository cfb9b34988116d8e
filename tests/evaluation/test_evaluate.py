import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from squares import Seer, judged, make_data, trained

from vlm_ops.artifacts import Evaluation, ModelRef, PreparedData
from vlm_ops.config.pipeline import EvaluateJob
from vlm_ops.config.sections import EvaluateSettings
from vlm_ops.evaluation.evaluate import choose, evaluate
from vlm_ops.evaluation.statistics import score
from vlm_ops.store.artifact import read_record, write_record
from vlm_ops.tracker import NullTracker

SFT = trained("sft", "a-sft")
PREFER = trained("prefer", "b-prefer")


class Notebook(NullTracker):
    """Remembers in which order it was told what."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Any]] = []
        self.numbers: dict[tuple[str | None, str], float] = {}
        self.tables: dict[str, Any] = {}

    def metrics(self, values, step=None, model=None):  # type: ignore[no-untyped-def]
        self.said.append(("metrics", model))
        self.numbers.update({(model, key): value for key, value in values.items()})

    def model(self, name, model):  # type: ignore[no-untyped-def]
        self.said.append(("model", name))
        return f"models:/m-{name}"

    def dataset(self, name, digest, context, rows, source):  # type: ignore[no-untyped-def]
        self.said.append(("dataset", (context, rows)))

    def file(self, path, folder=""):  # type: ignore[no-untyped-def]
        assert path.is_file()
        self.said.append(("file", path.name))

    def table(self, name, columns):  # type: ignore[no-untyped-def]
        self.tables[name] = columns


class Models:
    """Opens models of which the base, and perhaps the preference model, can't see."""

    def __init__(self, prefer_sees: bool = True, base_sees: bool = False) -> None:
        self.sees = {None: base_sees, "a-sft": True, "b-prefer": prefer_sees}
        self.opened: list[Seer] = []

    def __call__(self, ref: ModelRef) -> Seer:
        self.opened.append(Seer(ref.content, sees=self.sees[ref.adapter_sha256]))
        return self.opened[-1]


def run(data: PreparedData, models: Models, tracker: NullTracker | None = None) -> Evaluation:
    out = data.folder.parent / "evaluate-0"
    out.mkdir(exist_ok=True)
    job = EvaluateJob(
        seed=0,
        evaluate=EvaluateSettings(batch_size=4, resamples=200),
        max_loss_on_validation=0.01,
    )
    return evaluate(
        job,
        data=data,
        sft=SFT,
        prefer=PREFER,
        out=out,
        tracker=tracker or NullTracker(),
        open_model=models,
    )


@pytest.fixture
def own(tmp_path: Path) -> PreparedData:
    return make_data(tmp_path / "prepare-0", {"train": 8, "validation": 6, "test": 60})


def test_everything_is_measured_and_kept(own: PreparedData) -> None:
    tracker, models = Notebook(), Models()
    found = run(own, models, tracker)
    assert found.candidate == "prefer"
    assert found.model == PREFER.model
    assert found.validation == {"sft": 1.0, "prefer": 1.0}
    shares = {name: score.relaxed_accuracy for name, score in found.scores.items()}
    assert shares == {
        "base": pytest.approx(1 / 3),
        "sft": 1.0,
        "candidate": 1.0,
        "blind": pytest.approx(1 / 3),
        "candidate_gray": pytest.approx(1 / 3),
        "majority": pytest.approx(1 / 2),
    }
    assert found.logged_models["candidate"] == "models:/m-candidate"
    assert all(found.answer_folder(name).is_dir() for name in found.scores)
    # Models are kept before they are scored; each is asked every row once.
    kinds = [word for word, _ in tracker.said]
    assert max(i for i, word in enumerate(kinds) if word == "model") < kinds.index("metrics")
    assert tracker.numbers["candidate", "relaxed_accuracy"] == 1.0
    assert tracker.numbers["base", "by_kind/color"] == 0.0
    assert tracker.numbers[None, "majority/relaxed_accuracy"] == 0.5
    assert tracker.numbers[None, "validation/prefer/relaxed_accuracy"] == 1.0
    assert ("dataset", ("test", 120)) in tracker.said
    assert sum(len(seer.asked) for seer in models.opened) == 2 * 12 + 5 * 120
    assert all(seer.closed == 1 for seer in models.opened)
    write_record(found)
    assert read_record(found.folder, Evaluation) == found


def test_the_models_are_kept_with_the_prompt_that_the_rows_were_asked_with(
    own: PreparedData,
) -> None:
    kept: list[ModelRef] = []

    class Keeper(NullTracker):
        def model(self, name: str, model: ModelRef) -> None:
            kept.append(model)

    models = Models()
    prompt = "{question}\nBriefly."
    found = run(own.model_copy(update={"prompt": prompt}), models, Keeper())
    assert found.model == PREFER.model.model_copy(update={"prompt": prompt})
    assert [model.prompt for model in kept] == [prompt] * 3
    # The rows hold the prompt already: they are asked as they are.
    asked = {question for seer in models.opened for question in seer.asked}
    assert asked == {row.question for row in own.rows("test")}


def test_the_report_reads_well(own: PreparedData) -> None:
    found = run(own, Models())
    text = (found.folder / "report.md").read_text(encoding="utf-8")
    assert "Prefer goes on as the candidate: 100.0 % on validation" in text
    assert "120 test rows on 60 charts of 15 tables" in text
    assert "| candidate | chosen on validation | 100.0 % | 94.0 to 100.0 | 100.0 % |" in text
    assert "| color | 60 | 0.0 % | 100.0 % | 100.0 % | 0.0 % | 0.0 % | 33.3 % |" in text
    assert "| test-table0 | 8 |" in text
    report = json.loads((found.folder / "report.json").read_text(encoding="utf-8"))
    assert set(report["models"]) == set(found.scores)
    assert len(report["models"]["sft"]["by_group"]) == 15
    gaps = {(gap["model"], gap["than"]): gap for gap in report["differences"]}
    assert gaps["candidate", "base"]["points"] == pytest.approx(2 / 3)
    assert gaps["candidate", "candidate_gray"]["low"] > 0.5
    assert report["protocol"] == found.protocol


def test_examples_have_pictures_and_every_kind(own: PreparedData) -> None:
    tracker = Notebook()
    run(own, Models(), tracker)
    table = tracker.tables["answers.json"]
    assert len({len(column) for column in table.values()}) == 1
    assert all(isinstance(picture, Image.Image) for picture in table["image"])
    assert table["right"] == ["yes"] * 12
    assert set(table["kind"]) == {"color", "check"}
    assert "purple" in table["base"]


def test_the_showcase_is_a_chart_that_only_seeing_answers(own: PreparedData) -> None:
    found = run(own, Models())
    showcase = json.loads((found.folder / "showcase.json").read_text(encoding="utf-8"))
    assert showcase["kind"] == "color"
    assert showcase["answers"]["candidate"] in showcase["expected"]
    assert showcase["answers"]["base"] == "purple"
    assert showcase["answers"]["majority"] not in showcase["expected"]
    with Image.open(found.folder / showcase["image"]) as picture:
        assert picture.width in (8, 12)


def test_a_preference_model_that_lost_on_validation_does_not_go_on(own: PreparedData) -> None:
    models = Models(prefer_sees=False)
    found = run(own, models)
    assert found.candidate == "sft"
    assert found.model == SFT.model
    assert found.why == (
        "sft goes on as the candidate, prefer lost too much: 33.3 % on validation against "
        "sft's 100.0 %: -66.7 points; a loss of up to 1.0 is allowed"
    )
    # The candidate is sft: nothing is asked twice, and prefer never sees the test rows.
    assert found.answers["candidate"] == found.answers["sft"]
    assert found.answers["candidate_gray"] == found.answers["blind"]
    assert sum(len(seer.asked) for seer in models.opened) == 2 * 12 + 3 * 120


def test_no_showcase_without_a_gain(own: PreparedData) -> None:
    run(own, Models())
    for folder in own.folder.parent.glob("answers-*"):
        for path in folder.iterdir():
            path.unlink()
    found = run(own, Models(base_sees=True))
    assert not (found.folder / "showcase.json").exists()


def test_the_same_evaluation_again_asks_nothing(own: PreparedData) -> None:
    first = run(own, Models())
    models = Models()
    assert run(own, models) == first
    assert [seer.asked for seer in models.opened] == [[]] * len(models.opened)


@pytest.mark.parametrize(("wrong", "stage"), [(0, "prefer"), (1, "prefer"), (2, "sft")])
def test_the_allowed_loss_is_inclusive(wrong: int, stage: str) -> None:
    sft = score(judged([True] * 100), 200, seed=0)
    prefer = score(judged([True] * (100 - wrong) + [False] * wrong), 200, seed=0)
    chosen, why = choose({"sft": sft, "prefer": prefer}, SFT, PREFER, 0.01)
    assert chosen.stage == stage
    assert why.startswith(f"{stage} goes on")
