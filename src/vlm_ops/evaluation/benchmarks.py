"""What the gate asks on benchmarks: better where the settings say, and nowhere worse by too much.

The budget of looks is the test rows' own: whoever is promoted was better there, at the level of
this look, and whatever benchmarks ask comes on top. So what they let pass spends nothing. What
they refuse has a budget of its own: of candidates that are equal everywhere, at most 5 % are
called worse on any of them.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from vlm_ops.artifacts import AnswerSet
from vlm_ops.config.gate import BenchmarkTerms
from vlm_ops.config.jobs import GateJob
from vlm_ops.errors import DataError, OutputError
from vlm_ops.evaluation import statistics, words
from vlm_ops.evaluation.comparison import DoubtError, champion_name, comparable, same_ground
from vlm_ops.evaluation.metrics import find
from vlm_ops.evaluation.paired import paired
from vlm_ops.evaluation.protocol import asked_otherwise
from vlm_ops.records import Difference

WORSE_LEVEL = 0.05
"""In at most so many judgements of models that are equal on every benchmark one is called worse."""

Answers = Mapping[str, AnswerSet | None]


class Judged(NamedTuple):
    """What was found on one benchmark.

    Attributes:
        passed: Whether the gate's condition there holds.
        reason: In words.
        difference: The numbers; None where the answers can't be compared.
    """

    passed: bool
    reason: str
    difference: Difference | None = None


class _Pair(NamedTuple):
    """The candidate and its rival on one benchmark, and how often luck alone loses as much."""

    ours: AnswerSet
    theirs: AnswerSet
    loss: float


def on_benchmarks(
    job: GateJob, version: str | None, answers: Answers, level: float
) -> Iterator[Judged]:
    """Compare the candidate with the champion, or without one the base, on every benchmark.

    Args:
        job: The terms of each benchmark, the bootstrap's resamples and its seed.
        version: Of the champion; None if there is none.
        answers: By ``<model> on <benchmark>``.
        level: That a comparison which must be won has to meet.
    """
    first = version is None and answers.get("champion") is None
    rival = "base" if first else "champion"
    called = "the base" if first else champion_name(version)
    pairs: dict[str, _Pair] = {}
    for name in job.gate.benchmarks:
        both = (answers.get(f"{who} on {name}") for who in ("candidate", rival))
        try:
            pairs[name] = _pair(job, called, *both)
        except (DoubtError, DataError, OutputError) as doubt:
            yield Judged(False, f"on {name}: {doubt}")
    worse = _worse({name: pair.loss for name, pair in pairs.items()})
    for name, pair in pairs.items():
        terms = job.gate.benchmarks[name]
        bar = statistics.Bar(-terms.margin, metric=find(pair.ours.metric))
        if terms.improve:
            bar = bar._replace(needed=0.0, level=level)
        found = statistics.difference(
            pair.ours.read(), pair.theirs.read(), bar,
            than=rival, resamples=job.resamples, seed=job.seed,
        )  # fmt: skip
        lost = name in worse and found.points < -terms.margin
        passed = not lost and (found.passed or not terms.improve)
        found = found.model_copy(update={"on": name, "passed": passed})
        said = _lost(pair, terms) if lost else _held(found, terms)
        ours, theirs = (words.scored(one.value, one.metric) for one in (pair.ours, pair.theirs))
        numbers = f"{ours} against {called}'s {theirs}, {words.difference(found)}"
        yield Judged(passed, f"on {name}: {said}: {numbers}", found)


def _pair(job: GateJob, called: str, ours: AnswerSet | None, theirs: AnswerSet | None) -> _Pair:
    metric = ours.metric if ours else ""
    mine = comparable("the candidate", ours, ours.protocol if ours else "", metric)
    other = comparable(called, theirs, theirs.protocol if theirs else "", metric)
    if (what := asked_otherwise(mine, other)) is not None:
        raise DoubtError(f"{called} was asked in another way than the candidate: {what}")
    same_ground(called, other, mine)
    loss = paired(mine.read(), other.read(), called, find(metric)).turned
    level = WORSE_LEVEL / len(job.gate.benchmarks)
    return _Pair(mine, other, loss.chance(0.0, job.seed, level))


def _worse(chances: Mapping[str, float]) -> set[str]:
    """Return where the candidate is worse, at 5 % over all together (Holm 1979)."""
    found: set[str] = set()
    for rank, name in enumerate(sorted(chances, key=lambda name: (chances[name], name))):
        if chances[name] > WORSE_LEVEL / (len(chances) - rank):
            break
        found.add(name)
    return found


def _lost(pair: _Pair, terms: BenchmarkTerms) -> str:
    return (
        f"worse, by more than the {100 * terms.margin:.1f} points that may be lost, which luck "
        f"alone gives in {words.chance(pair.loss)} of cases"
    )


def _held(found: Difference, terms: BenchmarkTerms) -> str:
    if terms.improve:
        return "better" if found.passed else "not shown to be better, as it has to be there"
    return f"not shown to lose more than {100 * terms.margin:.1f} points"
