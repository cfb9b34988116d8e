"""How far apart are equal models? The demo's SFT with other training seeds on the same rows.

Each pair of them is compared on the test rows, group by group. What the differences vary by is
what ``vlm-ops gate simulate`` draws its nights from (``evaluation/simulate.py``).

    python benchmarks/reseeds.py --seeds 0 1 2 3 4 5 --runs runs

Everything is kept under ``--runs`` as the pipeline keeps it, so an interrupted run goes on.
"""

import argparse
from pathlib import Path
from typing import Any

from flows.child import run_in_child
from vlm_ops.artifacts import AnswerSet
from vlm_ops.config.load import load_config
from vlm_ops.records import Answer
from vlm_ops.steps.plan import Outputs, Work, perform, plan
from vlm_ops.tracker import NullTracker


def main() -> None:
    """Train and ask one model per seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4, 5])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    options = parser.parse_args()
    runs = options.runs.resolve()
    data = _take("prepare", 0, runs, {})
    for seed in options.seeds:
        answers = retrained(seed, runs, data)
        print(seed, sum(a.relaxed for a in answers) / len(answers), flush=True)


def retrained(seed: int, runs: Path, data: Outputs) -> list[Answer]:
    """Return the answers to the test rows after SFT with another seed on the same rows."""
    outputs = {**data, **_take("sft", seed, runs, data)}
    config = load_config("demo", [f"execution.runs={runs}"])
    found = perform(plan("sft on test", config, outputs), NullTracker())
    assert isinstance(found, AnswerSet)
    return found.read()


def _take(step: str, seed: int, runs: Path, outputs: Outputs) -> dict[str, Any]:
    work = Work((step,), load_config("demo", [f"seed={seed}", f"execution.runs={runs}"]), outputs)
    return work.done() or run_in_child(work, tracking=None, threads=None)


if __name__ == "__main__":
    main()
