"""A page as it is shown: its parts, and the one file of HTML that they become."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vlm_ops.evaluation import words
from vlm_ops.records import Difference, Score
from vlm_ops.reporting.changes import Change, changes
from vlm_ops.reporting.drawing import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart
from vlm_ops.reporting.pictures import Album
from vlm_ops.reporting.results import Results

_TEMPLATE = "page.html.jinja"


@dataclass(frozen=True)
class Bar:
    """A score as a bar with its interval.

    Attributes:
        value: Within the metric's range.
        low: Lower end of the 95 % interval.
        high: Upper end.
        n: Rows.
        said: The number and its interval.
        beside: What stands beside them.
    """

    value: float
    low: float
    high: float
    n: int
    said: str
    beside: str


@dataclass(frozen=True)
class Section:
    """One benchmark.

    Attributes:
        name: Of the benchmark.
        about: How many rows, and what is counted.
        scores: By model.
        meaning: What each model is.
        differences: Of the model in question to others.
        kinds: By kind and model; empty where all rows are of one kind.
        ours: The model in question.
        theirs: The model that ``changes`` compare it with; None where there is no other.
        changes: Rows won, lost, and wrong in both.
        least: Where the metric's range begins.
        width: How wide it is.
    """

    name: str
    about: str
    scores: Mapping[str, Bar]
    meaning: Mapping[str, str]
    differences: tuple[Difference, ...]
    kinds: Mapping[str, Mapping[str, Bar]]
    ours: str
    theirs: str | None
    changes: tuple[Change, ...]
    least: float
    width: float


@dataclass(frozen=True)
class Table:
    """Rows of text under a head."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Page:
    """All that a page shows, in its order.

    Attributes:
        title: Of the page.
        about: One line below it.
        word: The verdict in one word.
        good: Whether it is good news; None where it is none.
        outcome: The verdict in a sentence.
        reasons: Each with the word before its colon apart.
        notices: What is to be known before the scores are read.
        links: Addresses by what they lead to.
        sections: By benchmark.
        charts: Curves of the trainings.
        tables: Data, looks, steps, by the heading above them.
        commands: What makes the same again.
        files: Texts that the commands need, by name.
    """

    title: str
    about: str
    word: str
    good: bool | None
    outcome: str
    reasons: tuple[tuple[str, str], ...]
    notices: tuple[str, ...]
    links: Mapping[str, str]
    sections: tuple[Section, ...]
    charts: tuple[Chart, ...]
    tables: Mapping[str, tuple[Table, ...]]
    commands: tuple[str, ...]
    files: Mapping[str, str]


def section(
    name: str, results: Results, meaning: Mapping[str, str], theirs: str | None, album: Album
) -> Section:
    """Measure a benchmark for the page.

    Args:
        name: Of the benchmark.
        results: Answers by model; the first one is the model in question.
        meaning: What each model is, in words.
        theirs: The model against which rows are won and lost; None where there is no other.
        album: Gets the pictures.

    Raises:
        DataError: Two models did not answer the same rows.
    """
    ours = next(iter(results.answers))
    scores = {model: results.score(model) for model in results.answers}
    whole, metric = scores[ours], results.metric
    by_kind = {model: results.by_kind(model) for model in (ours, theirs) if model}
    kinds = {
        kind: {model: _bar(found[kind]) for model, found in by_kind.items()}
        for kind in by_kind[ours]
        if all(kind in found for found in by_kind.values())  # no F1 where a model says no "yes"
    }
    return Section(
        name=name,
        about=f"{words.plain(metric.name)}: {whole.n:,} rows about {whole.n_images:,} images in "
        f"{words.groups(whole.n_groups)}; intervals hold 95 % and resample whole groups"
        f"{words.few_groups(whole.n_groups)}",
        scores={model: _bar(score) for model, score in scores.items()},
        meaning=meaning,
        differences=tuple(
            results.difference(ours, model) for model in results.answers if model != ours
        ),
        kinds=kinds if len(kinds) > 1 else {},
        ours=ours,
        theirs=theirs,
        changes=() if theirs is None else changes(results, ours, theirs, album),
        least=metric.low,
        width=metric.high - metric.low,
    )


def _bar(score: Score) -> Bar:
    said = f"{words.scored(score.value, score.metric)} ({words.spread(score)})"
    told = (f"{name} {number}" for name, number in words.beside(score).items())
    beside = ", ".join(text.replace(" ", "\N{NO-BREAK SPACE}") for text in told)
    return Bar(score.value, score.low, score.high, score.n, said, beside)


def render(page: Page) -> str:
    """Write a page as one file of HTML, which loads nothing and runs nothing.

    Whatever stands in it is escaped: models, rows and settings may hold any text.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"along": _along, "signed": words.signed, "sentence": words.sentence}
    frame = {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "top": TOP,
        "bottom": HEIGHT - BOTTOM,
    }
    return environment.get_template(_TEMPLATE).render(page=page, frame=frame)


def _along(value: float, least: float, width: float) -> float:
    """Return where a value lies in a range, in percent of its width."""
    return round(100 * (value - least) / width, 2)
