"""What the gate asks on benchmarks: better where the settings say, and nowhere worse by too much.

The budget of looks is the test rows' own: whoever is promoted was better there, at the level of
this look, and whatever benchmarks ask comes on top. So what they let pass spends nothing. What
they refuse has a budget of its own: of candidates that are equal everywhere, at most 5 % are
called worse on any of them.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from vlm_ops.artifacts import AnswerSet, Evaluation
from vlm_ops.config.gate import BenchmarkTerms
from vlm_ops.config.jobs import GateJob
from vlm_ops.errors import DataError, OutputError
from vlm_ops.evaluation import statistics, words
from vlm_ops.evaluation.comparison import DoubtError, champion_name, comparable, same_ground
from vlm_ops.evaluation.metrics import find
from vlm_ops.evaluation.outlook import too_few
from vlm_ops.evaluation.paired import paired
from vlm_ops.evaluation.protocol import asked_otherwise
from vlm_ops.evaluation.signs import can_show
from vlm_ops.records import Difference

WORSE_LEVEL = 0.05
"""In at most so many judgements of models that are equal on every benchmark one is called worse."""

Answers = Mapping[str, AnswerSet | None]


class Judged(NamedTuple):
    """What was found on one benchmark.

    Attributes:
        passed: Whether the gate's condition there holds; None where it can't be asked.
        reason: In words.
        difference: The numbers; None where the answers can't be compared.
    """

    passed: bool | None
    reason: str
    difference: Difference | None = None


class _Side(NamedTuple):
    """One of the two that are compared: its key among answers, its name for people, its model."""

    key: str
    name: str
    model: str | None

    def on(self, benchmark: str, answers: Answers, metric: str) -> AnswerSet:
        """Return what it said to a benchmark; DoubtError where that can't be compared."""
        found = answers.get(f"{self.key} on {benchmark}")
        if found is None:
            raise DoubtError(f"{self.name} has no answers there")
        if found.metric != metric:
            raise DoubtError(f"{self.name} was judged by {found.metric} there, not by {metric}")
        if found.model != self.model:
            raise DoubtError(f"the answers there are another model's than {self.name}'s")
        return comparable(self.name, found, found.protocol, metric)


class _Pair(NamedTuple):
    """Candidate and rival on one benchmark, and how often luck alone loses as much."""

    ours: float
    theirs: float
    loss: float
    groups: int
    found: Difference


def on_benchmarks(
    job: GateJob, evaluation: Evaluation, version: str | None, answers: Answers, level: float
) -> Iterator[Judged]:
    """Compare the candidate with the champion, or without one the base, on every benchmark.

    A benchmark with too few groups to show a loss is not asked whether there is one, and takes
    nothing from what the others can show; it can still be one that has to improve.

    Args:
        job: The terms of each benchmark, the bootstrap's resamples and its seed.
        evaluation: Who is the candidate.
        version: Of the champion; None if there is none.
        answers: By ``<model> on <benchmark>``; ``champion`` and ``base`` on the test rows tell
            which model each of them is.
        level: That a comparison which must be won has to meet.
    """
    first = version is None and answers.get("champion") is None
    rival = "base" if first else "champion"
    known = answers.get(rival)
    ours = _Side("candidate", "the candidate", evaluation.model.content)
    called = "the base" if first else champion_name(version)
    theirs = _Side(rival, called, None if known is None else known.model)
    pairs: dict[str, _Pair] = {}
    for name in job.gate.benchmarks:
        try:
            pairs[name] = _pair(job, name, ours, theirs, answers, level)
        except (DoubtError, DataError, OutputError) as doubt:
            yield Judged(False, f"on {name}: {doubt}")
    shown = can_show({name: pair.groups for name, pair in pairs.items()}, WORSE_LEVEL)
    worse = _worse({name: pairs[name].loss for name in shown})
    for name, pair in pairs.items():
        terms = job.gate.benchmarks[name]
        if name not in shown:
            few = words.groups(pair.groups)
            yield Judged(None, f"whether it is worse on {name}: {few} can't show it")
        if name in shown or terms.improve:
            yield _judged(name, pair, terms, called, worse)


def _pair(
    job: GateJob, benchmark: str, ours: _Side, theirs: _Side, answers: Answers, level: float
) -> _Pair:
    """Compare two models on a benchmark; DoubtError where they can't be."""
    terms = job.gate.benchmarks[benchmark]
    mine, other = (side.on(benchmark, answers, terms.metric) for side in (ours, theirs))
    if (what := asked_otherwise(mine, other)) is not None:
        raise DoubtError(f"{theirs.name} was asked in another way than the candidate: {what}")
    same_ground(theirs.name, other, mine)
    metric, said, others = find(terms.metric), mine.read(), other.read()
    sums = paired(said, others, theirs.name, metric)
    bar = statistics.Bar(-terms.margin, metric=metric)
    if terms.improve:
        bar = bar._replace(needed=0.0, level=level)
    found = statistics.difference(
        said, others, bar, than=theirs.key, resamples=job.resamples, seed=job.seed
    )
    loss = sums.turned.chance(0.0, job.seed, WORSE_LEVEL / len(job.gate.benchmarks))
    return _Pair(mine.value, other.value, loss, len(sums.names), found)


def _judged(
    name: str, pair: _Pair, terms: BenchmarkTerms, called: str, worse: Collection[str]
) -> Judged:
    lost = name in worse and pair.found.points < -terms.margin
    passed = not lost and (pair.found.passed or not terms.improve)
    found = pair.found.model_copy(update={"on": name, "passed": passed})
    said = _lost(pair, terms) if lost else _held(found, terms, pair.groups)
    ours, theirs = words.named(pair.ours, terms.metric), words.scored(pair.theirs, terms.metric)
    scores = f"{ours} against {called}'s {theirs}"
    return Judged(passed, f"on {name}: {said}: {scores}, {words.difference(found)}", found)


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


def _held(found: Difference, terms: BenchmarkTerms, groups: int) -> str:
    if terms.improve and (why := too_few(groups, found.level, "rows")):
        return why
    if terms.improve and not found.passed:
        return (
            f"not shown to be better, as it has to be there (luck alone gives as much in "
            f"{words.chance(found.chance)} of cases, {words.chance(found.level)} are allowed)"
        )
    if terms.improve:
        return "better"
    return f"not shown to lose more than {100 * terms.margin:.1f} points"
