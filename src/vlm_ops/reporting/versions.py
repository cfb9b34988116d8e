"""Two registered versions beside each other, on rows that both were asked."""

from collections.abc import Iterator, Mapping, Sequence
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
from vlm_ops.registry.story import Story
from vlm_ops.reporting.alike import Alike, Asked, alike, at_hand, source
from vlm_ops.reporting.page import Page, Section, Table, section
from vlm_ops.reporting.pictures import Album
from vlm_ops.reporting.results import NO_DIFFERENCE, NOT_JUDGED, Results
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
        judged: By benchmark: ``better``, ``worse`` or what :meth:`Results.judged` says, and why.
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
                "verdict": (told := self.judged[benchmark])[0],
                **({"notice": told[1]} if told[0] == NOT_JUDGED else {}),
            }
            for benchmark, one in self.sections.items()
        }


@dataclass(frozen=True)
class _Version:
    found: VersionSummary
    asked: Asked
    level: float
    look: str


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

    def on(self, benchmark: str, found: Alike) -> Results:
        """Return what both said to a benchmark, or to test rows, as it is judged and shown."""
        before, after = self.before.asked, self.after.asked
        data, config = self._rows(benchmark), after.config or PipelineConfig()
        return Results(
            {after.name: found.second.answers, before.name: found.first.answers},
            {} if data is None else {row.id: row for row in data.rows(ASKED)},
            Path if data is None else data.image_path,
            config.evaluate.resamples,
            config.seed,
            find(found.second.metric),
            self.after.level,
            found.doubt,
        )

    def _rows(self, benchmark: str) -> PreparedData | None:
        """Return the rows, for questions and pictures, where they are at hand."""
        if benchmark == BENCHMARK:
            found = (prepared(self.runs, v.found.dataset) for v in (self.after, self.before))
            return next(filter(None, found), None)
        config = PipelineConfig(execution=ExecutionSettings(runs=self.runs))
        with suppress(VlmOpsError, OSError):
            step = rows_step(self.named.get(benchmark) or load_benchmark(source(benchmark)))
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
    stories = [registry.story(version) for version in (first, second)]
    if stories[0].version == stories[1].version:
        raise RegistryError(
            f"{registry.name!r}: {first} and {second} are one version, {stories[0].version}; "
            f"`vlm-ops models {registry.name}` lists others"
        )
    before, after = _versions(registry, stories, runs)
    pair, theirs, album = _Pair(before, after, runs), before.asked.name, Album()
    meaning = {one.asked.name: _meaning(one.found) for one in (after, before)}
    sections: dict[str, Section] = {}
    judged: dict[str, tuple[str, str]] = {}
    missing: dict[str, str] = {}
    said = [said for v in (after, before) for said in (*v.asked.kept, *v.asked.at_hand)]
    measured = (one.benchmark for one in said if one.benchmark)
    for name in dict.fromkeys([BENCHMARK, *pair.named, *measured]):
        try:
            on = None if name == BENCHMARK else name
            results = pair.on(name, alike(before.asked, after.asked, on))
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


def _versions(registry: Registry, stories: Sequence[Story], runs: Path) -> Iterator[_Version]:
    """Yield both with all that each is known to have said: either one's run may have asked it."""
    listed = {one.version: one for one in registry.versions()}
    models: dict[str, str] = {}
    for version in (story.version for story in stories):
        if (content := listed[version].content) is None:
            raise RegistryError(
                f"version {version} of {registry.name!r} was not registered by vlm-ops, and "
                f"nothing tells what it said; `vlm-ops models {registry.name}` lists others"
            )
        models[version] = content
    kept = {version: said_of(registry, version, models.values()) for version in models}
    for story in stories:
        version, content, details = story.version, models[story.version], story.details
        mine = {v: tuple(said for said in kept[v] if said.model == content) for v in models}
        own = mine.pop(version)
        config = None if details is None else PipelineConfig.model_validate(details.config)
        beside, address = tuple(at_hand(runs, content)), f"models:/{registry.name}/{version}"
        name, kept_of = f"version {version}", sum(mine.values(), own)
        asked = Asked(name, content, config, kept_of, own, beside, address, runs)
        yield _Version(listed[version], asked, *_level(details, asked.name))


def _level(details: Details | None, name: str) -> tuple[float, str]:
    """Return what luck was allowed at the gate's look at a version, and whose level that is."""
    judged = details and details.judgement
    rival = ("", "champion" if judged and judged.champion else "base")
    found = judged.verdict.differences if judged else ()
    for one in found:
        if (one.on, one.than) == rival:
            return one.level, f"its look at {name}"
    return looks.level(1.0), f"a first look, as nothing tells of one at {name}"


def _meaning(found: VersionSummary) -> str:
    aliases = "".join(f", {alias}" for alias in found.aliases)
    return f"{found.decision or 'not judged'}, {found.registered:%Y-%m-%d}{aliases}"


def _page(
    name: str, pair: _Pair, sections: Mapping[str, Section],
    judged: Mapping[str, tuple[str, str]], missing: Mapping[str, str],
) -> Page:  # fmt: skip
    before, after = pair.before, pair.after
    told = {word for word, _ in judged.values()}
    found = sorted(told - {NO_DIFFERENCE, NOT_JUDGED}) or sorted(told)
    word = "mixed" if found == ["better", "worse"] else found[0]
    ours, theirs = after.asked.name, before.asked.name
    return Page(
        title=f"{name}: {ours} against {theirs}",
        about=f"{after.found.registered:%Y-%m-%d} against {before.found.registered:%Y-%m-%d}",
        word=word,
        good={"better": True, "worse": False}.get(word),
        outcome=f"{ours} minus {theirs}, on rows both were asked alike. Better or worse as the "
        "gate would say: the 95 % interval lies on one side of 0, and luck alone gives as much in "
        f"at most {words.chance(after.level)} of cases, which is the level of {after.look}",
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
