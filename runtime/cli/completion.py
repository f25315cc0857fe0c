"""``framegate completion``: what a shell needs to complete commands, options and names of bundles; and the answers.

The work is done by the package argcomplete, which bash, zsh and fish ask through the variables that it documents
(https://kislyuk.github.io/argcomplete/).
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable
from typing import Any

from framegate.runtime.cli.summaries import SUMMARIES
from framegate.runtime.console import code_to_stdout
from framegate.runtime.errors import UsageError

SHELLS = ("bash", "zsh", "fish")
_ASKED, _LINE, _POINT = "_ARGCOMPLETE", "COMP_LINE", "COMP_POINT"


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``completion`` to the command line."""
    parser = commands.add_parser(
        "completion",
        help=SUMMARIES["completion"],
    )
    parser.add_argument("shell", choices=SHELLS, help="for which shell")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the shell's code."""
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError as error:
        raise UsageError(
            "completion: the package argcomplete is not installed; pip install 'framegate[completion]'"
        ) from error
    code_to_stdout(shellcode(["framegate"], shell=arguments.shell))
    return 0


def answer_shell(build_parser: Callable[[str | None], argparse.ArgumentParser]) -> None:
    """If a shell asks for completions, give them and end the process; otherwise do nothing.

    Args:
        build_parser: Makes the command line with the command of this name, with the names of all for None.
    """
    if _ASKED not in os.environ:
        return
    try:
        import argcomplete
    except ImportError:
        return
    parser = build_parser(_typed_command(os.environ.get(_LINE, ""), os.environ.get(_POINT, "")))
    _complete_bundles(parser)
    argcomplete.autocomplete(parser)


def _typed_command(line: str, point: str) -> str | None:
    """The command in a line that is being typed, None while it is not finished."""
    before = line[: int(point)] if point.isdigit() else line
    try:
        words = shlex.split(before)
    except ValueError:  # an open quotation mark
        words = before.split()
    finished = words[1:] if before.endswith(" ") else words[1:-1]
    return next((word for word in finished if not word.startswith("-")), None)


def _complete_bundles(parser: argparse.ArgumentParser) -> None:
    """Names of bundles behind ``--bundle`` and where a bundle is asked for."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                for each in command._actions:
                    if each.dest == "bundle":
                        each.completer = _bundle_names


def _bundle_names(prefix: str, **asked: Any) -> list[str]:
    """Names and folders that go on like the text."""
    from argcomplete.completers import FilesCompleter

    from framegate.runtime.bundle.search import named_bundles

    names = [each.name for each in named_bundles() if each.name.startswith(prefix)]
    return names + list(FilesCompleter()(prefix))
