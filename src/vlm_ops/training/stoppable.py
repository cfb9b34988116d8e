"""A trainer that ends between two forward passes and loses no more than an unfinished step."""

from typing import Any

from vlm_ops.errors import Interrupted
from vlm_ops.training.checkpoints import COMPLETE, folder_of, validation_is_due
from vlm_ops.training.ranks import here
from vlm_ops.training.stop import Stop
from vlm_ops.watched import moved


class Stoppable:
    """Mixin before a transformers ``Trainer``: looks for SIGTERM before each forward pass.

    Within a step neither weights nor optimizer nor schedule change. So the state that is saved is
    that of the last step's end: gradients are dropped, and random numbers put back.

    A validation that was due or cut off is made first when the training goes on, before another
    step: a step that is never scored could not be chosen.

    Attributes:
        stop: Hears SIGTERM; None hears nothing.
    """

    stop: Stop | None = None

    # Of the transformers self.
    args: Any
    state: Any
    control: Any

    def heed(self) -> None:
        """Save and end if SIGTERM came, to any process that shares the training.

        Raises:
            Interrupted: It came; says from where the training goes on.
        """
        moved()
        if self.stop is None or not here().total(self.stop.asked):
            return
        step = self.state.global_step
        if step == 0 and validation_is_due(self.args.eval_steps, self.state):
            raise Interrupted("stopped before the first step; the same command begins anew")
        folder = folder_of(self)
        if not (folder / COMPLETE).exists():
            self.stop.rewind()
            trainer: Any = self
            trainer._save_checkpoint(trainer.model, None)
        raise Interrupted(
            f"stopped at step {step} of {self.state.max_steps}; the same command goes on from "
            f"{folder}"
        )

    def training_step(self, *args: Any, **options: Any) -> Any:
        """Learn from a micro-batch."""
        self.heed()
        return super().training_step(*args, **options)  # type: ignore[misc]

    def prediction_step(self, *args: Any, **options: Any) -> Any:
        """Score a batch of validation."""
        self.heed()
        return super().prediction_step(*args, **options)  # type: ignore[misc]

    def _evaluate(self, trial: Any, ignored: Any, skip_scheduler: bool = False) -> Any:
        """Validate; the one before the first step is the one of a checkpoint that lacks it."""
        parent: Any = super()
        if not skip_scheduler or self.state.global_step == 0:
            return parent._evaluate(trial, ignored, skip_scheduler=skip_scheduler)
        trainer: Any = self
        trainer._load_rng_state(str(folder_of(self)))
        metrics = parent._evaluate(trial, ignored)
        trainer._determine_best_metric(metrics=metrics, trial=trial)
        trainer._save_checkpoint(trainer.model, trial)
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        return metrics

    def _run_epoch(self, *args: Any, **options: Any) -> None:
        """Take its steps, unless that validation was the end of the training."""
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **options)  # type: ignore[misc]
