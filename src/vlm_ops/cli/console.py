"""What the commands share: where they print, progress from log lines, errors in words."""

import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vlm_ops.errors import Interrupted, VlmOpsError

out = Console(highlight=False, soft_wrap=True)
"""Results."""
err = Console(stderr=True, highlight=False, soft_wrap=True)
"""All else."""

_COUNT = re.compile(r"\b(\d+)\s?/\s?(\d+)\b")
_STOPPED = 130


class _Guard:
    """Calls the application and turns the errors it may end with into words."""

    debug = False

    def __call__(self, app: Callable[..., Any]) -> None:
        try:
            app()
        except Interrupted as error:
            self._end(f"[yellow]Stopped.[/] {escape(str(error))}", _STOPPED)
        except VlmOpsError as error:
            self._end(f"[bold red]Error:[/] {escape(str(error))}", 1)
        except KeyboardInterrupt:
            self._end("[yellow]Stopped.[/] The same command goes on from here.", _STOPPED)

    def _end(self, message: str, code: int) -> None:
        if self.debug:
            err.print_exception()
        err.print(message)
        # Prefect keeps threads that would hold the process up.
        sys.stdout.flush()
        os._exit(code) if threads_remain() else sys.exit(code)


guarded = _Guard()


def threads_remain() -> bool:
    """Tell whether threads other than the main one would be waited for at exit."""
    import threading

    return any(
        not thread.daemon
        for thread in threading.enumerate()
        if thread is not threading.main_thread()
    )


def print_json(values: Any) -> None:
    """Print one unwrapped, uncolored line."""
    sys.stdout.write(json.dumps(values, ensure_ascii=False) + "\n")
    sys.stdout.flush()


@contextmanager
def progress() -> Iterator[None]:
    """Show the package's log lines while the block runs, and a bar for those that count.

    A line such as ``sft: step 40/170, …`` moves the bar; on a terminal only the bar is drawn
    for it, elsewhere the line is printed.
    """
    logger = logging.getLogger("vlm_ops")
    bar = Progress(
        TextColumn("[bold]{task.fields[step]:<9}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=err,
        transient=True,
    )
    handler = _Lines(bar)
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        with bar:
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


class _Lines(logging.Handler):
    def __init__(self, bar: Progress) -> None:
        super().__init__()
        self._bar = bar
        self._task = bar.add_task("", step="", total=None, visible=False)
        self._step = ""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        step = record.name.rpartition(".")[2]
        count = _COUNT.search(message)
        text = escape(message)
        if not message.startswith(f"{step}:") and step != "vlm_ops":
            text = f"{step}: {text}"
        if count is None or not err.is_terminal:
            err.print(f"[dim]{text}[/]" if record.levelno < logging.WARNING else text)
            return
        done, total = int(count[1]), int(count[2])
        if step != self._step or done <= 1:
            self._step = step
            self._bar.reset(self._task)
        self._bar.update(
            self._task,
            completed=done,
            total=total,
            step=step,
            description=escape(message.partition(": ")[2]),
            visible=done < total,
        )
