"""``framegate export``: turn a checkpoint into a bundle, or refuse."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from framegate.export.calibrate import Promise
from framegate.export.export_bundle import Splits, export_bundle
from framegate.export.report_tables import calibration_table, parity_table
from framegate.models import datasets
from framegate.runtime.console import OUT, progress_bar, say


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


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``export`` to the command line."""
    parser = commands.add_parser("export", help="turn a checkpoint into a calibrated bundle (needs PyTorch)")
    parser.add_argument("checkpoint", type=Path, help="checkpoint written by framegate train")
    parser.add_argument("--data", required=True, type=Path, help="folder or file with the data set it was trained on")
    parser.add_argument("--out", required=True, type=Path, help="bundle to write, NAME.bundle")
    parser.add_argument("--origin", default="", help="where the weights come from and their licence, for the manifest")
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    add_promise_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Export, print what was found, and say where the bundle lies."""
    promise = promise_of(arguments)
    data = datasets.detect(arguments.data)
    started = time.monotonic()
    splits = Splits(*data.load_training(arguments.data), data.load_test(arguments.data), data.labels)
    with progress_bar() as progress:
        report = export_bundle(
            arguments.checkpoint, splits, arguments.out, promise, arguments.origin, arguments.force, progress
        )
    OUT.print(parity_table(report.parity))
    OUT.print(calibration_table(report.calibrations))
    sizes = ", ".join(f"{file} {size / 1e6:.2f} MB" for file, size in report.sizes.items() if file.endswith(".onnx"))
    say(f"exported in {(time.monotonic() - started) / 60:.1f} min: {sizes}")
    say(f"bundle: {report.bundle}")
    return 0
