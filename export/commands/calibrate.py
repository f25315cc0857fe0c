"""``framegate calibrate``: set the thresholds of a bundle again, for another promise or on another machine."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from framegate.export.bundle_writer import edited, replace_calibrations, to_change, update_manifest
from framegate.export.calibration.attempts import INT8_MAKING, Question, count_attempt, int8_making
from framegate.export.calibration.calibrate import (
    Circumstances,
    EngineOutputs,
    Promise,
    calibrate_together,
    fingerprint,
)
from framegate.export.calibration.classes import asked_classes
from framegate.export.calibration.decisions import predicted
from framegate.export.calibration.plan import plan
from framegate.export.calibration.seen import check_recorded
from framegate.export.calibration.undeclared import undeclared_tracks
from framegate.export.commands.calibrate_others import calibrate_other
from framegate.export.commands.promise_options import add_promise_options, place_of, promise_of, require_unseen
from framegate.export.commands.summaries import SUMMARIES
from framegate.export.commands.tables import calibration_table
from framegate.export.data.drives import UNIT as DRIVE
from framegate.export.data.drives import is_table, read_drives
from framegate.export.data.labelled import AUTO as GROUP_AUTO
from framegate.export.data.labelled import USER, load_calibration
from framegate.export.data.outputs import CPU_BACKENDS, backend_outputs
from framegate.export.data.recording import read_recording
from framegate.export.progress import Progress
from framegate.models.labelled import LabelledImages
from framegate.runtime.backends.choice import BACKENDS, choose_backend
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import Calibration, record_key
from framegate.runtime.bundle.search import find_bundle
from framegate.runtime.console import OUT, json_to_stdout, progress_bar, to_stderr, to_stdout
from framegate.runtime.errors import UsageError
from framegate.runtime.monitor import FILE as MONITOR


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``calibrate`` to the command line."""
    parser = commands.add_parser("calibrate", help=SUMMARIES["calibrate"])
    parser.add_argument("bundle", help="name of a bundle, or its folder; it is replaced by the newly calibrated one")
    parser.add_argument(
        "--data",
        type=Path,
        help="the known data set that framegate trained it on, whose calibration split it has not seen; for a foreign "
        "network a known data set, whose test split is used (default: none, see --unseen)",
    )
    parser.add_argument(
        "--backend",
        choices=["all", *BACKENDS],
        default="all",
        help="engine; all: those of the CPU (default: %(default)s)",
    )
    parser.add_argument(
        "--precision", default="all", help="fp32, fp16 or int8; all leaves fp16 out on a CPU (default: %(default)s)"
    )
    parser.add_argument(
        "--from",
        dest="recording",
        metavar="RECORDING",
        help="calibrate on a recorded drive that the network never saw: the camera's own video or a folder of its "
        "frames, not what run --record writes, which is drawn over or compressed, with --labels; or on the labelled "
        "drives of a table (drives.parquet) by drive (default: --unseen or --data)",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE.csv",
        help="labelled regions of --from, one a line: frame,x,y,width,height,label,track (default: none)",
    )
    parser.add_argument(
        "--boxes",
        type=Path,
        metavar="FILE.json",
        help="for a detector bundle: labelled boxes of the images in --unseen, in COCO's format (default: none)",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="compute nothing: say what these images can prove at best, and what the target risk needs",
    )
    add_promise_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(run=run)


def calibrate_bundle(
    path: Path,
    split: LabelledImages,
    backend: str,
    precision: str,
    promise: Promise,
    progress: Progress,
    unseen: str = "",
) -> dict[str, Calibration]:
    """Replace calibrations of a bundle; others stay as they are.

    Args:
        path: The bundle.
        split: The calibration split.
        backend: A backend, or ``all`` for those that run on every machine.
        precision: A precision of the bundle, or ``all``.
        promise: What the calibrations shall promise.
        progress: Called during the work.
        unseen: Who says that the network never saw the split, see `Calibration.unseen`.

    Returns:
        The new calibrations.

    Raises:
        BundleError: The bundle or the precision cannot be used, or the folder cannot be written.
        CalibrationError: No threshold keeps the promise; the bundle is unchanged.
        UsageError: A label that was asked for by name is none of the bundle's.
    """
    bundle = Bundle.open(path).for_classifiers("calibrate")
    found = calibrations_of(bundle, split, backend, precision, promise, progress, unseen)
    with edited(bundle) as folder:
        replace_calibrations(folder, {**bundle.calibrations, **found})
        # Rows of the export's report that speak of the old thresholds.
        update_manifest(folder, parity=[dict(row) for row in bundle.parity if row["key"] not in found])
    return found


def calibrations_of(
    bundle: Bundle,
    split: LabelledImages,
    backend: str,
    precision: str,
    promise: Promise,
    progress: Progress,
    unseen: str = "",
) -> dict[str, Calibration]:
    """New calibrations of an opened bundle (parameters and errors as in `calibrate_bundle`)."""
    asked_classes(promise.class_risks, bundle.labels)
    pairs = _pairs(bundle, backend, precision)
    keys = tuple(record_key(name, each) for name, each in pairs)
    split_sha256 = fingerprint(split)
    network = bundle.hashes[bundle.models.get("fp32") or bundle.models[pairs[0][1]]]
    earlier = [each.attempts or 1 for each in bundle.calibrations.values() if each.fingerprint == split_sha256]
    usual = int8_making("auto", 0) if "int8" in bundle.models else ()  # bundles that do not say it
    making = tuple(map(str, bundle.origin.get(INT8_MAKING, usual)))
    monitor = (bundle.hashes[MONITOR],) if bundle.monitor is not None else ()
    question = Question(network, keys, promise, split.groups, (*making, *monitor))
    asked = count_attempt(split_sha256, question, max(earlier, default=0))
    precisions = _precisions(bundle, backend, precision)
    run = Circumstances(
        split_sha256,
        split.groups,
        split.unit,
        len(precisions),
        asked,
        unseen,
        labels=bundle.labels,
        group=split.group,
        sequence=split.sequence,
    )
    found: dict[str, Calibration] = {}
    for precision in precisions:
        model = bundle.model_path(precision)
        engines = {}
        for name in (name for name, each in pairs if each == precision):
            outputs, engine = backend_outputs(
                name, model, bundle.preprocess, {"": split.images}, progress, bundle.monitor
            )
            engines[record_key(name, precision)] = EngineOutputs(outputs[""], bundle.hashes[model.name], engine)
        if promise.proved:
            for key, each in engines.items():
                check_recorded(key, predicted(each.outputs) != split.labels, split, bundle.parity)
        if not found and (warning := undeclared_tracks(next(iter(engines.values())).outputs, split)):
            to_stderr(f"framegate: {warning}")
        found.update(calibrate_together(engines, split.labels, promise, run))
    return found


def _pairs(bundle: Bundle, backend: str, precision: str) -> list[tuple[str, str]]:
    """Backends and precisions that a run calibrates."""
    backends = CPU_BACKENDS if backend == "all" else (choose_backend(backend),)
    return [
        (name, each)
        for each in (sorted(bundle.models) if precision == "all" else [precision])
        for name in backends
        if precision != "all" or calibrated_by_default(name, each)
    ]


def _precisions(bundle: Bundle, backend: str, precision: str) -> list[str]:
    """Those that share the confidence of a run."""
    return sorted({each for _, each in _pairs(bundle, backend, precision)})


def calibrated_by_default(backend: str, precision: str) -> bool:
    """Whether ``--precision all`` includes a precision: float16 is for GPUs, a CPU computes it in float32."""
    return precision != "fp16" or BACKENDS[backend].gpu


def _refuse_grouping(arguments: argparse.Namespace, units: str) -> None:
    """Refuse to group what brings its units with it: others would be counted than those that were asked for.

    Raises:
        UsageError: ``--group`` was given.
    """
    if arguments.group != GROUP_AUTO:
        raise UsageError(f"--group {arguments.group}: with --from the units are {units}; leave it out")


def _split(arguments: argparse.Namespace, bundle: Bundle, progress: Progress) -> tuple[LabelledImages, str]:
    """The images that calibrate, and who says that the network never saw them."""
    if arguments.recording is not None and is_table(Path(arguments.recording)):
        return _drives(arguments, bundle, progress), USER
    if (arguments.recording is None) != (arguments.labels is None):
        raise UsageError("--from and --labels belong together: a recording, and the labelled regions in it")
    if arguments.recording is None:
        place = place_of(arguments, bundle.origin, bundle.calibrations.values())
        return load_calibration(place, bundle.labels, bundle.preprocess, progress)
    if arguments.recording.lower().endswith(".mcap"):
        raise UsageError(
            f"--from {arguments.recording}: the pictures of an .mcap recording are made smaller and compressed for "
            "people, and are not what the network saw; give the camera's own video, or a folder of its frames"
        )
    if arguments.data is not None or arguments.unseen is not None:
        raise UsageError("--from was given, and other images besides; give one of --from, --unseen and --data")
    _refuse_grouping(arguments, "the tracks of --labels")
    unit = arguments.unit.strip() or "track"
    spec = bundle.preprocess
    return read_recording(arguments.recording, arguments.labels, bundle.labels, spec, unit, progress), USER


def _drives(arguments: argparse.Namespace, bundle: Bundle, progress: Progress) -> LabelledImages:
    """The labelled verdicts of recorded drives."""
    if arguments.labels is not None or arguments.data is not None or arguments.unseen is not None:
        raise UsageError(
            "--from was given a table of drives, which holds its labels; leave out --labels and other images"
        )
    _refuse_grouping(arguments, "the drives")
    if arguments.unit not in ("track", DRIVE):
        raise UsageError(f"--unit {arguments.unit}: with a table of drives the units are drives; leave it out")
    found = read_drives(Path(arguments.recording), bundle.labels, bundle.preprocess, progress)
    for remark in found.remarks():
        to_stderr(f"framegate: {remark}")
    return found.images


def run(arguments: argparse.Namespace) -> int:
    """Calibrate and print the new thresholds."""
    promise = promise_of(arguments)
    # A plan changes nothing, so a name may stand for a bundle that comes with framegate.
    path = find_bundle(arguments.bundle) if arguments.plan else to_change(arguments.bundle)
    bundle = Bundle.open(path)
    if bundle.detector is not None or bundle.dense is not None:
        return calibrate_other(arguments, path, bundle)
    if arguments.boxes is not None:
        raise UsageError("--boxes is for a detector bundle; a classifier's boxes are measured by framegate evaluate")
    with progress_bar() as progress:
        split, unseen = _split(arguments, bundle, progress)
        if arguments.plan:
            precisions = len(_precisions(bundle, arguments.backend, arguments.precision))
            planned = plan(split, promise, precisions, bundle.labels)
            if arguments.json:
                json_to_stdout(asdict(planned))
                return 0
            for line in planned.lines():
                to_stdout(line)
            return 0
        require_unseen(promise, unseen)
        found = calibrate_bundle(path, split, arguments.backend, arguments.precision, promise, progress, unseen)
    if arguments.json:
        json_to_stdout({"bundle": str(path), "calibrations": {key: each.to_json() for key, each in found.items()}})
        return 0
    OUT.print(calibration_table(found))
    to_stdout(f"bundle: {path}")
    return 0
