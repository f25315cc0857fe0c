"""What people see in a terminal: lines, tables and progress bars (rich).

Labels, names of regions and files, addresses and the words of servers and libraries are written by others. They are
shown as text: no markup of rich in them takes effect, and no control character reaches the terminal.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:  # a vehicle that shows nothing does not load rich, a tenth of its start-up
    from rich.console import Console
    from rich.progress import TaskID
    from rich.text import Text

from framegate.runtime.passwords import hide_in_text

_PIPED_WIDTH = 140  # a file or a pipe has no width of its own; 80 columns would break tables apart

_UNDECODED = re.compile("[\udc80-\udcff]")
"""Bytes of a file's name that are not of the system's encoding, as Python holds them."""
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029"
    "\u202a-\u202e\u2066-\u2069"  # change the direction of writing: what a person reads is not the text that is there
    "\ud800-\udfff"
    "\U000e0000-\U000e007f]"  # characters that no terminal shows
)


def plain(text: str) -> str:
    r"""Text that a terminal shows and does not obey: control characters become ``\x1b``, a line break ``\n``.

    So do half characters (surrogates), which no encoder takes. Everything else stays, in whatever script.
    """
    return _CONTROL.sub(_escaped, text)


def writable(text: str) -> str:
    r"""A name that every encoder takes: bytes of a file's name that could not be decoded become ``\xe9``."""
    return _UNDECODED.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    sign = match[0]
    if _UNDECODED.match(sign):
        return f"\\x{ord(sign) - 0xDC00:02x}"
    return sign.encode("unicode_escape").decode("ascii") if not 0xD800 <= ord(sign) < 0xE000 else f"\\u{ord(sign):04x}"


def _is_terminal(stream: IO[str] | None) -> bool:
    """Whether people look at it; a service may have been started without standard streams."""
    return stream is not None and stream.isatty()


OUT: Console
"""Results go to standard output. Made when it is first asked for, as `ERR` is."""
ERR: Console
"""Progress and messages about the work itself go to standard error, so results can be piped."""


@cache
def _consoles() -> dict[str, Console]:
    from rich.console import Console

    class PlainConsole(Console):
        """A console to which every string is text: lines, titles, headers and cells of tables alike."""

        def render_str(self, text: str, **options: Any) -> Text:
            """Called by rich for whatever is a string."""
            return super().render_str(plain(text), **{**options, "markup": False, "emoji": False})

        def on_broken_pipe(self) -> None:
            """Called by rich when the reader of the output went away; it would end the process with its own error."""
            raise BrokenPipeError

    return {
        "OUT": PlainConsole(highlight=False, width=None if _is_terminal(sys.stdout) else _PIPED_WIDTH),
        "ERR": PlainConsole(stderr=True, highlight=False, soft_wrap=True),
    }


def __getattr__(name: str) -> Console:
    if name in ("OUT", "ERR"):
        return _consoles()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def to_stdout(line: str) -> None:
    """Print one line of a result."""
    _consoles()["OUT"].print(line, soft_wrap=True)


def code_to_stdout(code: str) -> None:
    """Print text of this program or of its packages that a program reads: every line break stays one.

    Not for text that others wrote, which could obey itself in a terminal.
    """
    print(code, file=_consoles()["OUT"].file)


def json_to_stdout(record: object) -> None:
    """Print a result as JSON, which writes control characters as text itself."""
    print(json.dumps(record, indent=2), file=_consoles()["OUT"].file)


def to_stderr(line: str) -> None:
    """Print one line about the work (standard error), without passwords that others may have written into it.

    Nobody is there to be told if that fails.
    """
    with suppress(OSError):
        _consoles()["ERR"].print(hide_in_text(line))


_QUIET, _USUAL, _VERBOSE = -1, 0, 1
_level = _USUAL


def speak(quiet: bool, verbose: bool) -> None:
    """How much this process says about its work on standard error; results, warnings and errors are always said.

    Args:
        quiet: No progress and no `note`.
        verbose: Also every `detail`, and progress as often as there is news.
    """
    global _level
    _level = _QUIET if quiet else _VERBOSE if verbose else _USUAL


def is_verbose() -> bool:
    """Whether details were asked for."""
    return _level >= _VERBOSE


def note(line: str) -> None:
    """Print one line about work that goes as it should (standard error); nobody misses it under ``--quiet``."""
    if _level > _QUIET:
        to_stderr(line)


def detail(line: str) -> None:
    """Print one line that helps to find out why something goes wrong (standard error), only under ``--verbose``."""
    if is_verbose():
        to_stderr(line)


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


_FIRST_LINE_S, _LINE_INTERVAL_S = 3.0, 30.0
"""A log file gets its first line after 3 s; the gaps then grow with the time that has gone, up to 30 s."""
_TOLD_FROM = 0.02
"""Share of the work from which on it is said how long the rest takes."""


def _progress_lines() -> Callable[[str, int, int], None]:
    """Progress for a log file: a line soon, then ever more seldom, with how long it may still take."""
    begun = last = since = time.monotonic()
    known, first = None, 0

    def update(description: str, done: int, total: int) -> None:
        nonlocal last, since, known, first
        now = time.monotonic()
        if total != known:
            # The pace is that of what follows: much may be done already, by an earlier run or before another total.
            since, known, first = now, total, done
        usual = min(_LINE_INTERVAL_S, max(_FIRST_LINE_S, now - begun - _FIRST_LINE_S))
        if now - last >= (_FIRST_LINE_S if is_verbose() else usual):
            last = now
            told = _TOLD_FROM * total <= done < total and done > first and now - since >= 1
            left = f", about {(now - since) / (done - first) * (total - done):.0f} s left" if told else ""
            note(f"{now - begun:6.0f} s  {description}  {done}/{total}{left}")

    return update


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Progress driven by calls of (description, done, total); a changed total starts the bar again.

    On a terminal a bar, in a log file a line after three seconds, later one every half minute; under ``--quiet``
    nothing, under ``--verbose`` a line every three seconds.
    """
    if _level <= _QUIET:
        yield lambda description, done, total: None
        return
    console = _consoles()["ERR"]
    if not console.is_terminal:
        yield _progress_lines()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task: TaskID | None = None
        known: int | None = None

        def update(description: str, done: int, total: int) -> None:
            nonlocal known, task
            description = plain(description)
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
        self._live = _is_terminal(sys.stderr) and _level > _QUIET

    def update(self, make_text: Callable[[], str]) -> None:
        """Show ``make_text()`` if the last update is long enough ago."""
        now = time.monotonic()
        if self._live and now >= self._next:
            width = shutil.get_terminal_size().columns - 1
            self._write("\r\x1b[2K" + plain(make_text())[:width])
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
