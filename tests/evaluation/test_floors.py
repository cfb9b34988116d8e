"""A kind in too few groups to show a loss is named, and takes no evidence from the others."""

from squares import judged

from vlm_ops.config.gate import GateSettings
from vlm_ops.config.jobs import GateJob
from vlm_ops.evaluation.floors import unseen_kinds, worse_kinds
from vlm_ops.records import Answer

JOB = GateJob(seed=0, gate=GateSettings(), resamples=400)


def answers(*, right: bool, kind: str, groups: int) -> list[Answer]:
    """So many groups of four rows of one kind."""
    found = judged([right] * 4 * groups, per_image=1)
    return [answer.model_copy(update={"kind": kind}) for answer in found]


def test_a_kind_in_few_groups_is_named_and_not_judged() -> None:
    ours = [
        *answers(right=False, kind="rare", groups=3),
        *answers(right=True, kind="often", groups=20),
    ]
    theirs = [answer.model_copy(update={"relaxed": True}) for answer in ours]
    assert unseen_kinds(ours) == [
        "whether it is worse on questions of kind 'rare': 3 groups can't show it"
    ]
    assert worse_kinds(ours, theirs, "the champion", JOB) == []


def test_many_kinds_in_few_groups_hide_no_loss_on_another() -> None:
    """Six groups show a loss of one kind in 1.6 %, which is little enough only beside few."""
    rare = [answers(right=True, kind=f"rare{n}", groups=2) for n in range(8)]
    lost = answers(right=False, kind="lost", groups=6)
    ours = [answer for kind in [*rare, lost] for answer in kind]
    theirs = [answer.model_copy(update={"relaxed": True}) for answer in ours]
    assert len(unseen_kinds(ours)) == 8
    (said,) = worse_kinds(ours, theirs, "the champion", JOB)
    assert said.startswith("worse than the champion on questions of kind 'lost': 0.0 %")


def test_no_kind_can_be_judged() -> None:
    ours = answers(right=False, kind="rare", groups=2)
    theirs = [answer.model_copy(update={"relaxed": True}) for answer in ours]
    assert worse_kinds(ours, theirs, "the champion", JOB) == []
