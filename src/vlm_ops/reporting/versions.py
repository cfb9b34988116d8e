"""Two registered versions beside each other, on rows that both were asked."""

import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.benchmark import ASKED, BenchmarkSettings
from vlm_ops.config.benchmarks import load_benchmark
from vlm_ops.config.execution import ExecutionSettings
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import ConfigError, DataError, RegistryError, VlmOpsError
from vlm_ops.evaluation import looks, words
from vlm_ops.evaluation.metrics import find
from vlm_ops.registry.judgement import Details
from vlm_ops.registry.registry import Registry, VersionSummary
from vlm_ops.registry.rows_since import prepared, rows_since
from vlm_ops.registry.said import said_of
from vlm_ops.reporting.alike import Asked, alike, at_hand
from vlm_ops.reporting.page import Page, Section, Table, section
from vlm_ops.reporting.pictures import Album
from vlm_ops.reporting.results import NO_DIFFERENCE, Results
from vlm_ops.reporting.tables import changed_rows, changed_settings, settings
from vlm_ops.steps.benchmarks import rows_step
from vlm_ops.steps.plan import plan_step
from vlm_ops.store.fingerprint import SHORT

BENCHMARK = "test"
"""What the rows of a version's gate are called among benchmarks."""


@dataclass(frozen=True)
class Compared:
    """Two versions on the same rows, asked in the same way.

    Attributes:
        page: What is to be seen.
        versions: Their numbers.
        sections: By benchmark; each one's first difference is the second version's to the first.
        judged: By benchmark: ``better``, ``worse`` or ``no difference shown``, and why.
        not_compared: Why a benchmark is not among them, and which command measures it.
        run_id: The second one's MLflow run; None where nothing tells.
    """

    page: Page
    versions: tuple[str, str]
    sections: Mapping[str, Section]
    judged: Mapping[str, tuple[str, str]]
    not_compared: Mapping[str, str]
    run_id: str | None

    @property
    def numbers(self) -> dict[str, dict[str, float | str]]:
        """The second one minus the first one by benchmark; luck may give ``level`` of verdicts."""
        return {
            benchmark: {
                "difference": one.differences[0].points,
                **one.differences[0].model_dump(include={"low", "high", "level"}),
                "n": one.scores[one.ours].n,
                "verdict": self.judged[benchmark][0],
            }
            for benchmark, one in self.sections.items()
        }


@dataclass(frozen=True)
class _Version:
    found: VersionSummary
    asked: Asked
    level: float


@dataclass(frozen=True)
class _Pair:
    before: _Version
    after: _Version
    runs: Path

    @property
    def named(self) -> dict[str, BenchmarkSettings]:
        """Benchmarks that one of their runs names."""
        configs = (one.asked.config for one in (self.before, self.after))
        return {one.name: one for config in configs if config for one in config.benchmarks}

    def on(self, benchmark: str) -> Results:
        """Return the answers of both to a benchmark, or to test rows."""
        before, after = self.before.asked, self.after.asked
        theirs, ours = alike(before, after, None if benchmark == BENCHMARK else benchmark)
        data, config = self._rows(benchmark), after.config or PipelineConfig()
        return Results(
            {after.name: ours.answers, before.name: theirs.answers},
            {} if data is None else {row.id: row for row in data.rows(ASKED)},
            Path if data is None else data.image_path,
            config.evaluate.resamples,
            config.seed,
            find(ours.metric),
            self.after.level,
        )

    def _rows(self, benchmark: str) -> PreparedData | None:
        """Return the rows, for questions and pictures, where they are at hand."""
        if benchmark == BENCHMARK:
            found = (prepared(self.runs, v.found.dataset) for v in (self.after, self.before))
            return next(filter(None, found), None)
        config = PipelineConfig(execution=ExecutionSettings(runs=self.runs))
        with suppress(VlmOpsError, OSError):
            step = rows_step(self.named.get(benchmark) or load_benchmark(benchmark))
            rows = plan_step(step, config, {}).done()
            return rows if isinstance(rows, PreparedData) else None
        return None


def compare(registry: Registry, first: str, second: str, runs: Path) -> Compared:
    """Compare two versions of a registered model on test rows and benchmarks.

    Args:
        registry: Of the model.
        first: A number or an alias: what is compared with.
        second: Another one: the version in question.
        runs: Folder of runs, for answers that are not kept with the versions, and for pictures.

    Raises:
        RegistryError: There is no such version, or what was kept with it is not what it was.
        DataError: Both were never asked the same rows in the same way; says what differs.
        ServiceError: The server does not answer.
    """
    before, after = (_version(registry, version, runs) for version in (first, second))
    if before.found.version == after.found.version:
        raise RegistryError(
            f"{registry.name!r}: {first} and {second} are one version, {after.found.version}; "
            f"`vlm-ops models {registry.name}` lists others"
        )
    pair, theirs, album = _Pair(before, after, runs), before.asked.name, Album()
    meaning = {one.asked.name: _meaning(one.found) for one in (after, before)}
    sections: dict[str, Section] = {}
    judged: dict[str, tuple[str, str]] = {}
    missing: dict[str, str] = {}
    measured = [said.benchmark for one in (after, before) for said in one.asked.said]
    for name in dict.fromkeys([BENCHMARK, *pair.named, *filter(None, measured)]):
        try:
            results = pair.on(name)
            title = "test rows" if name == BENCHMARK else name
            sections[name] = one = section(title, results, meaning, theirs, album)
            judged[name] = results.judged(one.differences[0], one.ours)
        except (DataError, ConfigError) as error:
            missing[name] = str(error)
    if not sections:
        raise DataError("\n".join(f"on {name}: {why}" for name, why in missing.items()))
    return Compared(
        page=_page(registry.name, pair, sections, judged, missing),
        versions=(before.found.version, after.found.version),
        sections=sections,
        judged=judged,
        not_compared=missing,
        run_id=after.found.mlflow_run_id,
    )


def _version(registry: Registry, version: str, runs: Path) -> _Version:
    story = registry.story(version)
    found = next(one for one in registry.versions() if one.version == story.version)
    if found.content is None:
        raise RegistryError(
            f"version {found.version} of {registry.name!r} was not registered by vlm-ops, and "
            f"nothing tells what it said; `vlm-ops models {registry.name}` lists others"
        )
    config = None
    if story.details is not None:
        config = PipelineConfig.model_validate(story.details.config)
    # What lies beside the runs is of now; what was kept is of when it was judged.
    said = [*at_hand(runs, found.content), *said_of(registry, version)]
    mine = tuple(one for one in said if one.model == found.content)
    at = "" if runs == Path("runs") else f" --runs {shlex.quote(str(runs))}"
    command = f"vlm-ops benchmark models:/{registry.name}/{found.version} {{}}{at}"
    asked = Asked(f"version {found.version}", found.content, config, mine, command)
    return _Version(found, asked, _level(story.details))


def _level(details: Details | None) -> float:
    """Return what luck was allowed at the gate's look at a version; else that of a first look."""
    judged = details and details.judgement
    rival = ("", "champion" if judged and judged.champion else "base")
    found = judged.verdict.differences if judged else ()
    return next((one.level for one in found if (one.on, one.than) == rival), looks.level(1.0))


def _meaning(found: VersionSummary) -> str:
    aliases = "".join(f", {alias}" for alias in found.aliases)
    return f"{found.decision or 'not judged'}, {found.registered:%Y-%m-%d}{aliases}"


def _page(
    name: str, pair: _Pair, sections: Mapping[str, Section],
    judged: Mapping[str, tuple[str, str]], missing: Mapping[str, str],
) -> Page:  # fmt: skip
    before, after = pair.before, pair.after
    found = {word for word, _ in judged.values()} - {NO_DIFFERENCE}
    word = "mixed" if len(found) > 1 else next(iter(found), NO_DIFFERENCE)
    ours, theirs = after.asked.name, before.asked.name
    return Page(
        title=f"{name}: {ours} against {theirs}",
        about=f"{after.found.registered:%Y-%m-%d} against {before.found.registered:%Y-%m-%d}",
        word=word,
        good={"better": True, "worse": False}.get(word),
        outcome=f"{ours} minus {theirs}, on rows both were asked alike. Better or worse as the "
        "gate would say: the 95 % interval lies on one side of 0, and luck alone gives as much in "
        f"at most {words.chance(after.level)} of cases, which is the level of its look at {ours}",
        reasons=tuple((title, f"{one}: {why}") for title, (one, why) in judged.items()),
        notices=tuple(f"not compared on {title}: {why}" for title, why in missing.items()),
        links={},
        sections=tuple(sections.values()),
        charts=(),
        tables={title: found for title, found in _tables(before, after, pair.runs) if found},
        commands=(
            f"vlm-ops models compare {name} {before.found.version} {after.found.version}",
        ),
        files={f"{one.asked.name}.yaml": settings(one.asked.config)
               for one in (after, before) if one.asked.config is not None},
    )  # fmt: skip


def _tables(
    before: _Version, after: _Version, runs: Path
) -> Iterator[tuple[str, tuple[Table, ...]]]:
    data = prepared(runs, after.found.dataset)
    if data is not None:
        since = rows_since(before.found.version, before.found.dataset, data)
        yield "Data", (changed_rows(f"Rows against those of {before.asked.name}", since),)
    names = before.asked.name, after.asked.name
    if before.asked.config is not None and after.asked.config is not None:
        changed = changed_settings(before.asked.config, after.asked.config)
        note = "" if changed else "All settings are the same."
        yield "Settings that differ", (Table("", ("setting", *names), changed, note),)
    told = {
        "model": [one.asked.content[:SHORT] for one in (before, after)],
        "rows": [(one.found.dataset or "")[:SHORT] for one in (before, after)],
        "MLflow run": [one.found.mlflow_run_id or "" for one in (before, after)],
    }
    rows = tuple((what, *texts) for what, texts in told.items())
    yield "Versions", (Table("", ("", *names), rows),)
