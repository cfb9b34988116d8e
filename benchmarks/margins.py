"""How far does SFT on charts lift a model, and how much of that is the format alone?

For each seed: the demo's SFT and the same on shuffled training images, both asked the test rows
of unseen tables, beside the base, the SFT model on gray images and the most frequent answer.

    python benchmarks/margins.py --seeds 0 1 2 --runs runs

Everything is kept under ``--runs`` as the pipeline keeps it, so an interrupted run goes on.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from flows.child import run_in_child
from vlm_ops.artifacts import AnswerSet, PreparedData, TrainedAdapter
from vlm_ops.config.load import load_config
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.evaluation.measured import majority, measure
from vlm_ops.evaluation.protocol import select_rows
from vlm_ops.evaluation.statistics import Bar, difference
from vlm_ops.records import Answer
from vlm_ops.steps.plan import Outputs, perform, plan
from vlm_ops.steps.work import Work
from vlm_ops.tracker import NullTracker

NAMES = ("majority", "sft_gray", "base", "shuffled", "sft")


def main() -> None:
    """Measure and print one table per seed, and the smallest margin."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()
    found = {
        seed: margins_of(seed, options.runs.resolve(), options.overrides) for seed in options.seeds
    }
    for seed, margins in found.items():
        print(f"seed {seed}:", json.dumps(margins))
    least = min(m["margins"][other]["points"] for m in found.values() for other in NAMES[:-1])
    above = max(m["scores"]["sft_gray"] - m["scores"]["majority"] for m in found.values())
    print(
        f"smallest margin of sft: {100 * least:.1f} points; on gray images over majority: "
        f"{100 * above:+.1f}"
    )


def margins_of(seed: int, runs: Path, overrides: list[str]) -> dict[str, Any]:
    """Return scores and paired margins of one seed."""
    given = [f"seed={seed}", f"execution.runs={runs}", *overrides]
    config = load_config("demo", given)
    outputs = train(config)
    data, control = outputs["prepare"], train(load_config("demo-shuffled", given))["sft"]
    assert isinstance(data, PreparedData)
    answers = {
        "majority": majority(
            data.rows("train"), select_rows(data.test, config.evaluate.max_rows, seed)
        ),
        "sft_gray": ask("sft on gray", config, outputs),
        "base": ask("base on test", config, outputs),
        "shuffled": ask("sft on test", config, {"prepare": data, "sft": control}),
        "sft": ask("sft on test", config, outputs),
    }
    options: dict[str, Any] = {"resamples": 2000, "seed": seed}
    margins = {
        other: difference(
            answers["sft"], answers[other], Bar(0.15), than=other, **options
        ).model_dump()
        for other in NAMES[:-1]
    }
    measured = {name: measure(found, model=name, **options) for name, found in answers.items()}
    scores = {name: found.score.value for name, found in measured.items()}
    kinds = {kind: score.value for kind, score in measured["sft"].by_kind.items()}
    return {"scores": scores, "margins": margins, "kinds": kinds}


def train(config: PipelineConfig) -> dict[str, PreparedData | TrainedAdapter]:
    """Prepare and fine-tune, each in a process of its own, unless that was done before."""
    outputs: dict[str, Any] = {}
    for step in ("prepare", "sft"):
        found, left = Work((step,), config, outputs).done()
        outputs |= found if left is None else run_in_child(left, tracking=None, threads=None)
    return outputs


def ask(step: str, config: PipelineConfig, outputs: Outputs) -> list[Answer]:
    """Return a model's answers, from an earlier run or by asking it."""
    found = perform(plan(step, config, outputs), NullTracker())
    assert isinstance(found, AnswerSet)
    return found.read()


if __name__ == "__main__":
    main()
