"""The command-line options that say what a calibration shall promise, shared by the commands that calibrate."""

from __future__ import annotations

import argparse

from framegate.export.calibrate import Promise


def add_promise_options(parser: argparse.ArgumentParser) -> None:
    """The options that say what a calibration shall promise."""
    defaults = Promise()
    parser.add_argument(
        "--target-risk", type=float, default=defaults.target_risk, help="largest share of errors among accepted frames"
    )
    parser.add_argument(
        "--confidence-level", type=float, default=defaults.confidence_level, help="probability that the target is kept"
    )
    parser.add_argument("--seed", type=int, default=defaults.seed, help="which images serve which part of the work")


def promise_of(arguments: argparse.Namespace) -> Promise:
    """The promise that `add_promise_options` asked for.

    Raises:
        UsageError: A value is outside its range.
    """
    return Promise(arguments.target_risk, arguments.confidence_level, arguments.seed)
