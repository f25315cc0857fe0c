"""``framegate export --kind dense``: options, and the segmentation network that an ONNX file and they describe."""

from __future__ import annotations

import argparse
from pathlib import Path

from framegate.export.bundle_writer import check_target
from framegate.export.commands.onnx_options import image_size, input_spec
from framegate.export.commands.promise_options import refuse_promise_options
from framegate.export.data.dense_folder import read_dense_folder
from framegate.export.data.labelled import USER
from framegate.export.data.labels_file import read_labels
from framegate.export.dense import OnnxDense, export_dense, require_map
from framegate.export.dense_promise import DensePromise, summary
from framegate.export.graph.source import find_input, read_onnx
from framegate.runtime.console import json_to_stdout, progress_bar, to_stdout
from framegate.runtime.dense.spec import DenseSpec
from framegate.runtime.errors import UsageError
from framegate.runtime.roi import Roi

_OWN = ("region", "wrong_share")
_TARGET = 0.05


def add_dense_options(parser: argparse.ArgumentParser) -> None:
    """What only a dense network needs."""
    group = parser.add_argument_group(
        "for a dense network (segmentation)",
        "--kind dense, with --labels, --scaling and --unseen DIR: DIR/images/NAME.png and DIR/masks/NAME.png, "
        "grey, whose values are label numbers, 255 where nobody knows. The promise is about the region.",
    )
    group.add_argument(
        "--region",
        metavar="NAME=x,y,w,h",
        help="the region of a frame whose pixels are counted, in fractions, e.g. lane=0.35,0.6,0.3,0.35 (default: the "
        "whole frame)",
    )
    group.add_argument(
        "--wrong-share",
        type=float,
        metavar="SHARE",
        help="a region is wrong if more than this share of its usable pixels is, 0 to below 1 (default: "
        f"{DensePromise().wrong_share:g})",
    )


def refuse_dense_options(arguments: argparse.Namespace) -> None:
    """Others have none of them.

    Raises:
        UsageError: One was given.
    """
    for name in _OWN:
        if getattr(arguments, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is for segmentation: give --kind dense, or leave it out")


def export_as_dense(arguments: argparse.Namespace) -> int:
    """Read, calibrate, write the bundle, and say what was promised.

    Raises:
        FramegateError: The file, the pictures or an option cannot be used; or no threshold keeps the promise.
    """
    refuse_promise_options(arguments, ("target_risk", "confidence_level", "no_promise", "unseen"))
    promise = _promise(arguments)
    place: Path | None = arguments.unseen or arguments.data
    if arguments.out is None or place is None or arguments.labels is None:
        raise UsageError("a dense network needs --labels FILE, --unseen DIR (labelled pictures) and --out NAME.bundle")
    if arguments.output_name is not None or (arguments.unseen is not None and arguments.data is not None):
        raise UsageError(
            "a dense network has one output and takes its pictures from one place: leave --output-name out, "
            "and one of --unseen and --data"
        )
    unseen = USER if arguments.unseen is not None else ""
    if promise.proved and not unseen:
        raise UsageError(
            "nobody says that the network never saw these pictures, so they prove nothing: give them as --unseen DIR "
            "if it did not, or --no-promise for thresholds that promise nothing"
        )
    check_target(arguments.out, arguments.force)
    network = onnx_dense(arguments, promise)
    pictures = read_dense_folder(place, len(network.labels))
    with progress_bar() as progress:
        bundle = export_dense(
            network, pictures, promise, unseen, arguments.out, arguments.origin, arguments.force, progress
        )
    assert bundle.dense is not None
    if arguments.json:
        calibrations = {key: each.to_json() for key, each in bundle.calibrations.items()}
        json_to_stdout({"bundle": str(bundle.path), "dense": bundle.dense, "calibrations": calibrations})
        return 0
    for line in summary(DenseSpec.from_json(bundle.dense), bundle.calibrations):
        to_stdout(line)
    to_stdout(f"bundle: {bundle.path}")
    return 0


def _promise(arguments: argparse.Namespace) -> DensePromise:
    """What was asked for.

    Raises:
        UsageError: A value is out of range.
    """
    wrong = DensePromise().wrong_share if arguments.wrong_share is None else arguments.wrong_share
    if not 0 <= wrong < 1:
        raise UsageError(f"--wrong-share {wrong:g}: expected a share, 0 to below 1")
    risks = arguments.target_risk or [_TARGET]
    if len(risks) > 1:
        raise UsageError("--target-risk: several were given; a dense network is calibrated for one")
    return DensePromise(risks[0], arguments.confidence_level, wrong, not arguments.no_promise)


def onnx_dense(arguments: argparse.Namespace, promise: DensePromise) -> OnnxDense:
    """The network that an ONNX file and the options describe.

    Raises:
        FramegateError: The file or an option cannot be used.
    """
    path = arguments.model
    model = read_onnx(path)
    image = find_input(model, path, arguments.layout)
    width, height = image_size(arguments.input_size, image, path)
    labels = read_labels(arguments.labels)
    if arguments.scaling is None and arguments.mean is None:
        raise UsageError("--scaling, or --mean and --std, is missing: how pixels become the network's input")
    require_map(model, image, width, height, labels)
    region = Roi.whole() if arguments.region is None else Roi.parse(arguments.region)
    if not region.fractions:
        raise UsageError(
            f"--region {arguments.region}: expected fractions of the frame, such as lane=0.35,0.6,0.3,0.35"
        )
    spec = DenseSpec(
        region.name, region.x, region.y, region.width, region.height, "entropy", 1.0, 0.0, promise.wrong_share
    )
    return OnnxDense(path, model, labels, input_spec(arguments, image, width, height), spec)
