"""Calibrates a detector on labelled boxes: up to which score a box may be used.

A box is **wrong** if no labelled box overlaps it by one half, if that one's category is another, or if a surer box
stands for it already. The unit is the image: one box drawn from each proves, and the bound is the exact one of every
promise (`selective_risk.select`). **Objects that the detector misses are in no promise**; how many of the labelled
ones it missed is stated beside it and kept in the bundle.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from framegate.export.calibration.decisions import Flags, Floats
from framegate.export.calibration.design import choose_score, division_seed, split_units
from framegate.export.calibration.selective_risk import ONE_TARGET, check_promise, of_frames, select
from framegate.export.data.coco import OVERLAP, LabelledBox, LabelledImage
from framegate.export.progress import Progress
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import BOX, FINGERPRINT, IMAGE, SCORES, Calibration, record_key
from framegate.runtime.errors import CalibrationError, DataError
from framegate.runtime.regions.base import Box
from framegate.runtime.regions.detector import DetectorRegions
from framegate.runtime.regions.intake import on_frame
from framegate.runtime.regions.tracker import iou
from framegate.runtime.sources.images import read_image
from framegate.runtime.verdict import Frame

_QUANTILES = 100


@dataclass(frozen=True)
class BoxPromise:
    """What shall be proved.

    Attributes:
        target_risk: Largest share of accepted boxes that are wrong, in (0, 1).
        confidence_level: Probability with which it is kept, in (0, 1).
        score: One of `SCORES`; None takes what the design images favour.
        proved: False: thresholds are set without a proof, and nothing is promised.
    """

    target_risk: float = 0.05
    confidence_level: float = 0.95
    score: str | None = None
    proved: bool = True


@dataclass(frozen=True, eq=False)
class Boxes:
    """What one engine found on all images.

    Attributes:
        engine: Library and version.
        values: Name of `SCORES` -> (N,).
        wrong: (N,).
        images: (N,) number of the image of each.
        labelled: Labelled boxes.
        missed: Those of them that no box overlaps by one half.
    """

    engine: str
    values: dict[str, Floats]
    wrong: Flags
    images: np.ndarray[tuple[int], np.dtype[np.int64]]
    labelled: int
    missed: int


def wrong_boxes(
    boxes: Sequence[tuple[tuple[float, float, float, float], str]], truths: Sequence[LabelledBox]
) -> list[bool]:
    """Whether each box, surest first, is wrong; each labelled one counts for the surest on it."""
    free, wrong = list(truths), []
    for place, label in boxes:
        best = max(free, key=lambda truth: iou(place, truth.box), default=None)
        right = best is not None and iou(place, best.box) >= OVERLAP
        if right and best is not None:
            free.remove(best)
            right = best.category == label
        wrong.append(not right)
    return wrong


def observe(bundle: Bundle, backend: str, images: Sequence[LabelledImage], folder: Path, progress: Progress) -> Boxes:
    """Run the detector on every image.

    Raises:
        BackendError: The engine failed.
        CalibrationError: It found nothing anywhere.
        DataError: An image cannot be read.
    """
    detector = DetectorRegions(bundle, backend, 1)
    rows: list[tuple[Box, bool, int]] = []
    labelled = missed = 0
    for number, image in enumerate(images):
        pixels = read_image(folder / image.file)
        if not pixels.size:
            raise DataError(f"{folder / image.file}: missing or damaged")
        height, width = pixels.shape[:2]
        placed = [
            (box, place)
            for box in detector.find(Frame(number, time.monotonic_ns(), pixels)).boxes
            if not isinstance(place := on_frame(box, width, height), str)
        ]
        wrong = wrong_boxes([(place, box.label) for box, place in placed], image.boxes)
        rows += [(box, bad, number) for (box, _), bad in zip(placed, wrong, strict=True)]
        labelled += len(image.boxes)
        missed += sum(all(iou(place, truth.box) < OVERLAP for _, place in placed) for truth in image.boxes)
        progress(f"images, {backend}", number + 1, len(images))
    if not rows:
        raise CalibrationError(f"calibration: the detector {bundle.name} found nothing on {len(images)} images")
    return Boxes(
        detector.engine,
        {name: np.array([box.scores[BOX + name] for box, _, _ in rows]) for name in SCORES},
        np.array([bad for _, bad, _ in rows]),
        np.array([number for _, _, number in rows], np.int64),
        labelled,
        missed,
    )


def fingerprint(labels: Path, images: Sequence[LabelledImage], folder: Path) -> str:
    """SHA-256 over the labels and the pictures.

    Raises:
        DataError: One cannot be read, or is there twice: a copy proves nothing.
    """
    first: dict[bytes, str] = {}
    found = hashlib.sha256(labels.read_bytes())
    for image in images:
        try:
            digest = hashlib.sha256((folder / image.file).read_bytes()).digest()
        except OSError as error:
            raise DataError(f"{folder / image.file}: cannot be read ({error.strerror})") from error
        if digest in first:
            raise DataError(
                f"{labels}: the picture {image.file} is listed twice, or is a copy of {first[digest]}; a copy proves "
                "nothing: list it once, with all of its boxes"
            )
        first[digest] = image.file
        found.update(digest)
    return found.hexdigest()


def calibrate_detector(
    bundle: Bundle,
    found: dict[str, Boxes],
    promise: BoxPromise,
    print_of_data: str,
    unseen: str,
) -> dict[str, Calibration]:
    """Set the threshold for all engines at once.

    Args:
        bundle: A detector.
        found: Backend -> what it found.
        promise: What shall be proved.
        print_of_data: Fingerprint of the images, by which they are divided.
        unseen: Who says that the detector never saw them.

    Raises:
        CalibrationError: No threshold keeps the promise.
        UsageError: The promise's numbers are out of range.
    """
    check_promise(promise.target_risk, promise.confidence_level)
    seed = division_seed(print_of_data)
    first = next(iter(found.values()))
    divided = {name: _divide(each, seed) for name, each in found.items()}
    design = next(iter(divided.values()))[0]
    everywhere = np.ones(len(first.wrong), bool)
    score = promise.score or choose_score(first.values, first.wrong, everywhere, design, promise.target_risk)
    parts = []
    for name, each in found.items():
        values, (design, proof) = each.values[score], divided[name]
        both = (values[design], each.wrong[design]), (values[proof], each.wrong[proof])
        parts.append(of_frames(*both, promise.target_risk))
    if promise.proved:
        chosen = select(parts, promise.target_risk, promise.confidence_level, unit=IMAGE, other_target=ONE_TARGET)
        set_to = [(each.threshold, each.accepted, each.errors, each.risk_bound) for each in chosen]
    else:
        set_to = [(float(part.candidates[-1]), *part.counts[-1], 1.0) for part in parts]
    records = {}
    for (name, each), (threshold, accepted, errors, bound) in zip(found.items(), set_to, strict=True):
        proof = divided[name][1]
        tested = np.sort(each.values[score][proof])
        if not accepted:
            raise CalibrationError("calibration: no box of the images that prove is accepted")
        records[record_key(name, "fp32")] = Calibration(
            temperature=1.0,
            score=BOX + score,
            threshold=min(threshold, float(tested[-1])),
            target_risk=promise.target_risk,
            confidence_level=promise.confidence_level,
            risk_bound=bound,
            coverage=accepted / len(proof),
            selective_risk=errors / accepted,
            size=len(proof),
            fingerprint=print_of_data,
            model_sha256=bundle.hashes[bundle.models["fp32"]],
            engine=each.engine,
            groups=len(np.unique(each.images)),
            score_quantiles=tuple(map(float, np.quantile(tested, np.linspace(0, 1, _QUANTILES + 1), method="lower"))),
            unit=IMAGE,
            shares=1,
            division=FINGERPRINT,
            proved=promise.proved,
            unseen=unseen,
        )
    return records


def _divide(
    boxes: Boxes, seed: int
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Numbers of the boxes that design, and of those that prove: one of each of the other images.

    Raises:
        CalibrationError: There are too few images with boxes.
    """
    design, proof = split_units(len(boxes.wrong), boxes.images, seed)
    if not len(design) or not len(proof):
        raise CalibrationError(f"calibration: boxes on {len(np.unique(boxes.images))} images; give some hundred")
    return design, proof
