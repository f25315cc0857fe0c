"""``framegate export``: turn a checkpoint, or an ONNX classifier of any origin, into a bundle, or refuse."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from framegate.export.commands import export_onnx as command_export_onnx
from framegate.export.commands.promise_options import add_promise_options, promise_of
from framegate.export.commands.tables import calibration_table, parity_table
from framegate.export.data.splits import Splits
from framegate.export.export_bundle import ExportReport, export_bundle
from framegate.export.int8.choice import FAMILIES
from framegate.models import datasets
from framegate.runtime.console import OUT, progress_bar, to_stdout

_EXAMPLES = """examples:
  framegate export runs/hybrid.pt --data cifar-10-batches-bin --out hybrid.bundle
  framegate export signs.onnx --labels labels.txt --scaling imagenet --data photos/ --out signs.bundle
      labels.txt: one name a line, in the order of the outputs; photos/NAME/*.jpg: images it was not trained on
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``export`` to the command line."""
    parser = commands.add_parser(
        "export",
        help="turn a checkpoint or an ONNX classifier into a calibrated bundle (needs PyTorch)",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="checkpoint written by framegate train, or a classifier as .onnx file")
    parser.add_argument(
        "--data",
        required=True,
        type=Path,
        help="folder or file with the data set it was trained on; for .onnx also a folder with one folder of images "
        "per label, which it was not trained on",
    )
    parser.add_argument("--out", required=True, type=Path, help="bundle to write, NAME.bundle")
    parser.add_argument("--origin", default="", help="where the weights come from and their licence, for the manifest")
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    parser.add_argument(
        "--int8-ranges",
        choices=FAMILIES,
        default="auto",
        help="how the ranges of INT8 activations come about; auto (default) and percentile take what decides most like "
        "float32 on held-out images",
    )
    add_promise_options(parser)
    command_export_onnx.add_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Export, print what was found, and say where the bundle lies."""
    started = time.monotonic()
    if arguments.model.suffix.lower() == ".onnx":
        report, notes = command_export_onnx.export(arguments)
    else:
        command_export_onnx.refuse_options(arguments)
        report, notes = _export_checkpoint(arguments), []
    OUT.print(parity_table(report.parity))
    OUT.print(calibration_table(report.calibrations))
    for note in [*notes, *([report.int8.words()] if report.int8 else [])]:
        to_stdout(note)
    sizes = ", ".join(f"{file} {size / 1e6:.2f} MB" for file, size in report.sizes.items() if file.endswith(".onnx"))
    to_stdout(f"exported in {(time.monotonic() - started) / 60:.1f} min: {sizes}")
    to_stdout(f"bundle: {report.bundle}")
    return 0


def _export_checkpoint(arguments: argparse.Namespace) -> ExportReport:
    promise = promise_of(arguments)
    data = datasets.detect(arguments.data)
    splits = Splits(*data.load_training(arguments.data), data.load_test(arguments.data), data.labels)
    with progress_bar() as progress:
        return export_bundle(
            arguments.model,
            splits,
            arguments.out,
            promise,
            arguments.origin,
            arguments.force,
            progress,
            arguments.int8_ranges,
        )
