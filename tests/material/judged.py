"""A run without models: real steps on what was said, which the tests say."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vlm_ops.artifacts import ANSWERS, AnswerSet, Choice, ModelRef, PreparedData
from vlm_ops.config.load import load_config
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.config.sections import ModelSettings
from vlm_ops.evaluation.evaluate import evaluate
from vlm_ops.evaluation.gate import gate
from vlm_ops.evaluation.judging import judge
from vlm_ops.evaluation.metrics import relaxed_match
from vlm_ops.records import Against, Look, Row, Split
from vlm_ops.reporting.run import Run
from vlm_ops.steps.table import STEPS
from vlm_ops.store.jsonl import write_jsonl
from vlm_ops.tracker import NullTracker

Says = Callable[[Row], str]
BASE = ModelRef(settings=ModelSettings(), base_sha256="b" * 64)


def right(row: Row) -> str:
    return row.answers[0]


def wrong(row: Row) -> str:
    return "no idea"


def counts(row: Row) -> str:
    """Right where it is about a number, and wrong about colors."""
    return row.answers[0] if row.kind == "count" else "Purple"


def sees_color(row: Row) -> str:
    return row.answers[0] if row.kind == "color" else "7"


class Maker:
    """Makes the outputs of a run in a folder."""

    def __init__(self, folder: Path, data: PreparedData) -> None:
        self.folder, self.data = folder, data
        self.config: PipelineConfig = load_config("demo", ["evaluate.resamples=200"])

    def answers(self, says: Says, model: ModelRef, split: Split = "test", **how: bool) -> AnswerSet:
        """What a model says to a split."""
        out = self.folder / f"answers-{len(list(self.folder.glob('answers-*')))}"
        out.mkdir(parents=True)
        rows = self.data.rows(split)
        write_jsonl(out / ANSWERS, judge(rows, [says(row) for row in rows]))
        share = sum(relaxed_match(says(row), row.answers) for row in rows) / len(rows)
        return AnswerSet(
            folder=out, content=out.name, model=model.content, protocol=f"{split} rows",
            split=split, **{"gray": False} | how, value=share,
        )  # fmt: skip

    def promotion(self, *, candidate: Says = right, champion: Says | None = counts) -> Run:
        """A run whose candidate was judged, by the steps themselves."""
        model = BASE.model_copy(update={"adapter": Path("a"), "adapter_sha256": "a" * 64})
        former = BASE.model_copy(update={"adapter": Path("c"), "adapter_sha256": "c" * 64})
        said = {
            "candidate on test": self.answers(candidate, model),
            "candidate on gray": self.answers(wrong, model, gray=True),
            "candidate on swapped": self.answers(counts, model, swapped=True),
            "sft on test": self.answers(candidate, model),
            "base on test": self.answers(wrong, BASE),
        }
        if champion is not None:
            said["champion on test"] = self.answers(champion, former)
        choice = self.choice(model)
        evaluation = evaluate(
            self.job("evaluate"), data=self.data, choice=choice, out=self._folder("evaluate"),
            tracker=NullTracker(), **_taken("evaluate", said),
        )  # fmt: skip
        decision = gate(
            self.job("gate"), evaluation=evaluation, out=self._folder("gate"),
            against=Against(version="2" if champion else None, look=Look(number=1, position=1.0)),
            tracker=NullTracker(), **_taken("gate", said),
        )  # fmt: skip
        left = {"prepare": self.data, "choose": choice, **said, "evaluate": evaluation,
                "gate": decision}  # fmt: skip
        return self.run(left, version="3")

    def trial(self) -> Run:
        """A run that did not read the test rows."""
        model = BASE.model_copy(update={"adapter": Path("a"), "adapter_sha256": "a" * 64})
        left = {
            "prepare": self.data,
            "base on validation": self.answers(wrong, BASE, "validation"),
            "sft on validation": self.answers(right, model, "validation"),
            "choose": self.choice(model),
        }
        return self.run(left)

    def job(self, step: str) -> Any:
        return STEPS[step].job(self.config)

    def choice(self, model: ModelRef) -> Choice:
        return Choice(
            folder=self._folder("choose"), content="choice", candidate="sft",
            why="it is the only one", validation={"sft": 1.0}, model=model,
        )  # fmt: skip

    def run(self, outputs: Mapping[str, Any], version: str | None = None) -> Run:
        return Run(
            config=self.config, outputs=outputs, outcome="as it came", version=version,
            notices=("two rows were refused",), about="demo.yaml", git_commit="c0ffee" * 6,
            links={"This run in MLflow": "http://localhost:5000/#/experiments/1/runs/2"},
        )  # fmt: skip

    def _folder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _taken(step: str, said: Mapping[str, AnswerSet]) -> dict[str, Any]:
    """What a step takes of the answers that there are."""
    needs = STEPS[step].inputs
    return {key: said[need.step] for key, need in needs.items() if need.step in said}
