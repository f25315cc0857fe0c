"""``framegate export --kind detector``: options, and the detector that an ONNX file and they describe."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace

from framegate.export.bundle_writer import check_target
from framegate.export.commands.onnx_options import image_size, input_spec
from framegate.export.commands.promise_options import refuse_promise_options
from framegate.export.data.labels_file import read_labels
from framegate.export.detector import OnnxDetector, export_detector, find_head
from framegate.export.graph.source import find_input, read_onnx
from framegate.runtime.console import json_to_stdout, to_stdout
from framegate.runtime.errors import UsageError
from framegate.runtime.preprocess import PreprocessSpec
from framegate.runtime.regions.detector import DetectorSpec
from framegate.runtime.regions.fit import FITS
from framegate.runtime.regions.heads import HEADS, Head

KINDS = ("classifier", "detector", "dense")
_OWN = ("head", "fit", "min_score", "overlap")
_OTHERS = ("data", "unseen", "output_name")


def add_detector_options(parser: argparse.ArgumentParser) -> None:
    """What only a detector needs."""
    group = parser.add_argument_group(
        "for a detector",
        "--kind detector, with --labels: it says where objects are (framegate run --objects), and needs no --data. "
        "Colours, scaling and fit are those of the head's own project unless given.",
    )
    group.add_argument("--head", choices=tuple(HEADS), help="kind of its outputs (default: found by their shapes)")
    group.add_argument("--fit", choices=FITS, help="how a frame is brought to the input's size (default: the head's)")
    group.add_argument(
        "--min-score", type=float, metavar="SHARE", help="the smallest score of a box, 0 to 1 (default: the head's)"
    )
    group.add_argument(
        "--overlap",
        type=float,
        metavar="SHARE",
        help="of two boxes of one class that overlap more, intersection over union, the less sure one is dropped "
        "(default: the head's)",
    )


def refuse_detector_options(arguments: argparse.Namespace) -> None:
    """A classifier has none of them.

    Raises:
        UsageError: One was given.
    """
    for name in _OWN:
        if getattr(arguments, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is for a detector: give --kind detector, or leave it out")


def export_as_detector(arguments: argparse.Namespace) -> int:
    """Read, write the bundle, and say what was found.

    Raises:
        FramegateError: The file or an option cannot be used.
    """
    if arguments.out is None:
        raise UsageError("--out is missing: give the bundle to write, NAME.bundle")
    check_target(arguments.out, arguments.force)
    for name in _OTHERS:
        if getattr(arguments, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is for classifiers; a detector has none: leave it out")
    refuse_promise_options(arguments, ())
    detector = onnx_detector(arguments)
    bundle = export_detector(detector, arguments.out, arguments.origin, arguments.force)
    spec, size = detector.spec, detector.preprocess
    if arguments.json:
        json_to_stdout({"bundle": str(bundle.path), "detector": spec.to_json(), "preprocess": asdict(size)})
        return 0
    to_stdout(f"head: {spec.head} ({detector.head.about})")
    to_stdout(
        f"input {size.width}x{size.height} {size.colour}, {spec.fit}, resized {size.resize}; boxes from a score of "
        f"{spec.score:g}, overlap at most {spec.overlap:g}"
    )
    to_stdout("what this detector misses is covered by no promise of framegate")
    to_stdout(f"bundle: {bundle.path}")
    return 0


def onnx_detector(arguments: argparse.Namespace) -> OnnxDetector:
    """The detector that an ONNX file and the options describe.

    Raises:
        FramegateError: The file or an option cannot be used.
    """
    path = arguments.model
    model = read_onnx(path)
    image = find_input(model, path, arguments.layout)
    width, height = image_size(arguments.input_size, image, path)
    if arguments.labels is None:
        raise UsageError("--labels is missing: give a text file with one label a line, in the order of the classes")
    labels = read_labels(arguments.labels)
    head = find_head(model, image, width, height, labels, arguments.head)
    preprocess = _preprocess(arguments, head, input_spec(arguments, image, width, height))
    spec = DetectorSpec(
        head.name,
        arguments.fit or head.fit,
        head.score if arguments.min_score is None else arguments.min_score,
        head.overlap if arguments.overlap is None else arguments.overlap,
    )
    return OnnxDetector(path, model, labels, head, preprocess, spec)


def _preprocess(arguments: argparse.Namespace, head: Head, given: PreprocessSpec) -> PreprocessSpec:
    """What was given, and the head's own where nothing was."""
    chosen = given
    if arguments.colour is None:
        chosen = replace(chosen, colour=head.colour)
    if arguments.scaling is None and arguments.mean is None:
        chosen = replace(chosen, mean=head.mean, std=head.std)
    if arguments.resize is None:
        chosen = replace(chosen, resize=head.resize)
    return chosen
