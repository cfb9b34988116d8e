"""``benchmark``: any model on benchmarks, outside a pipeline."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.table import Table

from vlm_ops.cli.console import out, print_json, progress
from vlm_ops.cli.predict import Dtype, Quantization
from vlm_ops.cli.run import AsJson, Overrides, Runs
from vlm_ops.config.names import registered_name
from vlm_ops.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlm_ops.artifacts import ModelRef
    from vlm_ops.config.benchmark import BenchmarkSettings
    from vlm_ops.config.pipeline import PipelineConfig
    from vlm_ops.evaluation.benchmark import BenchmarkScore, Measure

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

    registered_name(model)
    rows = () if max_rows is None else (f"max_rows={max_rows}",)
    asked = load_benchmarks(names, (*overrides, *rows))
    _check_metrics(asked)
    asking = _Asking.of(runs, batch_size)
    with progress():
        from transformers.utils import logging as library

        from vlm_ops.ask import find

        library.disable_progress_bar()
        ref = find(model, runs=runs, quantization=quantization, dtype=dtype)
        found = asking.all(model, ref, asked, gray)
    if as_json:
        print_json({"model": model, "benchmarks": [one.plain() for one in found]})
    else:
        _tell(found)


class _Found(NamedTuple):
    """A score, that on gray images, and how many rows a second were answered."""

    score: "BenchmarkScore"
    gray: "BenchmarkScore | None"
    pace: float

    def plain(self) -> dict[str, Any]:
        gray = {} if self.gray is None else {"gray": self.gray.model_dump(mode="json")}
        return self.score.model_dump(mode="json") | gray | {"rows_per_second": round(self.pace, 2)}


class _Asking(NamedTuple):
    """How benchmarks are asked here: the configuration of the steps."""

    config: "PipelineConfig"

    @classmethod
    def of(cls, runs: Path, batch_size: int) -> "_Asking":
        from vlm_ops.config.execution import ExecutionSettings
        from vlm_ops.config.pipeline import PipelineConfig
        from vlm_ops.config.sections import EvaluateSettings

        execution = ExecutionSettings(runs=runs.resolve())
        evaluate = EvaluateSettings(batch_size=batch_size)
        return cls(PipelineConfig(name="benchmark", execution=execution, evaluate=evaluate))

    def all(
        self, name: str, model: "ModelRef", asked: "Sequence[BenchmarkSettings]", gray: bool
    ) -> list[_Found]:
        """Ask all benchmarks, and note which folders that took, which `clean` keeps then."""
        from vlm_ops.steps.cleaning import leave_features
        from vlm_ops.steps.measuring import rows_of
        from vlm_ops.store.history import note_run
        from vlm_ops.store.lock import using

        runs = self.config.execution.runs
        used: set[str] = set()
        found = []
        with using(runs, f"benchmark of {name}"):
            prepared = [rows_of(one, runs) for one in asked]  # before a model is loaded
            for one, data in zip(asked, prepared, strict=True):
                used.add(data.folder.name)
                score, pace = self._one(one, model, data)
                on_gray = self._one(one, model, data, gray=True)[0] if gray else None
                found.append(_Found(score, on_gray, pace))
                used |= {score.folder} | ({on_gray.folder} if on_gray else set())
                note_run(runs, f"benchmark of {name}", used, ended=one is asked[-1])
        leave_features(runs)
        return found

    def _one(
        self, asked: "BenchmarkSettings", model: "ModelRef", data: Any, **images: bool
    ) -> "tuple[BenchmarkScore, float]":
        from vlm_ops.evaluation.benchmark import score_benchmark
        from vlm_ops.steps.measuring import answers_of

        answers = answers_of(asked, model, data, self.config, **images)
        score = score_benchmark(asked, answers)
        return score, score.n / max(answers.seconds, 1e-3)


def _check_metrics(asked: "Sequence[BenchmarkSettings]") -> None:
    """Find out that a metric is not there before rows are fetched and a model is asked."""
    from vlm_ops.evaluation.metrics import find

    for one in asked:
        try:
            find(one.metric)
        except ConfigError as error:
            raise ConfigError(f"{one.name}: metric: {error}") from error


def _tell(found: list[_Found]) -> None:
    table = Table()
    for column in ("benchmark", "metric", "score", "95 % interval", "n", "chance", "rows/s"):
        table.add_column(column)
    for one in found:
        _row(table, one.score.benchmark, one.score, one.pace)
        for kind, part in one.score.kinds.items():
            table.add_row(f"  {kind}", "", *_numbers(part), str(part.n))
        if one.gray is not None:
            table.add_row("  on gray images", "", *_numbers(one.gray), str(one.gray.n))
    out.print(table)


def _row(table: Table, name: str, score: "BenchmarkScore", pace: float) -> None:
    chance = "not known" if score.chance is None else f"{score.chance:.3f}"
    table.add_row(name, score.metric, *_numbers(score), str(score.n), chance, f"{pace:.1f}")


def _numbers(part: "Measure") -> tuple[str, str]:
    return f"{part.score:.3f}", f"{part.low:.3f} to {part.high:.3f}"


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
