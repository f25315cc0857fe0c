"""The command ``framegate``.

Exit codes: 0 fine, 1 a check failed or something broke, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from importlib import metadata

from framegate import __version__
from framegate.runtime.cli import completion
from framegate.runtime.cli.signals import EndedBySignal, ended_by_signals, exit_code, received, why_ended
from framegate.runtime.cli.summaries import SUMMARIES
from framegate.runtime.cli.talk import add_talk_options, begin, show_traceback
from framegate.runtime.console import open_missing_streams, to_stderr
from framegate.runtime.errors import FramegateError
from framegate.runtime.passwords import hide_passwords

_GROUP = "framegate.commands"
_NEEDED_BY_ALL = ("numpy", "cv2", "rich")
"""Packages about which `framegate.__main__` says what to do."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Full, quota used up, larger than this user's files may be, or not to be written at all."""


class _Misuse(Exception):  # noqa: N818 - no error of the program
    """What argparse says about the command line."""


class _Parser(argparse.ArgumentParser):
    """Leaves it to `main` to show what was typed, which may hold control characters and passwords."""

    def error(self, message: str) -> NoReturn:
        raise _Misuse(self.format_usage(), f"{self.prog}: error: {message}")


def build_parser(wanted: str | None = None) -> argparse.ArgumentParser:
    """The command line with the command ``wanted``; with all commands, only by name, if there is none of this name.

    A command is loaded only when it is the one that runs: help or a typing mistake is answered at once, and what needs
    torch does not exist in the vehicle.

    Raises:
        FramegateError: a package that the command needs is not installed.
    """
    parser: argparse.ArgumentParser = _Parser(
        prog="framegate", description="Camera frames in, one verdict per frame out: ACCEPT, or REJECT with reasons."
    )
    parser.add_argument("--version", action="version", version=f"framegate {__version__}")
    _add_commands(parser.add_subparsers(title="commands", metavar="COMMAND", required=True), wanted)
    add_talk_options(parser)
    return parser


def _add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser], wanted: str | None) -> None:
    if wanted in SUMMARIES:
        importlib.import_module(f"framegate.runtime.cli.{wanted}").register(commands)
        return
    from importlib import metadata  # loading it takes half as long as NumPy: not for the vehicle's own commands

    offline = {entry.name: entry for entry in metadata.entry_points(group=_GROUP)}
    if wanted in offline:
        try:
            offline[wanted].load()(commands)
        except ModuleNotFoundError as error:
            if error.name in _NEEDED_BY_ALL:
                raise
            raise FramegateError(
                f"framegate {wanted}: the package {error.name!r} is not installed; pip install 'framegate[train]'"
            ) from error
        return
    for name, summary in SUMMARIES.items():
        commands.add_parser(name, help=summary)
    for name in sorted(offline):
        commands.add_parser(name, help=_summary(offline[name]).replace("%", "%%"))


def _summary(entry: metadata.EntryPoint) -> str:
    """One sentence about a command, from the module ``summaries`` in the package of the command's own module.

    That module imports nothing and holds ``SUMMARIES``, a dict from command to sentence. Packages from elsewhere that
    add commands need not have one.
    """
    package = entry.module.rpartition(".")[0]
    try:
        return str(importlib.import_module(f"{package or entry.module}.summaries").SUMMARIES[entry.name])
    except (ImportError, AttributeError, KeyError):
        return f"see framegate {entry.name} --help"


def _parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return parsed


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the process's exit code."""
    open_missing_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # not every locale can write every label
        sys.stdout.reconfigure(errors="backslashreplace")
    completion.answer_shell(build_parser)
    try:
        parser = build_parser(next((a for a in arguments if not a.startswith("-")), None))
        parsed = _parse(parser, arguments)
        begin(parsed, arguments)
        with ended_by_signals():
            code = int(parsed.run(parsed))
        sys.stdout.flush()  # a full disk is noticed here, and not only while the interpreter ends
        return code
    except FramegateError as error:
        show_traceback(error)
        to_stderr(f"framegate: {error}")
        return error.exit_code
    except _Misuse as misuse:
        usage, message = misuse.args
        sys.stderr.write(usage)
        for word in arguments:
            if (shown := hide_passwords(word)) != word:
                message = message.replace(word, shown).replace(repr(word), repr(shown))
        to_stderr(message)
        raise SystemExit(2) from None
    except KeyboardInterrupt as error:
        number = error.number if isinstance(error, EndedBySignal) else signal.SIGINT
        to_stderr(f"framegate: {why_ended(number)}")
        return exit_code(number)
    except BrokenPipeError:
        # The reader of our output went away (framegate info | head): nothing is wrong with us.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still in a buffer has to go somewhere
        return 0
    except OSError as error:
        ended = received()
        if error.errno == errno.EIO and ended is not None:  # the terminal that was closed takes no summary
            return exit_code(ended)
        if error.errno not in _NO_ROOM:
            raise
        to_stderr(f"framegate: {error.filename or 'the output'} cannot be written: {error.strerror}")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
