"""What the engine benchmark trains on: rows of several shapes, models of several sizes."""

import random
from pathlib import Path
from typing import Any

import torch
from shapes import SIZES, write_base

from vlm_ops.artifacts import ModelRef, PreferencePairs, PreparedData, TrainedAdapter
from vlm_ops.config.jobs import PrepareJob
from vlm_ops.config.load import load_config, presets
from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import LoraSettings
from vlm_ops.data.images import STORE
from vlm_ops.data.prepare import prepare
from vlm_ops.models.adapters import add_adapter
from vlm_ops.models.loading import base_ref, load
from vlm_ops.records import PreferencePair, Row, Split
from vlm_ops.store.fingerprint import fingerprint, sha256_file
from vlm_ops.tracker import NullTracker
from vlm_ops.training.mistakes import pair_with

LORA = LoraSettings(rank=16, alpha=32)

MODELS = ("tiny", *SIZES)


class Rows(PreparedData):
    """Training rows in memory; images where the prepared data has them."""

    chosen: tuple[Row, ...]

    def rows(self, split: Split) -> list[Row]:
        """Give the chosen rows for training, and one of them to score."""
        return list(self.chosen if split == "train" else self.chosen[:1])


class Pairs(PreferencePairs):
    """Preference pairs in memory."""

    chosen: tuple[PreferencePair, ...]
    folder_of_images: Path

    def pairs(self, split: Any) -> list[PreferencePair]:
        """Give the chosen pairs for training, and one of them to score."""
        return list(self.chosen if split == "train" else self.chosen[:1])

    def image_path(self, relative: str) -> Path:
        """Return where an image lies."""
        return self.folder_of_images / relative


def demo_rows(folder: Path) -> PreparedData:
    """Prepare the demo's rows, once.

    Args:
        folder: Of the benchmark; rows of an earlier call are taken.
    """
    out = folder / "data"
    config = load_config("demo")
    done = out / "done"
    if not done.exists():
        out.mkdir(parents=True, exist_ok=True)
        job = PrepareJob(seed=config.seed, data=config.data)
        prepare(job, out=out, tracker=NullTracker())
        done.touch()
    return PreparedData(folder=out, content="demo", splits={}, source="demo", images=STORE)


def shaped(data: PreparedData, shape: str, count: int) -> list[Row]:
    """Take training rows in a shape that ``engine.py`` names.

    Args:
        data: The demo's rows.
        shape: Which.
        count: How many rows.
    """
    rows = data.rows("train")
    if shape == "one row an image":
        rows = rows[::3]
    elif shape == "two images a row":
        rows = [
            row.model_copy(update={"images": (*row.images, *rows[number - 3].images)})
            for number, row in enumerate(rows)
            if number >= 3
        ]
    elif shape == "long answers":
        rows = [
            row.model_copy(update={"answers": (" ".join([*row.answers[:1]] * 40),)}) for row in rows
        ]
    elif shape == "text rows mixed in":
        rows = [
            row.model_copy(update={"images": ()}) if number % 3 == 2 else row
            for number, row in enumerate(rows)
        ]
    return rows[:count]


def paired(rows: list[Row], seed: int) -> list[PreferencePair]:
    """Pair each row's answer with one that is right for another row of its kind."""
    rng = random.Random(seed)
    pairs = []
    for row in rows:
        others = sorted({r.answers[0] for r in rows if r.kind == row.kind} - {row.answers[0]})
        rejected = rng.choice(others) if others else f"Not {row.answers[0]}"
        pairs.append(pair_with(row, rejected))
    return pairs


def settings_of(model: str, folder: Path, dtype: str) -> ModelSettings:
    """Return how a model is loaded; shapes without weights are drawn at random, once.

    Args:
        model: One of ``MODELS``; or a preset, whose model the hub or its cache has.
        folder: Of the benchmark.
        dtype: As ``model.dtype``.
    """
    if model in presets():
        return load_config(model).model.model_copy(update={"dtype": dtype})
    name = model if model == "tiny" else str(write_base(model, folder))
    return ModelSettings.model_validate({"id": name, "dtype": dtype})


def start(ref: ModelRef, folder: Path, lora: LoraSettings = LORA) -> TrainedAdapter:
    """Write the adapter that preference training begins with, once: small random numbers."""
    out = folder / f"start-{fingerprint([ref.base_sha256, lora.model_dump()])[:12]}"
    weights = out / "adapter" / "adapter_model.safetensors"
    if not weights.exists():
        torch.manual_seed(0)
        loaded: Any = load(ref, trainable=True)
        model = add_adapter(loaded.model, lora)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.02)
        model.save_pretrained(str(out / "adapter"))
    digest = sha256_file(weights)
    return TrainedAdapter(
        folder=out,
        content=digest,
        stage="sft",
        base=ref,
        adapter_sha256=digest,
        best_step=0,
        steps=0,
        metrics={},
    )


def reference(model: str, folder: Path, dtype: str) -> ModelRef:
    """Find, or make, the base."""
    return base_ref(settings_of(model, folder, dtype))
