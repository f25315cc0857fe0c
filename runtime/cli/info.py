"""``framegate info``: what a bundle holds and promises."""

from __future__ import annotations

import argparse
import math
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.table import Table

from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import Calibration, Limit, record_key
from framegate.runtime.bundle.certificates import budget_text
from framegate.runtime.cli.doctor_bundles import signed_by
from framegate.runtime.cli.options import BUNDLE_HELP, add_policy_options, policy_of
from framegate.runtime.cli.summaries import SUMMARIES
from framegate.runtime.console import OUT, json_to_stdout, to_stdout
from framegate.runtime.dense.spec import DenseSpec, promise_of
from framegate.runtime.errors import UsageError
from framegate.runtime.policy.delays import policy_lines, policy_record
from framegate.runtime.policy.stream import Policy
from framegate.runtime.regions.detector import DetectorSpec

_DISTRIBUTIONS = {"openvino": ("openvino",), "onnxruntime": ("onnxruntime", "onnxruntime-gpu")}
_SHOWN = 50
"""Labels that are printed."""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``info`` to the command line."""
    parser = commands.add_parser("info", help=SUMMARIES["info"])
    parser.add_argument("bundle", help=BUNDLE_HELP)
    add_policy_options(parser)
    parser.add_argument(
        "--fps",
        type=float,
        metavar="FPS",
        help="frames per second, to state the delays of the policy in milliseconds, too (default: in frames only)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Verify a bundle and describe it."""
    if arguments.fps is not None and not (math.isfinite(arguments.fps) and arguments.fps > 0):
        raise UsageError(f"--fps {arguments.fps}: expected a positive number")
    policy = policy_of(arguments)
    bundle = Bundle.open(arguments.bundle)
    if arguments.json:
        json_to_stdout(_record(bundle, policy, arguments.fps))
    else:
        _describe(bundle, policy, arguments.fps)
    return 0


def _record(bundle: Bundle, policy: Policy, fps: float | None) -> dict[str, Any]:
    monitor = bundle.monitor
    return {
        "name": bundle.name,
        "path": str(bundle.path),
        "digest": bundle.digest,
        "signed": signed_by(bundle),
        "labels": list(bundle.labels),
        "input": [bundle.preprocess.width, bundle.preprocess.height],
        "slices": bundle.preprocess.depth,
        "models": {precision: bundle.hashes[file] for precision, file in bundle.models.items()},
        "parity": list(bundle.parity),
        "monitor": None if monitor is None else {**dict(monitor.fitted), "signals": monitor.signals},
        "calibrations": {key: value.to_json() for key, value in bundle.calibrations.items()},
        "engines": {
            key: {"calibrated": each.engine, "installed": _installed(key.partition("/")[0]) or None}
            for key, each in bundle.calibrations.items()
        },
        "policy": {key: policy_record(policy, value, fps) for key, value in bundle.calibrations.items()},
        "object_promises": {key: [each.to_json() for each in own] for key, own in bundle.object_promises.items()},
        "certificates": [each.to_json() for each in bundle.certificates],
        "origin": dict(bundle.origin),
    }


def _describe(bundle: Bundle, policy: Policy, fps: float | None) -> None:
    spec = bundle.preprocess
    to_stdout(f"{bundle.name}: {len(bundle.labels)} labels ({_few(bundle.labels)})")
    slices = f"{spec.depth} slices of " if spec.depth > 1 else ""
    to_stdout(f"folder: {bundle.path}")
    to_stdout(f"digest {bundle.digest[:16]}..., {signed_by(bundle)}")
    to_stdout(f"input {slices}{spec.width}x{spec.height} {spec.colour}, resize {spec.resize}, fit {spec.fit}")
    for precision, file in bundle.models.items():
        size = bundle.model_path(precision).stat().st_size / 2**20
        to_stdout(f"{precision}: {file}, {size:.1f} MiB, SHA-256 {bundle.hashes[file][:16]}... verified")
    _dense(bundle)
    _detector(bundle)
    if bundle.monitor:
        layers = ", ".join(f"{tap.name} ({tap.channels})" for tap in bundle.monitor.taps)
        to_stdout(f"monitor: reads {layers}; gives {', '.join(bundle.monitor.signals)}")
    OUT.print(_calibrations(bundle))
    for line in (*_engines(bundle), *_limits(bundle)):
        to_stdout(line)
    _certificates(bundle)
    missing = [
        record_key(backend, precision)
        for backend in ("openvino", "onnxruntime")
        for precision in bundle.models
        if precision != "fp16" and bundle.calibration(backend, precision) is None  # which is for GPUs
    ]
    if missing and bundle.detector is None:
        to_stdout(f"not calibrated, rejects every frame: {', '.join(missing)}")
    _promises_to_stdout(bundle)
    for lines, keys in _policies(bundle, policy, fps).items():
        to_stdout(f"delays, {', '.join(keys)}:" if keys else "delays:")
        for line in lines:
            to_stdout(f"  {line}")
    for name, text in bundle.origin.items():
        if isinstance(text, str):
            to_stdout(f"{name}: {text}")


def _promises_to_stdout(bundle: Bundle) -> None:
    """About frames or regions, then about tracks and boxes."""
    for sentences, keys in _promises(bundle).items():
        to_stdout(f"promise, {', '.join(keys)}:")
        for sentence in sentences:
            to_stdout(f"  {sentence}")
    for key, promises in bundle.object_promises.items():
        for promise in promises:
            to_stdout(f"promise about objects, {key}: {promise.describe()}")


def _detector(bundle: Bundle) -> None:
    """A detector's head, and what it misses."""
    if bundle.detector is None:
        return
    spec = DetectorSpec.from_json(bundle.detector)
    missed = spec.describe() or "what it misses was not counted, and no promise covers it"
    to_stdout(f"detector: head {spec.head}, {spec.fit}, boxes from a score of {spec.score:g}; {missed}")


def _dense(bundle: Bundle) -> None:
    """Which region a dense network labels, and when one of its pixels is usable."""
    if bundle.dense is None:
        return
    spec = DenseSpec.from_json(bundle.dense)
    where = f"{spec.region}={spec.x:g},{spec.y:g},{spec.width:g},{spec.height:g}"
    to_stdout(f"dense: labels the pixels of {where}; one is usable if its {spec.score} is at most {spec.threshold:.4f}")


def _limits(bundle: Bundle) -> list[str]:
    """Thresholds of single labels, and limits of signals."""
    lines = []
    for key, calibration in bundle.calibrations.items():
        lines += [
            f"threshold of {each.label!r}, {key}: {each.threshold:.4f} for at most {each.target_risk:.2%} wrong; "
            f"{each.errors} / {each.accepted} wrong"
            for each in calibration.classes
        ]
        if calibration.limits:
            lines.append(f"limits, {key}: {'; '.join(map(_words, calibration.limits))}")
    return lines


def _engines(bundle: Bundle) -> list[str]:
    """Which engines the promises are those of, and whether this machine has another version."""
    found: dict[str, list[str]] = {}
    for key, calibration in bundle.calibrations.items():
        found.setdefault(calibration.engine, []).append(key)
    return [f"calibrated with {name}: {', '.join(keys)}{_beside(name, keys[0])}" for name, keys in found.items()]


def _beside(calibrated: str, key: str) -> str:
    """A warning if this machine would run another engine than was calibrated; empty if it is the same or there is none.

    TensorRT's version is known only where it can be loaded; a session on it says so itself.
    """
    backend = key.partition("/")[0]
    here = _installed(backend)
    if not here or calibrated == f"{backend} {here}":
        return ""
    return (
        f"; WARNING: this machine has {backend} {here}, whose promise this is not: compare the two (framegate verify) "
        "or calibrate again"
    )


def _installed(backend: str) -> str:
    """Version of a CPU engine's library, as `Backend.engine` names it; empty where there is none."""
    for distribution in _DISTRIBUTIONS.get(backend, ()):
        with suppress(PackageNotFoundError):
            return version(distribution)
    return ""


def _certificates(bundle: Bundle) -> None:
    """What is certified, and what that excludes."""
    for each in bundle.certificates:
        for key in sorted(each.thresholds):
            to_stdout(
                f"certificate {budget_text(each.kind, each.budget)}, {key}: {each.promise(key)}; "
                f"{each.thresholds[key].coverage:.1%} of the calibration frames are certified"
            )


def _few(labels: tuple[str, ...]) -> str:
    """The labels for people: all, or the first and the last of many (``--json`` has them all)."""
    if len(labels) <= _SHOWN:
        return ", ".join(labels)
    return f"{', '.join(labels[: _SHOWN // 2])}, ..., {labels[-1]}; all of them: --json"


def _calibrations(bundle: Bundle) -> Table:
    table = Table(title="Calibration (accept if score <= threshold and every signal is within its limits)")
    for column in (
        "backend/precision",
        "T",
        "score",
        "threshold",
        "target risk",
        "confidence",
        "wrong / counted",
        "coverage",
    ):
        first = column.startswith("backend")
        table.add_column(column, justify="left" if first else "right", no_wrap=first)
    for key, calibration in bundle.calibrations.items():
        table.add_row(
            key,
            f"{calibration.temperature:.3f}",
            calibration.score,
            f"{calibration.threshold:.4f}",
            f"{calibration.target_risk:.2%}" if calibration.proved else "none",
            f"{calibration.confidence_level:.0%}" if calibration.proved else "-",
            "{} / {}".format(*calibration.counts),
            f"{calibration.coverage:.1%}",
        )
    return table


def _promises(bundle: Bundle) -> dict[tuple[str, ...], list[str]]:
    """What is promised, once for all calibrations that promise the same: sentences -> keys."""
    found: dict[tuple[str, ...], list[str]] = {}
    for key, calibration in bundle.calibrations.items():
        found.setdefault(tuple(_explained(bundle, calibration)), []).append(key)
    return found


def _explained(bundle: Bundle, calibration: Calibration) -> list[str]:
    """The promise in sentences; of a dense bundle it is one about its region."""
    return calibration.explanation() if bundle.dense is None else [promise_of(bundle, calibration)]


def _words(limit: Limit) -> str:
    """One limit for people."""
    sides = [] if limit.low is None else [f">= {limit.low:.4g}"]
    sides += [] if limit.high is None else [f"<= {limit.high:.4g}"]
    mean = "" if limit.frames == 1 else f"mean of {limit.frames} frames of "
    return f"{mean}{limit.signal} {' and '.join(sides)}"


def _policies(bundle: Bundle, policy: Policy, fps: float | None) -> dict[tuple[str, ...], list[str]]:
    """The policy's delays, once for all calibrations that share them: lines -> keys."""
    found: dict[tuple[str, ...], list[str]] = {}
    for key, calibration in bundle.calibrations.items():
        found.setdefault(tuple(policy_lines(policy, calibration, fps)), []).append(key)
    return found or {tuple(policy_lines(policy, None, fps)): []}
