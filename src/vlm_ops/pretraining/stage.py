"""Trains the tiny base model on invented charts, in resumable stages.

One step takes 32 pictures with eight tasks each, packed behind the image tokens (``packing``).
Beside the targets, the connector's output is taught what stands in each 8-px patch (``sight``).
Without that, sight comes much later, as the only signal is then a few tokens of text.
"""

import copy
import json
import logging
import math
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import (
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
)

from vlm_ops.errors import TrainingError
from vlm_ops.models.ground import cpu_multiplies_bf16
from vlm_ops.pretraining.architecture import build_config, build_model, build_processor
from vlm_ops.pretraining.packing import Packer
from vlm_ops.pretraining.recipe import TinyRecipe
from vlm_ops.pretraining.report import write_report
from vlm_ops.pretraining.scores import HeldOut, held_out_scores, predict
from vlm_ops.pretraining.shards import Shard, Shards
from vlm_ops.pretraining.sight import Sight, patch_labels
from vlm_ops.pretraining.speed import speed_up
from vlm_ops.pretraining.tasks import tasks_for
from vlm_ops.store.files import make_folder, replacing, write_whole
from vlm_ops.store.jsonl import read_objects, write_jsonl

logger = logging.getLogger(__name__)

CHECKPOINT, LOG, EXPORT, RECIPE = "checkpoint.pt", "log.jsonl", "export", "recipe.json"


def train_tiny(recipe: TinyRecipe, out: Path, *, resume: bool = True) -> Path:
    """Trains one stage.

    Args:
        recipe: What to do.
        out: Gets ``checkpoint.pt``, ``log.jsonl``, ``recipe.json``, ``curve.png``,
            ``scores.md``, ``shards/`` and ``export/`` (weights in bfloat16 with processor,
            renewed at each checkpoint).
        resume: Whether to go on from ``out``'s checkpoint, if there is one.

    Returns:
        The folder of exported weights.

    Raises:
        TrainingError: If the loss is not a number, the checkpoint is of another recipe, or
            charts can't be drawn.
    """
    make_folder(out)
    stage = _Stage(recipe, out)
    if resume and (out / CHECKPOINT).exists():
        stage.load()
    write_whole(out / RECIPE, recipe.model_dump_json(indent=1) + "\n")
    shards = Shards(out / "shards", recipe.seed, recipe.shards, recipe.shard_charts)
    try:
        stage.run(shards)
    finally:
        shards.close()
    return out / EXPORT


class _Stage:
    """Model, optimizer and position of one running stage."""

    def __init__(self, recipe: TinyRecipe, out: Path) -> None:
        self.recipe, self.out, self.step, self.seconds = recipe, out, 0, 0.0
        self.bf16 = cpu_multiplies_bf16()
        self.processor: Idefics3Processor = build_processor()
        self.packer = Packer(self.processor)
        self.model = _first_model(recipe, self.processor)
        speed_up(self.model)
        text: Any = self.model.config.text_config
        torch.manual_seed(recipe.seed)
        self.sight = Sight(text.hidden_size, self.processor.tokenizer, tuple(recipe.lessons))
        self.optimizer = _optimizer(recipe, self.model, self.sight)

    def run(self, shards: Shards) -> None:
        """All steps to the end, with checkpoints and scores on the way."""
        recipe = self.recipe
        logger.info("step %d of %d, %s", self.step, recipe.steps, "bf16" if self.bf16 else "fp32")
        held_out = HeldOut(shards.held_out(), recipe.score_charts, recipe.mix)
        tick = time.monotonic()
        saved = scored = tick
        recent: list[dict[str, float]] = []
        while self.step < recipe.steps:
            ready = recipe.first_shards + self.step // recipe.steps_per_shard
            recent.append(self.advance(shards.first(ready, logger.info)))
            now = time.monotonic()
            self.seconds, tick = self.seconds + now - tick, now
            last = self.step == recipe.steps
            if self.step % 20 == 0 or last:
                self._log_losses(recent)
                recent = []
            if last or now - saved > 60 * recipe.checkpoint_minutes:
                self.save()
                saved = now
            if last or now - scored > 60 * recipe.score_minutes:
                self._log_scores(held_out)
                scored = now

    def advance(self, shards: list[Shard]) -> dict[str, float]:
        """One step; returns the losses of the targets and of each lesson of sight."""
        recipe = self.recipe
        rng = random.Random(f"{recipe.seed} {self.step}")
        picks = [
            (shard, rng.randrange(len(shard.specs)))
            for shard in rng.choices(shards, k=recipe.images)
        ]
        rows = [tasks_for(shard.specs[i], rng, recipe.tasks, recipe.mix) for shard, i in picks]
        batch = self.packer.pack(rows)
        images = np.stack([shard.images[i] for shard, i in picks])
        labels = np.stack([patch_labels(shard.cells[i], shard.specs[i]) for shard, i in picks])
        weights = torch.tensor(
            [recipe.read_weight if task.name == "read" else 1.0 for row in rows for task in row]
        )[batch.segment]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            logits, features = predict(self.model, batch, images)
            lessons = self.sight(self.model, batch, features, torch.from_numpy(labels))
        losses = cross_entropy(logits.float(), batch.target, reduction="none")
        loss = (losses * weights).sum() / weights.sum()
        if not math.isfinite(loss.item()):
            raise TrainingError(
                f"Step {self.step} in {self.out}: the loss is {loss.item()}. Start again from the"
                " checkpoint with a smaller learning_rate."
            )
        total = loss + sum(recipe.lessons[name] * value for name, value in lessons.items())
        total.backward()
        parameters = [*self.model.parameters(), *self.sight.parameters()]
        nn.utils.clip_grad_norm_(parameters, recipe.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _rate(self.step, recipe)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return {"loss": loss.item(), **{name: value.item() for name, value in lessons.items()}}

    def save(self) -> None:
        """Writes checkpoint and exported weights, each beside and renamed."""
        state = {
            "model": self.model.state_dict(),
            "sight": self.sight.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "recipe": self.recipe.identity,
        }
        with replacing(self.out / CHECKPOINT) as beside:
            torch.save(state, beside)
        export(self.model, self.processor, self.out / EXPORT)

    def load(self) -> None:
        """Goes on where the checkpoint was written."""
        state = torch.load(self.out / CHECKPOINT, weights_only=True)
        if state["recipe"] != self.recipe.identity:
            raise TrainingError(
                f"{self.out / CHECKPOINT} was written by another recipe: {state['recipe']}, now"
                f" {self.recipe.identity}. Use another folder, or resume=False to start anew."
            )
        self.model.load_state_dict(state["model"])
        self.sight.load_state_dict(state["sight"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
        if (log := self.out / LOG).exists():
            lines = [line for _, line in read_objects(log)]
            write_jsonl(log, [line for line in lines if line["step"] <= self.step])

    def _log_losses(self, recent: list[dict[str, float]]) -> None:
        losses = {
            name: round(sum(step[name] for step in recent) / len(recent), 4) for name in recent[0]
        }
        told = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
        logger.info("step %d: %s, %.0f s", self.step, told, self.seconds)
        self._write(losses)

    def _log_scores(self, held_out: HeldOut) -> None:
        scores = held_out_scores(self.model, self.packer, held_out, self.bf16)
        for name, score in scores.items():
            logger.info("  %-12s %.2f (gray %.2f, n %d)", name, score.sight, score.gray, score.n)
        self._write({"scores": {name: score.model_dump() for name, score in scores.items()}})
        write_report(self.out / LOG, self.out)

    def _write(self, values: dict[str, Any]) -> None:
        line = {"step": self.step, "seconds": round(self.seconds, 1), **values}
        with (self.out / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")


def export(
    model: Idefics3ForConditionalGeneration, processor: Idefics3Processor, folder: Path
) -> None:
    """Writes weights in bfloat16 with everything needed to load them; replaces single files."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(folder.name + ".part")
    copy.deepcopy(model).bfloat16().save_pretrained(beside)
    processor.save_pretrained(beside)
    for path in sorted(beside.iterdir()):
        path.replace(folder / path.name)
    beside.rmdir()


def _first_model(
    recipe: TinyRecipe, processor: Idefics3Processor
) -> Idefics3ForConditionalGeneration:
    if recipe.start_from is None:
        model = build_model(build_config(processor), recipe.seed)
    else:
        kind = Idefics3ForConditionalGeneration
        model = kind.from_pretrained(recipe.start_from, dtype=torch.float32)
    model.train()
    return model


def _optimizer(recipe: TinyRecipe, *modules: nn.Module) -> torch.optim.AdamW:
    parameters = [p for module in modules for p in module.parameters()]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True)


def _rate(step: int, recipe: TinyRecipe) -> float:
    """Share of the learning rate: linear warmup, then a cosine to zero."""
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    done = (step - recipe.warmup_steps) / max(recipe.steps - recipe.warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * done))
