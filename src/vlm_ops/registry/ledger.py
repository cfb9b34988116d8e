"""The ledger: every move of the alias ``champion``, one JSON line in a tag of the model.

So the ledger lives and is backed up with the models it speaks of, whatever machine moved the
alias.
"""

import logging
import uuid
from datetime import UTC, datetime
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from pydantic import Field, ValidationError

from vlm_ops.errors import RegistryError
from vlm_ops.registry import tags
from vlm_ops.store.frozen import Frozen

logger = logging.getLogger(__name__)


class Move(Frozen):
    """One line of the ledger.

    Attributes:
        when: In UTC.
        who: A person, or the flow.
        why: The reason given, or the gate's.
        from_version: The champion before; None if there was none.
        to_version: The champion after.
        forced: Whether a person overruled the gate.
        kind: ``promote`` or ``rollback``.
    """

    when: datetime
    who: str
    why: str
    from_version: str | None = Field(alias="from")
    to_version: str = Field(alias="to")
    forced: bool
    kind: Literal["promote", "rollback"]

    @property
    def moved(self) -> bool:
        """Whether the alias points elsewhere than before."""
        return self.from_version != self.to_version


def new_move(
    kind: Literal["promote", "rollback"],
    current: ModelVersion | None,
    target: ModelVersion,
    *,
    who: str,
    why: str,
    forced: bool,
) -> Move:
    """Return the line for a move that is made now, from one version to another."""
    return Move.model_validate(
        {
            "when": datetime.now(UTC),
            "who": who,
            "why": why,
            "from": str(current.version) if current is not None else None,
            "to": str(target.version),
            "forced": forced,
            "kind": kind,
        }
    )


def carry_out(client: MlflowClient, name: str, move: Move) -> None:
    """Write the line, then move the alias: a move without a line can't be undone."""
    number = len(read_ledger(client, name)) + 1
    # The random part keeps two moves at one moment from overwriting each other's line.
    key = f"{tags.MOVE}{number:04d}.{uuid.uuid4().hex[:8]}"
    client.set_registered_model_tag(name, key, move.model_dump_json(by_alias=True))
    try:
        client.set_registered_model_alias(name, tags.CHAMPION, move.to_version)
    except MlflowException:
        client.delete_registered_model_tag(name, key)
        raise
    logger.info("%s: champion %s -> %s", name, move.from_version, move.to_version)


def read_ledger(client: MlflowClient, name: str) -> list[Move]:
    """Return all moves, the oldest first.

    Raises:
        RegistryError: A line was damaged.
        MlflowException: There is no such model, or the server does not answer.
    """
    lines = {
        key: text
        for key, text in client.get_registered_model(name).tags.items()
        if key.startswith(tags.MOVE)
    }
    try:
        found = [Move.model_validate_json(text) for _, text in sorted(lines.items())]
    except ValidationError as error:
        raise RegistryError(
            f"{name!r}: a tag {tags.MOVE}… is not a line of the ledger: {error}. "
            f"Mend or delete it on the model's page in MLflow."
        ) from error
    return sorted(found, key=lambda move: move.when)


def champion_before(ledger: list[Move], current: str) -> str | None:
    """Replay the ledger as a stack: a promotion puts on top, a rollback takes off.

    Args:
        ledger: All moves, the oldest first.
        current: The champion's version.

    Returns:
        The version that a rollback goes back to; None if there is none.
    """
    stack: list[str] = []
    for move in ledger:
        if move.kind == "rollback":
            while stack and stack[-1] != move.to_version:
                stack.pop()
        if not stack or stack[-1] != move.to_version:
            stack.append(move.to_version)
    # Above the champion may lie a move that was cut off before the alias moved, or one that
    # was undone by hand in MLflow. A champion that the ledger does not know lies on top of all.
    if current in stack:
        while stack.pop() != current:
            pass
    return stack[-1] if stack else None
