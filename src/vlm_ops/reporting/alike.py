"""Answers of two versions that may be compared: to the same rows, asked in the same way."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from vlm_ops.artifacts import PROTOCOL, AnswerSet
from vlm_ops.config.benchmarks import shipped
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.errors import DataError, OutputError
from vlm_ops.evaluation.protocol import differs
from vlm_ops.models import ground
from vlm_ops.records import Answer
from vlm_ops.registry.said import Said
from vlm_ops.store.artifact import read_record

_RUNS = Path("runs")


@dataclass(frozen=True)
class Asked:
    """A version, and all that it is known to have said to test rows and benchmarks.

    Attributes:
        name: As people call it.
        content: Content hash of its model.
        config: Of its run; None where an earlier vlm-ops registered it.
        kept: What runs asked it, which leave out pictures that their training sees.
        own: Those of them that its own run asked.
        at_hand: What lies in the runs folder, the newest first; commands ask all rows.
        address: As commands take it.
        runs: The runs folder.
    """

    name: str
    content: str
    config: PipelineConfig | None
    kept: tuple[Said, ...]
    own: tuple[Said, ...] = ()
    at_hand: tuple[Said, ...] = ()
    address: str = ""
    runs: Path = _RUNS

    def measure(self, benchmark: str) -> str:
        """Return the command that measures it."""
        at = "" if self.runs == _RUNS else f" --runs {shlex.quote(str(self.runs))}"
        return f"vlm-ops benchmark {self.address} {source(benchmark)}{at}"

    def said(self, benchmark: str | None) -> list[Said]:
        """Return its answers to a benchmark, or to test rows."""
        return [one for one in (*self.kept, *self.at_hand) if one.benchmark == benchmark]


class Alike(NamedTuple):
    """What two models said to the same rows, and why one may have been trained on them, if so."""

    first: Said
    second: Said
    doubt: str = ""


def source(benchmark: str) -> str:
    """Return where a benchmark is read from: one of one's own is a file."""
    return benchmark if benchmark in shipped() else f"{benchmark}.yaml"


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


def alike(first: Asked, second: Asked, benchmark: str | None = None) -> Alike:
    """Return what both said to the same rows in the same way: what runs asked, then the newest.

    On a benchmark, what a model brings with itself, its template and its bounds on pixels, may
    differ, as it may for the gate. None are test rows.

    Raises:
        DataError: There is nothing of the kind; says what differs, and what to do.
    """
    if lacking := [one for one in (first, second) if not one.said(benchmark)]:
        names = " and ".join(one.name for one in lacking)
        told = [f"`{one.measure(benchmark)}` measures it" for one in lacking if benchmark]
        what = "; ".join(["it", *told]) if benchmark else _NO_TEST
        raise DataError(f"{names}: found no answers to {what}")
    pairs = [(ours, theirs) for theirs in second.said(benchmark) for ours in first.said(benchmark)]
    pairs.sort(key=lambda pair: not (pair[0] in first.kept and pair[1] in second.kept))
    for ours, theirs in pairs:
        if ours.ground == theirs.ground and _same(ours, theirs):
            if benchmark is None or (ours in first.kept and theirs in second.kept):
                return Alike(ours, theirs)
            return _untrained((ours, theirs), (first, second))
    commands = " and ".join(f"`{v.measure(benchmark)}`" for v in (first, second) if benchmark)
    raise DataError(
        f"{first.name} and {second.name} can't be compared: {_what_differs(pairs, first, second)}. "
        + (f"{commands} ask the same rows" if benchmark else _ASK_AGAIN)
    )


def _untrained(pair: tuple[Said, Said], versions: tuple[Asked, Asked]) -> Alike:
    """Leave out what a version's own run did not ask: commands ask what was trained on, too."""
    on, names = pair[0].benchmark, " and ".join(one.name for one in versions)
    asked = {
        one.name: {(answer.id, answer.image_id) for answer in said.answers}
        for one in versions for said in one.own if said.benchmark == on
    }  # fmt: skip

    def unseen(answer: Answer) -> bool:
        return all((answer.id, answer.image_id) in rows for rows in asked.values())

    kept = [one.model_copy(update={"answers": (*filter(unseen, one.answers),)}) for one in pair]
    if not kept[0].answers:
        raise DataError(f"{names}: their runs asked no row of it in common")
    unknown = " and ".join(one.name for one in versions if one.name not in asked)
    why = "may have been trained on its pictures: commands ask also what runs leave out"
    return Alike(kept[0], kept[1], unknown and f"{unknown} {why}")


_NO_TEST = (
    "test rows, neither kept with a version nor in the runs folder. Name the folder of its run "
    "with --runs, or run the pipeline again"
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
