"""What the engine benchmark trains on: rows of several shapes, models of several sizes."""

import random
from pathlib import Path
from typing import Any

import torch
from transformers import Idefics3Config, Idefics3ForConditionalGeneration
from transformers.models.idefics3 import Idefics3ImageProcessor

from vlm_ops.artifacts import ModelRef, PreferencePairs, PreparedData, TrainedAdapter
from vlm_ops.config.load import load_config
from vlm_ops.config.pipeline import PrepareJob
from vlm_ops.config.sections import ModelSettings
from vlm_ops.config.training import LoraSettings
from vlm_ops.data.images import STORE
from vlm_ops.data.prepare import prepare
from vlm_ops.models.adapters import add_adapter
from vlm_ops.models.loading import base_ref, load
from vlm_ops.pretraining.architecture import build_processor
from vlm_ops.records import PreferencePair, Row, Split
from vlm_ops.store.fingerprint import sha256_file
from vlm_ops.tracker import NullTracker
from vlm_ops.training.mistakes import pair_with

LORA = LoraSettings(rank=16, alpha=32)

_SIZES: dict[str, dict[str, Any]] = {
    "smolvlm-256m": {
        "text": {
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "head_dim": 64,
            "vocab_size": 49280,
        },
        "vision": {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "image_size": 512,
            "patch_size": 16,
        },
        "scale": 4,
        "tied": True,
    },
    "smolvlm-2.2b": {
        "text": {
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 24,
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "head_dim": 64,
            "vocab_size": 49155,
        },
        "vision": {
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "num_attention_heads": 16,
            "image_size": 384,
            "patch_size": 14,
        },
        "scale": 3,
        "tied": False,
    },
}
"""Layer sizes of SmolVLM-256M-Instruct and SmolVLM-Instruct, from their ``config.json``."""

MODELS = ("tiny", *_SIZES)


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
        model: One of ``MODELS``.
        folder: Of the benchmark.
        dtype: ``float32`` or ``bfloat16``.
    """
    name = model if model == "tiny" else str(_random_base(model, folder))
    return ModelSettings.model_validate({"id": name, "dtype": dtype})


def start(ref: ModelRef, folder: Path) -> TrainedAdapter:
    """Write the adapter that preference training begins with, once: small random numbers."""
    out = folder / f"start-{ref.base_sha256[:12]}"
    weights = out / "adapter" / "adapter_model.safetensors"
    if not weights.exists():
        torch.manual_seed(0)
        loaded: Any = load(ref, trainable=True)
        model = add_adapter(loaded.model, LORA)
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


def _random_base(model: str, folder: Path) -> Path:
    out = folder / model
    if (done := out / "done").exists():
        return out
    size = _SIZES[model]
    processor = build_processor()
    edge = size["vision"]["image_size"]
    tokens = (edge // size["vision"]["patch_size"] // size["scale"]) ** 2
    tiles = model == "smolvlm-2.2b"
    images = Idefics3ImageProcessor(
        do_image_splitting=tiles,
        size={"longest_edge": 4 * edge if tiles else edge},
        max_image_size={"longest_edge": edge},
    )
    processor.image_processor, processor.image_seq_len = images, tokens
    tokenizer = processor.tokenizer
    special = {
        name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")
    }
    text = {"model_type": "llama", "max_position_embeddings": 8192, "rms_norm_eps": 1e-5}
    config = Idefics3Config(
        text_config=text | size["text"] | special | {"tie_word_embeddings": size["tied"]},
        vision_config=size["vision"],
        scale_factor=size["scale"],
        image_token_id=tokenizer.convert_tokens_to_ids(processor.image_token),
        tie_word_embeddings=size["tied"],
        **special,
    )
    torch.manual_seed(0)
    drawn = Idefics3ForConditionalGeneration(config).bfloat16()
    drawn.save_pretrained(out)
    processor.save_pretrained(out)
    done.touch()
    return out
