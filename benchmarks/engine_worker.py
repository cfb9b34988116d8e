"""One training, or one round of answers, for ``benchmarks/engine.py``: prints a line of JSON."""

import json
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from engine import Run
from work import LORA, Pairs, Rows, demo_rows, paired, reference, settings_of, shaped, start

from vlm_ops.artifacts import ModelRef, PreparedData, TrainedAdapter
from vlm_ops.config.jobs import PreferJob, SftJob
from vlm_ops.config.training import LoraSettings, PreferSettings, SftSettings
from vlm_ops.data.images import open_image
from vlm_ops.models.generation import generate
from vlm_ops.models.loading import LoadedModel, load
from vlm_ops.tracker import NullTracker
from vlm_ops.training.engine.check import Check, agreed
from vlm_ops.training.engine.encode import Encoder
from vlm_ops.training.engine.trainers import ByImage
from vlm_ops.training.memory import peak_memory_gb
from vlm_ops.training.prefer import prefer_stage
from vlm_ops.training.sft import sft_stage
from vlm_ops.training.stage import Stage
from vlm_ops.training.stage import build as build_trainer


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
        # Features of images are kept beside a step's folder: within this one, so that they go.
        trainer, began = build(run, data, Path(out) / "step")
        built = perf_counter()
        trainer.train()
        ended = perf_counter()
    features = getattr(trainer, "features", None)
    peak = peak_memory_gb() - (0.0 if torch.cuda.is_available() else before)
    return {
        "samples_per_s": run.rows * run.epochs / (ended - began),
        "peak_memory_gb": peak,
        "seconds": {
            "tokens, reference, building": built - began,
            "training": ended - built,
            "of these on images": features.usage.seconds if features else 0.0,
        },
        "losses": _logged(trainer, "loss"),
        "gradient_norms": _logged(trainer, "grad_norm"),
    }


def _logged(trainer: Any, name: str) -> list[float]:
    """Every step's number, where every step is logged."""
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def base_of(run: Run) -> tuple[ModelRef, TrainedAdapter | None]:
    """Find, or make, what a training begins with.

    Args:
        run: What to do.

    Returns:
        What is loaded, and the adapter of it that preferences go on from.
    """
    folder = Path(run.folder)
    ref = reference(run.model, folder, run.dtype)
    if run.task == "sft":
        return ref, None
    base = start(ref, folder, lora_of(run))
    return base.model, base


def lora_of(run: Run) -> LoraSettings:
    """Return the adapter that is trained."""
    return LoraSettings.model_validate(run.settings.get("lora", LORA))


def build(
    run: Run, data: PreparedData, out: Path, loaded: LoadedModel | None = None
) -> tuple[Any, float]:
    """Load a model and build a trainer for it.

    Args:
        run: What to do.
        data: Whose training rows are taken.
        out: For its files; features of images are kept in its parent.
        loaded: The model, if it is loaded already.

    Returns:
        The trainer, and when the model was loaded.
    """
    rows: list[Any] = shaped(data, run.shape, run.rows)
    if len(rows) < run.rows:
        raise SystemExit(f"{run.shape}: {len(rows)} rows, asked for {run.rows}")
    ref, base = base_of(run)
    loaded = loaded or load(ref, trainable=True)
    if run.engine == "trl":
        loaded.model.set_attn_implementation({"text_config": run.attention})
    if base is not None:
        rows = paired(rows, seed=0)
    if run.parity:
        rows = _in_our_order(rows, loaded, run)
    out.mkdir(exist_ok=True)
    stage = _stage(run, rows, base, data, out)
    if run.trial:
        agreed(Check(engine="packed", said="agrees with it: not compared"), out, "trial")
    began = perf_counter()
    trainer = build_trainer(replace(stage, load=lambda: loaded), stage.optim)
    if trainer.engine != run.engine:
        raise SystemExit(f"{run.engine} was to be measured, and {trainer.engine} trains")
    _only_the_steps(trainer, run)
    return trainer, began


def _stage(run: Run, rows: list[Any], base: TrainedAdapter | None, data: Any, out: Path) -> Stage:
    changes: dict[str, Any] = {
        "epochs": run.epochs,
        "batch_size": run.micro,
        "accumulation": run.batch // run.micro,
        "learning_rate": 1e-4,
        "evaluations": 1,
        "lora": lora_of(run),
    } | {key: value for key, value in run.settings.items() if key != "lora"}
    engine: Any = run.engine
    if base is None:
        model = settings_of(run.model, Path(run.folder), run.dtype)
        job = SftJob(seed=0, model=model, sft=SftSettings(**changes), engine=engine)
        given = data.model_dump(exclude={"chosen"})
        chosen = Rows(**given, folder=data.folder, chosen=tuple(rows))
        return sft_stage(job, chosen, out, NullTracker())
    pairs = Pairs(
        folder=out, content="bench", train=len(rows), validation=1, images=Path(),
        source="bench", chosen=tuple(rows), folder_of_images=data.folder / data.images,
    )  # fmt: skip
    prefer = PreferJob(seed=0, prefer=PreferSettings(**changes, loss=("sigmoid",)), engine=engine)
    return prefer_stage(prefer, pairs, base, out=out, tracker=NullTracker())


def _only_the_steps(trainer: Any, run: Run) -> None:
    args = trainer.args
    args.eval_strategy, args.save_strategy, args.eval_on_start = "no", "no", False
    # The pipeline's score and save at the end, or by the clock; here the last step is the end.
    trainer.callback_handler.callbacks = [
        callback
        for callback in trainer.callback_handler.callbacks
        if type(callback).__name__ not in ("Curves", "Punctual")
    ]
    if run.parity:
        args.logging_steps = 1
        if run.engine == "trl":
            args.train_sampling_strategy = "sequential"
    elif run.engine == "trl" and not args.fp16:
        # As stock TRL has them; the pipeline turns them back to float32. In float16 they stay so:
        # the loss scaler takes no gradients in bfloat16.
        for name, parameter in trainer.model.named_parameters():
            if parameter.requires_grad and "magnitude" not in name:
                parameter.data = parameter.data.to(torch.bfloat16)


def _in_our_order(rows: list[Any], loaded: Any, run: Run) -> list[Any]:
    """Sort rows as the packed engine will meet them; stock TRL then takes them one by one."""
    if run.engine == "packed":
        return rows
    encoder = Encoder(loaded.processor, 2**31)
    encoded = encoder.rows(rows) if run.task == "sft" else encoder.pairs(rows)
    return [rows[number] for number in ByImage(encoded, seed=0)]


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
    chats = [row.chat for row in chosen]
    images = [[open_image(data.image_path(i.path)) for i in row.images] for row in chosen]
    speeds: dict[int, list[float]] = {1: [], 64: []}
    best: dict[int, float] = {}
    answers: dict[tuple[int, str], list[str]] = {}
    for dtype in ("bfloat16", "float32"):
        loaded = load(reference(model, Path(folder), dtype))
        for size, seen in speeds.items():
            seen.clear()
            for _ in range(repeat):
                began = perf_counter()
                answers[size, dtype] = generate(
                    loaded, chats, images, max_new_tokens=8, batch_size=size
                )
                seen.append(len(chosen) / (perf_counter() - began))
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
