"""What starts a training beside the clock: new data, new feedback.

A deployment with a trigger runs every few minutes. Each run looks first: at names, sizes and times
of the files, at the number of feedback rows, at the hub's newest commit. Where nothing has come
since the last run that came to an end, it ends as ``Skipped`` and says what it looked at.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import prefect.runtime.deployment
import prefect.runtime.flow_run

from vlm_ops.config.load import load_config
from vlm_ops.config.pairs import Labelled
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.config.sections import FilesData, HubData
from vlm_ops.data.hub import newest_commit
from vlm_ops.data.sources import count_rows, touched
from vlm_ops.errors import (
    ConfigError,
    DataError,
    ModelError,
    ServiceError,
    TrainingError,
    VlmOpsError,
)
from vlm_ops.store.files import make_folder, write_whole
from vlm_ops.store.fingerprint import SHORT, fingerprint
from vlm_ops.store.frozen import Frozen

logger = logging.getLogger("vlm_ops.flow")

FOLDER = "watched"
BY_HAND, SCHEDULE = "by hand", "schedule"
_LASTING = (ConfigError, DataError, ModelError, TrainingError)
"""What ends a run in the same way again while nothing changes."""


class Seen(Frozen):
    """What the last run of a deployment that came to an end had looked at.

    Attributes:
        when: It looked.
        parts: By name, a hash each.
        feedback: How many rows of feedback there were.
    """

    when: datetime
    parts: dict[str, str]
    feedback: int | None


@dataclass(frozen=True)
class Look:
    """What a run found before it began.

    Attributes:
        config: To run with; on the hub, at the commit that is the newest now.
        trigger: What starts the run; None where nothing has come.
        said: What was looked at, in words.
    """

    config: PipelineConfig
    trigger: str | None
    said: str = ""
    _seen: Seen | None = None

    def note(self, error: BaseException | None = None) -> None:
        """Keep what was seen, so that the next run compares with it.

        A run that was cut off, or that a service failed, is tried again: it is not kept then.

        Args:
            error: What ended the run.
        """
        if self._seen is None or (error is not None and not isinstance(error, _LASTING)):
            return
        file = _file(self.config)
        make_folder(file.parent)
        write_whole(file, self._seen.model_dump_json() + "\n")


def refuse_nothing_to_watch(
    config: PipelineConfig, *, on_new_data: bool, on_feedback: int | None
) -> None:
    """Refuse triggers that could never fire.

    Raises:
        ConfigError: The rows come from no file or hub, or there is no file of feedback.
    """
    if on_new_data and not isinstance(config.data, FilesData | HubData):
        raise ConfigError(
            f"--on-new-data: data.type {config.data.type} draws its rows, so nothing new ever "
            "comes; expected data.type files or hub"
        )
    if on_feedback is not None and _feedback(config) is None:
        raise ConfigError(
            "--on-feedback: the configuration learns from no file of feedback; expected "
            "pairs.type thumbs or dataset, with pairs.path"
        )


def look(
    config_file: str, overrides: list[str], *, on_new_data: bool, on_feedback: int | None
) -> Look:
    """Look whether there is a reason to run.

    Args:
        config_file: A YAML file or the name of a preset.
        overrides: Of the run.
        on_new_data: Whether other rows, pictures or settings than last time are one.
        on_feedback: How many new rows of feedback are one.

    Raises:
        ConfigError: The configuration is wrong.
        DataError: The hub has the data set no more, or gives it to nobody here.
    """
    config = load_config(config_file, overrides)
    by_clock = scheduled()
    clock = SCHEDULE if by_clock else BY_HAND
    if not on_new_data and on_feedback is None:
        return Look(config, clock)
    before, away = _before(config), ""
    if on_new_data and isinstance(config.data, HubData):
        newest, away = _newest(config.data.id, before)
        if newest is None:
            return Look(config, None if by_clock else clock, away)
        config = load_config(config_file, [*overrides, f"data.revision={newest}"])
    seen = Seen(
        when=datetime.now(UTC),
        parts=_parts(config, counted=on_feedback is not None) if on_new_data else {},
        feedback=None if on_feedback is None else _count(config),
    )
    reasons = [*_moved(seen, before), *_come(seen, before, on_feedback)]
    trigger = clock if not by_clock else "; ".join(reasons) or None
    said = "; ".join(part for part in (away, _said(seen, before, on_feedback)) if part)
    return Look(config, trigger, said, seen)


def scheduled() -> bool:
    """Tell whether Prefect's scheduler made this run."""
    return "auto-scheduled" in (prefect.runtime.flow_run.tags or [])


def _newest(repository: str, before: Seen | None) -> tuple[str | None, str]:
    """Return the newest commit; where the hub does not say it, the one before, and why."""
    try:
        return newest_commit(repository), ""
    except ServiceError as error:
        return (before.parts.get(repository) if before else None), str(error)


def _parts(config: PipelineConfig, *, counted: bool) -> dict[str, str]:
    """Hash each thing that may change, cheaply."""
    # The hub's commit is a part of its own.
    settings = config.model_dump(exclude={"execution": True, "data": {"revision"}})
    parts = {"the configuration": fingerprint(settings)}
    if isinstance(config.data, HubData):
        parts[config.data.id] = config.data.revision
    rows = [config.data, *(one.rows for one in (*config.benchmarks, *config.choosing))]
    sources = [source for source in rows if isinstance(source, FilesData)]
    pairs = config.pairs if config.prefers and not counted else None
    for source in [*sources, *([pairs] if isinstance(pairs, Labelled) and pairs.path else [])]:
        try:
            parts[str(source.path)] = touched(source)
        except (VlmOpsError, OSError) as error:
            # The run will say so, once.
            parts[str(source.path)] = f"{type(error).__name__}: {error}"
    return parts


def _feedback(config: PipelineConfig) -> Path | None:
    pairs = config.pairs
    return pairs.path if config.prefers and isinstance(pairs, Labelled) else None


def _count(config: PipelineConfig) -> int:
    path = _feedback(config)
    try:
        return 0 if path is None else count_rows(path)
    except DataError as error:
        logger.warning("no feedback counted: %s", error)
        return 0


def _moved(seen: Seen, before: Seen | None) -> list[str]:
    if before is None:
        return ["the first look"] if seen.parts else []
    if len(
        changed := [name for name, part in seen.parts.items() if before.parts.get(name) != part]
    ):
        return [f"new data: {', '.join(changed)} changed"]
    return []


def _come(seen: Seen, before: Seen | None, wanted: int | None) -> list[str]:
    if wanted is None or (fresh := _fresh(seen, before)) < wanted:
        return []
    return [f"feedback: {fresh} new rows"]


def _fresh(seen: Seen, before: Seen | None) -> int:
    now, then = seen.feedback or 0, before.feedback or 0 if before else 0
    return now - then if now >= then else now  # a file with fewer rows is another one


def _said(seen: Seen, before: Seen | None, wanted: int | None) -> str:
    since = f"since {before.when:%Y-%m-%d %H:%M} UTC" if before else "yet"
    told = [f"looked at {', '.join(seen.parts)}: nothing changed {since}"] if seen.parts else []
    if wanted is not None:
        told.append(f"{_fresh(seen, before)} of {wanted} new rows of feedback {since}")
    return "; ".join(told)


def _before(config: PipelineConfig) -> Seen | None:
    try:
        return Seen.model_validate_json(_file(config).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("what the last run saw can't be read, so this one looks anew: %s", error)
        return None


def _file(config: PipelineConfig) -> Path:
    """Return where a deployment keeps what it saw; runs without one share theirs."""
    key = [config.registered_model, prefect.runtime.deployment.name]
    return config.execution.runs.resolve() / FOLDER / f"{fingerprint(key)[:SHORT]}.json"
