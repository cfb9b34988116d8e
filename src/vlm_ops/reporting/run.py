"""The page of a run: what its candidate came to, and all that led there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from vlm_ops.artifacts import AnswerSet, Choice, Evaluation, PreparedData, TrainedAdapter
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.evaluation.decision import GateDecision
from vlm_ops.evaluation.measured import majority
from vlm_ops.evaluation.metrics import find
from vlm_ops.evaluation.words import percent
from vlm_ops.records import Answer, Split
from vlm_ops.registry.rows_since import RowsSince
from vlm_ops.reporting.curves import curves
from vlm_ops.reporting.page import Page, Section, Table, section
from vlm_ops.reporting.pictures import Album
from vlm_ops.reporting.results import Results
from vlm_ops.reporting.tables import changed_rows, settings
from vlm_ops.steps.benchmarks import asked_step, unseen_rows
from vlm_ops.steps.provenance import PEAK
from vlm_ops.store.artifact import Artifact
from vlm_ops.store.fingerprint import SHORT

A = TypeVar("A", bound=Artifact)

_FILE = "run.yaml"
_HEADS = ("refused", "accepted", "passed", "not asked", "power")

_MODELS = {
    "champion": ("champion on {}", "in use when this was judged"),
    "preferred": ("preferred on {}", "after preference optimization"),
    "sft": ("sft on {}", "after supervised fine-tuning"),
    "base": ("base on {}", "before training"),
    "candidate_gray": ("candidate on gray", "the candidate on gray images"),
    "candidate_swapped": ("candidate on swapped", "the candidate on other rows' images"),
    "sft_gray": ("sft on gray", "the sft model on gray images"),
}
"""The step with a model's answers, and what it is, in the order of the page."""


@dataclass(frozen=True)
class Run:
    """What is known of a run when its facts are there.

    Attributes:
        config: What was asked for.
        outputs: What its steps left, by step.
        outcome: What the run came to, in words.
        said: Why, in words, where no gate gave reasons.
        notices: What is to be known before the scores are read.
        about: When and where it ran, one line.
        version: Of the candidate in the registry; None in a trial.
        rows: What changed in them since the champion's; None without one.
        git_commit: Of the code, if known.
        links: Addresses of its pages by what they are.
    """

    config: PipelineConfig
    outputs: Mapping[str, Any]
    outcome: str
    said: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    about: str = ""
    version: str | None = None
    rows: RowsSince | None = None
    git_commit: str | None = None
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def decision(self) -> GateDecision | None:
        """The gate's; None in a trial."""
        found = self.outputs.get("gate")
        return found if isinstance(found, GateDecision) else None


def run_page(run: Run) -> Page:
    """Gather what the page of a run shows.

    Args:
        run: A trial, or a run whose candidate was judged.

    Raises:
        DataError: Rows or answers of the run are gone.
    """
    decision, album = run.decision, Album()
    split: Split = "validation" if decision is None else "test"
    results, meaning = _results(run, split)
    every = {f"{split} rows": results, **_benchmarks(run)}
    name = run.config.registered_model
    return Page(
        title=f"{name}, a trial" if run.version is None else f"{name}, version {run.version}",
        about=run.about,
        word="trial" if decision is None else decision.verdict.word,
        good=None if decision is None else decision.verdict.accepted,
        outcome=run.outcome,
        reasons=tuple(_reason(text) for text in _reasons(run)),
        notices=run.notices,
        links=run.links,
        sections=tuple(_section(name, found, meaning, album) for name, found in every.items()),
        charts=tuple(
            chart
            for step in ("sft", "prefer")
            if isinstance(trained := run.outputs.get(step), TrainedAdapter)
            for chart in curves(trained)
        ),
        tables={
            "Data": tuple(_data(run)),
            **({"Looks at the test rows": (_looks(decision),)} if decision is not None else {}),
            "Time and memory": (_steps(run),),
            "Versions and seeds": (_versions(run),),
        },
        commands=tuple(_commands(run)),
        files={_FILE: settings(run.config)},
    )


def _section(name: str, found: Results, meaning: Mapping[str, str], album: Album) -> Section:
    models = list(found.answers)
    rivals = (model for model in ("champion", "base", *models[1:]) if model in found.answers)
    theirs = next(rivals, None)
    return section(name, found, {model: meaning.get(model, "") for model in models}, theirs, album)


def _results(run: Run, split: Split) -> tuple[Results, dict[str, str]]:
    """Return what the run's models said to a split, and what each of them is."""
    choice, data = _output(run, Choice, "choose"), _output(run, PreparedData, "prepare")
    chosen = "candidate on test" if split == "test" else f"{choice.candidate} on validation"
    candidate = _output(run, AnswerSet, chosen).read()
    answers: dict[str, list[Answer]] = {"candidate": candidate}
    meaning = {"candidate": f"the {choice.candidate} model, chosen on validation"}
    for name, (step, what) in _MODELS.items():
        found = run.outputs.get(step.format(split))
        beside = split == "test" or "{}" in step
        same = name == choice.candidate or name.partition("_")[0] == choice.candidate
        if isinstance(found, AnswerSet) and beside and not same:
            answers[name], meaning[name] = found.read(), what
    rows = {row.id: row for row in data.rows(split)}
    asked = [rows[answer.id] for answer in candidate]
    evaluation = run.outputs.get("evaluate")
    guessed = (
        evaluation.majority()
        if isinstance(evaluation, Evaluation)
        else majority(data.rows("train"), asked, find(run.config.evaluate.metric))
    )
    answers["majority"] = list(guessed)
    meaning["majority"] = "the most frequent training answer of each kind"
    scoring, seed = run.config.evaluate, run.config.seed
    metric = find(scoring.metric)
    return Results(answers, rows, data.image_path, scoring.resamples, seed, metric), meaning


def _benchmarks(run: Run) -> dict[str, Results]:
    """Return what the run's models said to each benchmark, the candidate first; none in a trial."""
    found: dict[str, Results] = {}
    resamples, seed = run.config.evaluate.resamples, run.config.seed
    same = _output(run, Choice, "choose").candidate
    models = [one for one in ("candidate", "champion", "preferred", "sft", "base") if one != same]
    for one in run.config.benchmarks:
        rows = run.outputs.get(unseen_rows(one.name))
        steps = {model: asked_step(model, one.name) for model in models}
        steps["candidate_gray"] = asked_step("candidate", one.name, gray=True)
        said = {
            model: answers.read()
            for model, step in steps.items()
            if isinstance(answers := run.outputs.get(step), AnswerSet)
        }
        if isinstance(rows, PreparedData) and said:
            by_id, metric = {row.id: row for row in rows.rows("test")}, find(one.metric)
            found[one.name] = Results(said, by_id, rows.image_path, resamples, seed, metric)
    return found


def _reasons(run: Run) -> Iterator[str]:
    if run.decision is not None:
        yield from run.decision.verdict.reasons
    yield from run.said


def _reason(text: str) -> tuple[str, str]:
    head, colon, rest = text.partition(": ")
    return (head, rest) if colon and head in _HEADS else ("", text)


def _data(run: Run) -> Iterator[Table]:
    data = _output(run, PreparedData, "prepare")
    splits = data.splits
    kinds = sorted({kind for one in splits.values() for kind in one.kinds})
    counted = (
        ("rows", *(f"{one.rows:,}" for one in splits.values())),
        ("images", *(f"{one.images:,}" for one in splits.values())),
        ("groups", *(f"{one.groups:,}" for one in splits.values())),
        *(
            (f"rows of kind {kind}", *(f"{one.kinds.get(kind, 0):,}" for one in splits.values()))
            for kind in kinds
        ),
    )
    refused = f"; {data.refused:,} rows can't be used and are left out" if data.refused else ""
    yield Table(f"{data.source}{refused}", ("", *splits), counted)
    if run.rows is not None:
        yield changed_rows(run.rows.title, run.rows)


def _looks(decision: GateDecision) -> Table:
    look = decision.look
    told = {
        "look at these test groups": "not counted" if look is None else f"{look.number}",
        "position among the looks": "" if look is None else f"{look.position:.2f}",
        "chance that luck may have at this look": ""
        if decision.level is None
        else f"{decision.level:.2g}",
        "chance that a gain of 4 points is seen": ""
        if decision.power is None
        else percent(decision.power),
        "judged against": "no champion"
        if decision.champion is None
        else f"version {decision.champion_version}",
    }
    return Table("", (), tuple((what, text) for what, text in told.items() if text))


def _steps(run: Run) -> Table:
    left = {name: one for name, one in run.outputs.items() if isinstance(one, Artifact)}
    folders = {one.folder: one for one in left.values()}  # two names may mean one model
    names = {
        folder: ", ".join(name for name, one in left.items() if one.folder == folder)
        for folder in folders
    }
    rows = [
        (names[folder], f"{one.seconds:,.1f}", one.computed.get(PEAK, ""), folder.name)
        for folder, one in folders.items()
    ]
    total = sum(one.seconds for one in folders.values())
    return Table(
        "As taken when each step ran; a step that is found again takes no time",
        ("step", "seconds", "GB at most", "folder"),
        (*rows, ("all", f"{total:,.1f}", "", "")),
        note="GB at most: the most memory that the step's process had held by its end, on a GPU "
        "where there is one.",
    )


def _versions(run: Run) -> Table:
    trained = run.outputs.get("sft") or run.outputs.get("prefer")
    choice, data = _output(run, Choice, "choose"), _output(run, PreparedData, "prepare")
    told: dict[str, str] = {
        "seed": str(run.config.seed),
        "git commit": run.git_commit or "not known",
        "base": f"{choice.model.settings.id}, content {choice.model.base_sha256[:SHORT]}",
        "candidate": choice.model.content[:SHORT],
        "rows": data.content[:SHORT],
    }
    if isinstance(trained, TrainedAdapter):
        told |= {"trained by": f"engine {trained.engine}"}
        told |= {name: text for name, text in trained.computed.items() if name != PEAK}
    return Table("", (), tuple(told.items()))


def _commands(run: Run) -> Iterator[str]:
    if run.git_commit is not None:
        yield f"git checkout {run.git_commit}"
    yield f"# {_FILE} is the file below"
    yield f"vlm-ops run {_FILE}" + ("" if run.version is None else " --promote")


def _output(run: Run, kind: type[A], step: str) -> A:
    found = run.outputs[step]
    assert isinstance(found, kind)
    return found
