"""What does the preference stage bring? The demo's, on rows that SFT never saw, and its controls.

For each seed: SFT without the reserved groups, then on the same pairs what the demo does, and
what its sft term alone does; beside them SFT on all training rows. Differences are paired, with
95 % intervals that resample groups.

    python benchmarks/preferences.py --seeds 0 1 2 --split test --runs runs
    python benchmarks/preferences.py --split validation --arm "sigmoid: prefer.loss=sigmoid"

Everything is kept under ``--runs`` as the pipeline keeps it, so an interrupted run goes on.
"""

import argparse
import shlex
from pathlib import Path
from typing import Any

from flows.child import run_in_child
from vlm_ops.artifacts import AnswerSet, PreferencePairs
from vlm_ops.config.load import load_config
from vlm_ops.evaluation import words
from vlm_ops.evaluation.statistics import difference
from vlm_ops.records import Answer
from vlm_ops.steps.plan import Outputs
from vlm_ops.steps.work import Work

_ARMS = ["sft term alone: prefer.loss=sft"]
_RESAMPLES = 2000


def main() -> None:
    """Measure all arms, seed by seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--split", choices=["validation", "test"], default="validation")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--arm", dest="arms", action="append", default=[], metavar="NAME: KEY=V …")
    parser.add_argument("--all", action="store_true", help="also SFT on all training rows")
    options = parser.parse_args()
    for seed in options.seeds:
        given = [f"execution.runs={options.runs.resolve()}", f"seed={seed}", *options.overrides]
        _measure(seed, given, options.arms or _ARMS, options.split, everything=options.all)


def _measure(seed: int, given: list[str], arms: list[str], split: str, *, everything: bool) -> None:
    data = _take("prepare", given, {})
    trained = _take("pairs", given, _take("sft", given, data))
    pairs = trained["pairs"]
    assert isinstance(pairs, PreferencePairs)
    sft = _answers("sft", split, given, trained)
    print(f"seed {seed}: {pairs.train} pairs, sft {_accuracy(sft)}", flush=True)
    for arm in ["as set:", *arms]:
        name, _, settings = arm.partition(":")
        changed = [*given, *shlex.split(settings)]
        preferred = _answers("preferred", split, changed, _take("prefer", changed, trained))
        _tell(seed, name, preferred, sft)
    if everything:
        whole = [*given, "pairs.reserve=0"]
        _tell(
            seed, "sft on all rows", _answers("sft", split, whole, _take("sft", whole, data)), sft
        )


def _tell(seed: int, name: str, answers: list[Answer], sft: list[Answer]) -> None:
    found = difference(answers, sft, than="sft", resamples=_RESAMPLES, seed=0)
    print(f"seed {seed}: {name} {_accuracy(answers)}, {words.difference(found)}", flush=True)


def _accuracy(answers: list[Answer]) -> str:
    return words.percent(sum(answer.relaxed for answer in answers) / len(answers))


def _answers(model: str, split: str, given: list[str], outputs: Outputs) -> list[Answer]:
    found = _take(f"{model} on {split}", given, outputs)[f"{model} on {split}"]
    assert isinstance(found, AnswerSet)
    return found.read()


def _take(step: str, given: list[str], outputs: Outputs) -> dict[str, Any]:
    """Return the outputs with that of one step, found or made now."""
    work = Work((step,), load_config("demo", given), outputs)
    found, left = work.done()
    taken = found if left is None else run_in_child(left, tracking=None, threads=None)
    return {**outputs, **taken}


if __name__ == "__main__":
    main()
