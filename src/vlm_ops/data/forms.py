"""Forms of a data set: ChartQA's columns, or a column of chats."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from vlm_ops.config.pictures import BoxSettings
from vlm_ops.config.sections import Columns, DataForm
from vlm_ops.data.cells import CellError, shown
from vlm_ops.data.chats import Chat, is_chat, read_asked, read_chat
from vlm_ops.data.image_cells import ImageCell, Place, holds_no_image, image_cells
from vlm_ops.data.objects import WHERE
from vlm_ops.errors import DataError

_CHATS = ("messages", "conversations")  # former name
_IMAGES = "images"


class Form(NamedTuple):
    """Where a row's cells stand.

    Attributes:
        columns: Which column holds what; for a chat, question and answers are in one.
        chat: Column of the chat; None where question and answers have columns of their own.
        imageless: Whether there need be no column of images, because they stand in the messages of
            a chat, or videos in a column of theirs.
        question: What every row is asked; None where a column says it.
        asks: Whether rows are to be answered, so that a chat may end with the user.
        boxed: How boxes are given, and written as answers.
    """

    columns: Columns
    chat: str | None
    imageless: bool = False
    question: str | None = None
    asks: bool = False
    boxed: BoxSettings = BoxSettings()

    def wanted(self) -> dict[str, str | None]:
        """Return the column of each setting that must be there."""
        there = {
            "image": not self.imageless,
            "question": self.question is None,
            "answers": self.columns.boxes is None,
        }
        left_out = {"more_images", *(name for name, is_ in there.items() if not is_)}
        names = self.columns.model_dump(exclude=left_out)
        more = {f"more_images[{n}]": name for n, name in enumerate(self.columns.more_images)}
        return {f"data.columns.{key}": value for key, value in {**names, **more}.items()}

    def read_chat(self, cells: Mapping[str, Any]) -> Chat | None:
        """Return a row's chat; None where question and answers have columns of their own.

        The question of a row that is to be answered may be a chat, as the prompts of pairs are.

        Raises:
            CellError: It can't be read, or its images are in a column as well.
        """
        column = self.chat
        if self.asks and self.question is None and is_chat(cells.get(self.columns.question)):
            column = self.columns.question
        if column is None:
            return None
        chat = (read_asked if self.asks else read_chat)(cells.get(column))
        for inside, column in (
            (chat.images, self.columns.image),
            (chat.videos, self.columns.video),
        ):
            there = cells.get(column) if column else None
            if inside and there != [] and not holds_no_image(there):
                found = f"some in the messages, and {shown(there)} in {column!r}"
                raise CellError("with images in two places", found, "expected them in one of them")
        return chat

    def images(
        self, cells: Mapping[str, Any], chat: Chat | None, place: Place
    ) -> tuple[ImageCell, ...]:
        """Return a row's images, in the order the prompt shows them."""
        inside = chat is not None and chat.images
        found = image_cells(inside or cells.get(self.columns.image), place)
        further = (cells.get(name) for name in self.columns.more_images)
        more = (image_cells(cell, place) for cell in further if not holds_no_image(cell))
        return (*found, *(image for images in more for image in images))

    def videos(
        self, cells: Mapping[str, Any], chat: Chat | None, place: Place
    ) -> tuple[ImageCell, ...]:
        """Return a row's videos, in the order the prompt shows them."""
        inside = chat is not None and chat.videos
        column = self.columns.video
        return image_cells(inside or (cells.get(column) if column else None), place)

    def boxes(self, cells: Mapping[str, Any]) -> tuple[Any, BoxSettings] | None:
        """Return the cell with the objects of a row's picture, and how it is to be read."""
        column = self.columns.boxes
        return (cells.get(column), self.boxed) if column else None

    def named(self, cells: Mapping[str, Any], place: Place) -> tuple[ImageCell, ...]:
        """Return images and videos of a row that may not be readable otherwise."""
        chat = None
        with suppress(CellError):
            chat = self.read_chat(cells)
        return (*self.images(cells, chat, place), *self.videos(cells, chat, place))


def find_form(
    form: DataForm, columns: Columns, there: Sequence[str], question: str | None = None
) -> Form:
    """Find out which form a source has.

    Args:
        form: What the configuration says; ``auto`` takes a chat only where the columns of question
            and answers are not there.
        columns: Which column holds what.
        there: Columns of the source.
        question: What every row is asked; None where a column says it.

    Raises:
        DataError: Boxes are to be the answers of chats.
    """
    chat: str | None = form if form in _CHATS else None
    if columns.boxes is not None:
        if chat is not None:
            raise DataError(
                f"data.columns.boxes {columns.boxes!r}: boxes are answers of their own, and "
                f"data.form {form!r} has them in a chat; expected one of the two"
            )
        if columns.question not in there:
            question = question or WHERE
    named = {columns.question, columns.answers, columns.boxes}
    if form == "auto" and question is None and not named & set(there):
        chat = next((name for name in _CHATS if name in there), None)
    if chat is None:
        imageless = columns.video is not None and columns.image not in there
        return Form(columns, None, imageless, question)
    images = _IMAGES if columns.image not in there and _IMAGES in there else columns.image
    update = {"question": chat, "answers": chat, "image": images}
    return Form(columns.model_copy(update=update), chat, images not in there)
