"""``framegate monitor``: fit the monitor of a bundle on attacked training images, and calibrate the bundle with it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from framegate.evaluation.frames.engine_network import ObservedNetwork
from framegate.evaluation.gate.rules import observe
from framegate.evaluation.monitor.fit import Recipe, attacked_sets, fit_monitor
from framegate.evaluation.monitor.subject import subject_of
from framegate.evaluation.monitor.worth import worth_of
from framegate.evaluation.summaries import SUMMARIES
from framegate.export.bundle_writer import edited, replace_calibrations, to_change, update_manifest, write_certificates
from framegate.export.calibration.calibrate import Promise, calibrate, fingerprint
from framegate.export.calibration.design import division_seed, split_units
from framegate.export.checks.parity import ParityRow, compare
from framegate.export.commands.calibrate import calibrations_of
from framegate.export.commands.promise_options import add_promise_options, place_of, promise_of, require_unseen
from framegate.export.commands.tables import calibration_table
from framegate.export.data.labelled import load_splits
from framegate.export.data.outputs import CPU_BACKENDS, backend_outputs
from framegate.export.data.splits import Splits
from framegate.export.graph import graph as onnx_graph
from framegate.export.graph.half import HALF, half_file
from framegate.export.graph.pooled import with_pooled
from framegate.export.progress import Stages
from framegate.models.pixels import to_pixels
from framegate.models.training.batches import Progress
from framegate.runtime.bundle.bundle import CALIBRATION, Bundle, write_bundle_json
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.bundle.certificates import Demand
from framegate.runtime.console import OUT, json_to_stdout, progress_bar, to_stderr, to_stdout
from framegate.runtime.errors import BundleError
from framegate.runtime.monitor import FILE, POOLED, Monitor

_TRIED = 6
"""Layers of a network that names none which are tried."""
_JUDGED_BY_ATTACKS = 200
"""Of these so many are attacked unless told otherwise; for the estimate."""
_JUDGED = 1_000
"""Images among which those are looked for that are attacked to judge the monitor."""


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``monitor`` to the command line."""
    parser = commands.add_parser("monitor", help=SUMMARIES["monitor"])
    parser.add_argument(
        "bundle", help="name of a bundle, or its folder; it is replaced by one with a monitor, calibrated anew"
    )
    parser.add_argument(
        "--data",
        type=Path,
        help="the data set it was trained on, or a folder per label: fits the monitor (default: --unseen alone, a part "
        "of which fits it)",
    )
    defaults = Recipe()
    parser.add_argument(
        "--images", type=int, default=defaults.images, metavar="N", help="training images (default: %(default)s)"
    )
    parser.add_argument(
        "--attacked",
        type=int,
        default=defaults.attacked,
        metavar="N",
        help="images that PGD attacks (default: %(default)s)",
    )
    parser.add_argument(
        "--layers",
        type=int,
        default=defaults.layers,
        metavar="N",
        help="layers at most, chosen by what they help (default: %(default)s)",
    )
    parser.add_argument(
        "--judged",
        type=int,
        metavar="N",
        help="calibration images that are attacked to see whether the monitor is worth its place (default: 200)",
    )
    add_promise_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Fit, write, calibrate, and say what came out."""
    promise = promise_of(arguments)
    recipe = Recipe(
        images=arguments.images,
        attacked=arguments.attacked,
        layers=arguments.layers,
        judged=arguments.judged,
        seed=arguments.seed,
    )
    bundle = Bundle.open(to_change(arguments.bundle)).for_classifiers("monitor")
    try:
        with progress_bar() as progress:
            place = place_of(arguments, bundle.origin, bundle.calibrations.values())
            splits = load_splits(place, bundle.labels, bundle.preprocess, progress)
            require_unseen(promise, splits.unseen)
            whole = whole_monitor(progress, bundle, splits, recipe)
            monitor, calibrations = add_monitor(bundle, splits, recipe, promise, whole)
    except KeyboardInterrupt:
        to_stderr(f"framegate: bundle {bundle.path} is unchanged")
        raise
    if arguments.json:
        made = {key: each.to_json() for key, each in calibrations.items()}
        json_to_stdout({"bundle": str(bundle.path), "monitor": dict(monitor.fitted), "calibrations": made})
        return 0
    OUT.print(calibration_table(calibrations))
    to_stdout(f"monitor: reads {', '.join(f'{tap.name} ({tap.channels})' for tap in monitor.taps)}")
    to_stdout("AUROC on attacked training images that the fit did not see (other attacks: framegate evaluate):")
    for step in monitor.fitted["choice_of_layers"]:
        figures = ", ".join(f"{name} {value:.3f}" for name, value in step["auroc"].items())
        to_stdout(f"  {' + '.join(step['layers'])}: {figures}")
    unseen = monitor.fitted["unseen_attacks"]
    figures = ", ".join(
        f"{name} {value:.3f} ({unseen['best_control']} {unseen['control_auroc'][name]:.3f})"
        for name, value in unseen["auroc"].items()
    )
    to_stdout(f"AUROC on {unseen['frames']} calibration images under attacks that it was not fitted on: {figures}")
    to_stdout(f"bundle: {bundle.path}")
    return 0


def whole_monitor(progress: Progress, bundle: Bundle, splits: Splits, recipe: Recipe) -> Progress:
    """The progress of `add_monitor` as one bar, in images that a network looks at; a gradient counts as three.

    Args:
        progress: Called with the whole.
        bundle: Whose engines are calibrated and compared.
        splits: On these images.
        recipe: What the monitor is fitted with.
    """
    steps = len(recipe.fgsm) + len(recipe.pgd) * recipe.pgd_steps
    judged = recipe.judged if recipe.judged is not None else _JUDGED_BY_ATTACKS
    fitting = 2 * recipe.images + 3 * steps * recipe.attacked
    engines = [f"{backend}.*{precision}" for precision in bundle.models for backend in CPU_BACKENDS]
    test, calibration = len(splits.test), len(splits.calibration)
    return Stages(
        progress,
        [
            (r"monitor: (a substitute|clean images|FGSM|PGD|\w+ \d|attacks$)", fitting),
            ("monitor: choosing layers", recipe.images / 10),
            ("monitor: attacks that it was not fitted on", 3 * 50 * judged),
            *((engine, calibration) for engine in engines),
            ("monitor: PyTorch", test + calibration),
            *((engine, test) for engine in engines),
        ],
    )


def add_monitor(
    bundle: Bundle, splits: Splits, recipe: Recipe, promise: Promise, progress: Progress
) -> tuple[Monitor, dict[str, Calibration]]:
    """Replace a bundle by one with a monitor, its files calibrated anew for every CPU backend.

    Args:
        bundle: Opened; a monitor that it has already is replaced.
        splits: Its data; only the training split fits the monitor, only the calibration split calibrates.
        recipe: What the monitor is fitted with.
        promise: What the calibrations shall promise.
        progress: Called during the work.

    Raises:
        BundleError: The bundle has no float32 network, or cannot be written.
        UsageError: The network's logits do not come from a linear layer, or there are too few images.
        ExportRefusedError: It sees less of attacks that it was not fitted on than a control that needs no network; the
            bundle is unchanged.
        CalibrationError: No threshold keeps the promise; the bundle is unchanged.
    """
    depth = bundle.preprocess.depth
    subject = subject_of(bundle, layers_to_try(bundle), splits.train, recipe.images, recipe.seed, progress)
    if subject.why:
        to_stderr(
            f"framegate: attacks cannot follow this network's gradient ({subject.why}); the monitor is fitted on "
            "attacks that are transferred from a small network which answers alike, and on damaged images"
        )
    network, followed = subject.network, subject.followed
    sets = attacked_sets(network, splits.train, depth, recipe, progress, followed)
    monitor = fit_monitor(sets, recipe, splits.train.name, progress)
    # The division of the calibration that follows: what proves the threshold judges nothing here.
    seed = division_seed(fingerprint(splits.calibration))
    design, _ = split_units(len(splits.calibration), splits.calibration.groups, seed)
    unseen = splits.calibration.subset(design[:_JUDGED], "calibration, design part")
    worth = worth_of(monitor, network, unseen, depth, recipe.seed, progress, followed, recipe.judged)
    worth.require()
    without = {"no_gradient": subject.why} if subject.why else {}
    monitor = replace(monitor, fitted={**monitor.fitted, **without, "unseen_attacks": worth.to_json()})
    return monitor, write_monitor(bundle, monitor, network, splits, promise, progress)


def write_monitor(
    bundle: Bundle, monitor: Monitor, network: ObservedNetwork, splits: Splits, promise: Promise, progress: Progress
) -> dict[str, Calibration]:
    """Replace a bundle by one with this monitor, its files calibrated anew for every CPU backend.

    Args:
        bundle: Opened; a monitor that it has already is replaced.
        monitor: Fitted, and worth its place.
        network: The bundle's, with the monitor's layers as taps.
        splits: Its data.
        promise: What the calibrations shall promise.
        progress: Called during the work.

    Raises:
        BundleError: The bundle cannot be written.
        CalibrationError: No threshold keeps the promise; the bundle is unchanged.
    """
    with edited(bundle) as folder:
        (folder / CALIBRATION).unlink(missing_ok=True)  # of other files
        _drop_certificates(bundle, folder)
        _write_models(bundle, monitor, folder)
        write_bundle_json(folder, FILE, monitor.to_json())
        update_manifest(folder, outputs=["logits", POOLED])
        prepared = Bundle.open(folder)
        calibrations = calibrations_of(prepared, splits.calibration, "all", "all", promise, progress, splits.unseen)
        parity = _parity(prepared, network, splits, promise, calibrations, progress)
        update_manifest(folder, parity=[row.to_json() for row in parity])
        replace_calibrations(folder, calibrations)
    return calibrations


def _drop_certificates(bundle: Bundle, folder: Path) -> None:
    """Take certificates that ask the bundle's own network out of a copy of it: that network is another file now."""
    kept = [each for each in bundle.certificates if each.network not in bundle.models.values()]
    if len(kept) == len(bundle.certificates):
        return
    write_certificates(folder, bundle.labels, kept)
    gone = ", ".join(str(Demand(each.kind, each.budget)) for each in bundle.certificates if each not in kept)
    to_stderr(
        f"framegate: the certificate {gone} was proved for the network without this monitor and goes; "
        "framegate certify proves it anew"
    )


def layers_to_try(bundle: Bundle) -> tuple[str, ...]:
    """The layers among which a monitor chooses: those that the bundle names, else some over the whole depth.

    Raises:
        BundleError: The bundle has no float32 network.
    """
    if bundle.taps:
        return bundle.taps
    graph = onnx.load(str(bundle.model_path("fp32"))).graph
    layers = [node.name for node in graph.node if node.op_type == "Conv"]
    if len(layers) <= _TRIED:
        return tuple(layers)
    # The first convolution sees edges only, the last one is near the features, which are read anyway.
    places = np.linspace(0, len(layers) - 1, _TRIED + 2).round().astype(int)[1:-1]
    return tuple(layers[k] for k in places)


def _parity(
    bundle: Bundle,
    network: ObservedNetwork,
    splits: Splits,
    promise: Promise,
    calibrations: Mapping[str, Calibration],
    progress: Progress,
) -> list[ParityRow]:
    """Every engine and precision with its new calibration beside the float32 network in PyTorch with its own."""
    depth, labels = bundle.preprocess.depth, splits.test.labels
    progress("monitor: PyTorch", 0, 1)
    test, calibration = (
        observe(network, bundle.monitor, to_pixels(split.images, depth), None).outputs
        for split in (splits.test, splits.calibration)
    )
    progress("monitor: PyTorch", 1, 1)
    own = calibrate(
        calibration, splits.calibration.labels, promise, split_sha256="", model_sha256="", engine="torch",
        groups=splits.calibration.groups, names=bundle.labels,
    )  # fmt: skip
    rows = [compare("torch", test, own, test, own, labels)]
    for key, found in sorted(calibrations.items()):
        backend, precision = key.split("/")
        outputs, _ = backend_outputs(
            backend, bundle.model_path(precision), bundle.preprocess, {"": splits.test.images}, progress, bundle.monitor
        )
        rows.append(compare(key, outputs[""], found, test, own, labels))
    return rows


def _write_models(bundle: Bundle, monitor: Monitor, folder: Path) -> None:
    """Give every network of a bundle the output that the monitor reads."""
    names = [tap.name for tap in monitor.taps]
    for precision, file in bundle.models.items():
        if file == HALF:
            continue
        model, taps = with_pooled(onnx.load(str(bundle.path / file)), names)
        if taps != monitor.taps:
            raise BundleError(f"bundle {bundle.path}: the layers of its {precision} network differ from the fp32 ones")
        onnx_graph.save(model, folder / file)
    if HALF in bundle.models.values():
        half_file(folder / bundle.models["fp32"], folder / HALF)
