"""Every loss, and their mixture, is the one that TRL computes from the same log-probabilities."""

import math
from collections import defaultdict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from vlm_ops.config.training import SMOOTHED, Loss
from vlm_ops.training.losses import LOSSES, LogProbs, PreferenceLoss

PROMPT = 4
CHOSEN_TOKENS = (1, 3, 7, 4, 2)
REJECTED_TOKENS = (2, 9, 1, 4, 5)
BETAS = pytest.mark.parametrize("beta", [0.1, 0.7])
SMOOTHINGS = (0.0, 0.1)
MPO = {"sigmoid": 0.8, "bco_pair": 0.2, "sft": 1.0}


class Answers:
    """Log-probabilities per token under policy and reference, padded as TRL's collator does."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        tokens = torch.tensor([*CHOSEN_TOKENS, *REJECTED_TOKENS])
        length = PROMPT + int(tokens.max())
        place = torch.arange(length)
        self.mask = ((place >= PROMPT) & (place < PROMPT + tokens[:, None])).long()
        # One less than there are tokens: the first is not predicted.
        shape = (len(tokens), length - 1)
        self.policy, self.reference = (
            -3 * torch.rand(shape, generator=generator) * self.mask[:, 1:] for _ in range(2)
        )
        self.policy.requires_grad_()

    def log_probs(self, per_token: torch.Tensor) -> LogProbs:
        chosen, rejected = per_token.sum(dim=1).chunk(2)
        return LogProbs(
            chosen, rejected, torch.tensor(CHOSEN_TOKENS), torch.tensor(REJECTED_TOKENS)
        )


class Model:
    """Returns log-probabilities that are given."""

    training = False

    def __init__(self, log_probs: torch.Tensor) -> None:
        self.log_probs = log_probs

    def __call__(self, **_: Any) -> SimpleNamespace:
        zero = torch.zeros_like(self.log_probs)
        return SimpleNamespace(
            log_probs=self.log_probs, entropy=zero, mean_logits=zero, is_top1=zero.bool()
        )


def of_trl(
    answers: Answers,
    names: Sequence[str],
    weights: Sequence[float],
    beta: float,
    smoothing: float,
) -> torch.Tensor:
    """What TRL's trainer makes of the answers."""
    policy = Model(answers.policy)
    reference = answers.log_probs(answers.reference)
    trainer = SimpleNamespace(
        model=policy,
        accelerator=SimpleNamespace(
            device=torch.device("cpu"),
            gather=lambda tensor: tensor,
            gather_for_metrics=lambda tensor: tensor,
        ),
        args=SimpleNamespace(discopop_tau=DPOConfig.discopop_tau),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=list(names),
        loss_weights=list(weights),
        beta=beta,
        label_smoothing=smoothing,
        use_weighting=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
    )
    inputs = {
        "input_ids": torch.ones_like(answers.mask),
        "attention_mask": torch.ones_like(answers.mask),
        "completion_mask": answers.mask,
        "ref_chosen_logps": reference.chosen,
        "ref_rejected_logps": reference.rejected,
    }
    compute: Any = DPOTrainer._compute_loss
    loss: torch.Tensor = compute(trainer, policy, inputs, return_outputs=False)
    return loss


def ours(
    answers: Answers,
    names: Sequence[str],
    weights: Sequence[float],
    beta: float,
    smoothing: float,
) -> torch.Tensor:
    loss = PreferenceLoss(tuple(names), tuple(weights), beta=beta, label_smoothing=smoothing)
    return loss(answers.log_probs(answers.policy), answers.log_probs(answers.reference))


def same(answers: Answers, found: torch.Tensor, expected: torch.Tensor) -> None:
    """Values are, and so are gradients by the log-probability of every token."""
    assert torch.isfinite(expected)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    gradients = [torch.autograd.grad(loss, answers.policy)[0] for loss in (found, expected)]
    assert gradients[1].abs().max() > 1e-3
    supervised = answers.mask[:, 1:].bool()
    torch.testing.assert_close(*(g[supervised] for g in gradients), rtol=1e-5, atol=1e-6)


@BETAS
@pytest.mark.parametrize(
    ("name", "smoothing"),
    # With 0, exo_pair's label distribution would have a zero: settings refuse it.
    [(n, s) for n in LOSSES for s in SMOOTHINGS if (n, s) != ("exo_pair", 0.0)],
)
def test_every_loss_is_trls(name: str, smoothing: float, beta: float) -> None:
    answers = Answers()
    asked = ([name], [1.0], beta, smoothing)
    same(answers, ours(answers, *asked), of_trl(answers, *asked))


@BETAS
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_the_mpo_mixture_is_trls(smoothing: float, beta: float) -> None:
    answers = Answers()
    asked = (list(MPO), list(MPO.values()), beta, smoothing)
    found = ours(answers, *asked)
    same(answers, found, of_trl(answers, *asked))
    parts = [
        weight * ours(answers, [name], [1.0], beta, smoothing).item()
        for name, weight in MPO.items()
    ]
    assert found.item() == pytest.approx(sum(parts), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_settings_know_which_losses_trl_smooths(name: str) -> None:
    """Else ``label_smoothing`` would be refused where it counts, or taken where it does nothing."""
    answers = Answers()
    little, much = (of_trl(answers, [name], [1.0], 0.7, smooth) for smooth in (0.01, 0.3))
    assert (little.item() != much.item()) == (name in SMOOTHED)


def test_losses_differ_from_each_other() -> None:
    """Else a comparison of one with itself under another name would pass."""
    answers = Answers()
    values = [ours(answers, [name], [1.0], 0.7, 0.1).item() for name in LOSSES]
    assert len({round(value, 4) for value in values}) == len(LOSSES)


def test_settings_offer_exactly_these_losses() -> None:
    assert tuple(LOSSES) == get_args(Loss)


def test_dpo_is_ln_2_where_policy_and_reference_are_one() -> None:
    answers = Answers()
    same = answers.log_probs(answers.policy)
    assert PreferenceLoss()(same, same).item() == pytest.approx(math.log(2), abs=1e-7)


def test_a_weight_for_each_loss_is_needed() -> None:
    answers = Answers()
    with pytest.raises(ValueError, match="shorter"):
        ours(answers, ["sigmoid", "sft"], [1.0], 0.1, 0.0)
