"""TRL's trainers, fed with packed rows and cached features."""

import itertools
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import Sampler
from trl.trainer.sft_trainer import SFTTrainer

from vlm_ops.evaluation.shown import kept
from vlm_ops.models.adapters import bare
from vlm_ops.models.features import FeatureStore
from vlm_ops.training.accuracy import AskedOnValidation
from vlm_ops.training.checkpoints import CompleteCheckpoints
from vlm_ops.training.engine.encode import EncodedRow
from vlm_ops.training.engine.forest import by_tree, longest_line, pack
from vlm_ops.training.engine.head import add_head
from vlm_ops.training.engine.lora import fuse_lora
from vlm_ops.training.means import SftMeans
from vlm_ops.training.stoppable import Stoppable

logger = logging.getLogger(__name__)

EAGER_UP_TO = 640
"""Longest line for which two matrix products beat the attention kernel on a CPU in bfloat16."""


class ByImage(Sampler[int]):
    """Shuffles images and gives the rows of each in turn, so that they share a forward pass.

    The order is a function of seed and epoch alone: a resumed training meets the same rows.

    Args:
        rows: The training rows.
        seed: Of the order.
    """

    def __init__(self, rows: Sequence[EncodedRow], seed: int) -> None:
        self._groups = by_tree(rows)
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return sum(map(len, self._groups))

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self._seed} {self._epoch}")
        groups = [rng.sample(group, len(group)) for group in self._groups]
        rng.shuffle(groups)
        return (number for group in groups for number in group)


class PackedTraining(Stoppable, CompleteCheckpoints):
    """Mixin before a TRL trainer: order, packing and features.

    The model computes as TRL has it until :meth:`get_ready` is called.

    Args:
        train: Training rows.
        validation: Rows to score.
        features: Of their images.
        locate: Where an image path of the records lies.
        options: What the TRL trainer takes.
    """

    # Of the TRL self.
    model: Any
    accelerator: Any
    _prepare_inputs: Any

    def __init__(
        self,
        *,
        train: Sequence[EncodedRow],
        validation: Sequence[EncodedRow],
        features: FeatureStore,
        locate: Callable[[str], Path],
        **options: Any,
    ) -> None:
        self.features = features
        self._locate = locate
        self._every = [*train, *validation]
        self._sampler = ByImage(train, options["args"].data_seed)
        self._pad = options["processing_class"].tokenizer.pad_token_id
        options["args"].remove_unused_columns = False
        parent: Any = super()
        parent.__init__(
            train_dataset=_numbers(range(len(train))),
            eval_dataset=_numbers(range(len(train), len(self._every))),
            data_collator=self.collate,
            **options,
        )

    def get_ready(self) -> None:
        """Put the engine's forwards into the model; from here on it takes packed rows."""
        if "ref" in getattr(self.model, "peft_config", ()):
            # TRL's own reference, a copy of the adapter: ours is asked beforehand.
            self.model.delete_adapter("ref")
        base = bare(self.model)
        add_head(base)
        logger.info("%d LoRA layers compute in one operation", fuse_lora(base))
        _choose_attention(base, longest_line(self._every, self.args.train_batch_size))

    def give_up(self) -> None:
        """Delete what was kept on disk: another engine trains."""
        self.features.close()

    def first_rows(self, count: int) -> list[int]:
        """Return the numbers of the rows that training meets first."""
        return list(itertools.islice(self._sampler, count))

    def plain_loss(self, batch: dict[str, Any]) -> torch.Tensor:
        """Return TRL's loss of a batch that its own collator made; before :meth:`get_ready`."""
        parent: Any = super()
        loss: torch.Tensor = parent.compute_loss(self.model, self._prepare_inputs(batch))
        return loss

    def packed_loss(self, count: int) -> torch.Tensor:
        """Return the loss of the first rows as training computes it."""
        batch = self.collate([{"row": number} for number in self.first_rows(count)])
        trainer: Any = self
        loss: torch.Tensor = trainer.compute_loss(self.model, self._prepare_inputs(batch))
        return loss

    def _get_train_sampler(self, *_: Any) -> ByImage:
        return self._sampler

    def collate(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Pack rows.

        Args:
            examples: With the row's number.

        Returns:
            The fields of a forest; ``rows`` comes first, since trainers read the batch size
            off the first tensor.
        """
        numbers = [example["row"] for example in examples]
        forest = pack([self._every[number] for number in numbers], self._pad)
        self.features.look_ahead(kept(forest.images, self._locate))
        return {
            "rows": torch.tensor(numbers),
            **vars(forest),
            # For the count of supervised tokens in a step: they are aligned already.
            "labels": forest.targets,
            "shift_labels": forest.targets,
        }

    def with_features(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Replace images by their features, and leave out what the model does not take."""
        with self.accelerator.autocast():
            outputs = self.features.outputs(kept(inputs["images"], self._locate))
        known = {
            k: v for k, v in inputs.items() if k not in ("rows", "completion", "label", "images")
        }
        return known if outputs is None else known | {"mm_encoder_outputs": outputs}


class PackedSft(AskedOnValidation, SftMeans, PackedTraining, SFTTrainer):
    """SFT with TRL's loss on packed rows."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any
    ) -> torch.Tensor:
        """Return TRL's loss: it reads log-probabilities, whoever scored them."""
        parent: Any = super()
        loss: torch.Tensor = parent.compute_loss(
            model, self.with_features(inputs), *args, **options
        )
        return loss


def _numbers(rows: range) -> Dataset:
    """Rows by number. TRL takes a data set with a column ``images`` for one of images."""
    return Dataset.from_dict({"row": list(rows), "images": [[]] * len(rows)})


def _choose_attention(model: Any, longest: int) -> None:
    """Take plain matrix products for short lines on a CPU in bfloat16: measured to be faster."""
    short_on_cpu = model.device.type == "cpu" and longest <= EAGER_UP_TO
    if short_on_cpu and model.dtype == torch.bfloat16:
        model.set_attn_implementation({"text_config": "eager"})
