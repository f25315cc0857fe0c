"""``framegate engine``: build a bundle's TensorRT engines on the machine that will run them. Needs no PyTorch."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from rich.table import Table

from framegate.cuda_kernels.driver.open import DeviceInfo
from framegate.export.bundle_writer import to_change
from framegate.export.commands.summaries import SUMMARIES
from framegate.export.engines.build import EngineJob, build_engine, report_path
from framegate.export.engines.options import THIS_GPU, BuildOptions, resolve_target
from framegate.export.engines.progress import interrupt_event
from framegate.export.engines.scores import check_scores
from framegate.runtime.backends.tensorrt.gpu import find_gpu
from framegate.runtime.backends.tensorrt.library import (
    MODULES,
    TensorRt,
    install_line,
    installed_flavours,
    load_tensorrt,
)
from framegate.runtime.backends.tensorrt.scores import FUNCTION, KERNEL, PLUGIN, WAYS
from framegate.runtime.backends.tensorrt.store import AMPERE, StaleEngineError, engine_folder
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.cli.options import BUNDLE_HELP
from framegate.runtime.console import OUT, json_to_stdout, note, progress_bar, to_stderr, to_stdout
from framegate.runtime.errors import BackendError, BundleError, UsageError


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``engine`` to the command line."""
    parser = commands.add_parser("engine", help=SUMMARIES["engine"])
    parser.add_argument("bundle", help=BUNDLE_HELP)
    parser.add_argument(
        "--backend", choices=["auto", *MODULES], default="auto", help="which TensorRT (default: %(default)s)"
    )
    parser.add_argument(
        "--precision",
        action="append",
        help="fp32, fp16 or int8; can be repeated; fp16 that the bundle lacks is derived and added (needs the package "
        "onnx) (default: all that the bundle has)",
    )
    parser.add_argument(
        "--target",
        help=f"{THIS_GPU}, sm_NN or {AMPERE} (default: {THIS_GPU}; TensorRT-RTX without a GPU: {AMPERE})",
    )
    defaults = BuildOptions()
    parser.add_argument(
        "--level",
        type=int,
        default=defaults.level,
        metavar="N",
        help="builder effort, 0 (quick) to 5 (default: %(default)s)",
    )
    parser.add_argument(
        "--workspace-mib",
        type=int,
        metavar="MIB",
        help="most scratch memory of a layer in MiB (default: TensorRT's own)",
    )
    parser.add_argument(
        "--max-batch",
        type=int,
        default=defaults.max_batch,
        metavar="N",
        help="most images in a batch (default: %(default)s)",
    )
    parser.add_argument(
        "--dla",
        type=int,
        metavar="CORE",
        help="put the layers that it supports onto this DLA core of a Jetson Orin (default: none)",
    )
    parser.add_argument(
        "--scores",
        choices=WAYS,
        default=defaults.scores,
        help=f"what computes the scores: {KERNEL} behind the engine, {PLUGIN}: the same kernel inside it, "
        f"{FUNCTION}: layers of the engine; the latter two make them outputs of the engine (needs the package onnx) "
        "(default: %(default)s)",
    )
    parser.add_argument("--force", action="store_true", help="build again what the cache already has")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=run)


def choose_flavour(name: str, info: DeviceInfo | None) -> TensorRt:
    """Load the named flavour, or with ``auto`` the one that can build here: TensorRT if there is a GPU, else RTX.

    Raises:
        BackendError: It is not installed or cannot be imported.
    """
    if name != "auto":
        return load_tensorrt(name)
    installed = installed_flavours()
    if not installed:
        lines = "; ".join(f"{flavour}: {install_line(flavour)}" for flavour in MODULES)
        raise BackendError(f"neither TensorRT nor TensorRT-RTX is installed. {lines}")
    return load_tensorrt(installed[0] if info is not None else installed[-1])


def run(arguments: argparse.Namespace) -> int:
    """Build what is missing and say where it lies."""
    options = BuildOptions(
        arguments.level, arguments.workspace_mib, arguments.max_batch, arguments.dla, arguments.scores
    )
    bundle = Bundle.open(arguments.bundle)
    if bundle.dense is None:
        bundle.for_classifiers("engine")
    elif options.scores != KERNEL:
        raise UsageError(
            f"--scores {options.scores}: for classifiers; the pixels' scores of a dense network come from the {KERNEL}"
        )
    precisions = arguments.precision or sorted(bundle.models)
    if "fp16" in precisions and "fp16" not in bundle.models:
        bundle = _with_half(to_change(arguments.bundle))
    for precision in precisions:
        bundle.model_path(precision)
    info = find_gpu()
    trt = choose_flavour(arguments.backend, info)
    check_scores(trt, options.scores)
    target = resolve_target(trt, arguments.target, info)
    jobs = [EngineJob(trt, bundle, precision, target, options, info, engine_folder()) for precision in precisions]
    rows = [_obtain(job, arguments.force) for job in jobs]
    if arguments.json:
        json_to_stdout(rows)
    else:
        inside = "" if options.scores == KERNEL else f"; scores inside, by {rows[0]['plugin']} {options.scores}"
        _print(rows, " ".join(f"{bundle.name} on {trt.engine}, for {target}{inside}".split()))
    for precision in precisions:
        if bundle.calibration(trt.flavour, precision) is None:
            images = "--data" if bundle.dense is None else "--unseen"
            to_stderr(
                f"framegate: no calibration for {trt.flavour}/{precision}: every frame will be NOT_CALIBRATED until "
                f"framegate calibrate {bundle.path} --backend {trt.flavour} --precision {precision} {images} DIR"
            )
    return 0


def _with_half(path: Path) -> Bundle:
    try:
        from framegate.export.bundle_half import add_half  # only here: a board need not have onnx
    except ImportError as error:
        raise BundleError(
            f"bundle {path} has no float16 network, and deriving it needs the package onnx, which is not "
            "installed: pip install onnx, or run this once where it is and copy the bundle"
        ) from error
    added = add_half(path)
    note(f"framegate: {added.model_path('fp16')} was derived from the float32 network and added")
    return added


def _obtain(job: EngineJob, force: bool) -> dict[str, Any]:
    started = time.monotonic()
    try:
        if force:
            raise StaleEngineError("--force")
        engine, how = job.cached(), "cached"
    except StaleEngineError as reason:
        if not force and job.key.path(job.folder).exists():
            to_stderr(f"framegate: {reason}; building it again")
        with interrupt_event() as stop, progress_bar() as progress:
            engine, how = build_engine(job, progress, stop), "built"
    network = engine.header["network"]
    return {
        "precision": job.precision,
        "scores": job.options.scores,
        "plugin": engine.header["plugin"],
        "how": how,
        "seconds": round(time.monotonic() - started, 2),
        "plan_bytes": len(engine.plan),
        "layers": sum(network["layers"].values()),
        "computes_in": network["types"],
        "inputs": network["inputs"],
        "outputs": network["outputs"],
        "engine": str(engine.path),
        "report": str(report_path(engine.path)),
    }


def _print(rows: list[dict[str, Any]], title: str) -> None:
    table = Table(title=title)
    for column in ("precision", "", "seconds", "MB", "layers", "computes in"):
        table.add_column(column, justify="right" if column in ("seconds", "MB", "layers") else "left")
    for row in rows:
        types = ", ".join(f"{name} {count}" for name, count in sorted(row["computes_in"].items()))
        size = f"{row['plan_bytes'] / 1e6:.1f}"
        table.add_row(row["precision"], row["how"], f"{row['seconds']:.1f}", size, str(row["layers"]), types)
    OUT.print(table)
    for row in rows:
        to_stdout(row["engine"])
