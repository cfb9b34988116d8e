"""What the gate can see with these test groups at this look: its power in words."""

from collections.abc import Sequence
from typing import NamedTuple

from vlm_ops.artifacts import PreparedData
from vlm_ops.config.pipeline import PipelineConfig
from vlm_ops.evaluation import choose, looks, words
from vlm_ops.evaluation.metric import Metric
from vlm_ops.evaluation.metrics import RELAXED
from vlm_ops.evaluation.power import GAIN, RESEEDS, Spread, groups_needed, power, spread_of
from vlm_ops.evaluation.signs import Floats, fewest_groups, least_chance
from vlm_ops.evaluation.terms import right_or_wrong, summed, terms_of
from vlm_ops.records import Answer, Look


class Outlook(NamedTuple):
    """What a candidate can expect of the comparison that decides.

    Attributes:
        power: Chance that one that is truly 4 points better is accepted.
        sentence: The same in words, with what would help.
        never: Why no candidate can pass; None if one can.
    """

    power: float
    sentence: str
    never: str | None


def outlook(
    candidate: Sequence[Answer],
    champion: Sequence[Answer] | None,
    *,
    look: Look,
    needed: float,
    metric: Metric = RELAXED,
) -> Outlook | None:
    """Tell what the gate can see, from the answers that it compares.

    What is known of how much models differ is known of rows that are right or wrong. Under a
    metric of another sort nothing is said.

    Args:
        candidate: Judged rows.
        champion: Of the champion, to the same rows; None if there is none. Then the base is to be
            beaten, and differences are taken to vary as those of the demo's equal models do.
        look: How many-th look at these test rows this is.
        needed: The margin over the champion, or over the base.
        metric: That all were judged by.

    Raises:
        DataError: The two did not answer the same rows.
    """
    if not right_or_wrong([*candidate, *(champion or ())], metric):
        return None
    spread = RESEEDS if champion is None else spread_of(candidate, champion, metric)
    _, counts = summed(candidate, terms_of(candidate, metric)[:, 1:])
    rows = counts[:, 0]
    than = "the base" if champion is None else "the champion"
    return expected(rows, than=than, spread=spread, look=look, needed=needed)


def expected(
    rows: Floats,
    *,
    than: str = "the champion",
    spread: Spread = RESEEDS,
    look: Look | None = None,
    needed: float = 0.0,
) -> Outlook:
    """Tell what the gate will see, before anything is trained or asked.

    Args:
        rows: Shape (groups,): how many test rows each group has.
        than: What is to be beaten.
        spread: What differences vary by; without answers, as the demo's equal models differ.
        look: How many-th look at these rows it will be; None for the first.
        needed: The margin.
    """
    look = look or Look(number=1, position=1.0)
    groups, level = len(rows), looks.level(look.position)
    found = power(rows, spread, level, GAIN, needed)
    told = [
        f"with {words.groups(groups)} this gate sees +{100 * GAIN:.0f} points over {than} in "
        f"{100 * found:.0f} % of cases (look {look.number} at these test rows; "
        f"needs p <= {level:.2g})"
    ]
    if needed < 0.0:
        told.append(f"it asks for non-inferiority only, at most {-100 * needed:.1f} points worse")
    enough = groups_needed(rows, spread, level, GAIN, needed)
    if enough is not None and enough > groups:
        told.append(f"{enough} groups like these would see it in 80 %")
    if look.position >= 2.0:
        told.append(f"{groups} fresh groups make room again: they halve what earlier looks count")
    return Outlook(found, "; ".join(told) + words.few_groups(groups), too_few(groups, level))


def warnings(data: PreparedData, config: PipelineConfig) -> list[str]:
    """Say what these rows can never show, whatever is trained on them; nothing where they can.

    Args:
        data: Prepared rows.
        config: Says who is chosen between, and by which other rows.
    """
    said = []
    if why := too_few(data.splits["test"].groups):
        said.append(f"the gate: {why}")
    groups, enough = data.splits["validation"].groups, fewest_groups(choose.LEVEL)
    if groups < enough and config.tunes and config.prefers and not config.choosing:
        said.append(
            f"the choice: with {words.groups(groups)} of validation rows the preferred model can "
            f"never be shown to be better than the sft model, which then always goes to the gate; "
            f"validation rows of {enough} groups or more are needed"
        )
    return said


def too_few(groups: int, level: float = looks.level(1.0), rows: str = "test rows") -> str | None:
    """Say why no candidate can ever pass with so few groups; None if one can.

    Args:
        groups: How many.
        level: That the p-value has to meet; by default at the first look.
        rows: What the groups are of.
    """
    if least_chance(groups) <= level:
        return None
    return (
        f"no candidate can pass with {words.groups(groups)}: even if all of them gain, luck alone "
        f"gives as much in {words.chance(least_chance(groups))} of cases, and "
        f"{words.chance(level)} are allowed at this look; {rows} of {fewest_groups(level)} "
        f"groups or more are needed"
    )
