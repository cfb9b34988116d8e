"""The score of a model's greedy answers while it trains, to choose a checkpoint by."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vlm_ops.evaluation.judging import terms
from vlm_ops.evaluation.metric import Metric
from vlm_ops.evaluation.metrics import RELAXED
from vlm_ops.evaluation.shown import kept
from vlm_ops.models.adapters import bare
from vlm_ops.models.generation import generate
from vlm_ops.models.loading import LoadedModel
from vlm_ops.records import Row


class AskedOnValidation:
    """Mixin for a transformers ``Trainer``: after the validation loss the model is asked.

    Attributes:
        ask: Takes the rows in a forward pass and returns scores by name, that by which the best
            checkpoint is chosen among them; None asks nothing.
    """

    ask: Callable[[int], dict[str, float]] | None = None

    def evaluation_loop(self, *args: Any, **options: Any) -> Any:
        """Score the rows, and add the answers' scores to their metrics."""
        trainer: Any = self
        output = super().evaluation_loop(*args, **options)  # type: ignore[misc]
        if self.ask is not None:
            model = bare(trainer.model)
            heeded = _before_each_pass(model, trainer.heed)
            with heeded, _own_forward(model), trainer.accelerator.autocast():
                output.metrics.update(self.ask(trainer.args.eval_batch_size))
        return output


def score_of_answers(
    loaded: LoadedModel,
    rows: Sequence[Row],
    *,
    locate: Callable[[str], Path],
    max_new_tokens: int,
    batch_size: int,
    metric: Metric = RELAXED,
) -> float:
    """Ask a model all rows, greedily, and return the score of its answers.

    Args:
        loaded: Model and processor.
        rows: As the model is asked, its prompt around each question.
        locate: Where an image path of the rows lies.
        max_new_tokens: Longest answer.
        batch_size: Rows generated at once.
        metric: Judges all answers together.

    Raises:
        DataError: The metric gives no number in its range.
    """
    said: list[str] = []
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        said += generate(
            loaded,
            [row.chat for row in batch],
            [kept(row.images, locate) for row in batch],
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
        )
    return metric.value(terms(rows, said, metric).sum(axis=0))


@contextmanager
def _before_each_pass(model: Any, heed: Callable[[], None]) -> Iterator[None]:
    """Look for SIGTERM at every token: a long answer takes many forward passes."""
    hook = model.register_forward_pre_hook(lambda *_: heed())
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _own_forward(model: Any) -> Iterator[None]:
    """Give a model its class' forward back: generation reads the signature, and wants logits."""
    trained_with = model.__dict__.pop("forward", None)
    try:
        yield
    finally:
        if trained_with is not None:
            model.forward = trained_with
