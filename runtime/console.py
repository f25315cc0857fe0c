"""What people see in a terminal: lines, tables and progress bars (rich)."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

_PIPED_WIDTH = 140  # a file or a pipe has no width of its own; 80 columns would break tables apart


def _is_terminal(stream: IO[str] | None) -> bool:
    """Whether people look at it; a service may have been started without standard streams."""
    return stream is not None and stream.isatty()


OUT = Console(highlight=False, width=None if _is_terminal(sys.stdout) else _PIPED_WIDTH)
"""Results go to standard output."""
ERR = Console(stderr=True, highlight=False, soft_wrap=True)
"""Progress and messages about the work itself go to standard error, so results can be piped."""


def to_stdout(line: str) -> None:
    """Print one line of a result."""
    OUT.print(line, markup=False, soft_wrap=True)


def to_stderr(line: str) -> None:
    """Print one line about the work (standard error); nobody is there to be told if that fails."""
    with suppress(OSError):
        ERR.print(line, markup=False)


def open_missing_streams() -> None:
    """Give a process that was started without standard streams (``>&-``) ones that lead nowhere.

    Otherwise the next file that is opened becomes the standard output, and what a library prints lands in it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for as long as the process


_LINE_INTERVAL_S = 30.0


def _progress_lines() -> Callable[[str, int, int], None]:
    """Progress for a log file: one line every half minute."""
    begun = last = time.monotonic()

    def update(description: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _LINE_INTERVAL_S:
            last = now
            to_stderr(f"{now - begun:6.0f} s  {description}  {done}/{total}")

    return update


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Progress driven by calls of (description, done, total); a changed total starts the bar again.

    On a terminal a bar, in a log file a line every half minute.
    """
    if not ERR.is_terminal:
        yield _progress_lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=ERR) as progress:
        task: TaskID | None = None
        known: int | None = None

        def update(description: str, done: int, total: int) -> None:
            nonlocal known, task
            if task is None:  # not before there is something to show: an early error shall be the only line
                task = progress.add_task(description, total=total)
            elif total != known:
                progress.reset(task)
            known = total
            progress.update(task, description=description, completed=done, total=total)

        yield update


class StatusLine:
    """One line on standard error that is rewritten in place; silent when nobody watches.

    A full progress bar redraws from a thread of its own, which costs milliseconds of interpreter time in the middle
    of a live pipeline. This one costs microseconds, a few times a second.
    """

    def __init__(self, interval_s: float = 0.2) -> None:
        self._interval = interval_s
        self._next = 0.0
        self._shown = False
        self._live = _is_terminal(sys.stderr)

    def update(self, make_text: Callable[[], str]) -> None:
        """Show ``make_text()`` if the last update is long enough ago."""
        now = time.monotonic()
        if self._live and now >= self._next:
            width = shutil.get_terminal_size().columns - 1
            self._write("\r\x1b[2K" + make_text()[:width])
            self._next, self._shown = now + self._interval, True

    def clear(self) -> None:
        """Remove the line."""
        if self._shown:
            self._write("\r\x1b[2K")
            self._shown = False

    def _write(self, text: str) -> None:
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:  # the terminal was closed
            self._live = False
