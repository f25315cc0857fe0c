"""``framegate export``: turn a checkpoint, or an ONNX classifier of any origin, into a bundle, or refuse."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from framegate.export.bundle_writer import check_target
from framegate.export.commands.dense_options import add_dense_options, export_as_dense, refuse_dense_options
from framegate.export.commands.detector_options import (
    KINDS,
    add_detector_options,
    export_as_detector,
    refuse_detector_options,
)
from framegate.export.commands.onnx_options import (
    add_onnx_options,
    is_onnx,
    onnx_classifier,
    refuse_onnx_options,
    require_options,
)
from framegate.export.commands.promise_options import add_promise_options, place_of, promise_of
from framegate.export.commands.summaries import SUMMARIES
from framegate.export.commands.tables import calibration_table, parity_table
from framegate.export.data.labelled import load_splits
from framegate.export.data.splits import Splits
from framegate.export.export import Exportable, export_bundle
from framegate.export.int8.choice import FAMILIES
from framegate.runtime.console import OUT, json_to_stdout, progress_bar, to_stderr, to_stdout
from framegate.runtime.errors import UsageError

_EXAMPLES = """examples:
  framegate export runs/hybrid.pt --data cifar-10-batches-bin --out hybrid.bundle
  framegate export yolo11n.onnx --kind detector --labels coco.txt --out yolo.bundle
  framegate export signs.onnx --labels labels.txt --scaling imagenet --unseen photos/ --out signs.bundle
      labels.txt: one name a line, in the order of the outputs; photos/NAME/*.jpg: images it was not trained on
"""

_NOTHING = (
    "NOTHING IS PROMISED: nobody says that the network never saw these images, so they prove nothing and the bundle "
    "rejects every frame (NOT_CALIBRATED); give images that it never saw with --unseen DIR, here or to framegate "
    "calibrate, or --no-promise for thresholds that promise nothing"
)


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``export`` to the command line."""
    parser = commands.add_parser(
        "export",
        help=SUMMARIES["export"],
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="checkpoint written by framegate train, or a classifier as .onnx file")
    parser.add_argument(
        "--data",
        type=Path,
        help="folder or file with the known data set that it was trained on, or a folder with one folder of images per "
        "label: sets INT8 ranges; of a known data set also what it keeps apart from training (default: --unseen alone)",
    )
    parser.add_argument(
        "--kind", choices=KINDS, default="classifier", help="what an ONNX file computes (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="bundle to write, NAME.bundle (default: none, it has to be given)")
    parser.add_argument(
        "--origin",
        default="",
        metavar="TEXT",
        help="where the weights come from and their licence, for the manifest (default: what the checkpoint says)",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    parser.add_argument(
        "--int8-ranges",
        choices=FAMILIES,
        default="auto",
        help="how the ranges of INT8 activations are set; auto and percentile take what decides most like float32 on "
        "held-out images (default: %(default)s)",
    )
    parser.add_argument(
        "--no-int8", action="store_true", help="leave the INT8 network out: a third of the time, a slower bundle"
    )
    parser.add_argument(
        "--tune-int8",
        type=int,
        default=0,
        metavar="N",
        help="fine-tune the INT8 network in so many steps until it answers more like fp32, with images of the training "
        "split; some hundred, each as long as a step of its training (default: 0, not at all)",
    )
    add_promise_options(parser)
    add_onnx_options(parser)
    add_detector_options(parser)
    add_dense_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Export, print what was found, and say where the bundle lies."""
    started = time.monotonic()
    promise = promise_of(arguments)
    if arguments.tune_int8 and (arguments.no_int8 or arguments.kind != "classifier"):
        raise UsageError(
            f"--tune-int8 {arguments.tune_int8}: it is for a classifier's INT8 network; leave it out, or "
            f"{'--no-int8' if arguments.no_int8 else '--kind'}"
        )
    if arguments.kind != "classifier" and (arguments.no_int8 or arguments.int8_ranges != "auto"):
        raise UsageError("--no-int8 and --int8-ranges are for classifiers: others have no INT8 network; leave them out")
    if arguments.kind == "dense":
        refuse_detector_options(arguments)
        return export_as_dense(arguments)
    refuse_dense_options(arguments)
    if arguments.kind == "detector":
        return export_as_detector(arguments)
    refuse_detector_options(arguments)
    require_options(arguments)
    check_target(arguments.out, arguments.force)
    network = _network(arguments)
    place = place_of(arguments, network.origin())
    with progress_bar() as progress:
        splits = load_splits(place, network.labels, network.preprocess, progress)
        report = export_bundle(
            network,
            splits,
            arguments.out,
            promise,
            progress,
            origin=arguments.origin,
            force=arguments.force,
            int8_ranges=arguments.int8_ranges,
            with_int8=not arguments.no_int8,
            tune_int8=arguments.tune_int8,
        )
    int8 = [report.int8.summary()] if report.int8 else []
    notes = (*network.notes(), *report.missing, *_unseen_labels(splits), *int8)
    minutes = (time.monotonic() - started) / 60
    if not report.calibrations:
        to_stderr(f"framegate: {_NOTHING}")
    if arguments.json:
        calibrations = {key: each.to_json() for key, each in report.calibrations.items()}
        parity = [row.to_json() for row in report.parity]
        made = {"bundle": str(report.bundle), "parity": parity, "calibrations": calibrations, "notes": notes}
        json_to_stdout(made | {"bytes": dict(report.sizes), "minutes": round(minutes, 2)})
        return 0
    OUT.print(parity_table(report.parity))
    if report.calibrations:
        OUT.print(calibration_table(report.calibrations))
    for note in notes:
        to_stdout(note)
    sizes = ", ".join(f"{file} {size / 1e6:.2f} MB" for file, size in report.sizes.items() if file.endswith(".onnx"))
    to_stdout(f"exported in {minutes:.1f} min: {sizes}")
    to_stdout(f"bundle: {report.bundle}")
    return 0


def _network(arguments: argparse.Namespace) -> Exportable:
    """What the file holds: its ending says whether it is an ONNX file; anything else is taken for a checkpoint."""
    if is_onnx(arguments.model):
        return onnx_classifier(arguments)
    refuse_onnx_options(arguments)
    from framegate.export.trained_checkpoint import TrainedCheckpoint  # only here: an ONNX file needs no PyTorch

    return TrainedCheckpoint.read(arguments.model)


def _unseen_labels(splits: Splits) -> list[str]:
    """A line about labels that the promise does not speak of, if there are any."""
    labels = splits.names
    unseen = sorted(set(range(len(labels))) - set(splits.calibration.labels.tolist()))
    if not unseen:
        return []
    names = ", ".join([*(labels[k] for k in unseen[:3]), *(["..."] if unseen[3:] else [])])
    return [
        f"{len(unseen)} of {len(labels)} labels have no calibration image ({names}); the promise does not speak of them"
    ]
