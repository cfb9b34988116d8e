"""What a candidate must show before it may be promoted: the section ``gate`` of a configuration.

As :mod:`vlm_ops.config.sections`.
"""

import json
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from vlm_ops.records import RELAXED_ACCURACY
from vlm_ops.store.frozen import Frozen, added

Gain = Annotated[float, Field(ge=0.0, le=1.0)]
"""A margin that only a better one passes."""

HIGHEST = 10.0
"""Greatest score of a metric that ships, CIDEr; each metric's own is looked at before a run."""


class BenchmarkTerms(Frozen):
    """What the gate asks on a benchmark, against the champion, or the base where there is none."""

    margin: float = Field(default=0.02, ge=0.0, le=HIGHEST)
    """So much of the score may be lost. Who lost more, beyond chance, is refused."""
    improve: bool = False
    """Whether the candidate must be better there, beyond chance at the level of the look."""
    metric: str = added(RELAXED_ACCURACY)
    """What judges the answers there: the benchmark's own says, not the file."""
    settings: str = added("")
    """Short hash of what the benchmark asks, so that another one of its name is another bar; told
    by the benchmark as well."""


class GateSettings(Frozen):
    """What a candidate must show on the test rows before the gate accepts it.

    Margins are in the unit of ``evaluate.metric``: 0.02 are 2 points of an accuracy.
    No number turns a comparison off. ``null`` does, and the decision says each time what was not
    asked. The comparison with the champion can't be turned off, only loosened within bounds.
    """

    renamed = {"over_blind": "over_gray"}  # former name
    reworded = {"over_base": (-1, None), "over_gray": (-1, None), "over_champion": (-1, -0.1)}

    over_base: Gain | None = 0.0
    """The lower end of the interval of candidate minus base must lie above this; null does not
    ask."""
    over_champion: float = Field(default=0.0, ge=-0.1, le=1.0)
    """The lower end of the interval of candidate minus champion must lie above this. Below 0 it
    asks for non-inferiority only: that the candidate is not that much worse."""
    over_gray: Gain | None = 0.1
    """The lower end of the interval of candidate minus its own score on gray images must lie
    above this: a model that does not need the picture is refused; null does not ask."""
    over_swapped: Gain | None = 0.0
    """The lower end of the interval of candidate minus its own score on images of other rows of
    the same kind must lie above this; null does not ask. Unlike a gray image, such an image is no
    surprise to a model."""
    over_majority: Gain | None = 0.0
    """The lower end of the interval of candidate minus the most frequent training answer of each
    kind must lie above this: that answer sees neither image nor question; null does not ask."""
    floor: float | None = Field(default=None, ge=0.0, le=HIGHEST)
    """The candidate's score must be at least this, whoever the champion is; None sets
    no floor. Where every margin is null and there is no champion, something must be asked: 0 says
    that any model may be the first."""
    kind_tolerance: float = Field(default=0.05, ge=0.0, le=0.2)
    """So much may be lost against the champion on any one kind of question. A candidate that lost
    more, beyond chance, is refused, however much better it is on all kinds together."""
    benchmarks: dict[str, BenchmarkTerms] = added({})
    """What is asked on each of ``benchmarks``, by name; those that are not named here are held to
    the defaults."""
    metric: str = added(RELAXED_ACCURACY)
    """What judges the test rows: ``evaluate.metric``, which is where it is set."""

    @field_validator("over_base", "over_gray", "over_swapped", "over_majority", mode="before")
    @classmethod
    def _asks(cls, margin: Any) -> Any:
        if margin == -1:
            raise ValueError(
                "-1 would ask nothing; write null to leave this comparison out, which every "
                "decision then says"
            )
        return margin

    @model_validator(mode="after")
    def _can_pass(self) -> "GateSettings":
        for name in type(self).model_fields:
            if name.startswith("over_") and getattr(self, name) == 1.0:
                raise ValueError(
                    f"{name} 1.0 can never be passed: two accuracies differ by 1 at most, and "
                    f"the difference must lie above the margin; 0 asks for any gain beyond chance, "
                    f"0.02 for more than 2 points"
                )
        return self


def differences(ours: GateSettings, theirs: GateSettings) -> list[str]:
    """Say in what two settings differ.

    Args:
        ours: Those of a configuration.
        theirs: Those that a registered model is held to.
    """
    one, other = (each.model_dump(exclude={"benchmarks"}) for each in (ours, theirs))
    said = [
        f"{key} {json.dumps(one.get(key))} instead of {json.dumps(other.get(key))}"
        for key in {**one, **other}
        if one.get(key) != other.get(key)
    ]
    for name in {**ours.benchmarks, **theirs.benchmarks}:
        mine, its = ours.benchmarks.get(name), theirs.benchmarks.get(name)
        if mine is None or its is None:
            said.append(f"benchmark {name} is {'not measured any more' if its else 'new'}")
        elif mine.settings != its.settings:
            said.append(f"benchmark {name} asks other rows, or in another way")
        else:
            terms = (("margin", mine.margin, its.margin), ("improve", mine.improve, its.improve))
            said += [f"benchmark {name}: {key} {a} instead of {b}" for key, a, b in terms if a != b]
    return said
