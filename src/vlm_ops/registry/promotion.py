"""Which version becomes champion, and what speaks against it."""

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from vlm_ops.errors import ChampionMoved, RegistryError
from vlm_ops.registry import questions, tags
from vlm_ops.registry.finding import all_versions, find_version
from vlm_ops.registry.integrity import checked as checked_files
from vlm_ops.registry.judgement import Judgement, judgement_of
from vlm_ops.registry.ledger import Kind, Move, champion_before
from vlm_ops.registry.moving import moving, new_move
from vlm_ops.registry.standing import State, read_state

logger = logging.getLogger(__name__)


class Order(NamedTuple):
    """What a person or the flow asks for.

    Attributes:
        by: Who asks.
        reason: In words; may be empty.
        note: What was found of the version, which the ledger says before the reason; may be empty.
        decision_required: Whether the gate's word counts whatever the reason.
        still: Called just before the alias moves; raises if it must not.
    """

    by: str
    reason: str
    note: str = ""
    decision_required: bool = True
    still: Callable[[], None] = lambda: None

    @property
    def overrules(self) -> bool:
        """Whether a person decides, instead of the gate."""
        return bool(self.reason) and not self.decision_required


class _Told(NamedTuple):
    """What the gate said of a version; ``unknown`` says why that is not known."""

    judgement: Judgement | None
    unknown: str | None


def promote(client: MlflowClient, name: str, version: str, order: Order) -> Move:
    """Make a version the champion; see :meth:`vlm_ops.registry.registry.Registry.promote`.

    The version's files are checked before the lease is taken, because that may take longer than
    a lease lasts; who is champion is read again under it.
    """
    target = find_version(client, name, version)
    told = _told(client, target)
    planned = _promotion(client, read_state(client, name), target, told, order)
    checked = planned.moved or planned.settled is not None
    if checked:
        with checked_files(client, target):
            pass
    with moving(client, name) as mover:
        if done := _ended(mover.cut_off, "promote", str(target.version)):
            return done
        move = _promotion(client, mover.state, target, told, order)
        if move.moved or move.settled is not None:
            if not checked:
                raise _moved_meanwhile(name)
            order.still()
            mover.carry_out(move)
    return move


def rollback(
    client: MlflowClient,
    name: str,
    version: str | None,
    order: Order,
    *,
    agree: Callable[[Move], bool],
    unasked: bool,
) -> Move:
    """Put an earlier champion back; see :meth:`vlm_ops.registry.registry.Registry.rollback`."""
    state = read_state(client, name)
    planned = _ended(state.ledger.cut_off, "rollback", version)
    if planned is None:
        planned = _rollback(client, state, version, order)
        target = find_version(client, name, str(planned.to_version))
        order = order._replace(note=_checked(client, target, unasked))
        planned = _rollback(client, state, version, order)
    if not agree(planned):
        return planned
    with moving(client, name) as mover:
        if done := _ended(mover.cut_off, "rollback", version):
            return done
        move = _rollback(client, mover.state, version, order)
        if move.to_version != planned.to_version:
            raise _moved_meanwhile(name)
        mover.carry_out(move)
    return move


def former_champions(client: MlflowClient, name: str, moves: Sequence[Move]) -> set[str]:
    """Return the content hashes of models that were champion and had to give way.

    Lines of earlier versions name no content; for them the versions are asked, as far as they
    still exist.
    """
    known = {
        str(found.version): found.tags.get(tags.CONTENT) for found in all_versions(client, name)
    }
    for move in moves:
        known |= {str(move.from_version): move.from_content} if move.from_content else {}
        known |= {str(move.to_version): move.to_content} if move.to_content else {}
    left = {known.get(str(move.from_version)) for move in moves if move.moved}
    return {content for content in left if content is not None}


def _checked(client: MlflowClient, target: ModelVersion, unasked: bool) -> str:
    """Check a version's files, ask it its recorded questions, and return what there is to say.

    Raises:
        RegistryError: It is not what was registered.
    """
    with checked_files(client, target) as found:
        if unasked:
            return questions.NOT_ASKED
        if found.questions is not None:
            return questions.ask_again(target, found.folder, found.questions)
    logger.warning(
        "version %s of %r was registered by an earlier vlm-ops, which recorded no questions: only "
        "its files were checked",
        target.version, target.name,
    )  # fmt: skip
    return ""


def _told(client: MlflowClient, target: ModelVersion) -> _Told:
    try:
        judgement = judgement_of(client, target)
    except RegistryError as error:
        return _Told(None, str(error))
    return _Told(judgement, "no gate has judged it." if judgement is None else None)


def _promotion(
    client: MlflowClient, state: State, target: ModelVersion, told: _Told, order: Order
) -> Move:
    """Return the move to a version, from today's champion or to itself, if it may be made.

    Raises:
        ChampionMoved: It was accepted against another champion than today's.
        RegistryError: Something else speaks against it, and nobody overrules that.
    """
    name, current = state.name, state.champion
    if state.doubt and not order.overrules:
        raise RegistryError(state.doubt)
    stays = current is not None and str(current.version) == str(target.version)
    objection = None
    if not stays:
        objection = told.unknown or (told.judgement and told.judgement.objection(current))
    if objection and not order.overrules:
        accepted = told.judgement is not None and told.judgement.verdict.accepted
        raise (ChampionMoved if accepted else RegistryError)(
            f"version {target.version} of {name!r} is not promoted: {objection}\n"
            f"To promote it all the same, give a reason: "
            f'`vlm-ops promote {name} {target.version} --reason "…"`.'
        )
    if not stays and not order.overrules:
        _refuse_former(client, state, target)
    return new_move(
        state,
        "promote",
        target,
        who=order.by,
        why=order.reason or (told.judgement.reasons if told.judgement else "No gate judged it."),
        forced=bool(objection),
    )


def _refuse_former(client: MlflowClient, state: State, target: ModelVersion) -> None:
    """Keep a model back that was put back.

    Raises:
        RegistryError: The version's model was champion before, and is not now.
    """
    former = former_champions(client, state.name, state.ledger.moves)
    if target.tags.get(tags.CONTENT) in former:
        raise RegistryError(
            f"version {target.version} of {state.name!r} is not promoted: its model was champion "
            f"before and had to give way, which no gate undoes. To bring it back, give a reason: "
            f'`vlm-ops promote {state.name} {target.version} --reason "…"`.'
        )


def _rollback(client: MlflowClient, state: State, version: str | None, order: Order) -> Move:
    """Return the move to an earlier champion.

    Args:
        client: Bound to the server.
        state: As read.
        version: Of the earlier champion; None takes the one before today's.
        order: Who asks, and why.

    Raises:
        RegistryError: There is no such champion, or its version is gone.
    """
    name, current = state.name, state.champion
    if state.doubt:
        raise RegistryError(state.doubt)
    if current is None:
        raise RegistryError(
            f"{name!r} has no champion to roll back from. `vlm-ops models` lists its versions."
        )
    moves = state.ledger.moves
    before = version or champion_before(moves, str(current.version))
    if before is None:
        raise RegistryError(
            f"version {current.version} is the first champion of {name!r}: there is none "
            f'to go back to. `vlm-ops promote {name} VERSION --reason "…"` picks another one.'
        )
    target = find_version(client, name, before)
    number = str(target.version)
    if number == str(current.version):
        raise RegistryError(f"version {number} is the champion of {name!r} already.")
    if number not in {v for move in moves for v in (move.from_version, move.to_version)}:
        raise RegistryError(
            f"version {number} of {name!r} was never champion, so nothing goes back to it. "
            f'`vlm-ops promote {name} {number} --reason "…"` makes it the champion.'
        )
    why = order.reason or f"rolled back from version {current.version}"
    return new_move(state, "rollback", target, who=order.by, why=f"{order.note} {why}".strip())


def _ended(cut_off: Move | None, kind: Kind, version: str | None) -> Move | None:
    """Return the move of an earlier command that was cut off, if this command asks for the same."""
    if cut_off is None or cut_off.kind != kind or version not in (None, cut_off.to_version):
        return None
    return cut_off


def _moved_meanwhile(name: str) -> ChampionMoved:
    return ChampionMoved(
        f"the champion of {name!r} was moved a moment ago: look at `vlm-ops models {name}` and "
        f"decide again."
    )
