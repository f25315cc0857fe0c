"""``framegate onnx``: a bundle's network as one self-contained ONNX file, for other tools and runtimes."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import onnx
from onnx import inliner

from framegate.export.commands.summaries import SUMMARIES
from framegate.export.graph.half import WEIGHTS_HASH, to_half
from framegate.export.graph.scores import DOMAIN, FUNCTION, SCORES, with_scores, with_taps
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import record_key
from framegate.runtime.cli.options import BUNDLE_HELP
from framegate.runtime.console import to_stdout
from framegate.runtime.errors import BundleError, CalibrationError, UsageError

_EXAMPLES = """examples:
  framegate onnx car.bundle --precision fp16 --out car.onnx
  framegate onnx car.bundle --precision fp32 --scores onnxruntime --out car.onnx
      logits, probabilities, entropy, margin and energy, at the temperature calibrated for onnxruntime/fp32
  framegate onnx car.bundle --precision int8 --scores openvino --inline --taps --out car.onnx
      the same without the model-local function, which OpenVINO cannot read, and with the bundle's taps
"""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``onnx`` to the command line."""
    parser = commands.add_parser(
        "onnx",
        help=SUMMARIES["onnx"],
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", help=BUNDLE_HELP)
    parser.add_argument(
        "--precision", default="fp32", help="fp32, fp16 (also if the bundle lacks it) or int8 (default: %(default)s)"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="file to write, NAME.onnx")
    parser.add_argument(
        "--scores",
        metavar="BACKEND",
        help=f"add {', '.join(SCORES)}, with the temperature that the bundle has for this backend and precision; "
        "a number is taken as the temperature itself (default: logits only)",
    )
    parser.add_argument(
        "--taps",
        nargs="?",
        const="",
        metavar="NAME,...",
        help="add activations of these layers; without names those that the bundle names (default: none)",
    )
    parser.add_argument("--inline", action="store_true", help=f"write {DOMAIN}::{FUNCTION} out as standard operators")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the file and say what it gives."""
    target: Path = arguments.out
    if target.suffix != ".onnx":
        raise UsageError(f"--out {target}: expected a name that ends in .onnx")
    if target.exists() and not arguments.force:
        raise UsageError(f"--out {target}: exists already; give --force to replace it, or another name")
    bundle = Bundle.open(arguments.bundle)
    if target.resolve().parent == bundle.path.resolve():
        raise UsageError(f"--out {target}: lies inside the bundle; give another place")
    model = network(bundle, arguments.precision)
    if arguments.taps is not None:
        taps = tuple(tap.strip() for tap in arguments.taps.split(",")) if arguments.taps else bundle.taps
        if not taps:
            raise UsageError(f"--taps: the manifest of {bundle.path} names none; give their names, e.g. --taps A,B")
        model = with_taps(model, taps)
    if arguments.scores is not None:
        model = with_scores(model, _temperature(bundle, arguments.scores, arguments.precision))
        if arguments.inline:
            model = inliner.inline_local_functions(model)
    onnx.checker.check_model(model, full_check=True)
    temporary = target.with_name(f".{target.name}.part")
    try:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
        os.replace(temporary, target)
    except OSError as error:
        raise BundleError(f"{target}: cannot be written ({error.strerror})") from error
    outputs = ", ".join(value.name for value in model.graph.output)
    to_stdout(f"{target}: {target.stat().st_size / 1e6:.2f} MB, {arguments.precision}, outputs {outputs}")
    return 0


def network(bundle: Bundle, precision: str) -> onnx.ModelProto:
    """A bundle's network with its weights inside; float16 is derived if the bundle has no such file.

    Raises:
        BundleError: The bundle has no such precision, or its float16 file belongs to other weights.
        ExportRefusedError: A weight does not fit into float16.
    """
    if precision == "fp16" and precision not in bundle.models:
        return to_half(onnx.load(str(bundle.model_path("fp32"))))
    path = bundle.model_path(precision)
    try:
        model = onnx.load(str(path))
    except Exception as error:  # damaged files make the parser raise exceptions of many classes
        raise BundleError(f"bundle {bundle.path}: {path.name} cannot be read ({type(error).__name__})") from error
    noted = {entry.key: entry.value for entry in model.metadata_props}.get(WEIGHTS_HASH)
    if noted is not None and noted != bundle.hashes[bundle.models["fp32"]]:
        raise BundleError(f"bundle {bundle.path}: {path.name} was derived from other weights; export the model again")
    del model.metadata_props[:]
    return model


def _temperature(bundle: Bundle, text: str, precision: str) -> float:
    try:
        return float(text)
    except ValueError:
        calibration = bundle.calibration(text, precision)
    if calibration is None:
        known = ", ".join(sorted(bundle.calibrations)) or "nothing"
        raise CalibrationError(
            f"--scores {text}: {record_key(text, precision)} is not calibrated in {bundle.path}, which has {known}; "
            "name one of these, or give a temperature as a number"
        )
    return calibration.temperature
