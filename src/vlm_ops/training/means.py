"""A training's numbers as means over all that was scored, however it was dealt into batches.

TRL takes the mean of the batches' means: a pair that is left over for the last batch weighs as much
there as a whole batch before it. Here each batch counts by what it holds, whichever process scored
it. The loss of a batch, and so what is learned, stays TRL's.

What each number is a mean over:

- SFT: supervised tokens, as the loss that is trained. A mean over rows would make the same
  answer count for more in a short row.
- Preferences: pairs, or thumbs; what is said of tokens (``mean_token_accuracy``, and the loss
  ``sft``, alone or in a mixture) is a mean over the tokens of the chosen answers.

Two kinds of losses are no sums over rows: ``kto`` estimates ``z`` by the rows of a batch, ``aot``
and ``aot_unpaired`` sort them. Those depend on the size of a batch all the same.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch

from vlm_ops.training.ranks import here

_REST = ""
"""Weight of every number that has none of its own."""
_NLL = "nll"
IGNORED = -100
"""Label of a token that is not supervised."""


class Means:
    """Mixin before a TRL trainer, and before what computes its loss.

    Attributes:
        sums: Of what was scored since the last line of the log, by ``train`` and ``eval``: each
            number by its weight, and the weights.
    """

    # Of the TRL self.
    model: Any
    _metrics: Any
    _total_train_tokens: Any

    def __init__(self, **options: Any) -> None:
        self.sums: dict[str, dict[str, tuple[float, float]]] = {"train": {}, "eval": {}}
        parent: Any = super()
        parent.__init__(**options)

    @abstractmethod
    def weights(self, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Return what a batch counts for, by number; ``""`` for those that are not named."""

    def apart(self, numbers: dict[str, float], weights: dict[str, float]) -> None:
        """Take apart what has parts of other weights."""

    def together(self, means: dict[str, float]) -> None:
        """Put together what follows from other means."""

    @property
    def _mode(self) -> str:
        return "train" if self.model.training else "eval"

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the loss of a batch, and add its numbers up."""
        mode, weights = self._mode, self.weights(inputs)
        metrics = self._metrics[mode]
        metrics.clear()
        parent: Any = super()
        found = parent.compute_loss(model, inputs, return_outputs, num_items_in_batch)
        numbers = {name: said[-1] for name, said in metrics.items() if name != "num_tokens"}
        if mode == "eval":
            numbers["loss"] = (found[0] if return_outputs else found).item()
            self.apart(numbers, weights)
        if not inputs.get("counts", True):
            return found
        for name, value in numbers.items():
            if weight := weights.get(name, weights[_REST]):
                total, count = self.sums[mode].get(name, (0.0, 0.0))
                self.sums[mode][name] = (total + weight * value, count + weight)
        return found

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log the means over what was scored since the last time, by all processes."""
        mode = self._mode
        sums: dict[str, tuple[float, float]] = {}
        for part in here().everyone(self.sums[mode]):
            for name, (total, count) in part.items():
                former = sums.get(name, (0.0, 0.0))
                sums[name] = (former[0] + total, former[1] + count)
        means = {name: total / count for name, (total, count) in sums.items()}
        self.sums[mode].clear()
        if "num_tokens" in self._metrics[mode]:
            self._metrics[mode]["num_tokens"] = [here().total(int(self._total_train_tokens))]
        self.together(means)
        loss = means.pop("loss", None)
        if loss is not None and "eval_loss" in logs:
            logs["eval_loss"] = loss
        self._metrics[mode].update({name: [value] for name, value in means.items()})
        parent: Any = super()
        parent.log(logs, start_time)


class SftMeans(Means):
    """Means over supervised tokens."""

    def weights(self, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Count the supervised tokens; the first token of a row never is one."""
        return {_REST: (inputs["labels"] != IGNORED).sum().item()}


class PairMeans(Means):
    """Means over pairs."""

    # Of the TRL self.
    loss_types: Any
    loss_weights: Any

    def weights(self, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Count pairs, and the tokens of either answer."""
        if "completion" in inputs:
            of_chosen, of_rejected = _packed_tokens(inputs)
        else:
            of_chosen, of_rejected = inputs["completion_mask"][:, 1:].sum(1).chunk(2)
        chosen, rejected = of_chosen.sum().item(), of_rejected.sum().item()
        return {
            _REST: len(of_chosen),
            "entropy": chosen + rejected,
            "logits/rejected": rejected,
            **dict.fromkeys(("logits/chosen", "mean_token_accuracy", _NLL), chosen),
        }

    def apart(self, numbers: dict[str, float], weights: dict[str, float]) -> None:
        """Take the loss ``sft`` out of the mixture: it is a mean over tokens, not over pairs."""
        pairs, tokens = weights[_REST], max(weights[_NLL], 1)
        numbers[_NLL] = -numbers["logps/chosen"] * pairs / tokens
        numbers["loss"] -= self._sft * numbers[_NLL]

    def together(self, means: dict[str, float]) -> None:
        """Add it again."""
        if "loss" in means:
            means["loss"] += self._sft * means.pop(_NLL, 0.0)

    @property
    def _sft(self) -> float:
        mixture = zip(self.loss_types, self.loss_weights, strict=True)
        return float(sum(weight for name, weight in mixture if name == "sft"))


class ThumbMeans(Means):
    """Means over thumbs, and over those of a kind."""

    def weights(self, inputs: Mapping[str, Any]) -> dict[str, float]:
        """Count thumbs of either kind, and the tokens of their answers."""
        if "completion" in inputs:
            tokens, _ = _packed_tokens(inputs)
        else:
            tokens = inputs["completion_mask"][:, 1:].sum(1)
        up = torch.as_tensor(inputs["label"], device=tokens.device).bool()
        found = {_REST: float(len(up)), "entropy": tokens.sum().item()}
        for name, those in (("chosen", up), ("rejected", ~up)):
            found |= dict.fromkeys((f"rewards/{name}", f"logps/{name}"), those.sum().item())
            found[f"logits/{name}"] = tokens[those].sum().item()
        return found

    def together(self, means: dict[str, float]) -> None:
        """Take the margin between all thumbs up and all thumbs down, not those of a batch."""
        means.pop("rewards/margins", None)
        if {"rewards/chosen", "rewards/rejected"} <= means.keys():
            means["rewards/margins"] = means["rewards/chosen"] - means["rewards/rejected"]


def _packed_tokens(inputs: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Count the tokens of each row's first and second answer, (rows,) each."""
    tokens = torch.bincount(inputs["completion"], minlength=2 * len(inputs["rows"]))
    return tokens[0::2], tokens[1::2]
