"""How far apart are equal models? The demo's SFT with other training seeds on the same rows.

Each pair of them is compared on the test rows, group by group. What the differences vary by is
what ``vlm-ops gate simulate`` draws its nights from (``RESEEDS`` in ``evaluation/power.py``).

    python benchmarks/reseeds.py --seeds 0 1 2 3 4 5 --runs runs
    python benchmarks/reseeds.py --seeds 0 1 --set sft.epochs=1 --runs runs

Everything is kept under ``--runs`` as the pipeline keeps it, so an interrupted run goes on.
"""

import argparse
import itertools
from pathlib import Path
from typing import Any

from flows.child import run_in_child
from vlm_ops.artifacts import AnswerSet
from vlm_ops.config.load import load_config
from vlm_ops.evaluation.power import moments
from vlm_ops.records import Answer
from vlm_ops.steps.plan import Outputs, perform, plan
from vlm_ops.steps.work import Work
from vlm_ops.tracker import NullTracker


def main() -> None:
    """Train and ask one model per seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4, 5])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()
    runs = options.runs.resolve()
    shared = [f"execution.runs={runs}"]
    data = _take("prepare", shared, {})
    answers = []
    for seed in options.seeds:
        given = [*shared, f"seed={seed}", *options.overrides]
        answers.append(asked({**data, **_take("sft", given, data)}, shared))
        right = sum(answer.relaxed for answer in answers[-1]) / len(answers[-1])
        print(f"seed {seed}: {100 * right:.1f} %", flush=True)
    spreads = [moments(one, other) for one, other in itertools.combinations(answers, 2)]
    if spreads:
        between, within = (sum(column) / len(spreads) for column in zip(*spreads, strict=True))
        print(f"mean of {len(spreads)} pairs: between {between:.5f}, within {within:.4f}")


def asked(outputs: Outputs, overrides: list[str]) -> list[Answer]:
    """Return the SFT model's answers to the test rows, from an earlier run or by asking it."""
    config = load_config("demo", overrides)
    found = perform(plan("sft on test", config, outputs), NullTracker())
    assert isinstance(found, AnswerSet)
    return found.read()


def _take(step: str, overrides: list[str], outputs: Outputs) -> dict[str, Any]:
    work = Work((step,), load_config("demo", overrides), outputs)
    found, left = work.done()
    return found if left is None else found | run_in_child(left, tracking=None, threads=None)


if __name__ == "__main__":
    main()
