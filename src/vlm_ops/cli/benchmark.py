"""``benchmark``: any model on benchmarks, outside a pipeline."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.markup import escape
from rich.table import Table

from vlm_ops.cli.console import out, print_json, progress
from vlm_ops.cli.predict import Dtype, Quantization
from vlm_ops.cli.run import AsJson, Overrides, Runs
from vlm_ops.config.names import registered_name
from vlm_ops.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vlm_ops.artifacts import AnswerSet, ModelRef
    from vlm_ops.config.benchmark import BenchmarkSettings
    from vlm_ops.config.pipeline import PipelineConfig
    from vlm_ops.evaluation.benchmarked import BenchmarkResult
    from vlm_ops.scores import Score

_MODEL, _GRAY = "model", "gray"

Name = Annotated[
    str | None,
    typer.Argument(help="models:/demo@champion, models:/demo/3, tiny, a hub id, a folder."),
]
Names = Annotated[
    list[str] | None, typer.Argument(help="Of benchmarks, or YAML files of your own (--list).")
]
MaxRows = Annotated[
    int | None, typer.Option(min=1, help="Ask at most this many rows of each, whole images.")
]
Gray = Annotated[bool, typer.Option("--gray", help="Ask each on gray images as well.")]
Listing = Annotated[bool, typer.Option("--list", help="Say which benchmarks there are.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Rows at once.")]


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(benchmark)


def benchmark(
    model: Name = None,
    names: Names = None,
    gray: Gray = False,
    max_rows: MaxRows = None,
    overrides: Overrides = [],  # noqa: B006
    batch_size: BatchSize = 32,
    quantization: Quantization = None,
    dtype: Dtype = None,
    listing: Listing = False,
    runs: Runs = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """Measure a model on benchmarks, each with a 95 % interval; what was asked is kept in runs.

    --set changes a setting of every benchmark that is named, as --set max_new_tokens=32.

    Example: vlm-ops benchmark models:/demo@champion charts chart-yesno --gray
    """
    if listing:
        _list(as_json)
        return
    if model is None or not names:
        raise ConfigError(
            "expected a model and benchmarks, as in: vlm-ops benchmark tiny charts; "
            "vlm-ops benchmark --list says which there are"
        )
    from vlm_ops.config.benchmarks import load_benchmarks
    from vlm_ops.config.pipeline import PipelineConfig

    registered_name(model)
    rows = () if max_rows is None else (f"max_rows={max_rows}",)
    asked = load_benchmarks(names, (*overrides, *rows))
    _check_metrics(asked)
    place = {"runs": runs.resolve()}
    config = PipelineConfig.model_validate(
        {"name": "benchmark", "execution": place, "evaluate": {"batch_size": batch_size}}
    )
    with progress():
        from transformers.utils import logging as library

        from vlm_ops.ask import find

        library.disable_progress_bar()
        ref = find(model, runs=runs, quantization=quantization, dtype=dtype)
        found = _ask(model, ref, asked, config, gray)
    if as_json:
        print_json({"model": model, "benchmarks": [one.plain() for one in found]})
    else:
        _tell(found)


class _Found(NamedTuple):
    """What a benchmark came to: scores of the model, and on gray images, by these names."""

    asked: "BenchmarkSettings"
    answers: "dict[str, AnswerSet]"
    result: "BenchmarkResult"

    @property
    def pace(self) -> float:
        return self.result.scores[_MODEL].n / max(self.answers[_MODEL].seconds, 1e-3)

    def plain(self) -> dict[str, Any]:
        gray = {_GRAY: self._told(_GRAY)} if _GRAY in self.answers else {}
        return self._told(_MODEL) | gray | {"rows_per_second": round(self.pace, 2)}

    def _told(self, who: str) -> dict[str, Any]:
        return _numbers(self.result.scores[who]) | {
            "benchmark": self.asked.name,
            "metric": self.asked.metric,
            "chance": self.asked.chance,
            "protocol": self.answers[who].protocol,
            "kinds": {kind: _numbers(part) for kind, part in self.kinds(who).items()},
            "folder": self.answers[who].folder.name,
        }

    def kinds(self, who: str) -> "dict[str, Score]":
        found = self.result.kinds[who]
        return found if len(found) > 1 else {}


def _numbers(score: "Score") -> dict[str, Any]:
    told = {"score": score.value, "groups": score.n_groups, "in_form_only": score.in_form_only}
    return told | score.model_dump(include={"low", "high", "n", "own"})


def _ask(
    name: str,
    model: "ModelRef",
    asked: "Sequence[BenchmarkSettings]",
    config: "PipelineConfig",
    gray: bool,
) -> list[_Found]:
    """Ask all benchmarks, and note which folders that took, which `clean` keeps then."""
    from vlm_ops.evaluation.benchmark import score_benchmark
    from vlm_ops.steps.cleaning import leave_features
    from vlm_ops.steps.measuring import answers_of, rows_of
    from vlm_ops.store.history import note_run
    from vlm_ops.store.lock import using

    runs, used = config.execution.runs, set[str]()
    found: list[_Found] = []
    with using(runs, f"benchmark of {name}"):
        prepared = [rows_of(one, runs) for one in asked]  # before a model is loaded
        for one, data in zip(asked, prepared, strict=True):
            said = {_MODEL: answers_of(one, model, data, config)}
            if gray or one.gray:
                said[_GRAY] = answers_of(one, model, data, config, gray=True)
            found.append(_Found(one, said, score_benchmark(said)))
            used |= {data.folder.name, *(answers.folder.name for answers in said.values())}
            note_run(runs, f"benchmark of {name}", used, ended=one is asked[-1])
    leave_features(runs)
    return found


def _check_metrics(asked: "Sequence[BenchmarkSettings]") -> None:
    """Find out that a metric is not there before rows are fetched and a model is asked."""
    from vlm_ops.evaluation.metrics import find

    for one in asked:
        try:
            find(one.metric)
        except ConfigError as error:
            raise ConfigError(f"{one.name}: metric: {error}") from error


def _tell(found: list[_Found]) -> None:
    from vlm_ops.evaluation.words import percent

    table = Table("benchmark")
    for column in ("score", "95 % interval", "rows", "chance", "rows/s"):
        table.add_column(column, justify="right", no_wrap=True)
    for one in found:
        chance = "" if one.asked.chance is None else percent(one.asked.chance)
        head, *rest = _lines(one.asked.name, one.result.scores[_MODEL])
        table.add_row(*head, chance, f"{one.pace:.1f}")
        for kind, score in one.kinds(_MODEL).items():
            rest += _lines(f"  {kind}", score)
        if _GRAY in one.answers:
            rest += _lines("  on gray images", one.result.scores[_GRAY])
        for line in rest:
            table.add_row(*line)
        table.add_section()
    out.print(table)


def _lines(name: str, score: "Score") -> "Iterator[tuple[str, ...]]":
    """Yield a score as a line of the table, its metric under a benchmark's, and what is beside."""
    from vlm_ops.evaluation.words import beside, plain, scored, spread

    yield escape(name), scored(score.value, score.metric), spread(score), f"{score.n:,}"
    if not name.startswith(" "):
        for text, number in {plain(score.metric): "", **beside(score)}.items():
            yield f"  [dim]{escape(text)}[/]", f"[dim]{number}[/]"


def _list(as_json: bool) -> None:
    from vlm_ops.config.benchmarks import load_benchmark, shipped

    found = [load_benchmark(name) for name in shipped()]
    if as_json:
        shown = {"name", "title", "metric", "licence", "chance", "source"}
        plain = [one.model_dump(mode="json", include=shown) for one in found]
        needs = [one.data.type for one in found]
        print_json([one | {"data": kind} for one, kind in zip(plain, needs, strict=True)])
        return
    sources = {"hub": "needs the hub", "files": "needs a file", "charts": "drawn here"}
    for one in found:
        where = sources[one.data.type]
        out.print(f"{one.name:<18}  {one.metric:<17} {where:<14} {one.licence}", markup=False)
        out.print(f"{'':<18}  {one.title}", markup=False, style="dim")
    out.print("A benchmark of your own is one YAML file: docs/benchmarks.md", markup=False)
