"""``run``: the whole pipeline."""

import json
import logging
import os
import shlex
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from vlm_ops.cli.console import err, out, print_json, progress
from vlm_ops.config.load import load_config, presets, refuse_margins
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.config.sections import FilesData
from vlm_ops.errors import ConfigError
from vlm_ops.evaluation.words import scored, spread, titled
from vlm_ops.records import Score

Source = Annotated[str, typer.Argument(help="A preset (demo, …) or a YAML file.")]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change one setting; repeatable.")
]
Runs = Annotated[Path, typer.Option("--runs", envvar="VLM_OPS_RUNS", help="Folder of all outputs.")]
ConfiguredRuns = Annotated[
    Path | None,
    typer.Option(
        "--runs",
        envvar="VLM_OPS_RUNS",
        help="Folder of all outputs; without it, the configuration's execution.runs.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one line of JSON on stdout.")]

_MODELS = {
    "majority": "most frequent answer of each kind",
    "sft_gray": "sft model on gray images",
    "base": "before training",
    "sft": "after fine-tuning",
    "preferred": "after preference optimization",
    "candidate": "goes to the gate",
}


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(run)


def run(
    source: Source,
    overrides: Overrides = [],  # noqa: B006
    promote: Annotated[
        bool,
        typer.Option("--promote", help="Read the test rows, ask the gate, register, promote."),
    ] = False,
    runs: ConfiguredRuns = None,
    as_json: AsJson = False,
) -> None:
    """Train, and measure on validation; with --promote, put the model up for promotion.

    What was done before is not done again: a trial that is found good goes on with --promote.

    Example: vlm-ops run demo --promote
    """
    if promote:
        refuse_margins(overrides)
    again = _promoting(source, overrides, runs)
    config, overrides = configured(source, overrides, runs)
    folder = config.execution.runs.resolve()
    # Read when Prefect is imported. Beside `vlm-ops up` a run without heartbeats counts as crashed.
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
    from flows.servers.services import services

    _check_rows(config)
    with services(folder) as found:
        err.print(f"Prefect  {found.prefect_ui_url}")
        err.print(f"MLflow   {found.mlflow_url}")
        if found.auth_file:
            err.print(f"Login    in {escape(str(found.auth_file))}; Prefect's page asks for it")
        if found.started:
            err.print(f"[dim]started in {found.seconds:.0f} s, ended with this command[/]")
        with progress():
            summary = _retrain(source, overrides, promote=promote)
    summary["seconds"]["servers"] = round(found.seconds, 1)
    if as_json:
        print_json(summary)
    elif promote:
        _tell(summary, folder)
    else:
        _tell_trial(summary, folder, again)


def _check_rows(config: PipelineConfig) -> None:
    """Tell of a missing file or column before servers are started; images are hashed later."""
    if not isinstance(config.data, FilesData):
        return
    from vlm_ops.data.sources import open_source

    with TemporaryDirectory() as cache:
        open_source(config.data, seed=config.seed, cache=Path(cache))


def configured(
    source: str, overrides: list[str], runs: Path | None
) -> tuple[PipelineConfig, list[str]]:
    """Load a configuration with the runs folder of the command line, if one is given.

    Returns:
        The configuration, and the overrides that lead to it.

    Raises:
        ConfigError: The configuration is wrong.
        ModelError: The base is of no family that can be trained.
    """
    from vlm_ops.models.families import refuse_unfit

    if runs is not None:
        # In quotes: a folder's name may hold what means something in YAML.
        overrides = [*overrides, f"execution.runs={json.dumps(str(runs.resolve()))}"]
    config = load_config(source, overrides)
    refuse_unfit(config.model)
    return config, overrides


def _promoting(source: str, overrides: list[str], runs: Path | None) -> str:
    """Return the command that goes on from a trial."""
    changes: list[str] = []
    for change in overrides:
        with suppress(ConfigError):  # what the gate asks comes from the file
            refuse_margins([change])
            changes += ["--set", change]
    place = ["--runs", str(runs)] if runs is not None else []
    return shlex.join(["vlm-ops", "run", source, "--promote", *changes, *place])


def _retrain(source: str, overrides: list[str], *, promote: bool) -> dict[str, Any]:
    # Prefect's own lines go to its server; the package's lines are shown here.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    from flows.retrain import retrain_here

    logging.getLogger("httpx").setLevel(logging.WARNING)
    named = source in presets()
    file = source if named else str(Path(source).resolve())
    return retrain_here(file, overrides, promote=promote)


def _tell_trial(summary: dict[str, Any], runs: Path, again: str) -> None:
    out.print()
    out.print(_table(summary))
    _tell_choice(summary)
    _tell_notices(summary)
    out.print("\n[bold]A trial:[/] the test rows were not read, and nothing was registered.")
    _tell_report(summary, "The report:              ")
    out.print(f"Put it up for promotion: {again}", markup=False)
    out.print(f"The history:             vlm-ops ui{_at(runs)}", markup=False)


def _tell_report(summary: dict[str, Any], head: str) -> None:
    """Begin the last lines, with where the run's page is."""
    out.print()
    if summary["report"] is not None:
        file = Path(summary["report"])
        here = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
        out.print(f"{head}{here}", markup=False)


def _tell_notices(summary: dict[str, Any]) -> None:
    """Say what is to be known beside the scores: rows left out, what seems to have gone wrong."""
    from vlm_ops.evaluation.words import sentence

    for notice in summary["notices"]:
        out.print(f"[yellow]•[/] {escape(sentence(notice))}")


def _tell_choice(summary: dict[str, Any]) -> None:
    from vlm_ops.evaluation.words import sentence

    for said in filter(None, (summary["start"], summary["candidate"])):
        out.print(f"• {escape(sentence(said))}")
    for stage, why in summary["left_out"].items():
        out.print(f"[yellow]•[/] {stage} was left out: {escape(why)}")


def _at(runs: Path) -> str:
    return "" if runs == Path("runs").resolve() else f" --runs {shlex.quote(str(runs))}"


def _tell(summary: dict[str, Any], runs: Path) -> None:
    out.print()
    out.print(_table(summary))
    if summary["benchmarks"]:
        out.print(_benchmarks(summary["benchmarks"]))
    promoted = summary["status"] == "promoted"
    at = _at(runs)
    model, version = summary["name"], summary["model_version"]
    shown = _tell_showcase(Path(summary["showcase"]), "champion" if promoted else "candidate")
    _tell_choice(summary)
    for reason in [*summary["decision"]["reasons"], *filter(None, [summary["note"]])]:
        out.print(f"[{'green' if promoted else 'yellow'}]•[/] {escape(reason)}")
    _tell_notices(summary)
    if summary["rows"] is not None:
        from vlm_ops.registry.rows_since import RowsSince

        out.print(f"• {escape(RowsSince.model_validate(summary['rows']).words)}")
    if promoted:
        out.print(f"\n[bold green]Champion:[/] {model} version {version}")
    else:
        stays = summary["champion_version"]
        stays = f"version {stays} stays champion" if stays else "no version is champion"
        out.print(f"\n[bold yellow]Not promoted:[/] {model} version {version}; {stays}")
    if summary["mlflow_run_id"] is None:
        out.print("Nothing changed since the last run: every step was skipped.")
    _tell_report(summary, "The report:     ")
    out.print(f"The history:    vlm-ops ui{at}", markup=False)
    out.print(f"All versions:   vlm-ops models {model}{at}", markup=False)
    if summary["champion_version"] and shown is not None:
        image, question = (shlex.quote(text) for text in shown)
        ask = f"vlm-ops predict models:/{model}@champion --image {image} {question}{at}"
        out.print(f"Ask the champion: {ask}", markup=False)


def _tell_showcase(file: Path, name: str) -> tuple[str, str] | None:
    """Show one image that training has put right; return it with its question."""
    if not file.exists():
        return None
    found = json.loads(file.read_text(encoding="utf-8"))
    image = file.parent / found["image"]
    image = image.relative_to(Path.cwd()) if image.is_relative_to(Path.cwd()) else image
    said = {
        "base": found["answers"]["base"] or "(nothing)",
        name: found["answers"]["candidate"],
        "expected": " or ".join(found["expected"]),
    }
    out.print(f"\nAn unseen image that the base gets wrong and the {name} gets right:")
    out.print(f"  {image}", markup=False)
    out.print(f"  {found['question']}", markup=False)
    out.print(
        "  " + "   ".join(f"{who}: {text}" for who, text in said.items()) + "\n", markup=False
    )
    return str(image), found["question"]


def _table(summary: dict[str, Any]) -> Table:
    scores = {name: Score.model_validate(found) for name, found in summary["scores"].items()}
    whole = scores["candidate"]
    table = Table(
        title=f"{titled(whole.metric)} on {summary['split']}: {whole.n} rows, {whole.n_images} "
        f"images, {whole.n_groups} groups, none seen in training",
        title_justify="left",
        title_style="bold",
    )
    table.add_column("model")
    table.add_column("score", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("")
    for name, note in _MODELS.items():
        if (score := scores.get(name)) is None:
            continue
        table.add_row(
            name,
            scored(score.value, score.metric),
            spread(score),
            f"[dim]{note}[/]",
        )
    return table


def _benchmarks(found: dict[str, Any]) -> Table:
    table = Table(title="Benchmarks", title_justify="left", title_style="bold")
    table.add_column("benchmark")
    for model in ("base", "candidate", "95 % interval", "rows"):
        table.add_column(model, justify="right")
    table.add_column("")
    for name, by_model in found.items():
        base, candidate = (Score.model_validate(by_model[who]) for who in ("base", "candidate"))
        table.add_row(
            name,
            scored(base.value, base.metric),
            scored(candidate.value, candidate.metric),
            spread(candidate),
            str(candidate.n),
            f"[dim]{titled(candidate.metric)}[/]",
        )
    return table
