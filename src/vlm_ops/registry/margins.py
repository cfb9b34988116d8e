"""The gate's settings that a registered model carries, so that no run brings its own."""

from vlm_ops.config.gate import GateSettings
from vlm_ops.errors import RegistryError
from vlm_ops.registry import tags
from vlm_ops.registry.moving import Mover, new_margins
from vlm_ops.registry.standing import State


def pinned(state: State) -> GateSettings | None:
    """Return the pinned settings, None if there are none yet.

    Where their tag is gone, those that the ledger pinned last still count.

    Raises:
        RegistryError: The tag holds others than the ledger pinned last.
    """
    lines = [move for move in state.ledger.moves if move.kind == "gate"]
    text = state.tags.get(tags.MARGINS)
    if not lines and text is None:
        return None
    known = lines[-1].margins_tag if lines else None
    try:
        if text not in (None, known):
            raise ValueError("its ledger pinned others" if lines else "its ledger pinned none")
        return GateSettings.model_validate_json(known or "")
    except ValueError as error:
        raise RegistryError(
            f"{state.name!r}: its tag {tags.MARGINS} holds no settings of the gate that count "
            f'({error}); `vlm-ops gate set {state.name} FILE --reason "…"` pins some.'
        ) from error


def pin(mover: Mover, settings: GateSettings, *, reason: str, by: str) -> None:
    """Pin settings; others than the pinned ones only with a reason.

    Args:
        mover: Holds the lease.
        settings: Of the gate.
        reason: In words; may be empty where none are pinned yet.
        by: Who does it.

    Raises:
        RegistryError: Others are pinned, and there is no reason.
    """
    state = mover.state
    try:
        before = pinned(state)
    except RegistryError:
        if not reason:
            raise
        before = None
    if before == settings:
        return
    if before is not None and not reason:
        raise RegistryError(
            f"{state.name!r} is judged with {before}, not with {settings}. To pin other settings, "
            f'give a reason: `vlm-ops gate set {state.name} FILE --reason "…"`.'
        )
    why = reason or "the first margins"
    mover.carry_out(new_margins(state, settings.model_dump(mode="json"), who=by, why=why))
