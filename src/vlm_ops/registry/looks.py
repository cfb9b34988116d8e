"""Looks at the test rows, counted: each one that may promote uses some of their evidence up.

Each look is a tag of the registered model; the groups that it saw are a tag beside it, which looks
at the same rows share. A tag that is missing or damaged counts as a look that saw all of today's
groups: who deletes a look gets no fresh rows for it.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from pydantic import AwareDatetime, ValidationError

from vlm_ops.evaluation.looks import position
from vlm_ops.records import Look
from vlm_ops.registry import tags
from vlm_ops.registry.moving import Mover
from vlm_ops.store.fingerprint import SHORT, fingerprint
from vlm_ops.store.frozen import Frozen


class CountedLook(Frozen):
    """A look as it was counted.

    Attributes:
        number: How many-th look at (any of) its groups it was.
        position: As :class:`~vlm_ops.records.Look` has it.
        when: In UTC.
        candidate: Content hash of the model that was looked at.
        champion: Content hash of the champion it was compared with; None if there was none.
        terms: Hash of what is asked of which rows, and how (the protocol).
        groups: Sketch of the test groups, as :func:`vlm_ops.evaluation.looks.sketch` makes it;
            empty if its tag is gone.
    """

    number: int
    position: float
    when: AwareDatetime
    candidate: str
    champion: str | None
    terms: str
    groups: tuple[str, ...]

    @property
    def look(self) -> Look:
        """Its place among the looks."""
        return Look(number=self.number, position=self.position)


class _Line(Frozen):
    """What the tag of a look holds."""

    number: int
    position: float
    when: AwareDatetime
    candidate: str
    champion: str | None
    terms: str
    groups: str


def read_looks(found: Mapping[str, str]) -> list[CountedLook | None]:
    """Return all looks, the oldest first; None where one is missing or damaged.

    Args:
        found: All tags of the registered model.
    """
    texts = {
        int(match[1]): text
        for key, text in found.items()
        if (match := re.fullmatch(rf"{re.escape(tags.LOOK)}(\d+)", key))
    }
    told = found.get(tags.LOOKS, "")
    last = max(*texts, int(told) if told.isdecimal() else 0, 0)
    return [_look(texts.get(n), found) for n in range(1, last + 1)]


def counted(
    found: Mapping[str, str], candidate: str, champion: str | None, terms: str
) -> Look | None:
    """Return the look at this candidate beside this champion, if it was counted before."""
    for one in read_looks(found):
        if one and (one.candidate, one.champion, one.terms) == (candidate, champion, terms):
            return one.look
    return None


def count(
    mover: Mover, candidate: str, champion: str | None, terms: str, groups: Sequence[str]
) -> Look:
    """Count a look.

    Args:
        mover: Holds the lease.
        candidate: Content hash.
        champion: Content hash.
        terms: Hash of the protocol.
        groups: Sketch of the test groups.
    """
    earlier = read_looks(mover.state.tags)
    seen = [one.groups if one and one.groups else groups for one in earlier]
    shared = [one for one in seen if position(groups, [one]) > 1]
    line = _Line(
        number=1 + len(shared),
        position=position(groups, seen),
        when=datetime.now(UTC),
        candidate=candidate,
        champion=champion,
        terms=terms,
        groups=fingerprint(list(groups))[:SHORT],
    )
    mover.tag(tags.LOOKED_AT + line.groups, " ".join(groups))
    mover.tag(f"{tags.LOOK}{len(earlier) + 1:04d}", line.model_dump_json())
    # So that looks that are deleted at the end are missed too.
    mover.tag(tags.LOOKS, str(len(earlier) + 1))
    return Look(number=line.number, position=line.position)


def _look(text: str | None, found: Mapping[str, str]) -> CountedLook | None:
    try:
        line = _Line.model_validate_json(text or "")
    except ValidationError:
        return None
    groups = tuple(found.get(tags.LOOKED_AT + line.groups, "").split())
    if fingerprint(list(groups))[:SHORT] != line.groups:
        groups = ()
    return CountedLook(**{**line.model_dump(), "groups": groups})
