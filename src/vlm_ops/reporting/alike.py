"""Answers of two versions that may be compared: to the same rows, asked in the same way."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vlm_ops.artifacts import AnswerSet
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import DataError, OutputError
from vlm_ops.evaluation.protocol import PROTOCOL
from vlm_ops.models import ground
from vlm_ops.registry.said import Said
from vlm_ops.store.artifact import read_record


@dataclass(frozen=True)
class Asked:
    """A version, and all that it is known to have said to test rows.

    Attributes:
        name: As people call it.
        content: Content hash of its model.
        config: Of its run; None where an earlier vlm-ops registered it.
        said: One entry for each protocol and ground, the newest first.
    """

    name: str
    content: str
    config: PipelineConfig | None
    said: tuple[Said, ...]


def at_hand(runs: Path, content: str) -> Iterator[Said]:
    """Yield what a model said to test rows with their images, from a runs folder, newest first."""
    folders = sorted(
        runs.glob(f"{AnswerSet.step}-*"), key=lambda folder: folder.stat().st_mtime, reverse=True
    )
    for folder in folders:
        if (folder / PROTOCOL).exists():
            continue  # they are to a benchmark
        try:
            found = read_record(folder, AnswerSet)
            if found is None or found.model != content or found.split != "test":
                continue
            if not found.gray and not found.swapped:
                yield Said.of(found)
        except (OutputError, DataError):  # damaged: what else is there may do
            continue


def alike(first: Asked, second: Asked) -> tuple[Said, Said]:
    """Return what both said to the same rows in the same way, the newest of it.

    Raises:
        DataError: There is nothing of the kind; says what differs.
    """
    for version in (first, second):
        if not version.said:
            raise DataError(
                f"{version.name}: found no answers to test rows, neither kept with it nor in the "
                f"runs folder. Name the folder of its run with --runs, or run the pipeline again"
            )
    for theirs in second.said:
        for ours in first.said:
            if (ours.protocol, ours.ground) == (theirs.protocol, theirs.ground):
                return ours, theirs
    raise DataError(
        f"{first.name} and {second.name} can't be compared: {_what_differs(first, second)}. Run "
        f"the pipeline again as the later one did: its gate asks the champion the same rows"
    )


def _what_differs(first: Asked, second: Asked) -> str:
    for ours in first.said:
        for theirs in second.said:
            if ours.protocol == theirs.protocol:
                changed = ground.differences(ours.ground, theirs.ground)
                return f"they answered on different grounds, {changed}"
    ours, theirs = first.said[0], second.said[0]
    told = [*_rows(ours, theirs), *_settings(first.config, second.config)]
    which = f"protocol {ours.protocol[:12]} and {theirs.protocol[:12]}"
    return f"they were not asked the same, {which}: {'; '.join(told) or _UNSEEN}"


_UNSEEN = (
    "the same rows, but their questions, the way of asking or the version of the metric differ"
)


def _rows(ours: Said, theirs: Said) -> Iterator[str]:
    mine = {one.id: (one.image_id, one.expected) for one in ours.answers}
    other = {one.id: (one.image_id, one.expected) for one in theirs.answers}
    alone = (len(mine.keys() - other.keys()), len(other.keys() - mine.keys()))
    if any(alone):
        yield f"{alone[0]:,} test rows are the first one's alone, {alone[1]:,} the second one's"
    changed = sum(mine[row] != other[row] for row in mine.keys() & other.keys())
    if changed:
        yield f"{changed:,} test rows have other images or other accepted answers"


def _settings(ours: PipelineConfig | None, theirs: PipelineConfig | None) -> Iterator[str]:
    if ours is None or theirs is None:
        return
    mine, other = (config.evaluate.model_dump(exclude={"batch_size", "resamples"})
                   for config in (ours, theirs))  # fmt: skip
    for name, before in mine.items():
        if before != other[name]:
            yield f"evaluate.{name} {before} and {other[name]}"
