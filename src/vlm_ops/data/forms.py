"""Forms of a data set beside ChartQA's columns: chats of one question and one answer.

OpenAI and TRL write messages of ``role`` and ``content``, LLaVA and ShareGPT of ``from`` and
``value``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vlm_ops.config.sections import Columns, DataForm
from vlm_ops.data.cells import CellError, shown, turns

_CHATS = ("messages", "conversations")  # former name
_IMAGES = "images"


class Form(NamedTuple):
    """Where a row's cells stand.

    Attributes:
        columns: Which column holds what; for a chat, question and answers are in one.
        chat: Column of the chat; None where question and answers have columns of their own.
    """

    columns: Columns
    chat: str | None

    def wanted(self) -> dict[str, str | None]:
        """Return the column of each setting that must be there."""
        names = self.columns.model_dump()
        return {f"data.columns.{key}": value for key, value in names.items()}

    def asked(self, cells: Mapping[str, Any]) -> tuple[Any, Any]:
        """Return the cells of question and answers.

        Raises:
            CellError: The chat is not one question and one answer.
        """
        if self.chat is None:
            return cells.get(self.columns.question), cells.get(self.columns.answers)
        return one_turn(cells.get(self.chat))


def find_form(form: DataForm, columns: Columns, there: Sequence[str]) -> Form:
    """Find out which form a source has.

    Args:
        form: What the configuration says; ``auto`` takes a chat only where the columns of question
            and answers are not there.
        columns: Which column holds what.
        there: Columns of the source.
    """
    chat: str | None = form if form in _CHATS else None
    if form == "auto" and not {columns.question, columns.answers} & set(there):
        chat = next((name for name in _CHATS if name in there), None)
    if chat is None:
        return Form(columns, None)
    images = _IMAGES if columns.image not in there and _IMAGES in there else columns.image
    update = {"question": chat, "answers": chat, "image": images}
    return Form(columns.model_copy(update=update), chat)


def one_turn(cell: Any) -> tuple[str, str]:
    """Return question and answer of a chat.

    Raises:
        CellError: It is no chat, or has other turns than one of the user and one of the assistant.
    """
    said = turns(cell)
    roles = [role for role, _ in said]
    if roles != ["user", "assistant"]:
        found = f"{len(roles)} turns: {shown(roles)}"
        advice = "expected one of the user and one of the assistant; other chats are not read yet"
        raise CellError("of several turns" if len(roles) > 2 else "of other turns", found, advice)
    return said[0][1], said[1][1]
