"""The ledger: every move of the alias ``champion``, one JSON line in a tag of the model.

So the ledger lives and is backed up with the models it speaks of, whatever machine moved the
alias. A line has a number, one more than the line before, and a hash of that line, so that a line
that is missing, doubled or edited shows. Lines of earlier versions have neither; they come first,
by their time.
"""

import json
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from pydantic import AwareDatetime, Field, ValidationError

from vlm_ops.registry import tags
from vlm_ops.store.fingerprint import SHORT, sha256_bytes
from vlm_ops.store.frozen import Frozen

Kind = Literal["promote", "rollback", "outside", "gate"]

_LONGEST_REASON = 3500
"""In JSON. MLflow's column takes 5000 characters a tag on PostgreSQL, the rest of the line too."""


class Move(Frozen):
    """One line of the ledger.

    Attributes:
        number: From 1; None in a line of an earlier version.
        when: In UTC.
        who: A person, or the flow.
        why: The reason given, or the gate's.
        from_version: The champion before; None if there was none.
        to_version: The champion after; None if only margins changed before there was one.
        from_content: Content hash of the champion before, which is known by it also when the
            version is deleted; None in a line of an earlier version.
        to_content: Content hash of the champion after.
        forced: Whether a person overruled the gate.
        kind: ``promote`` and ``rollback`` move the alias; ``outside`` says that it was moved in
            MLflow's pages; ``gate`` says that other margins were pinned.
        settled: The doubt that a person settled with this move, in words.
        margins: The gate's settings from this line on, in one of kind ``gate``.
        after: Hash of the line before.
    """

    number: int | None = None
    when: AwareDatetime
    who: str
    why: str
    from_version: str | None = Field(alias="from")
    to_version: str | None = Field(alias="to")
    from_content: str | None = None
    to_content: str | None = None
    forced: bool
    kind: Kind
    settled: str | None = None
    margins: dict[str, Any] | None = None
    after: str | None = None

    @property
    def moved(self) -> bool:
        """Whether the alias points elsewhere than before."""
        return self.from_version != self.to_version

    @property
    def margins_tag(self) -> str:
        """The margins as the model's tag holds them."""
        return json.dumps(self.margins, sort_keys=True)


class Line(NamedTuple):
    """A line of the ledger, and the tag that holds it."""

    key: str
    text: str
    move: Move

    @property
    def hash(self) -> str:
        """What the next line says of this one."""
        return sha256_bytes(self.text.encode())[:SHORT]


class Begun(NamedTuple):
    """A move that was begun and not ended, as its tag says; see :mod:`vlm_ops.registry.moving`.

    Attributes:
        key: Of the tag.
        line: That it leaves in the ledger.
        applied: Whether the alias moved, or the margins changed.
    """

    key: str
    line: Line
    applied: bool


class Ledger(NamedTuple):
    """What the tags of a registered model say of its champion's moves.

    Attributes:
        lines: The oldest first; those of moves that were cut off after the alias moved are among
            them.
        damaged: Keys of tags that hold no line.
        begun: Moves that were begun and not ended.
    """

    lines: tuple[Line, ...] = ()
    damaged: tuple[str, ...] = ()
    begun: tuple[Begun, ...] = ()

    @property
    def moves(self) -> list[Move]:
        """All moves, the oldest first."""
        return [line.move for line in self.lines]

    @property
    def last(self) -> Move | None:
        """The last line that says who is champion."""
        return next((move for move in reversed(self.moves) if move.kind != "gate"), None)

    @property
    def cut_off(self) -> Move | None:
        """The last move that was cut off after the alias moved."""
        return next((one.line.move for one in reversed(self.begun) if one.applied), None)

    @property
    def next_number(self) -> int:
        """The number that the next line gets, larger than all before."""
        numbers = [move.number or 0 for move in self.moves]
        return max([len(numbers), *numbers, *map(_key_number, self.damaged)]) + 1

    def flaw(self) -> str | None:
        """Say what shows that the ledger was damaged since a person last settled it."""
        settled = max((m.number or 0 for m in self.moves if m.settled), default=0)
        if found := [key for key in self.damaged if _key_number(key) > settled]:
            return f"its tag {found[0]} does not hold the line of the ledger that was written"
        lines = [line for line in self.lines if (line.move.number or 0) >= max(settled, 1)]
        first = settled or 1 + sum(move.number is None for move in self.moves)
        for expected, line in enumerate(lines, first):
            number = line.move.number or 0
            if number < expected:
                return (
                    f"its ledger has more than one line {number}: two ledgers were put into one, "
                    f"as by a restored backup"
                )
            if number > expected:
                return f"line {expected} of its ledger is missing"
        for before, line in pairwise(lines):
            if line.move.after != before.hash:
                return f"line {before.move.number} of its ledger was edited"
        return None


def read_ledger(found: Mapping[str, str], alias: str | int | None) -> Ledger:
    """Read the ledger from the tags of a registered model.

    Args:
        found: All of its tags.
        alias: The version that the alias ``champion`` points to.
    """
    lines: list[Line] = []
    damaged: list[str] = []
    begun: list[Begun] = []
    for key, text in sorted(found.items()):
        if not key.startswith((tags.MOVE, tags.BEGUN)):
            continue
        line = _line(key.replace(tags.BEGUN, tags.MOVE), text)
        if key.startswith(tags.BEGUN) and line is not None:
            begun.append(Begun(key, line, _applied(line.move, found, alias)))
        elif line is None:
            damaged.append(key)
        else:
            lines.append(line)
    written = {line.key for line in lines}
    lines += [one.line for one in begun if one.applied and one.line.key not in written]
    lines.sort(key=lambda line: (line.move.number or 0, line.move.when))
    return Ledger(tuple(lines), tuple(damaged), tuple(begun))


def champion_before(moves: Sequence[Move], current: str) -> str | None:
    """Replay the ledger as a stack: a promotion puts on top, a rollback takes off.

    Args:
        moves: All moves, the oldest first.
        current: The champion's version.

    Returns:
        The version that a rollback goes back to; None if there is none.
    """
    stack: list[str] = []
    for move in moves:
        if move.to_version is None:
            continue
        if move.kind != "promote" and move.to_version in stack:
            while stack[-1] != move.to_version:
                stack.pop()
        if not stack or stack[-1] != move.to_version:
            stack.append(move.to_version)
    # Above the champion may lie a move that an earlier version was cut off in before the alias
    # moved. A champion that the ledger does not know lies on top of all.
    if current in stack:
        while stack.pop() != current:
            pass
    return stack[-1] if stack else None


def shortened(reason: str) -> str:
    """Return a reason that fits in a tag, in JSON."""
    short = reason
    while (length := len(json.dumps(short, ensure_ascii=False))) > _LONGEST_REASON:
        short = f"{short[: len(short) * _LONGEST_REASON // length - 2]}…"
    return short


def _line(key: str, text: str) -> Line | None:
    try:
        move = Move.model_validate_json(text)
    except ValidationError:
        return None
    misplaced = move.number is not None and move.number != _key_number(key)
    return None if misplaced else Line(key, text, move)


def _key_number(key: str) -> int:
    """Return the number in the name of a tag; 0 if there is none."""
    found = re.match(r"(\d+)", key.removeprefix(tags.MOVE).removeprefix(tags.BEGUN))
    return int(found[1]) if found else 0


def _applied(move: Move, found: Mapping[str, str], alias: str | int | None) -> bool:
    if move.kind == "gate":
        return found.get(tags.MARGINS) == move.margins_tag
    return alias is not None and str(alias) == move.to_version
