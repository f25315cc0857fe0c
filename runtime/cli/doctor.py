"""``framegate doctor``: what this machine can run, and why not."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
from collections.abc import Callable
from glob import glob

import cv2
from rich.table import Table

from framegate.runtime.backends.choice import BACKENDS, default_precision
from framegate.runtime.backends.int8 import adds_int8_exactly
from framegate.runtime.backends.no_telemetry import no_telemetry
from framegate.runtime.cli.doctor_bundles import bundle_findings
from framegate.runtime.cli.doctor_gpu import gpu_findings
from framegate.runtime.cli.options import add_trust_option
from framegate.runtime.cli.summaries import SUMMARIES
from framegate.runtime.console import OUT, json_to_stdout
from framegate.runtime.native import fast_path_module, library

Finding = tuple[str, bool, str]
"""(what, usable, explanation)."""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``doctor`` to the command line."""
    parser = commands.add_parser("doctor", help=SUMMARIES["doctor"])
    parser.add_argument(
        "bundle",
        nargs="*",
        help="bundles to open, to say whether they can be used and who signed them (default: all that "
        "`framegate bundles` lists)",
    )
    add_trust_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look and tell. Returns 1 if no inference engine works, or if a bundle that was named cannot be used."""
    engines = [_engine(name) for name, entry in BACKENDS.items() if not entry.gpu]
    gpu = gpu_findings()
    engines += [finding for finding in gpu if finding[0].removeprefix("backend ") in BACKENDS]
    findings = [
        _machine(),
        *engines,
        *(finding for finding in gpu if finding not in engines),
        _compiled(),
        _int8(),
        _video("FFMPEG", "clips, RTSP"),
        _video("GStreamer", "csi://, pipelines"),
        _cameras(),
    ]
    bundles = bundle_findings(arguments.bundle, arguments.trust)
    findings += bundles
    if arguments.json:
        json_to_stdout([{"what": what, "usable": usable, "explanation": text} for what, usable, text in findings])
    else:
        table = Table(title="framegate doctor")
        for column in ("what", "usable", "explanation"):
            table.add_column(column)
        for what, usable, text in findings:
            table.add_row(what, "yes" if usable else "NO", text)
        OUT.print(table)
    refused = bool(arguments.bundle) and not all(usable for _, usable, _ in bundles)
    return 0 if any(usable for _, usable, _ in engines) and not refused else 1


def _machine() -> Finding:
    text = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} CPUs"
    return "machine", True, text


def _compiled() -> Finding:
    code, explanation = library()
    text = explanation if code is not None else f"{explanation}; NumPy does the same, at a higher cost per frame"
    if code is not None and fast_path_module() is None:
        text += "; no fast path: on Python 3.11 or newer install framegate again with Python's headers (python3-dev)"
    return "compiled camera check and scores", code is not None, text


def _int8() -> Finding:
    if adds_int8_exactly():
        return "INT8 on the CPU", True, "the processor adds INT8 products exactly"
    text = (
        "the processor's INT8 sums would overflow, so engines compute INT8 networks in another way, no faster than fp32"
    )
    return "INT8 on the CPU", False, text


def _engine(name: str) -> Finding:
    entry = BACKENDS[name]
    try:
        with no_telemetry():
            module = importlib.import_module(entry.requires)
        devices = _DEVICES[name](module)
    except ImportError as error:
        return f"backend {name}", False, f"{error}; pip install {entry.requires}"
    except Exception as error:  # noqa: BLE001 - a broken engine must be reported, whatever it raises
        return f"backend {name}", False, f"installed but broken: {error}"
    precision = default_precision(name, ("fp32", "fp16", "int8"))
    return f"backend {name}", True, f"{module.__version__}, {devices}; default precision {precision}"


_OPENVINO = "framegate.runtime.backends.openvino_cpu"
_DEVICES: dict[str, Callable[..., str]] = {
    "openvino": lambda _: "devices " + ", ".join(importlib.import_module(_OPENVINO).core().available_devices),
    "onnxruntime": lambda module: "providers " + ", ".join(module.get_available_providers()),
}


def _video(feature: str, purpose: str) -> Finding:
    for line in cv2.getBuildInformation().splitlines():
        if line.strip().startswith(feature + ":"):
            usable = "YES" in line
            text = f"OpenCV {cv2.__version__} has it" if usable else "this OpenCV was built without it"
            return f"{feature} ({purpose})", usable, text
    return f"{feature} ({purpose})", False, "this OpenCV does not say"


def _cameras() -> Finding:
    devices = sorted(glob("/dev/video*"))
    if not devices:
        return "cameras", False, "no /dev/video*; clips, folders and synthetic:// work without one"
    closed = [device for device in devices if not os.access(device, os.R_OK | os.W_OK)]
    if closed:
        return "cameras", len(closed) < len(devices), f"no permission for {', '.join(closed)}: join the group video"
    return "cameras", True, ", ".join(devices)
