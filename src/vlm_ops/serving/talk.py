"""A talk with a model: each turn is told with all that was said and shown before."""

from collections.abc import Callable, Sequence

from PIL import Image

from vlm_ops.data.cells import unmarked
from vlm_ops.data.chats import plain
from vlm_ops.errors import DataError
from vlm_ops.models.loading import LoadedModel
from vlm_ops.records import IMAGE, Turn
from vlm_ops.serving.asking import Answering, Asked, answer


class Talk:
    """What was said to a model, what it was shown, and what it said."""

    def __init__(self, model: LoadedModel, how: Answering, system: str | None = None) -> None:
        """Begin.

        Args:
            model: Loaded.
            how: Longest answer, and whether it is drawn.
            system: What the model is told before all else.

        Raises:
            DataError: The system prompt is empty or holds a mark.
        """
        self._model, self._how = model, how
        self._turns: list[Turn] = []
        self._images: list[Image.Image] = []
        self._new = 0
        if system is not None:
            self._turns.append(Turn(role="system", text=_words("system", system)))

    def show(self, pictures: Sequence[Image.Image]) -> None:
        """Show pictures with what is said next."""
        self._images += pictures
        self._new += len(pictures)

    def say(self, words: str, tell: Callable[[str], object]) -> str:
        """Say something, and return what the model says to it.

        Args:
            words: Of the user; pictures that were shown since the last turn stand before them.
            tell: Called with each new piece of the answer as it comes.

        Raises:
            DataError: They hold a mark, or all that was said and shown is too long for the model;
                then they count as not said, and these pictures as not shown.
        """
        new, self._new = self._new, 0
        try:
            text = IMAGE * new + _words("question", words)
            *before, last = plain([*self._turns, Turn(role="user", text=text)])
            asked = Asked(last.text, tuple(self._images), tuple(before))
            said = answer(self._model, asked, self._how, tell)
        except DataError:
            del self._images[len(self._images) - new :]
            raise
        self._turns += [Turn(role="user", text=text), Turn(role="assistant", text=said)]
        return said


def _words(name: str, text: str) -> str:
    try:
        return unmarked(text)
    except DataError as error:
        raise DataError(f"{name} is {error}") from error
