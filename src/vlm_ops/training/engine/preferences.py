"""TRL's preference trainers, fed with packed rows of two answers below one prompt."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_trainer import KTOTrainer

from vlm_ops.training.accuracy import AskedOnValidation
from vlm_ops.training.engine.head import Scores
from vlm_ops.training.engine.reference import Reference
from vlm_ops.training.engine.trainers import PackedTraining
from vlm_ops.training.losses import LogProbs, moved_by
from vlm_ops.training.means import PairMeans, ThumbMeans
from vlm_ops.training.ranks import here


class PackedPreferences(PackedTraining):
    """Mixin before a TRL trainer: both answers in one pass, the reference asked beforehand.

    Args:
        loss: Of log-probabilities.
        reference: Where the reference's log-probabilities are.
        options: As for :class:`~vlm_ops.training.engine.trainers.PackedTraining`.
    """

    # Of the TRL self.
    _metrics: Any
    _total_train_tokens: int

    def __init__(self, *, loss: Any, reference: Reference, **options: Any) -> None:
        super().__init__(**options)
        self._loss = loss
        self._reference = reference
        self._share = 1.0

    def get_ready(self) -> None:
        """Do that, and score every row under the model as it is now, unless that was done before.

        Raises:
            Interrupted: SIGTERM came; what was asked is kept.
        """
        super().get_ready()

        def ask(batch: dict[str, Any]) -> LogProbs:
            if self.stop is not None:
                self.stop.check("stopped while the reference was asked; it goes on from there")
            with torch.no_grad(), self.accelerator.autocast():
                return self.log_probs(self.model, self._prepare_inputs(batch))[0]

        self._reference.prepare(self._batches, ask)

    def give_up(self) -> None:
        """Delete that, and the reference's answers."""
        super().give_up()
        self._reference.close()

    def _batches(self) -> Iterator[dict[str, Any]]:
        """Form this process's batches of the first epoch and of validation."""
        ranks = here()
        needed = self.args.max_steps * self.args.gradient_accumulation_steps * ranks.count
        training = self.first_rows(min(needed * self.args.train_batch_size, self._learned))
        held_out = list(range(self._learned, len(self._every)))
        for numbers, size in (
            (training, self.args.train_batch_size),
            (held_out, self.args.eval_batch_size),
        ):
            for start in range(ranks.number * size, len(numbers), ranks.count * size):
                yield self.collate([{"row": number} for number in numbers[start : start + size]])

    def get_batch_samples(self, *args: Any) -> Any:
        """Take the batches of a step; each with a row weighs the same, whoever has it."""
        parent: Any = super()
        batches, items = parent.get_batch_samples(*args)
        ranks = here()
        # What follows divides by the batches of this process, and by the processes.
        counting = ranks.total(sum(batch["counts"] for batch in batches))
        self._share = len(batches) * ranks.count / max(counting, 1)
        return batches, items

    def log_probs(self, model: Any, inputs: dict[str, Any]) -> tuple[LogProbs, Scores]:
        """Score both answers of packed rows.

        Returns:
            Sums over tokens, (rows,) each, with token counts; and the scores of all tokens.
        """
        scores: Scores = model(**self.with_features(inputs))
        rows = len(inputs["rows"])
        assert scores.log_probs is not None
        sums = scores.log_probs.new_zeros(2 * rows)
        sums = sums.index_add(0, inputs["completion"], scores.log_probs)
        tokens = torch.bincount(inputs["completion"], minlength=2 * rows)
        return LogProbs(sums[0::2], sums[1::2], tokens[0::2], tokens[1::2]), scores

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the loss, and note rewards under the names TRL has for them."""
        policy, scores = self.log_probs(model, inputs)
        reference = self._reference.of(inputs["rows"])
        loss, numbers = self.judge(policy, reference, scores, inputs)
        mode = "train" if self.model.training else "eval"
        for name, value in numbers.items():
            self._metrics[mode][name].append(value.item())
        if mode == "train":
            self._total_train_tokens += inputs["attention_mask"].sum().item() * inputs["counts"]
            loss = loss * self._share * inputs["counts"]
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]
        return (loss, scores) if return_outputs else loss

    @abstractmethod
    def judge(
        self, policy: LogProbs, reference: LogProbs, scores: Scores, inputs: dict[str, Any]
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """Return the loss of a batch, and its numbers by name."""


class PackedDpo(AskedOnValidation, PairMeans, PackedPreferences, DPOTrainer):
    """Training on pairs: ``loss`` is a :class:`~vlm_ops.training.losses.PreferenceLoss`."""

    def judge(
        self, policy: LogProbs, reference: LogProbs, scores: Scores, inputs: dict[str, Any]
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """Return the mean loss over the pairs, and its numbers."""
        assert scores.is_top1 is not None
        beta = self.args.beta
        chosen = beta * (policy.chosen - reference.chosen).detach()
        rejected = beta * (policy.rejected - reference.rejected).detach()
        return self._loss(policy, reference), {
            "rewards/chosen": chosen.mean(),
            "rewards/rejected": rejected.mean(),
            "rewards/accuracies": (chosen > rejected).float().mean(),
            "rewards/margins": (chosen - rejected).mean(),
            "logps/chosen": policy.chosen.detach().mean(),
            "logps/rejected": policy.rejected.detach().mean(),
            "mean_token_accuracy": scores.is_top1[inputs["completion"] % 2 == 0].float().mean(),
        }


class PackedKto(AskedOnValidation, ThumbMeans, PackedPreferences, KTOTrainer):
    """Training on thumbs: ``loss`` is a :class:`~vlm_ops.training.losses.ThumbsLoss`.

    A row's second completion is the answer to another question, by which KTO estimates how far the
    policy has moved (:mod:`vlm_ops.training.thumbs`).
    """

    def collate(self, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Pack rows, with their thumbs in ``label``, (rows,), bool."""
        batch = super().collate(examples)
        thumbs = [self._every[number].label for number in batch["rows"].tolist()]
        return batch | {"label": torch.tensor(thumbs)}

    def judge(
        self, policy: LogProbs, reference: LogProbs, scores: Scores, inputs: dict[str, Any]
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """Return the mean loss over the thumbs, and its numbers; a missing kind has none.

        How far the policy has moved is estimated by the rows of the batch, as with one process; TRL
        takes those of all processes.
        """
        ratio = policy.chosen - reference.chosen
        moved = moved_by(policy, reference) if self.calculate_KL else ratio.new_zeros(())
        numbers = {"kl": moved.clamp(min=0)}
        up, said = inputs["label"], policy.chosen.detach()
        rewards = self.args.beta * ratio.detach()
        for name, those in (("chosen", up), ("rejected", ~up)):
            if those.any():
                numbers[f"rewards/{name}"] = rewards[those].mean()
                numbers[f"logps/{name}"] = said[those].mean()
        if up.any() and not up.all():
            numbers["rewards/margins"] = numbers["rewards/chosen"] - numbers["rewards/rejected"]
        return self._loss(ratio, moved, inputs["label"]), numbers
