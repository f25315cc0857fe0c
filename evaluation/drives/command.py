"""``framegate drives``: recorded drives as a table, and what is done with it."""

from __future__ import annotations

import argparse
import importlib.util

from framegate.evaluation.drives import command_index, command_mine, command_what_if
from framegate.evaluation.drives.summaries import SUMMARIES
from framegate.runtime.errors import UsageError

_PACKAGES = ("pyarrow", "duckdb")


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``drives`` to the command line.

    Raises:
        UsageError: A package that it needs is not installed.
    """
    for package in _PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise UsageError(
                f"framegate drives: the package {package!r} is not installed; pip install 'framegate[drives]'"
            )
    parser = commands.add_parser("drives", help=SUMMARIES["drives"])
    parts = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, help="what to do")
    for module in (command_index, command_mine, command_what_if):
        module.register(parts)
