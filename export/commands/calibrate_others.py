"""``framegate calibrate`` for what is no classifier: a dense network's region, a detector's boxes."""

from __future__ import annotations

import argparse
from pathlib import Path

from framegate.export.bundle_writer import edited, replace_calibrations, update_manifest
from framegate.export.calibration.promise import AUTO
from framegate.export.commands.promise_options import refuse_promise_options
from framegate.export.data.coco import read_coco
from framegate.export.data.dense_folder import read_dense_folder
from framegate.export.data.labelled import USER
from framegate.export.dense_promise import BACKENDS, DensePromise, calibrate_dense, summary
from framegate.export.detector_promise import BoxPromise, calibrate_detector, fingerprint, observe
from framegate.runtime.backends.choice import BACKENDS as ENGINES
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import SCORES
from framegate.runtime.console import progress_bar, to_stdout
from framegate.runtime.dense.spec import DenseSpec
from framegate.runtime.errors import UsageError
from framegate.runtime.regions.detector import DetectorSpec

_TARGET = 0.05


def calibrate_other(arguments: argparse.Namespace, path: Path, bundle: Bundle) -> int:
    """Calibrate a dense network or a detector, and say what was promised.

    Raises:
        FramegateError: The options do not fit, the pictures cannot be used, or no threshold keeps the promise.
    """
    risks = arguments.target_risk or [_TARGET]
    if len(risks) > 1:
        raise UsageError("--target-risk: several were given; a dense network or a detector is calibrated for one")
    for name in ("data", "recording", "labels"):
        if getattr(arguments, name) is not None:
            option = "from" if name == "recording" else name
            raise UsageError(f"--{option} is for classifiers; give --unseen DIR, pictures that the network never saw")
    if arguments.plan:
        raise UsageError("--plan is for classifiers; leave it out")
    score = ("score",) if bundle.detector is not None else ()
    refuse_promise_options(arguments, ("target_risk", "confidence_level", "no_promise", "unseen", *score))
    if arguments.unseen is None:
        raise UsageError("--unseen DIR is missing: labelled pictures that the network never saw")
    if bundle.dense is not None:
        return _dense(arguments, path, bundle, risks[0])
    return _detector(arguments, path, bundle, risks[0])


def _dense(arguments: argparse.Namespace, path: Path, bundle: Bundle, target: float) -> int:
    assert bundle.dense is not None
    if arguments.boxes is not None:
        raise UsageError("--boxes is for detectors; a dense network's pictures lie in DIR/images and DIR/masks")
    spec = DenseSpec.from_json(bundle.dense)
    promise = DensePromise(target, arguments.confidence_level, spec.wrong_share, not arguments.no_promise)
    backends = BACKENDS if arguments.backend == "all" else (arguments.backend,)
    pictures = read_dense_folder(arguments.unseen, len(bundle.labels))
    with progress_bar() as progress:
        _, found = calibrate_dense(bundle, spec, pictures, promise, USER, backends, progress, pixels_are_set=True)
    with edited(bundle) as folder:
        replace_calibrations(folder, {**bundle.calibrations, **found})
    for line in summary(spec, found):
        to_stdout(line)
    to_stdout(f"bundle: {path}")
    return 0


def _detector(arguments: argparse.Namespace, path: Path, bundle: Bundle, target: float) -> int:
    assert bundle.detector is not None
    if arguments.boxes is None:
        raise UsageError("--boxes FILE.json is missing: labelled boxes of the pictures in --unseen, in COCO's format")
    if arguments.score not in (AUTO, *SCORES):
        raise UsageError(f"--score {arguments.score}: a detector's boxes have {', '.join(SCORES)}")
    backends = BACKENDS if arguments.backend == "all" else (arguments.backend,)
    if any(ENGINES[name].gpu for name in backends):
        raise UsageError(f"--backend {arguments.backend}: a detector runs on {' or '.join(BACKENDS)}")
    chosen = None if arguments.score == AUTO else arguments.score
    promise = BoxPromise(target, arguments.confidence_level, chosen, not arguments.no_promise)
    images = read_coco(arguments.boxes)
    data = fingerprint(arguments.boxes, images, arguments.unseen)
    with progress_bar() as progress:
        found = {name: observe(bundle, name, images, arguments.unseen, progress) for name in backends}
    records = calibrate_detector(bundle, found, promise, data, USER)
    first = next(iter(found.values()))
    spec = DetectorSpec.from_json({**bundle.detector, "labelled": first.labelled, "missed": first.missed})
    with edited(bundle) as folder:
        # Records of other engines were made with the same head; what was missed is said of these images only.
        update_manifest(folder, detector=spec.to_json())
        replace_calibrations(folder, {**bundle.calibrations, **records})
    for key, each in records.items():
        to_stdout(f"{key}: a box is accepted if its {each.score} is at most {each.threshold:.4g}; {each.promise()}")
    to_stdout(spec.describe())
    to_stdout(f"bundle: {path}")
    return 0
