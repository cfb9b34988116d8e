"""KTO: the loss is TRL's, both engines compute the same, it starts at half and learns."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from pictures import picture
from trl.trainer.kto_trainer import DataCollatorForVisionUnpairedPreference, KTOTrainer

from vlm_ops.config.training import Unpaired
from vlm_ops.training.kto import WithOther
from vlm_ops.training.losses import THUMBS_LOSSES, LogProbs, ThumbsLoss, moved_by
from vlm_ops.training.rows import thumb_rows
from vlm_ops.training.thumbs import Mismatched

UP = (True, False, False, True, False, True)
LENGTH = 7


class Model:
    """Returns log-probabilities that are given: of own answers, of answers to other questions."""

    training = False

    def __init__(self, own: torch.Tensor, other: torch.Tensor) -> None:
        self.given = {"own": own, "other": other}

    def __call__(self, *, input_ids: torch.Tensor, **_: Any) -> SimpleNamespace:
        log_probs = self.given["other" if input_ids[0, 0] == 2 else "own"]
        zero = torch.zeros_like(log_probs)
        return SimpleNamespace(log_probs=log_probs, entropy=zero, mean_logits=zero)


def scored(seed: int, scale: float = 1.0) -> torch.Tensor:
    """Log-probabilities per token, (rows, tokens)."""
    generator = torch.Generator().manual_seed(seed)
    return -scale * torch.rand((len(UP), LENGTH - 1), generator=generator)


def of_trl(policy: Model, reference: Model, up: Sequence[bool], loss: ThumbsLoss) -> Any:
    """What TRL's trainer makes of them."""
    known = torch.tensor(up)
    ids = torch.ones((len(up), LENGTH), dtype=torch.long)
    trainer = SimpleNamespace(
        model=policy,
        accelerator=SimpleNamespace(
            device=torch.device("cpu"), gather_for_metrics=lambda tensor: tensor
        ),
        calculate_KL=loss.name == "kto",
        precompute_ref_logps=True,
        loss_type=loss.name,
        beta=loss.beta,
        desirable_weight=loss.desirable_weight,
        undesirable_weight=loss.undesirable_weight,
        aux_loss_enabled=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
    )
    kl: Any = KTOTrainer._compute_kl_logps
    trainer._compute_kl_logps = lambda *given: kl(trainer, *given)
    inputs = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "completion_mask": torch.ones_like(ids),
        "KL_input_ids": 2 * ids,
        "KL_attention_mask": torch.ones_like(ids),
        "KL_completion_mask": torch.ones_like(ids),
        "label": known,
        "ref_logps": reference.given["own"].sum(dim=1),
        "ref_KL_logps": reference.given["other"].sum(dim=1),
    }
    compute: Any = KTOTrainer._compute_loss
    return compute(trainer, policy, inputs, return_outputs=False)


def ours(policy: Model, reference: Model, up: Sequence[bool], loss: ThumbsLoss) -> torch.Tensor:
    tokens = torch.full((len(up),), LENGTH - 1)
    p, r = (
        LogProbs(model.given["own"].sum(dim=1), model.given["other"].sum(dim=1), tokens, tokens)
        for model in (policy, reference)
    )
    return loss(p.chosen - r.chosen, moved_by(p, r), torch.tensor(up))


@pytest.mark.parametrize("up", [UP, (True,) * 6, (False,) * 6], ids=["both", "up", "down"])
@pytest.mark.parametrize("scale", [0.2, 3.0], ids=["likelier", "less likely"])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.3, 0.4)])
@pytest.mark.parametrize("name", get_args(Unpaired))
def test_the_loss_and_its_gradients_are_trls(
    name: str, weights: tuple[float, float], scale: float, up: tuple[bool, ...]
) -> None:
    """Where answers to other questions became likelier, and where they became less likely."""
    own = scored(0).requires_grad_()
    other = scored(1, scale).requires_grad_()
    policy, reference = Model(own, other), Model(scored(2), scored(3))
    loss = ThumbsLoss(name, *weights, beta=0.7)
    found, expected = (make(policy, reference, up, loss) for make in (ours, of_trl))
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    gradients = [torch.autograd.grad(value, own)[0] for value in (found, expected)]
    assert gradients[1].abs().max() > 1e-3
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-7)
    again = ours(policy, reference, up, loss)
    assert list(torch.autograd.grad(again, other, allow_unused=True)) == [None]


def test_how_far_the_policy_has_moved_counts_from_zero() -> None:
    """A negative estimate is none; a positive one is asked of thumbs up and given to those down."""
    ratio, up = torch.zeros(2), torch.tensor([True, False])
    at = {z: ThumbsLoss()(ratio, torch.tensor(z), up).item() for z in (-5.0, 0.0, 5.0)}
    assert at[-5.0] == at[0.0] == 0.5
    ups = ThumbsLoss()(ratio[:1], torch.tensor(5.0), up[:1]).item()
    assert ups == pytest.approx(1 - torch.sigmoid(torch.tensor(-0.5)).item())


@pytest.mark.parametrize("name", THUMBS_LOSSES)
def test_where_policy_and_reference_are_one_it_is_half_of_the_weights(name: str) -> None:
    same = Model(scored(0), scored(1))
    loss = ThumbsLoss(name, 1.5, 0.5)
    assert ours(same, same, UP, loss).item() == pytest.approx(0.5, abs=1e-7)
    assert ours(same, same, (True,) * 6, loss).item() == pytest.approx(0.75, abs=1e-7)
    assert ours(same, same, (False,) * 6, loss).item() == pytest.approx(0.25, abs=1e-7)


def test_settings_offer_exactly_these_losses() -> None:
    assert tuple(THUMBS_LOSSES) == get_args(Unpaired)


def test_a_batch_is_trls_where_the_row_before_lends_its_answer(
    tiny_processor: Any, tmp_path: Path
) -> None:
    said = ("Red", "Green or so", "Blue")
    thumbs = [
        Mismatched(
            id=str(n), images=(picture(tmp_path, n),), question=f"Which of {n}?", kind="color",
            completion=said[n], label=n != 1, other=said[n - 1],
        )
        for n in range(3)
    ]  # fmt: skip
    rows = list(thumb_rows(thumbs, tmp_path.joinpath))
    found = WithOther(tiny_processor)(rows)
    trls = [{key: row[key] for key in row if key != "other"} for row in rows]
    expected = DataCollatorForVisionUnpairedPreference(tiny_processor)(trls)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor)
