"""The command-line options that say what a calibration shall promise, shared by the commands that calibrate."""

from __future__ import annotations

import argparse

from framegate.export.calibration.calibrate import AUTO, Promise
from framegate.export.calibration.selective_risk import METHODS
from framegate.export.data.labelled import AUTO as GROUP_AUTO
from framegate.runtime.calibration import SCORES
from framegate.runtime.monitor import SHIFT


def add_promise_options(parser: argparse.ArgumentParser) -> None:
    """The options that say what a calibration shall promise."""
    defaults = Promise()
    parser.add_argument(
        "--target-risk",
        type=float,
        default=defaults.target_risk,
        metavar="SHARE",
        help="largest share of errors among accepted frames, above 0 to below 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--confidence-level",
        type=float,
        default=defaults.confidence_level,
        metavar="PROBABILITY",
        help="probability that the target is kept, above 0 to below 1 (default: %(default)s)",
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        default=defaults.method,
        help="how the threshold is proved (default: %(default)s)",
    )
    parser.add_argument(
        "--score",
        choices=[AUTO, *SCORES, SHIFT],
        default=defaults.score,
        help="what is compared with the threshold; auto takes what the design images favour (default: %(default)s)",
    )
    parser.add_argument(
        "--limit-share",
        type=float,
        default=defaults.limit_share,
        metavar="SHARE",
        help="share of clean frames that the limits of the signals may reject, below 0.5; 0 sets no limits "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--window",
        type=int,
        default=defaults.window,
        metavar="FRAMES",
        help="also limit the mean of the monitor's signal over so many frames of a stream, 2 to 256; 0 does "
        "not (default: %(default)s)",
    )
    parser.add_argument(
        "--group",
        default=GROUP_AUTO,
        help="which images belong together: auto (a data set's own tracks), none, or a regular expression for "
        "LABEL/FILE whose first group is the unit (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=defaults.seed,
        metavar="N",
        help="which images serve which part of the work (default: %(default)s)",
    )


def promise_of(arguments: argparse.Namespace) -> Promise:
    """The promise that `add_promise_options` asked for.

    Raises:
        UsageError: A value is outside its range.
    """
    return Promise(
        target_risk=arguments.target_risk,
        confidence_level=arguments.confidence_level,
        seed=arguments.seed,
        method=arguments.method,
        score=arguments.score,
        limit_share=arguments.limit_share,
        window=arguments.window,
    )
