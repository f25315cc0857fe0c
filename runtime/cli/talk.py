"""``-q`` and ``-v``: how much a command says about its work. Every command has both, before or behind its name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from framegate import __version__
from framegate.runtime.console import detail, is_verbose, speak
from framegate.runtime.passwords import hide_passwords


def add_talk_options(parser: argparse.ArgumentParser) -> None:
    """Give a parser, and every command below it, the two options.

    They have no default of their own, so that a command does not take back what stood before its name.

    Args:
        parser: Of the whole command line, with the commands that are known.
    """
    _add(parser, set())


def _add(parser: argparse.ArgumentParser, done: set[int]) -> None:
    if id(parser) in done or "--quiet" in parser._option_string_actions:
        return
    done.add(id(parser))
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        default=argparse.SUPPRESS,
        help="say nothing about work that goes as it should: only results, warnings and errors",
    )
    group.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        default=argparse.SUPPRESS,
        help="say more: versions, progress every three seconds, and where an error comes from",
    )
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _add(command, done)


def begin(parsed: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Set how much is said, and say what runs if that was asked for.

    Args:
        parsed: The command line.
        arguments: The same as typed; passwords are not shown.
    """
    speak(getattr(parsed, "quiet", False), getattr(parsed, "verbose", False))
    if not is_verbose():
        return
    import platform  # these two only here: a start without details pays for none of them
    import shlex

    typed = shlex.join(hide_passwords(word) for word in arguments)
    detail(f"framegate {__version__}, Python {platform.python_version()}, {platform.platform()}")
    detail(f"in {Path.cwd()}: {Path(sys.argv[0]).name} {typed}")


def show_traceback(error: BaseException) -> None:
    """Say where an error comes from, if details were asked for."""
    if is_verbose():
        import traceback

        for line in "".join(traceback.format_exception(error)).splitlines():
            detail(line)
