"""One training, or one round of answers, for ``benchmarks/engine.py``: prints a line of JSON."""

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from engine import Run, clock, peak_memory_gb
from work import LORA, Pairs, Rows, demo_rows, paired, reference, shaped, start

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.pipeline import PreferJob, SftJob
from vlm_ops.config.training import PreferSettings, SftSettings
from vlm_ops.data.images import open_image
from vlm_ops.models.generation import generate
from vlm_ops.models.loading import load
from vlm_ops.tracker import NullTracker
from vlm_ops.training.engine.encode import Encoder
from vlm_ops.training.engine.trainers import ByImage
from vlm_ops.training.prefer import prefer_trainer
from vlm_ops.training.sft import sft_trainer


def train(run: Run) -> dict[str, Any]:
    """Train and measure.

    Args:
        run: What to do.
    """
    data = demo_rows(Path(run.folder))
    before = _resident_gb()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as out:
        trainer, began = build(run, data, Path(out))
        built = clock()
        losses = _Losses(trainer) if run.parity else None
        trainer.train()
        ended = clock()
    features = getattr(trainer, "features", None)
    peak = peak_memory_gb() - before
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated() / 2**30
    return {
        "samples_per_s": run.rows * run.epochs / (ended - began),
        "peak_memory_gb": peak,
        "seconds": {
            "tokens, reference, building": built - began,
            "training": ended - built,
            "of these on images": features.usage.seconds if features else 0.0,
        },
        "losses": losses.seen if losses else [],
    }


def build(run: Run, data: PreparedData, out: Path) -> tuple[Any, float]:
    """Load a model and build a trainer for it.

    Args:
        run: What to do.
        data: The demo's rows.
        out: For its files.

    Returns:
        The trainer, and when the model was loaded.
    """
    folder = Path(run.folder)
    ref = reference(run.model, folder, run.dtype)
    rows: list[Any] = shaped(data, run.shape, run.rows)
    if len(rows) < run.rows:
        raise SystemExit(f"{run.shape}: {len(rows)} rows, asked for {run.rows}")
    base = start(ref, folder) if run.task == "dpo" else None
    loaded = load(base.model if base else ref, trainable=True)
    if run.task == "dpo":
        rows = paired(rows, seed=0)
    if run.parity:
        rows = _in_our_order(rows, loaded, run)
    began = clock()
    return _trainer(run, rows, loaded, data, out), began


def _trainer(run: Run, rows: list[Any], loaded: Any, data: Any, out: Path) -> Any:
    changes: dict[str, Any] = {
        "epochs": run.epochs,
        "batch_size": run.micro,
        "accumulation": run.batch // run.micro,
        "learning_rate": 1e-4,
        "evaluations": 1,
    }
    tracker = NullTracker()
    engine: Any = run.engine
    if run.task == "sft":
        sft = SftSettings(**changes, lora=LORA)
        job = SftJob(seed=0, model=loaded.ref.settings, sft=sft, engine=engine)
        chosen = Rows(**data.model_dump(), folder=data.folder, chosen=tuple(rows))
        trainer = sft_trainer(job, sft, loaded, data=chosen, out=out, tracker=tracker)
    else:
        prefer = PreferSettings(**changes)
        pairs = Pairs(
            folder=out, content="bench", train=len(rows), validation=1, images=Path(),
            source="bench", chosen=tuple(rows), folder_of_images=data.folder / data.images,
        )  # fmt: skip
        job_of_pairs = PreferJob(seed=0, prefer=prefer, engine=engine)
        trainer = prefer_trainer(
            job_of_pairs, prefer, loaded, pairs=pairs, out=out, tracker=tracker
        )
    args = trainer.args
    args.eval_strategy, args.save_strategy, args.eval_on_start = "no", "no", False
    # Curves of the pipeline score and save at the end; here the last step is the end.
    trainer.callback_handler.callbacks = [
        callback
        for callback in trainer.callback_handler.callbacks
        if type(callback).__name__ != "Curves"
    ]
    if run.parity:
        args.logging_steps = 1
        if run.engine == "trl":
            args.train_sampling_strategy = "sequential"
    elif run.engine == "trl":
        # As stock TRL has them; the pipeline turns them back to float32.
        for name, parameter in trainer.model.named_parameters():
            if parameter.requires_grad and "magnitude" not in name:
                parameter.data = parameter.data.to(torch.bfloat16)
    return trainer


def _in_our_order(rows: list[Any], loaded: Any, run: Run) -> list[Any]:
    """Sort rows as the packed engine will meet them; stock TRL then takes them one by one."""
    if run.engine == "packed":
        return rows
    encoder = Encoder(loaded.processor, 2**31)
    encoded = encoder.rows(rows) if run.task == "sft" else encoder.pairs(rows)
    return [rows[number] for number in ByImage(encoded, seed=0)]


class _Losses:
    """Collects the loss of every step."""

    def __init__(self, trainer: Any) -> None:
        self.seen: list[float] = []
        log = trainer.log

        def keep(logs: dict[str, float], *args: Any) -> None:
            if "loss" in logs:
                self.seen.append(logs["loss"])
            log(logs, *args)

        trainer.log = keep


def answer(model: str, rows: int, folder: str, repeat: int) -> dict[str, Any]:
    """Answer greedily, one by one and batched, in turns.

    Args:
        model: One of the models.
        rows: How many questions.
        folder: Of the benchmark.
        repeat: Rounds.
    """
    data = demo_rows(Path(folder))
    chosen = data.rows("test")[:rows]
    questions = [row.question for row in chosen]
    images = [[open_image(data.image_path(i.path)) for i in row.images] for row in chosen]
    speeds: dict[int, list[float]] = {1: [], 64: []}
    best: dict[int, float] = {}
    answers: dict[tuple[int, str], list[str]] = {}
    for dtype in ("bfloat16", "float32"):
        loaded = load(reference(model, Path(folder), dtype))
        for size, seen in speeds.items():
            seen.clear()
            for _ in range(repeat):
                began = clock()
                answers[size, dtype] = generate(
                    loaded, questions, images, max_new_tokens=8, batch_size=size
                )
                seen.append(len(chosen) / (clock() - began))
            best[size] = max(best.get(size, 0.0), statistics.median(seen))
    same = [
        sum(a == b for a, b in zip(answers[1, dtype], answers[64, dtype], strict=True))
        for dtype in ("bfloat16", "float32")
    ]
    return {
        "task": "generate",
        "model": model,
        "rows": len(chosen),
        "one_by_one": best[1],
        "batched": best[64],
        "ratio_samples_per_s": best[64] / best[1],
        "same_answers": min(same),
        "same_answers_by_dtype": {"bfloat16": same[0], "float32": same[1]},
    }


def _resident_gb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**30


if __name__ == "__main__":
    what, values = sys.argv[1], json.loads(sys.argv[2])
    print(json.dumps(train(Run(**values)) if what == "train" else answer(**values)))
