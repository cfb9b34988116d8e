"""Where a step's time goes, for stock TRL and for the packed engine: means over the steps.

python benchmarks/profile_step.py sft
python benchmarks/profile_step.py dpo --rows 160
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine import Run
from engine_worker import build
from work import demo_rows

PARTS = ("images and tokens", "vision tower", "forward", "backward", "optimizer and the rest")


def main() -> None:
    """Profile both engines and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=("sft", "dpo"))
    parser.add_argument("--rows", type=int, default=192)
    parser.add_argument("--dtype", default="bfloat16")
    options = parser.parse_args()
    batch = {"sft": 16, "dpo": 8}[options.task]
    folder = Path(tempfile.gettempdir()) / "vlm-bench"
    print(f"milliseconds a step of {batch} | " + " | ".join(PARTS) + " | all | before step 1, s")
    for engine in ("trl", "packed"):
        run = Run(
            task=options.task, engine=engine, model="tiny", shape="charts", rows=options.rows,
            epochs=1, batch=batch, micro=batch, dtype=options.dtype, folder=str(folder),
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as out:
            began = time.perf_counter()
            trainer, _ = build(run, demo_rows(folder), Path(out) / "step")
            before = time.perf_counter() - began
            spent = profile(trainer)
        steps = options.rows // batch
        shown = " | ".join(f"{spent[part] / steps * 1e3:.0f}" for part in (*PARTS, "all"))
        print(f"{engine} | {shown} | {before:.1f}")


def profile(trainer: Any) -> dict[str, float]:
    """Train, and return seconds by part.

    Args:
        trainer: Ready to train.
    """
    spent: dict[str, float] = defaultdict(float)
    stack: list[str] = []

    def timed(owner: Any, name: str, part: str) -> None:
        former: Callable[..., Any] = getattr(owner, name)

        def call(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            stack.append(part)
            try:
                return former(*args, **options)
            finally:
                stack.pop()
                took = time.perf_counter() - began
                spent[part] += took
                if stack:
                    spent[stack[-1]] -= took

        setattr(owner, name, call)

    timed(trainer, "data_collator", "images and tokens")
    if (store := getattr(trainer, "features", None)) is not None:
        timed(store, "_next_pixels", "images and tokens")
    timed(trainer.model.get_base_model().model, "get_image_features", "vision tower")
    timed(trainer, "compute_loss", "forward")
    timed(trainer.accelerator, "backward", "backward")
    began = time.perf_counter()
    trainer.train()
    spent["all"] = time.perf_counter() - began
    spent["optimizer and the rest"] = spent["all"] - sum(spent[part] for part in PARTS)
    return spent


if __name__ == "__main__":
    main()
