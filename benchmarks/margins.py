"""How far does SFT on charts lift a model, and how much of that is the format alone?

For each seed: the demo's SFT and the same on shuffled training images, both asked the test rows
of unseen tables, beside the base, the SFT model on gray images and the most frequent answer.

    python benchmarks/margins.py --seeds 0 1 2 --runs runs

Everything is kept under ``--runs`` as the pipeline keeps it, so an interrupted run goes on.
"""

import argparse
import json
from pathlib import Path
from typing import Any, cast

from flows.child import run_in_child
from vlm_ops.artifacts import AnswerSet, ModelRef, PreparedData, TrainedAdapter
from vlm_ops.config.load import load_config
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.evaluation.answers import answer, majority, read_answers
from vlm_ops.evaluation.statistics import difference
from vlm_ops.steps.plan import plan

NAMES = ("majority", "blind", "base", "shuffled", "sft")


def main() -> None:
    """Measure and print one table per seed, and the smallest margin."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    options = parser.parse_args()
    found = {
        seed: measure(seed, options.runs.resolve(), options.overrides) for seed in options.seeds
    }
    for seed, margins in found.items():
        print(f"seed {seed}:", json.dumps(margins))
    least = min(m["margins"][other]["points"] for m in found.values() for other in NAMES[:-1])
    above = max(m["scores"]["blind"] - m["scores"]["majority"] for m in found.values())
    print(
        f"smallest margin of sft: {100 * least:.1f} points; blind over majority: {100 * above:+.1f}"
    )


def measure(seed: int, runs: Path, overrides: list[str]) -> dict[str, Any]:
    """Return scores and paired margins of one seed."""
    given = [f"seed={seed}", f"execution.runs={runs}", *overrides]
    config = load_config("demo", given)
    data, sft = train(config)
    _, control = train(load_config("demo-shuffled", given))
    asked = {
        "majority": majority(data, "test", evaluate=config.evaluate, seed=seed, runs=runs),
        "blind": ask(config, data, sft.model, blind=True),
        "base": ask(config, data, sft.base),
        "shuffled": ask(config, data, control.model),
        "sft": ask(config, data, sft.model),
    }
    rows = {name: read_answers(found.folder) for name, found in asked.items()}
    margins = {
        other: difference(
            rows["sft"], rows[other], than=other, needed=0.15, resamples=2000, seed=seed
        ).model_dump()
        for other in NAMES[:-1]
    }
    scores = {name: found.score.relaxed_accuracy for name, found in asked.items()}
    kinds = {kind: score.relaxed_accuracy for kind, score in asked["sft"].by_kind.items()}
    return {"scores": scores, "margins": margins, "kinds": kinds}


def train(config: PipelineConfig) -> tuple[PreparedData, TrainedAdapter]:
    """Prepare and fine-tune, each in a process of its own, unless that was done before."""
    prepared = plan("prepare", config, {})
    data = prepared.done() or run_in_child(prepared, tracking=None, threads=None)
    trained = plan("sft", config, {"data": data})
    sft = trained.done() or run_in_child(trained, tracking=None, threads=None)
    return cast(PreparedData, data), cast(TrainedAdapter, sft)


def ask(
    config: PipelineConfig, data: PreparedData, model: ModelRef, *, blind: bool = False
) -> AnswerSet:
    """Return a model's answers to the test rows."""
    return answer(
        model, data, "test", evaluate=config.evaluate, seed=config.seed, blind=blind,
        runs=config.execution.runs,
    )  # fmt: skip


if __name__ == "__main__":
    main()
