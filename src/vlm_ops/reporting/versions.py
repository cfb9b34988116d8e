"""Two registered versions beside each other, on rows that both were asked."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import RegistryError
from vlm_ops.evaluation import words
from vlm_ops.evaluation.metrics import find
from vlm_ops.registry.registry import Registry, VersionSummary
from vlm_ops.registry.rows_since import prepared, rows_since
from vlm_ops.registry.said import said_of
from vlm_ops.reporting.alike import Asked, alike, at_hand
from vlm_ops.reporting.page import Page, Section, Table, section
from vlm_ops.reporting.pictures import Album
from vlm_ops.reporting.results import Results
from vlm_ops.reporting.tables import changed_rows, changed_settings, settings
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
        run_id: The second one's MLflow run; None where nothing tells.
    """

    page: Page
    versions: tuple[str, str]
    sections: Mapping[str, Section]
    run_id: str | None

    @property
    def numbers(self) -> dict[str, dict[str, float]]:
        """The second one minus the first one by benchmark, -1..1, with its interval and rows."""
        return {
            benchmark: {
                "difference": one.differences[0].points,
                "low": one.differences[0].low,
                "high": one.differences[0].high,
                "n": one.scores[one.ours].n,
            }
            for benchmark, one in self.sections.items()
        }


@dataclass(frozen=True)
class _Version:
    found: VersionSummary
    asked: Asked


def compare(registry: Registry, first: str, second: str, runs: Path) -> Compared:
    """Compare two versions of a registered model.

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
    theirs, ours = alike(before.asked, after.asked)
    names = after.asked.name, before.asked.name
    config = after.asked.config or PipelineConfig(name=registry.name)
    data = prepared(runs, after.found.dataset) or prepared(runs, before.found.dataset)
    rows = {} if data is None else {row.id: row for row in data.rows("test")}
    answers = dict(zip(names, (ours.answers, theirs.answers), strict=True))
    results = Results(
        answers,
        {row: rows[row] for row in (one.id for one in ours.answers) if row in rows},
        Path if data is None else data.image_path,
        config.evaluate.resamples,
        config.seed,
        find(ours.metric),
    )
    meaning = {one.asked.name: _meaning(one.found) for one in (after, before)}
    sections = {BENCHMARK: section("test rows", results, meaning, names[1], Album())}
    return Compared(
        page=_page(registry.name, before, after, sections, runs),
        versions=(before.found.version, after.found.version),
        sections=sections,
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
    return _Version(found, Asked(f"version {found.version}", found.content, config, mine))


def _meaning(found: VersionSummary) -> str:
    aliases = "".join(f", {alias}" for alias in found.aliases)
    return f"{found.decision or 'not judged'}, {found.registered:%Y-%m-%d}{aliases}"


def _page(
    name: str, before: _Version, after: _Version, sections: Mapping[str, Section], runs: Path
) -> Page:
    differences = {title: one.differences[0] for title, one in sections.items()}
    better = any(one.low > 0 for one in differences.values())
    worse = any(one.high < 0 for one in differences.values())
    word = {(True, False): "better", (False, True): "worse", (True, True): "mixed"}
    ours, theirs = after.asked.name, before.asked.name
    return Page(
        title=f"{name}: {ours} against {theirs}",
        about=f"{after.found.registered:%Y-%m-%d} against {before.found.registered:%Y-%m-%d}",
        word=word.get((better, worse), "no difference shown"),
        good=better if better != worse else None,
        outcome=f"{ours} minus {theirs}, on the rows that both were asked in the same way",
        reasons=tuple((title, words.difference(one)) for title, one in differences.items()),
        notices=(),
        links={},
        sections=tuple(sections.values()),
        charts=(),
        tables={title: found for title, found in _tables(before, after, runs) if found},
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
