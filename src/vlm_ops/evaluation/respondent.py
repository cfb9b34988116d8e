"""Who answers questions: a model that is loaded at the first question."""

import gc
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from vlm_ops.artifacts import ModelRef
from vlm_ops.config.jobs import AnswersJob
from vlm_ops.models.pictures import Picture
from vlm_ops.models.replies import Reply
from vlm_ops.models.room import Room
from vlm_ops.records import Row

if TYPE_CHECKING:
    from vlm_ops.models.loading import LoadedModel


class Respondent(Protocol):
    """Anything that answers questions about images."""

    def respond(
        self, rows: Sequence[Row], images: Sequence[Sequence[Picture]], job: AnswersJob
    ) -> list[Reply]:
        """Answer one batch: a row as the model reads it and its images, one answer per row."""


OpenModel = Callable[[ModelRef], Respondent]
"""Makes a respondent of a model; tests pass one of their own."""


class ModelRespondent:
    """A model that answers greedily; it is loaded only when it is asked something.

    One model at a time stays in memory: whoever opens the same one again finds it there.
    """

    _held: "LoadedModel | None" = None

    def __init__(self, ref: ModelRef, room: Room) -> None:
        """Take a model by reference, without loading it, and room for features of images."""
        self._ref = ref
        self._room = room

    def respond(
        self, rows: Sequence[Row], images: Sequence[Sequence[Picture]], job: AnswersJob
    ) -> list[Reply]:
        """Answer one batch, greedily.

        Raises:
            ModelError: The model can't be loaded.
        """
        from vlm_ops.models.generation import replies

        return replies(
            self._load(),
            [row.chat for row in rows],
            images,
            max_new_tokens=job.max_new_tokens,
            batch_size=job.batch_size,
        )

    def _load(self) -> "LoadedModel":
        from vlm_ops.models.features import load_with_features

        # No name here for what is held: it would keep the other model alive beside this one.
        if ModelRespondent._held is None or ModelRespondent._held.ref.content != self._ref.content:
            self.free()
            ModelRespondent._held = load_with_features(self._ref, self._room)
        return ModelRespondent._held

    @staticmethod
    def free() -> None:
        """Give the memory of the model that is held back."""
        if ModelRespondent._held is None:
            return
        import torch

        ModelRespondent._held = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
