"""The end of a training before its last step, when validation gets no better."""

from typing import Any

from transformers import TrainerCallback


class EarlyStopping(TrainerCallback):
    """Ends a training after so many validations in a row without a better one.

    It stops where transformers' ``EarlyStoppingCallback`` does. That one counts by itself; here the
    count is read off the trainer's history, which every checkpoint holds, so that a training that
    goes on knows it, and a finished one is known to be finished.

    Args:
        patience: So many validations.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look at the validation that was just logged."""
        if stops(state, args, self._patience):
            control.should_training_stop = True


def stops(state: Any, args: Any, patience: int | None) -> bool:
    """Return whether a training has had enough validations without a better one.

    Args:
        state: The trainer's; its history is read.
        args: The trainer's; they name the metric that chooses the best checkpoint.
        patience: So many validations in a row; None never has enough.
    """
    metric, sign = args.metric_for_best_model, 1 if args.greater_is_better else -1
    # No checkpoint is kept of the start, so it can't be the best.
    scores = {
        entry["step"]: sign * entry[metric]
        for entry in state.log_history
        if metric in entry and entry["step"] > 0
    }
    if patience is None or not scores:
        return False
    since_best = len(scores) - 1 - list(scores.values()).index(max(scores.values()))
    return since_best >= patience
