"""Moving the alias ``champion``, and the ledger of its moves.

Every move is one JSON line in a tag of the registered model, so that the ledger lives and
is backed up with the models it speaks of, whatever machine moved the alias.
"""

import json
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
from vlm_ops.registry.files import check_files
from vlm_ops.store.frozen import Frozen
from vlm_ops.tracking.connection import answering, connect

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


def promote(
    uri: str,
    name: str,
    version: str,
    *,
    reason: str | None,
    by: str,
    decision_required: bool = True,
) -> Move:
    """Make a version the champion.

    It needs a passing gate decision on that version, taken against today's champion.
    Without ``decision_required`` a person may do without one, but not without a reason.

    Args:
        uri: The MLflow server.
        name: The registered model.
        version: A number, or an alias as ``candidate``.
        reason: In words; None takes the gate's.
        by: Who does it.
        decision_required: Refuse without a passing decision, whatever the reason.

    Returns:
        The move. If that version is champion already, nothing is moved or written, and
        ``moved`` is False.

    Raises:
        RegistryError: There is no such version, no passing decision and no reason, or the
            version's files are not the registered ones.
        ServiceError: The server does not answer.
    """
    client = connect(uri)
    with answering(uri, RegistryError):
        target = tags.find_version(client, name, version)
        current = tags.alias_version(client, name, tags.CHAMPION)
        objection = _objection(target, current)
        given = (reason or "").strip()
        standing = current is not None and str(current.version) == str(target.version)
        if objection and not standing and (decision_required or not given):
            raise RegistryError(
                f"version {target.version} of {name!r} is not promoted: {objection}\n"
                f"To promote it all the same, give a reason: "
                f'`vlm-ops promote {name} {target.version} --reason "…"`.'
            )
        move = _move(
            current,
            target,
            who=by,
            why=given or _gate_reason(target),
            forced=bool(objection) and not standing,
            kind="promote",
        )
        if not standing:
            check_files(client, target)
            _carry_out(client, name, move)
    return move


def rollback(uri: str, name: str, *, reason: str | None, by: str) -> Move:
    """Put back the version that was champion before, after checking its files.

    Rolling back twice goes back two versions: a version that was rolled away from does not
    come back by itself.

    Args:
        uri: The MLflow server.
        name: The registered model.
        reason: In words; None says what is rolled back.
        by: Who does it.

    Raises:
        RegistryError: There is no champion, none before it, or its version or files are gone.
        ServiceError: The server does not answer.
    """
    client = connect(uri)
    with answering(uri, RegistryError):
        current = tags.alias_version(client, name, tags.CHAMPION)
        if current is None:
            raise RegistryError(
                f"{name!r} has no champion to roll back from. `vlm-ops models` lists its versions."
            )
        before = _champion_before(_ledger(client, name), str(current.version))
        if before is None:
            raise RegistryError(
                f"version {current.version} is the first champion of {name!r}: there is none to "
                f'go back to. `vlm-ops promote {name} VERSION --reason "…"` picks another one.'
            )
        target = tags.find_version(client, name, before)
        check_files(client, target)
        why = (reason or "").strip() or f"rolled back from version {current.version}"
        move = _move(current, target, who=by, why=why, forced=False, kind="rollback")
        _carry_out(client, name, move)
    return move


def former_champions(uri: str, name: str) -> set[str]:
    """Return the content hashes of models that were champion and had to give way.

    Raises:
        RegistryError: There is no such model, or a line of the ledger was damaged.
        ServiceError: The server does not answer.
    """
    left = {move.from_version for move in moves(uri, name) if move.moved}
    client = connect(uri)
    with answering(uri, RegistryError):
        versions = tags.all_versions(client, name)
    return {tags.content_of(found) for found in versions if str(found.version) in left}


def moves(uri: str, name: str) -> list[Move]:
    """Return the ledger of a registered model, the oldest move first.

    Raises:
        RegistryError: There is no such model, or a line was damaged.
        ServiceError: The server does not answer.
    """
    client = connect(uri)
    with answering(uri, RegistryError):
        return _ledger(client, name)


def _objection(target: ModelVersion, current: ModelVersion | None) -> str | None:
    """Say why the gate's decision does not let a version pass; None if it does."""
    decision = tags.present(target.tags.get(tags.DECISION))
    if decision is None:
        return "no gate has judged it."
    if decision != tags.PROMOTE:
        return f"the gate said no.\n{_gate_reason(target)}"
    against = tags.present(target.tags.get(tags.JUDGED_AGAINST))
    content = tags.content_of(current) if current is not None else None
    if against != content:
        judged = tags.present(target.tags.get(tags.JUDGED_AGAINST_VERSION))
        now = f"version {current.version}" if current is not None else "none"
        return (
            f"the gate measured it against {f'version {judged}' if judged else 'no champion'}, "
            f"but the champion is {now} now; run the pipeline again to have it judged anew."
        )
    return None


def _gate_reason(target: ModelVersion) -> str:
    reasons = json.loads(target.tags.get(tags.REASONS, "[]"))
    return "\n".join(f"- {reason}" for reason in reasons) or "The gate gave no reason."


def _move(
    current: ModelVersion | None,
    target: ModelVersion,
    *,
    who: str,
    why: str,
    forced: bool,
    kind: Literal["promote", "rollback"],
) -> Move:
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


def _carry_out(client: MlflowClient, name: str, move: Move) -> None:
    """Write the line, then move the alias: a move without a line can't be undone."""
    number = len(_ledger(client, name)) + 1
    # The random part keeps two moves at one moment from overwriting each other's line.
    key = f"{tags.MOVE}{number:04d}.{uuid.uuid4().hex[:8]}"
    client.set_registered_model_tag(name, key, move.model_dump_json(by_alias=True))
    try:
        client.set_registered_model_alias(name, tags.CHAMPION, move.to_version)
    except MlflowException:
        client.delete_registered_model_tag(name, key)
        raise
    logger.info("%s: champion %s -> %s", name, move.from_version, move.to_version)


def _ledger(client: MlflowClient, name: str) -> list[Move]:
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


def _champion_before(ledger: list[Move], current: str) -> str | None:
    """Replay the ledger as a stack: a promotion puts on top, a rollback takes off."""
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
