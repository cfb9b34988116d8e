"""What the commands share: where they print, progress from log lines, errors in words."""

import io
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vlm_ops.errors import Interrupted, VlmOpsError

out = Console(highlight=False, soft_wrap=True)
"""Results."""
err = Console(stderr=True, highlight=False, soft_wrap=True)
"""All else."""

_COUNT = re.compile(r"\b(\d+)\s?/\s?(\d+)\b")
_BY_SIGNAL = 128
_INTERRUPTED = _BY_SIGNAL + signal.SIGINT
_GO_ON = "What is finished is kept; the same command goes on from there."


class _Guard:
    """Calls the application and turns the errors and signals it may end with into words."""

    debug = False
    _signal: int | None = None
    _terminals: tuple[int, ...] = ()

    def __call__(self, app: Callable[..., Any]) -> None:
        self._terminals = tuple(stream for stream in (1, 2) if os.isatty(stream))
        for stream in (sys.stdout, sys.stderr):
            # A terminal or file in another encoding than UTF-8 has no sign for what is drawn.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        self._on(self._interrupt, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        try:
            app()
        except Interrupted as error:
            code = _BY_SIGNAL + (self._signal or signal.SIGTERM)
            self._end(f"[yellow]Stopped.[/] {escape(str(error))}", code)
        except VlmOpsError as error:
            self._end(f"[bold red]Error:[/] {escape(str(error))}", 1)
        except (KeyboardInterrupt, SystemExit) as error:
            # typer makes an exit with this code of a KeyboardInterrupt.
            found = error.code if isinstance(error, SystemExit) else _INTERRUPTED
            if self._signal is None or found != _INTERRUPTED:
                raise
            self._end(f"[yellow]Stopped.[/] {_GO_ON}", _BY_SIGNAL + self._signal)

    def checkpoint_on_interrupt(self) -> None:
        """Have Ctrl-C do what SIGTERM does, on which a training in this process saves itself."""
        self._on(self._relay, signal.SIGINT, signal.SIGHUP)

    def _on(self, handler: Callable[[int, FrameType | None], None], *numbers: int) -> None:
        """Handle signals, but those that whoever started this process had it ignore."""
        for number in numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._leave_terminal(number)
        self._signal = self._signal or number
        raise KeyboardInterrupt

    def _leave_terminal(self, number: int) -> None:
        """Write nowhere after the terminal has gone, where every line would be an error."""
        if number == signal.SIGHUP and self._terminals:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in self._terminals:
                os.dup2(nowhere, stream)
            os.close(nowhere)

    def _relay(self, number: int, frame: FrameType | None) -> None:
        self._leave_terminal(number)
        if self._signal is not None:
            raise KeyboardInterrupt
        self._signal = number
        err.print("stopping; a training writes its checkpoint first, Ctrl-C again does without")
        signal.raise_signal(signal.SIGTERM)

    def _end(self, message: str, code: int) -> NoReturn:
        if self.debug:
            err.print_exception()
        err.print(message)
        sys.stdout.flush()
        # Prefect keeps threads that would hold the process up.
        if threads_remain():
            os._exit(code)
        sys.exit(code)


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
    """Print one unwrapped, uncolored line; in ASCII where stdout can't have all signs."""
    utf8 = (sys.stdout.encoding or "").lower().startswith("utf")
    sys.stdout.write(json.dumps(values, ensure_ascii=not utf8) + "\n")
    sys.stdout.flush()


@contextmanager
def progress() -> Iterator[None]:
    """Show the package's log lines while the block runs, and a bar for those that count.

    A line such as ``sft: step 40/170, …`` moves the bar; on a terminal only the bar is drawn
    for it, elsewhere the line is printed. What a library prints meanwhile goes to stderr.
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
        with redirect_stdout(sys.stderr), bar:
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
        # A line that can't be shown, as after the terminal has gone, does not end a training.
        with suppress(OSError):
            self._show(record)

    def _show(self, record: logging.LogRecord) -> None:
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
