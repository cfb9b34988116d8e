"""The gate's settings that a registered model carries, so that no run brings its own."""

from pydantic import ValidationError

from vlm_ops.config.sections import GateSettings
from vlm_ops.errors import RegistryError
from vlm_ops.registry import tags
from vlm_ops.registry.moving import Mover, new_margins
from vlm_ops.registry.standing import State


def pinned(state: State) -> GateSettings | None:
    """Return the pinned settings, None if there are none yet.

    Where their tag is gone, those that the ledger pinned last still count.

    Raises:
        RegistryError: They can't be read.
    """
    text = state.tags.get(tags.MARGINS)
    if text is None:
        lines = [move for move in state.ledger.moves if move.kind == "gate"]
        if not lines:
            return None
        text = lines[-1].margins_tag
    try:
        return GateSettings.model_validate_json(text)
    except ValidationError as error:
        raise RegistryError(
            f"{state.name!r}: its tag {tags.MARGINS} holds no settings of the gate ({error}); "
            f'`vlm-ops gate set {state.name} FILE --reason "…"` pins others.'
        ) from error


def pin(mover: Mover, settings: GateSettings, *, reason: str, by: str) -> None:
    """Pin settings; others than the pinned ones only with a reason.

    Args:
        mover: Holds the lease.
        settings: Of the gate.
        reason: In words; may be empty the first time.
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
    move = new_margins(state, settings.model_dump(mode="json"), who=by, why=reason)
    if reason:
        mover.carry_out(move)
    elif before is None:
        mover.tag(tags.MARGINS, move.margins_tag)
    else:
        raise RegistryError(
            f"{state.name!r} is judged with {before}, not with {settings}. To pin other settings, "
            f'give a reason: `vlm-ops gate set {state.name} FILE --reason "…"`.'
        )
