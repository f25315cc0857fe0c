"""The command-line options that say what a calibration shall promise, shared by the commands that calibrate."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from framegate.export.calibration.calibrate import Promise
from framegate.export.calibration.promise import AUTO
from framegate.export.calibration.selective_risk import METHODS
from framegate.export.data.labelled import AUTO as GROUP_AUTO
from framegate.export.data.labelled import Place, trained_on
from framegate.runtime.bundle.calibration import FRAMES, SCORES, UNITS, Calibration
from framegate.runtime.errors import UsageError
from framegate.runtime.monitor import SHIFT


def add_promise_options(parser: argparse.ArgumentParser) -> None:
    """The options that say what a calibration shall promise."""
    defaults = Promise()
    parser.add_argument(
        "--target-risk",
        type=float,
        nargs="+",
        default=None,
        metavar="SHARE",
        help="largest share of errors among accepted frames, above 0 to below 1; of several the smallest that can be "
        f"proved is taken, and they share the confidence (default: {defaults.target_risk:g})",
    )
    parser.add_argument(
        "--risk",
        action="append",
        default=[],
        metavar="LABEL=SHARE",
        help="largest share of errors among the accepted frames that are read as this label, at most the target risk; "
        "the label gets a threshold of its own. Can be repeated; all share the confidence (default: no label)",
    )
    parser.add_argument(
        "--promise",
        choices=(FRAMES, UNITS),
        default=defaults.about,
        help="what the target is about: the accepted frames that are wrong, or the units (tracks) with a wrong accept "
        "(default: %(default)s)",
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
        "--unit",
        default="track",
        metavar="WORD",
        help="what a unit of --group is called: track, patient, drive (default: %(default)s)",
    )
    parser.add_argument(
        "--unseen",
        type=Path,
        metavar="DIR",
        help="images that the network never saw, a folder per label or a known data set, whose test split is used: "
        "only these can prove anything (default: none but what a known data set keeps apart)",
    )
    parser.add_argument(
        "--no-promise",
        action="store_true",
        help="set thresholds on images that the network may have seen; nothing is promised then, and every verdict "
        "says so (default: a bundle without unseen images rejects every frame)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=defaults.seed,
        metavar="N",
        help="which training images set INT8 ranges; which images prove follows from the data (default: %(default)s)",
    )


def promise_of(arguments: argparse.Namespace) -> Promise:
    """The promise that `add_promise_options` asked for.

    Raises:
        UsageError: A value is outside its range.
    """
    risks = sorted(set(arguments.target_risk or [Promise().target_risk]))
    return Promise(
        target_risk=risks[0],
        larger_risks=tuple(risks[1:]),
        confidence_level=arguments.confidence_level,
        seed=arguments.seed,
        method=arguments.method,
        score=arguments.score,
        limit_share=arguments.limit_share,
        window=arguments.window,
        about=arguments.promise,
        proved=not arguments.no_promise,
        class_risks=tuple(map(_class_risk, arguments.risk)),
    )


def _class_risk(text: str) -> tuple[str, float]:
    """``LABEL=SHARE``; the label may hold signs of equality itself."""
    label, _, share = text.rpartition("=")
    try:
        return label.strip(), float(share) if label.strip() else float("-")
    except ValueError:
        raise UsageError(f"--risk {text!r}: expected LABEL=SHARE, such as stop=0.001") from None


def place_of(
    arguments: argparse.Namespace, origin: Mapping[str, Any], calibrations: Iterable[Calibration] = ()
) -> Place:
    """Where the images lie that `add_promise_options` and ``--data`` asked for.

    Args:
        arguments: Of the command line.
        origin: What the bundle or checkpoint says about its training.
        calibrations: Of the bundle.

    Raises:
        UsageError: A unit has no name.
    """
    if not arguments.unit.strip():
        raise UsageError("--unit: an empty word was given, expected what a unit is called, such as track")
    known = trained_on(origin, calibrations)
    return Place(arguments.data, arguments.unseen, arguments.group, arguments.unit.strip(), known)


def refuse_promise_options(arguments: argparse.Namespace, heeded: Collection[str]) -> None:
    """Refuse options of `add_promise_options` that a command would not heed: what they ask for would not be promised.

    Args:
        arguments: Of the command line.
        heeded: Names of those that it heeds.

    Raises:
        UsageError: Another one was given.
    """
    parser = argparse.ArgumentParser(add_help=False)
    add_promise_options(parser)
    for name, default in sorted(vars(parser.parse_args([])).items()):
        if name not in heeded and getattr(arguments, name, default) != default:
            raise UsageError(f"--{name.replace('_', '-')} is for classifiers; leave it out")


def require_unseen(promise: Promise, unseen: str) -> None:
    """Refuse to prove anything with images that the network may have seen.

    Raises:
        UsageError: Nobody says that it has not.
    """
    if promise.proved and not unseen:
        raise UsageError(
            "nobody says that the network never saw these images, so they prove nothing: give them as --unseen DIR if "
            "it did not, or --no-promise for thresholds that promise nothing"
        )
