"""Preference losses: pure functions of log-probabilities.

Those of pairs take the summed log-probabilities of chosen and rejected answers under policy and
reference, and return a loss per pair; those of thumbs, at the end, a loss per thumb. In the
formulas ``c`` and ``r`` are the log-ratios of the policy to the reference for the chosen and the
rejected answer, ``d = c - r``, ``b`` is beta, ``e`` the label smoothing, ``s`` the logistic
function.

Source of names and conventions: ``DPOTrainer`` and ``KTOTrainer`` of trl 1.16, with which a test
compares every one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

_DISCOPOP_TAU = 0.05


@dataclass(frozen=True)
class LogProbs:
    """Log-probabilities of answers.

    Attributes:
        chosen: Sum over the tokens of each chosen answer, (pairs,), nats; of thumbs, of the answer
            that was judged.
        rejected: The same for rejected answers; of thumbs, for the answer to another question.
        chosen_tokens: Tokens of each chosen answer, end token included, (pairs,).
        rejected_tokens: The same for rejected answers.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor


@dataclass(frozen=True)
class _Ratios:
    """What the formulas are made of."""

    policy: LogProbs
    reference: LogProbs
    beta: float
    smoothing: float

    @property
    def chosen(self) -> torch.Tensor:
        return self.policy.chosen - self.reference.chosen

    @property
    def rejected(self) -> torch.Tensor:
        return self.policy.rejected - self.reference.rejected

    @property
    def delta(self) -> torch.Tensor:
        return self.chosen - self.rejected

    @property
    def delta_per_token(self) -> torch.Tensor:
        chosen = self.chosen / self.policy.chosen_tokens.clamp(min=1)
        return chosen - self.rejected / self.policy.rejected_tokens.clamp(min=1)

    def smoothed(self, delta: torch.Tensor) -> torch.Tensor:
        right, wrong = logsigmoid(self.beta * delta), logsigmoid(-self.beta * delta)
        return -right * (1 - self.smoothing) - wrong * self.smoothing


def sigmoid(x: _Ratios) -> torch.Tensor:
    """``-log s(b d)``. DPO, arXiv:2305.18290, equation 7."""
    return -logsigmoid(x.beta * x.delta)


def sigmoid_norm(x: _Ratios) -> torch.Tensor:
    """``-log s(b d)`` with log-ratios per token. Length-normalized DPO, arXiv:2411.15124."""
    return -logsigmoid(x.beta * x.delta_per_token)


def hinge(x: _Ratios) -> torch.Tensor:
    """``max(0, 1 - b d)``. RSO, arXiv:2309.06657, after SLiC."""
    return torch.relu(1 - x.beta * x.delta)


def ipo(x: _Ratios) -> torch.Tensor:
    """``(d - 1/(2b))^2`` with log-ratios per token. IPO, arXiv:2310.12036, equation 17."""
    return (x.delta_per_token - 1 / (2 * x.beta)) ** 2


def robust(x: _Ratios) -> torch.Tensor:
    """``(-(1-e) log s(b d) + e log s(-b d)) / (1 - 2e)``. rDPO, arXiv:2403.00409."""
    right, wrong = logsigmoid(x.beta * x.delta), logsigmoid(-x.beta * x.delta)
    return (-(1 - x.smoothing) * right + x.smoothing * wrong) / (1 - 2 * x.smoothing)


def bco_pair(x: _Ratios) -> torch.Tensor:
    """``-log s(b c) - log s(-b r)``. BCO without its reward shift, arXiv:2404.04656."""
    return -logsigmoid(x.beta * x.chosen) - logsigmoid(-x.beta * x.rejected)


def exo_pair(x: _Ratios) -> torch.Tensor:
    """KL of ``(s(b d), s(-b d))`` from ``(1-e, e)``. EXO-pref, arXiv:2402.00856, equation 16."""
    smoothing = torch.tensor(x.smoothing, device=x.delta.device)
    right, wrong = logsigmoid(x.beta * x.delta), logsigmoid(-x.beta * x.delta)
    return right.exp() * (right - torch.log1p(-smoothing)) + wrong.exp() * (
        wrong - torch.log(smoothing)
    )


def nca_pair(x: _Ratios) -> torch.Tensor:
    """``-log s(b c) - (log s(-b c) + log s(-b r))/2``. NCA, arXiv:2402.05369."""
    chosen, rejected = x.beta * x.chosen, x.beta * x.rejected
    return -logsigmoid(chosen) - 0.5 * logsigmoid(-chosen) - 0.5 * logsigmoid(-rejected)


def sppo_hard(x: _Ratios) -> torch.Tensor:
    """``(c - 1/(2b))^2 + (r + 1/(2b))^2``. SPPO with hard wins, arXiv:2405.00675, equation 4.7."""
    return (x.chosen - 0.5 / x.beta) ** 2 + (x.rejected + 0.5 / x.beta) ** 2


def aot(x: _Ratios) -> torch.Tensor:
    """Smoothed ``-log s(b d)`` of sorted margins. AOT, arXiv:2406.05882."""
    policy = (x.policy.chosen - x.policy.rejected).sort().values
    reference = (x.reference.chosen - x.reference.rejected).sort().values
    return x.smoothed(policy - reference)


def aot_unpaired(x: _Ratios) -> torch.Tensor:
    """The same of sorted log-ratios. AOT unpaired, arXiv:2406.05882."""
    return x.smoothed(x.chosen.sort().values - x.rejected.sort().values)


def apo_zero(x: _Ratios) -> torch.Tensor:
    """``1 - s(b c) + s(b r)``: chosen up, rejected down. APO, arXiv:2408.06266, equation 7."""
    return 1 - torch.sigmoid(x.beta * x.chosen) + torch.sigmoid(x.beta * x.rejected)


def apo_down(x: _Ratios) -> torch.Tensor:
    """``s(b c) + 1 - s(b d)``: both down, rejected more. APO, arXiv:2408.06266, equation 8."""
    return torch.sigmoid(x.beta * x.chosen) + 1 - torch.sigmoid(x.beta * x.delta)


def discopop(x: _Ratios) -> torch.Tensor:
    """Logistic and exponential loss, mixed by ``s(b d / .05)``. arXiv:2406.08414, equation 5."""
    logits = x.beta * x.delta
    share = torch.sigmoid(logits / _DISCOPOP_TAU)
    return -logsigmoid(logits) * (1 - share) + torch.exp(-logits) * share


def sft(x: _Ratios) -> torch.Tensor:
    """Mean negative log-probability of a chosen token over all pairs, the same for each pair.

    The generation term of MPO, arXiv:2411.10442.
    """
    mean = -x.policy.chosen.sum() / x.policy.chosen_tokens.sum().clamp(min=1)
    return mean.expand(len(x.policy.chosen))


_ALL: tuple[Callable[[_Ratios], torch.Tensor], ...] = (
    sigmoid, sigmoid_norm, hinge, ipo, robust, bco_pair, exo_pair, nca_pair,
    sppo_hard, aot, aot_unpaired, apo_zero, apo_down, discopop, sft,
)  # fmt: skip
LOSSES = {function.__name__: function for function in _ALL}
"""By the name that TRL has for it."""


@dataclass(frozen=True)
class PreferenceLoss:
    """A weighted sum of losses; MPO is sigmoid, bco_pair and sft by .8, .2 and 1.

    Source of MPO's weights: arXiv:2411.10442.

    Attributes:
        names: Keys of ``LOSSES``.
        weights: One for each.
        beta: How dear it is to move away from the reference.
        label_smoothing: Assumed share of pairs whose label is wrong.
    """

    names: Sequence[str] = ("sigmoid",)
    weights: Sequence[float] = (1.0,)
    beta: float = 0.1
    label_smoothing: float = 0.0

    def __call__(self, policy: LogProbs, reference: LogProbs) -> torch.Tensor:
        """Return the mean loss over the pairs, a scalar.

        Args:
            policy: Under the model that is trained.
            reference: Under the one it is measured against.
        """
        ratios = _Ratios(policy, reference, self.beta, self.label_smoothing)
        parts = [
            LOSSES[name](ratios).mean() * weight
            for name, weight in zip(self.names, self.weights, strict=True)
        ]
        return torch.stack(parts).sum()


def kto(ratio: torch.Tensor, moved: torch.Tensor, up: torch.Tensor, beta: float) -> torch.Tensor:
    """``1 - s(b (l - z))`` for a thumb up, ``1 - s(b (z - l))`` for one down.

    KTO, arXiv:2402.01306, equation 7.
    """
    return 1 - torch.sigmoid(beta * torch.where(up, ratio - moved, moved - ratio))


def apo_zero_unpaired(
    ratio: torch.Tensor, moved: torch.Tensor, up: torch.Tensor, beta: float
) -> torch.Tensor:
    """``1 - s(b l)`` for a thumb up, ``s(b l)`` for one down. APO, arXiv:2408.06266, equation 7."""
    return kto(ratio, torch.zeros_like(moved), up, beta)


THUMBS_LOSSES = {function.__name__: function for function in (kto, apo_zero_unpaired)}
"""By the name that TRL has for it. Each takes log-ratios ``l`` of policy to reference, (thumbs,),
``z`` (:func:`moved_by`), the thumbs and beta, and returns a loss per thumb."""


def moved_by(policy: LogProbs, reference: LogProbs) -> torch.Tensor:
    """Estimate how far the policy has moved from the reference: mean log-ratio, not clamped.

    By the answers to other questions, and never differentiated. It is KTO's ``z`` once it is at
    least 0.
    """
    return (policy.rejected - reference.rejected).mean().detach()


@dataclass(frozen=True)
class ThumbsLoss:
    """A loss of single answers, each with a thumb.

    Source: KTO, arXiv:2402.01306, section 4.2.

    Attributes:
        name: Key of ``THUMBS_LOSSES``.
        desirable_weight: Of a thumb up.
        undesirable_weight: Of a thumb down.
        beta: How dear it is to move away from the reference.
    """

    name: str = "kto"
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    beta: float = 0.1

    def __call__(self, ratio: torch.Tensor, moved: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """Return the mean loss over the thumbs, a scalar; either kind may be missing.

        Args:
            ratio: Log-ratio of policy to reference of each answer, (thumbs,), nats.
            moved: How far the policy has moved, a scalar; below 0 it counts as 0.
            up: Which thumbs are up, (thumbs,), bool.
        """
        losses = THUMBS_LOSSES[self.name](ratio, moved.clamp(min=0), up, self.beta)
        return (torch.where(up, self.desirable_weight, self.undesirable_weight) * losses).mean()
