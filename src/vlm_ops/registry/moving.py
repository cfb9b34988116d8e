"""Moving the alias so that ledger and alias say the same, whatever is cut off when.

A move is four writes, under the :mod:`~vlm_ops.registry.lease` of the registered model:

1. a tag says that the move is begun; it holds the whole line,
2. the alias moves (or the pinned margins change),
3. the line is written into the ledger,
4. after the lease is given back, the tag of 1 is deleted.

A process may be killed between any two of them. Cut off before 2, nothing happened: the next
command deletes the tag. Cut off after 2, the alias shows it: the next command writes the line, and
whoever reads the ledger meanwhile finds the line in it already. As long as the tag of 1 is there,
the command has not come to its end; so the same rollback, given again, ends that one instead of
going back one version more.
"""

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from vlm_ops.errors import RegistryError
from vlm_ops.registry import tags
from vlm_ops.registry.lease import Lease, lease
from vlm_ops.registry.ledger import Kind, Move, shortened
from vlm_ops.registry.standing import State, read_state
from vlm_ops.tracking.connection import is_unanswered

logger = logging.getLogger(__name__)

_OUTSIDE = "moved in MLflow, not by vlm-ops"


class Mover:
    """What may write to a registered model, while it holds the lease.

    Attributes:
        state: As it was read under the lease, after mending.
        cut_off: The move of an earlier command that was cut off after the alias moved, if there
            was one.
    """

    def __init__(self, client: MlflowClient, name: str, held: Lease) -> None:
        """Read the model, and mend what an earlier command was cut off in."""
        self._client = client
        self._name = name
        self._held = held
        self._ended: list[str] = []
        self.state = read_state(client, name)
        self.cut_off = self.state.ledger.cut_off
        self._mend()
        if self.state.moved_outside and self.state.doubt is None:
            self._note_outside()

    def tag(self, key: str, value: str) -> None:
        """Set a tag of the registered model, which is made if it is new."""
        self._held.check()
        if not self.state.exists:
            make_model(self._client, self._name)
        self._client.set_registered_model_tag(self._name, key, value)

    def carry_out(self, move: Move) -> None:
        """Move the alias, or change the margins, and write the line.

        Raises:
            RegistryError: The model was changed meanwhile by something that takes no lease.
            MlflowException: The server refused, or does not answer.
        """
        part = _key_part(move)
        text = move.model_dump_json(by_alias=True)
        self.tag(tags.BEGUN + part, text)
        self._held.check()
        try:
            if move.kind == "gate":
                self._client.set_registered_model_tag(self._name, tags.MARGINS, move.margins_tag)
            elif move.to_version is not None:
                self._client.set_registered_model_alias(self._name, tags.CHAMPION, move.to_version)
        except MlflowException as error:
            if not is_unanswered(error):
                self._client.delete_registered_model_tag(self._name, tags.BEGUN + part)
            raise
        self.tag(tags.MOVE + part, text)
        self._ended.append(tags.BEGUN + part)
        logger.info("%s: %s %s -> %s", self._name, move.kind, move.from_version, move.to_version)
        self._verify(move)

    def forget(self) -> None:
        """Delete what says that moves were begun, as the last thing, without the lease."""
        for key in self._ended:
            self._client.delete_registered_model_tag(self._name, key)

    def _verify(self, move: Move) -> None:
        self.state = read_state(self._client, self._name)
        ledger = self.state.ledger
        lost = move.kind != "gate" and (self.state.doubt or self.state.moved_outside)
        if lost or move not in ledger.moves:
            raise RegistryError(
                f"{self._name!r} was changed in MLflow while vlm-ops moved its alias to version "
                f"{move.to_version}: {self.state.doubt or 'the alias was moved once more'}"
            )

    def _mend(self) -> None:
        for one in self.state.ledger.begun:
            if one.line.key not in self.state.tags:
                if one.applied:
                    self.tag(one.line.key, one.line.text)
                word = "finished" if one.applied else "struck out"
                logger.warning(
                    "%s: a %s to version %s was cut off; it is %s now",
                    self._name, one.line.move.kind, one.line.move.to_version, word,
                )  # fmt: skip
            self._held.check()
            self._client.delete_registered_model_tag(self._name, one.key)
        if self.state.ledger.begun:
            self.state = read_state(self._client, self._name)

    def _note_outside(self) -> None:
        last = self.state.ledger.last
        move = Move.model_validate(
            {
                **_next_line(self.state, "outside", who="unknown", why=_OUTSIDE),
                "from": last.to_version if last else None,
                "from_content": last.to_content if last else None,
                "to": self.state.champion_version,
                "to_content": self.state.champion_content,
            }
        )
        logger.warning(
            "%s: the alias champion was moved to version %s in MLflow; it is the champion",
            self._name, move.to_version,
        )  # fmt: skip
        self.tag(tags.MOVE + _key_part(move), move.model_dump_json(by_alias=True))
        self.state = read_state(self._client, self._name)


@contextmanager
def moving(client: MlflowClient, name: str) -> Iterator[Mover]:
    """Hold the lease of a registered model, with what was cut off before mended.

    Raises:
        RegistryError: Others held it for very long.
        MlflowException: The server does not answer.
    """
    with lease(client, name) as held:
        mover = Mover(client, name, held)
        yield mover
    mover.forget()


def new_move(
    state: State,
    kind: Kind,
    target: ModelVersion,
    *,
    who: str,
    why: str,
    forced: bool = False,
) -> Move:
    """Return the line for a move that is made now, from today's champion to a version.

    Whoever makes a move settles the doubt that there is.

    Args:
        state: As read.
        kind: Of move.
        target: The version.
        who: Does it.
        why: In words.
        forced: Whether the gate is overruled.
    """
    return Move.model_validate(
        {
            **_next_line(state, kind, who=who, why=why),
            "to": str(target.version),
            "to_content": target.tags.get(tags.CONTENT),
            "forced": forced,
            "settled": state.doubt,
        }
    )


def new_margins(state: State, margins: dict[str, Any], *, who: str, why: str) -> Move:
    """Return the line that says that other margins are pinned now."""
    line = _next_line(state, "gate", who=who, why=why)
    return Move.model_validate({**line, "margins": margins})


def make_model(client: MlflowClient, name: str) -> None:
    """Make a registered model, if there is none of this name."""
    try:
        client.create_registered_model(name, description=f"Retrained by vlm-ops: {name}.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _next_line(state: State, kind: Kind, *, who: str, why: str) -> dict[str, Any]:
    """Return a line that stays at today's champion."""
    lines = state.ledger.lines
    return {
        "number": state.ledger.next_number,
        "when": datetime.now(UTC),
        "who": who,
        "why": shortened(why),
        "from": state.champion_version,
        "to": state.champion_version,
        "from_content": state.champion_content,
        "to_content": state.champion_content,
        "forced": False,
        "kind": kind,
        "after": lines[-1].hash if lines else None,
    }


def _key_part(move: Move) -> str:
    # The random part keeps both of two lines with one number, so that it shows.
    return f"{move.number:04d}.{uuid.uuid4().hex[:8]}"
