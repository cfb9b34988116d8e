"""What a trainer's numbers become while it runs: curves, log lines, and a stop on NaN."""

import logging
import math
import time
from typing import Any

from transformers import TrainerCallback

from vlm_ops.errors import TrainingError
from vlm_ops.tracker import Tracker
from vlm_ops.training.memory import peak_memory_gb

logger = logging.getLogger(__name__)

_NO_CURVES = {"epoch", "entropy", "eval_entropy"}
"""Of what the trainers report: a second time axis, and a number that nobody acts on."""


class Curves(TrainerCallback):
    """Sends a trainer's numbers to the tracker and the log, and stops on NaN.

    Args:
        tracker: Where curves go.
        stage: Name in log lines.
    """

    def __init__(self, tracker: Tracker, stage: str) -> None:
        self._tracker = tracker
        self._stage = stage
        self._started = time.monotonic()
        self._first_step = 0
        self._last_tokens: tuple[float, float] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock, at the step a resumed training goes on from."""
        self._started = time.monotonic()
        self._first_step = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Score and save the last step too, and log before anything is saved."""
        if state.global_step >= state.max_steps:
            control.should_evaluate = True
            control.should_save = True
        if control.should_save:
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Pass numbers on."""
        logs: dict[str, float] = {
            name: float(value)
            for name, value in (kwargs.get("logs") or {}).items()
            if isinstance(value, (int, float))
        }
        loss = logs.get("loss", logs.get("eval_loss"))
        if loss is not None and not math.isfinite(loss):
            of = "loss" if "loss" in logs else "validation loss"
            raise TrainingError(
                f"{self._stage}: the {of} is {loss} at step {state.global_step}; training stops, "
                f"and the last good checkpoint stays in {args.output_dir}. A smaller "
                f"learning_rate (found {args.learning_rate:g}) or max_grad_norm usually helps."
            )
        if "loss" in logs:
            logs |= self._speed(logs) | {"peak_memory_gb": peak_memory_gb()}
            logger.info("%s: %s", self._stage, self._progress(state, logs))
        elif "eval_loss" in logs:
            best = args.metric_for_best_model
            logger.info("%s: validation %s", self._stage, _line(logs, best))
        self._tracker.metrics(
            {n: v for n, v in logs.items() if n not in _NO_CURVES and math.isfinite(v)},
            state.global_step,
        )

    def _speed(self, logs: dict[str, float]) -> dict[str, float]:
        now, tokens = time.monotonic(), logs.get("num_tokens")
        if tokens is None:
            return {}
        previous, self._last_tokens = self._last_tokens, (now, tokens)
        if previous is None or now <= previous[0]:
            return {}
        return {"tokens_per_second": (tokens - previous[1]) / (now - previous[0])}

    def _progress(self, state: Any, logs: dict[str, float]) -> str:
        step, steps = state.global_step, state.max_steps
        a_step = (time.monotonic() - self._started) / max(1, step - self._first_step)
        return f"step {step}/{steps}, {_line(logs)}, {a_step * (steps - step):.0f} s left"


def _line(logs: dict[str, float], best: str = "eval_loss") -> str:
    shown = ("loss", "eval_loss", best, "rewards/accuracies", "eval_rewards/accuracies")
    return ", ".join(f"{name} {logs[name]:.4f}" for name in dict.fromkeys(shown) if name in logs)
