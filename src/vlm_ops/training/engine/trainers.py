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
from vlm_ops.training.means import IGNORED, SftMeans
from vlm_ops.training.ranks import here
from vlm_ops.training.stoppable import Stoppable

logger = logging.getLogger(__name__)

EAGER_UP_TO = 640
"""Longest line for which two matrix products beat the attention kernel on a CPU in bfloat16."""
NO_ROW = -1
"""What stands for a row where there is none."""


class ByImage(Sampler[int]):
    """Shuffles images and gives the rows of each in turn, so that they share a forward pass.

    The order is a function of seed and epoch alone: a resumed training meets the same rows, and so
    do processes that share one.

    Args:
        rows: The training rows.
        seed: Of the order.
        blanks: How many numbers of no row come last, so that every process gets whole batches.
    """

    def __init__(self, rows: Sequence[EncodedRow], seed: int, blanks: int = 0) -> None:
        self._groups = by_tree(rows)
        self._blanks = range(len(rows), len(rows) + blanks)
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return sum(map(len, self._groups)) + len(self._blanks)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self._seed} {self._epoch}")
        groups = [rng.sample(group, len(group)) for group in self._groups]
        rng.shuffle(groups)
        return itertools.chain(*groups, self._blanks)


class PackedTraining(Stoppable, CompleteCheckpoints):
    """Mixin before a TRL trainer: order, packing and features.

    The model computes as TRL has it until :meth:`get_ready` is called.

    Where processes share the training, accelerate deals the batches of the one order by turns, so
    that a step has the batches that it has with one process. Rows of no number fill the last ones
    up; a batch without any row takes part with one that does not count, since DDP waits for all.

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
        self._learned = len(train)
        args = options["args"]
        blanks = _missing(len(train), args.train_batch_size)
        self._sampler = ByImage(train, args.data_seed, blanks)
        self._pad = options["processing_class"].tokenizer.pad_token_id
        args.remove_unused_columns = False
        held_out = range(len(train), len(self._every))
        parent: Any = super()
        parent.__init__(
            train_dataset=_numbers(range(len(train)), blanks),
            eval_dataset=_numbers(held_out, _missing(len(held_out), args.eval_batch_size)),
            data_collator=self.collate,
            **options,
        )
        if here().count > 1:
            # What is told of a batch stays with who scored it; the log adds all up (``Means``).
            self.accelerator.gather_for_metrics = _own

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

    def _run_epoch(self, model: Any, epoch: int, *rest: Any, **options: Any) -> None:
        # Behind skipped batches that are dealt to processes, accelerate does not reach the order.
        self._sampler.set_epoch(epoch)
        super()._run_epoch(model, epoch, *rest, **options)

    def collate(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Pack rows.

        Args:
            examples: With the row's number; ``NO_ROW`` is passed over.

        Returns:
            The fields of a forest; ``rows`` comes first, since trainers read the batch size
            off the first tensor. ``counts`` tells whether there was any row at all.
        """
        numbers = [example["row"] for example in examples if example["row"] != NO_ROW]
        counts, numbers = bool(numbers), numbers or [0]
        forest = pack([self._every[number] for number in numbers], self._pad)
        self.features.look_ahead(kept(forest.images, self._locate))
        # For the count of supervised tokens in a step: they are aligned already.
        labels = forest.targets if counts else torch.full_like(forest.targets, IGNORED)
        return {
            "rows": torch.tensor(numbers),
            **vars(forest),
            "labels": labels,
            "shift_labels": labels,
            "counts": counts,
        }

    def with_features(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Replace images by their features, and leave out what the model does not take."""
        with self.accelerator.autocast():
            outputs = self.features.outputs(kept(inputs["images"], self._locate))
        own = ("rows", "completion", "label", "images", "counts")
        known = {k: v for k, v in inputs.items() if k not in own}
        return known if outputs is None else known | {"mm_encoder_outputs": outputs}


class PackedSft(AskedOnValidation, SftMeans, PackedTraining, SFTTrainer):
    """SFT with TRL's loss on packed rows."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any
    ) -> torch.Tensor:
        """Return TRL's loss: it reads log-probabilities, whoever scored them."""
        parent: Any = super()
        read = self._total_train_tokens
        loss: torch.Tensor = parent.compute_loss(
            model, self.with_features(inputs), *args, **options
        )
        if inputs["counts"]:
            return loss
        self._total_train_tokens = read
        return 0 * loss


def _numbers(rows: range, blanks: int) -> Dataset:
    """Rows by number. TRL takes a data set with a column ``images`` for one of images."""
    numbers = [*rows, *[NO_ROW] * blanks]
    return Dataset.from_dict({"row": numbers, "images": [[]] * len(numbers)})


def _missing(rows: int, batch_size: int) -> int:
    """Count what is missing in the last batches of processes that share a training."""
    ranks = here().count
    return -rows % (ranks * batch_size) if ranks > 1 else 0


def _own(value: Any, *_: Any, **__: Any) -> Any:
    return value


def _choose_attention(model: Any, longest: int) -> None:
    """Take plain matrix products for short lines on a CPU in bfloat16: measured to be faster."""
    short_on_cpu = model.device.type == "cpu" and longest <= EAGER_UP_TO
    if short_on_cpu and model.dtype == torch.bfloat16:
        model.set_attn_implementation({"text_config": "eager"})
