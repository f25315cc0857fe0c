"""``framegate gate``: what the calibrated gate of a bundle lets through, and whether its promise is kept."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from framegate.evaluation.attacks.memory import keep_freed_memory
from framegate.evaluation.command_evaluate import check_foreign, foreign_sets
from framegate.evaluation.frames.network import Network
from framegate.evaluation.frames.ood import NOISE_SETS, noise_set
from framegate.evaluation.frames.own_data import data_for, training_of
from framegate.evaluation.gate.names import FORMAT, MAIN_ATTACKS, RULES
from framegate.evaluation.gate.promise import TRIALS, Population, simulate
from framegate.evaluation.gate.run import GateRun, Sizes
from framegate.evaluation.measured import manifest_sha256
from framegate.evaluation.metrics.design_effect import honest
from framegate.evaluation.report.files import rounded, write_json
from framegate.evaluation.suite.run import Frames
from framegate.evaluation.summaries import SUMMARIES
from framegate.export.calibration.calibrate import Promise
from framegate.export.calibration.decisions import Outputs
from framegate.export.calibration.selective_risk import METHODS
from framegate.export.data.outputs import backend_outputs
from framegate.models.training.batches import Progress
from framegate.runtime.backends.choice import choose_backend, default_precision
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import record_key
from framegate.runtime.circumstances import circumstances
from framegate.runtime.cli.options import BUNDLE_HELP
from framegate.runtime.console import json_to_stdout, progress_bar, to_stderr, to_stdout
from framegate.runtime.errors import CalibrationError, DataError, UsageError

_FOREIGN = 1_000


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``gate`` to the command line."""
    parser = commands.add_parser("gate", help=SUMMARIES["gate"])
    parser.add_argument("bundle", help=BUNDLE_HELP)
    parser.add_argument(
        "--data",
        required=True,
        type=Path,
        help="the data set it was trained on, or your own pictures in one folder per label",
    )
    parser.add_argument(
        "--ood",
        action="append",
        default=[],
        type=Path,
        metavar="PATH",
        help="foreign frames: another data set, a folder of pictures or a clip; can be repeated (default: none)",
    )
    parser.add_argument(
        "--trials",
        type=int,
        default=TRIALS,
        metavar="N",
        help="calibrations that check the promise; 0 leaves it out (default: %(default)s, which tells 5 from 6 %%)",
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="at most N frames of everything, at least 20: quick, and says little (default: all)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="which frames are attacked, and everything random (default: %(default)s)",
    )
    parser.add_argument("--out", required=True, type=Path, help="results file (.json)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Judge, check the promise, write the record. Returns 1 if an attack's health check or the promise failed."""
    if arguments.limit is not None and arguments.limit < 20:
        raise UsageError(f"limit: {arguments.limit} given, expected at least 20 frames")
    if min(arguments.seed, arguments.trials) < 0:
        raise UsageError(f"seed {arguments.seed}, trials {arguments.trials}: expected 0 or more of each")
    bundle = Bundle.open(arguments.bundle).for_classifiers("gate")
    data = data_for(arguments.data, bundle)
    if data.labels != bundle.labels or data.depth != bundle.preprocess.depth:
        raise DataError(f"{arguments.data}: {data.title} is not what this bundle was trained on; give its data set")
    for path in arguments.ood:
        check_foreign(path, data)
    keep_freed_memory()
    network = Network.from_bundle(bundle)
    sizes = Sizes().limited(arguments.limit)
    started = time.monotonic()
    train, calibration = training_of(data, arguments.data, bundle)
    test = data.load_test(arguments.data)
    size = (test.images.shape[1] // data.depth, test.images.shape[2])
    count = min(_FOREIGN, arguments.limit or _FOREIGN)
    foreign = foreign_sets(arguments.ood, data, size, count, arguments.seed)
    foreign += [noise_set(kind, min(count, 500), size, arguments.seed, data.depth) for kind in NOISE_SETS]
    head: dict[str, Any] = {
        "format": FORMAT,
        "bundle": bundle.name,
        "manifest_sha256": manifest_sha256(bundle.path),
        "data": data.name,
        "limit": arguments.limit,
        "seed": arguments.seed,
        "machine": {**circumstances(), "torch": torch.__version__},
        "monitor": None if bundle.monitor is None else dict(bundle.monitor.fitted),
    }
    partial = arguments.out.with_name(f"{arguments.out.stem}.partial.json")

    def finished(found: dict[str, Any]) -> dict[str, Any]:
        record = {**head, "seconds": round(time.monotonic() - started, 1), **found}
        full: dict[str, Any] = rounded(honest(record, calibration, gate.calibration.wrong, len(test)))
        return full

    try:
        with progress_bar() as progress:
            frames = Frames(calibration, test, data.depth, tuple(foreign))
            gate = GateRun(bundle, network, frames, train, sizes, arguments.seed, progress)
            found = gate.results(lambda found: write_json(partial, finished({**found, "partial": True})))
            promise = _promise(bundle, frames, arguments.trials, arguments.seed, progress) if arguments.trials else {}
    except KeyboardInterrupt:
        if partial.exists():
            to_stderr(f"framegate: what was measured so far is in {partial}; the same command begins anew")
        raise
    record = finished({**found, "promise": promise})
    write_json(arguments.out, record)
    partial.unlink(missing_ok=True)
    if arguments.json:
        json_to_stdout(record)
    else:
        _print_summary(record)
        to_stdout(f"figures: {arguments.out}")
    healthy = all(check["passed"] for check in record["health"])
    return 0 if healthy and all(each["kept"] for each in promise.values()) else 1


def _promise(bundle: Bundle, frames: Frames, trials: int, seed: int, progress: Progress) -> dict[str, Any]:
    """The simulation, on the outputs of the engine and precision that runs by default, by method."""
    backend = choose_backend("openvino")
    precision = default_precision(backend, bundle.models)
    calibration = bundle.calibration(backend, precision)
    if calibration is None:
        raise CalibrationError(f"bundle {bundle.path}: {record_key(backend, precision)} is not calibrated")
    split, test = frames.calibration, frames.test
    sets = {"calibration": split.images} if split.groups is not None else {
        "calibration": split.images, "test": test.images
    }  # fmt: skip
    outputs, engine = backend_outputs(
        backend, bundle.model_path(precision), bundle.preprocess, sets, progress, bundle.monitor
    )
    parts = list(outputs.values())
    joined = Outputs(
        np.concatenate([part.logits for part in parts]),
        {name: np.concatenate([part.signals[name] for part in parts]) for name in parts[0].signals},
    )
    labels = split.labels if split.groups is not None else np.concatenate([split.labels, test.labels])
    population = Population(joined, labels, split.groups)
    record = {}
    for method in METHODS:
        promise = Promise(calibration.target_risk, calibration.confidence_level, method=method)
        about = {
            "key": record_key(backend, precision),
            "engine": engine,
            "units": "frames" if split.groups is None else f"{split.unit or 'track'}s",
        }
        record[method] = simulate(population, len(split), promise, trials, progress, seed) | about
        if method == METHODS[0]:
            # What a user who tries divisions until he likes one would get: no promise, and the record shows it.
            few = max(trials // 10, 1)
            found = simulate(population, len(split), promise, few, progress, seed, tries=10)
            record[method]["best_of_ten"] = {"trials": few, "broken": found["broken"]}
    return record


def _print_summary(record: dict[str, Any]) -> None:
    clean = record["clean"]
    for name in RULES:
        each = clean[name]
        to_stdout(
            f"{name}: accepts {each['coverage']['value']:.1%} of clean frames, "
            f"{each['selective_risk']['value'] or 0:.2%} of those wrongly"
        )
    for attack in MAIN_ATTACKS:
        each = record["attacks"][attack]
        rates = ", ".join(f"{name} {each[name]['false_accept_rate']['value']:.1%}" for name in RULES)
        to_stdout(f"{attack}: of {each['wrong']} wrong frames accepted: {rates}")
    adaptive = record["adaptive"]
    rates = ", ".join(f"{name} {adaptive[name]['false_accepts']['value']:.1%}" for name in RULES)
    to_stdout(f"the attack that aims at the gate, wrong and accepted of {adaptive['n']}: {rates}")
    for method, each in record["promise"].items():
        to_stdout(
            f"promise, {method}: broken in {each['broken']['value']:.1%} of {each['trials']} calibrations "
            f"(allowed {each['allowed']:.1%}, more than {each['tells']:.1%} would be noticed), refused "
            f"{each['refused']}; of the issued ones broken: {each['issued_broken']['value'] or 0:.1%}"
        )
    for check in record["health"]:
        if not check["passed"]:
            to_stdout(f"attack health check FAILED: {check['name']}: {check['detail']}")
