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
from importlib import metadata
from typing import NoReturn

from framegate import __version__
from framegate.runtime.cli import bundles, completion, doctor, handover, health, info, replay, ros2, run
from framegate.runtime.cli.signals import EndedBySignal, ended_by_signals, exit_code, received, why_ended
from framegate.runtime.cli.talk import add_talk_options, begin, show_traceback
from framegate.runtime.console import open_missing_streams, to_stderr
from framegate.runtime.errors import FramegateError
from framegate.runtime.passwords import hide_passwords

_GROUP = "framegate.commands"


class _Misuse(Exception):  # noqa: N818 - no error of the program
    """What argparse says about the command line."""


class _Parser(argparse.ArgumentParser):
    """Leaves it to `main` to show what was typed, which may hold control characters and passwords."""

    def error(self, message: str) -> NoReturn:
        raise _Misuse(self.format_usage(), f"{self.prog}: error: {message}")


def build_parser() -> argparse.ArgumentParser:
    """The command line with every command that is installed; commands that need torch are only listed by name."""
    parser = _Parser(
        prog="framegate", description="Camera frames in, one verdict per frame out: ACCEPT, or REJECT with reasons."
    )
    parser.add_argument("--version", action="version", version=f"framegate {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (run, replay, ros2, bundles, info, doctor, health, handover, completion):
        module.register(commands)
    return parser


def _add_offline_commands(parser: argparse.ArgumentParser, wanted: str | None) -> None:
    """Register the command ``wanted`` from the rooms with torch; all their names if help is asked for.

    Loading them imports torch, which takes seconds and does not exist in the vehicle, so a command is loaded only
    when it is the one that runs.
    """
    actions = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    offline = {entry.name: entry for entry in metadata.entry_points(group=_GROUP)}
    if wanted in offline:
        try:
            offline[wanted].load()(actions[0])
        except ModuleNotFoundError as error:
            raise FramegateError(
                f"framegate {wanted}: the package {error.name!r} is not installed; pip install 'framegate[train]'"
            ) from error
    elif wanted not in actions[0].choices:  # help is asked for, or a typing mistake: name all commands
        for name in sorted(offline):
            actions[0].add_parser(name, help=_summary(offline[name]).replace("%", "%%"))


def _complete(parser: argparse.ArgumentParser, wanted: str | None) -> None:
    """Add the command ``wanted`` if it is in a room with torch, and to all commands what all of them have."""
    _add_offline_commands(parser, wanted)
    add_talk_options(parser)


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
    parser = build_parser()
    completion.answer_shell(parser, lambda command: _complete(parser, command))
    try:
        first = next((a for a in arguments if not a.startswith("-")), None)
        _complete(parser, first)
        parsed = _parse(parser, arguments)
        begin(parsed, arguments)
        with ended_by_signals():
            code = int(parsed.run(parsed))
        sys.stdout.flush()  # a full disk is found out here, not in the interpreter's last moment
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
        if error.errno != errno.ENOSPC:
            raise
        to_stderr(f"framegate: {error.filename or 'the output'} cannot be written: {error.strerror}")
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
