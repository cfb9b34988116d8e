"""Answers of two versions that may be compared: to the same rows, asked in the same way."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vlm_ops.artifacts import AnswerSet
from vlm_ops.config.benchmarks import shipped
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import DataError, OutputError
from vlm_ops.evaluation.protocol import PROTOCOL, differs
from vlm_ops.models import ground
from vlm_ops.registry.said import Said
from vlm_ops.store.artifact import read_record


@dataclass(frozen=True)
class Asked:
    """A version, and all that it is known to have said to test rows and benchmarks.

    Attributes:
        name: As people call it.
        content: Content hash of its model.
        config: Of its run; None where an earlier vlm-ops registered it.
        said: One entry for each protocol and ground, the newest first.
        asking: What measures it on a benchmark, whose name goes in for ``{}``.
    """

    name: str
    content: str
    config: PipelineConfig | None
    said: tuple[Said, ...]
    asking: str = "{}"

    def measure(self, benchmark: str | None) -> str:
        """Return the command that measures it; a benchmark of one's own is a file."""
        return self.asking.format(benchmark if benchmark in shipped() else f"{benchmark}.yaml")


def at_hand(runs: Path, content: str) -> Iterator[Said]:
    """Yield what a model said to test rows and benchmarks with their images, newest first."""
    folders = sorted(
        runs.glob(f"{AnswerSet.step}-*"), key=lambda folder: folder.stat().st_mtime, reverse=True
    )
    for folder in folders:
        try:
            found = read_record(folder, AnswerSet)
            if found is None or found.model != content or found.split != "test":
                continue
            # Earlier versions did not write down to which benchmark answers are.
            unnamed = found.benchmark is None and (folder / PROTOCOL).exists()
            if not (found.gray or found.swapped or unnamed):
                yield Said.of(found)
        except (OutputError, DataError):  # damaged: what else is there may do
            continue


def alike(first: Asked, second: Asked, benchmark: str | None = None) -> tuple[Said, Said]:
    """Return what both said to the same rows in the same way, the newest of it.

    On a benchmark, what a model brings with itself, its template and its bounds on pixels, may
    differ, as it may for the gate. None are test rows.

    Raises:
        DataError: There is nothing of the kind; says what differs, and what to do.
    """
    known = [[one for one in v.said if one.benchmark == benchmark] for v in (first, second)]
    for version, said in zip((first, second), known, strict=True):
        if not said:
            what = f"it; `{version.measure(benchmark)}` measures it" if benchmark else _NO_TEST
            raise DataError(f"{version.name}: found no answers to {what}")
    pairs = [(ours, theirs) for theirs in known[1] for ours in known[0]]
    for ours, theirs in pairs:
        if ours.ground == theirs.ground and _same(ours, theirs):
            return ours, theirs
    advice = f"`{first.measure(benchmark)}` and `{second.measure(benchmark)}` ask the same rows"
    raise DataError(
        f"{first.name} and {second.name} can't be compared: {_what_differs(pairs, first, second)}. "
        + (advice if benchmark else _ASK_AGAIN)
    )


_NO_TEST = (
    "test rows, neither kept with it nor in the runs folder. Name the folder of its run with "
    "--runs, or run the pipeline again"
)
_ASK_AGAIN = "Run the pipeline again as the later one did: its gate asks the champion the same rows"


def _same(ours: Said, theirs: Said) -> bool:
    alike = bool(ours.asked) and differs(ours.asked, theirs.asked) is None
    return alike or ours.protocol == theirs.protocol


def _what_differs(pairs: Sequence[tuple[Said, Said]], first: Asked, second: Asked) -> str:
    for ours, theirs in pairs:
        if _same(ours, theirs):
            changed = ground.differences(ours.ground, theirs.ground)
            return f"they answered on different grounds, {changed}"
    ours, theirs = pairs[0]
    words = differs(ours.asked, theirs.asked)
    told = [words] if words else [*_rows(ours, theirs), *_settings(first.config, second.config)]
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
