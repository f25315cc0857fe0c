"""``framegate certify``: give a bundle a certificate against patches or L-infinity changes."""

from __future__ import annotations

import argparse
from pathlib import Path

from framegate.export.branch import held_out_of_all, trained_all
from framegate.export.bundle_writer import to_change
from framegate.export.calibration.certificates import FRAME, TRACK
from framegate.export.certificate import Wanted, certify, check_wanted
from framegate.export.commands.summaries import SUMMARIES
from framegate.export.data.labelled import (
    AUTO,
    TRAINING_RECORD,
    Place,
    load_calibration,
    load_training,
    with_held_out,
)
from framegate.export.data.outputs import CPU_BACKENDS
from framegate.runtime.backends.choice import choose_backend
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.certificates import PATCH, Demand, budget_text
from framegate.runtime.console import json_to_stdout, progress_bar, to_stdout
from framegate.runtime.errors import UsageError


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``certify`` to the command line."""
    parser = commands.add_parser("certify", help=SUMMARIES["certify"])
    parser.add_argument("bundle", help="name of a bundle, or its folder; it is replaced by one with the certificate")
    parser.add_argument(
        "--data",
        type=Path,
        help="the known data set that it was trained on: the images that it keeps apart from training prove "
        "(default: --unseen alone)",
    )
    parser.add_argument(
        "--unseen",
        type=Path,
        metavar="DIR",
        help="images that neither network ever saw, a folder per label or a known data set, whose test split is used "
        "(default: none but what the data set of --data keeps apart)",
    )
    parser.add_argument("--budget", required=True, help="patch:5 (pixels of the images) or linf:2/255")
    parser.add_argument(
        "--branch",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="checkpoint of a small network that is asked instead of the bundle's own; linf needs one, a plaincnn "
        "trained with --interval-bounds; given several times, against patches, their mean answer is asked (default: "
        "the bundle's own network)",
    )
    parser.add_argument(
        "--precision",
        default="fp32",
        help="of the bundle's own network, or of a branch against patches, which int8 makes two to four times as "
        "quick where the processor has instructions for it (default: %(default)s)",
    )
    parser.add_argument("--backend", default="all", help="engine; all: those of the CPU (default: %(default)s)")
    defaults = Wanted(Demand(PATCH, 1))
    parser.add_argument(
        "--target-risk", type=float, default=defaults.target_risk, metavar="SHARE",
        help="largest share of all captured units that any attack may make wrong and accepted (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--confidence-level", type=float, default=defaults.confidence_level, metavar="PROBABILITY",
        help="of that bound; with a second promise on the same data divide 1 less it (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--unit", choices=[FRAME, TRACK], default=FRAME,
        help="what is counted: frames (one random one of each track), or whole tracks (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--group", default=AUTO, help="see framegate calibrate (default: %(default)s)")
    parser.add_argument("--images", type=int, metavar="N", help="random images of the proof (default: all)")
    parser.add_argument(
        "--mask-side", type=int, metavar="PIXELS", help="of the network's input (default: such that masks just cover)"
    )
    parser.add_argument(
        "--mask-stride", type=int, metavar="PIXELS", help="between masks (default: four masks in a row)"
    )
    parser.add_argument(
        "--cases", type=int, default=defaults.cases, metavar="N",
        help="into which one image is split, where the threshold depends on it, for the closest bounds of an linf "
        "branch: more take longer and can only lower the threshold; 0: not at all (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Certify, write, and say what is promised."""
    backends = CPU_BACKENDS if arguments.backend == "all" else (choose_backend(arguments.backend),)
    wanted = Wanted(
        Demand.parse(arguments.budget), tuple(arguments.branch), arguments.precision, backends, arguments.target_risk,
        arguments.confidence_level, arguments.unit, arguments.images, arguments.mask_side, arguments.mask_stride,
        arguments.cases,
    )  # fmt: skip
    path = to_change(arguments.bundle)
    bundle = Bundle.open(path).for_classifiers("certify")
    check_wanted(bundle, wanted)
    with progress_bar() as progress:
        known = trained_all(bundle, wanted.branches)
        place = Place(arguments.data, arguments.unseen, arguments.group, trained_on=known)
        split, unseen = load_calibration(place, bundle.labels, bundle.preprocess, progress)
        if not unseen:
            raise UsageError(
                "nobody says that the networks never saw these images, so they prove nothing: give them as "
                "--unseen DIR if they did not"
            )
        # The proof counts answers of the branch alone, so what the branch never saw proves, though the trunk saw it.
        unseen_by_all, held = len(split), held_out_of_all(wanted.branches) if unseen == TRAINING_RECORD else None
        if held is not None:
            split = with_held_out(split, place, bundle.labels, bundle.preprocess, held.share)
        ranges = None
        if wanted.branch_precision == "int8":
            # Without what was held out: that proves, and must not choose the network.
            share = 0.0 if held is None else held.share
            ranges = load_training(place, bundle.labels, bundle.preprocess, progress, share).images
        record = certify(bundle, split, wanted, progress, unseen_by_all, ranges)
    if arguments.json:
        promises = {key: record.promise(key) for key in sorted(record.thresholds)}
        json_to_stdout({"bundle": str(path), "certificate": record.to_json(), "promises": promises})
        return 0
    for key in sorted(record.thresholds):
        found = record.thresholds[key]
        to_stdout(f"{budget_text(record.kind, record.budget)}, {key}: tau {found.tau:.4f}: {record.promise(key)}")
        to_stdout(f"  {found.coverage:.1%} of the calibration frames looked at are certified")
        if found.tracks_certified is not None:
            wait = "" if found.frames_to_first is None else f", after {found.frames_to_first:g} frames (median)"
            to_stdout(f"  {found.tracks_certified:.1%} of the tracks have a certified frame{wait}")
    to_stdout(f"bundle: {path}")
    return 0
