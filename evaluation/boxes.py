"""What detector, classifier and gate reach together on labelled boxes: ``framegate evaluate --boxes``.

An accepted box is **right** if it overlaps a labelled box by at least one half (intersection over union) and its label
is that box's category, or one that the label map allows for it; each labelled box counts once, for the surest on it.

The unit is an image: boxes of one image resemble each other. What is bounded, by Clopper and Pearson, is the share of
wrong ones when one accepted box is drawn from every image that has some (with a fixed seed), and the share of images
with any wrong accepted box. **Objects that were missed are in neither**; how many there were is stated beside them. A
threshold that was set on these images makes these figures those of a choice, not of a test.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from framegate.evaluation.metrics.intervals import Interval, proportion
from framegate.evaluation.report.files import rounded, write_json
from framegate.export.bundle_writer import store_promise
from framegate.export.calibration.selective_risk import binomial_upper_bound
from framegate.export.data.coco import OVERLAP, LabelledBox, LabelledImage, read_coco
from framegate.runtime.bundle.bundle import sha256_file
from framegate.runtime.bundle.calibration import record_key
from framegate.runtime.bundle.object_promises import BOXES, ObjectPromise
from framegate.runtime.circumstances import circumstances
from framegate.runtime.console import json_to_stdout, note, progress_bar, to_stdout
from framegate.runtime.errors import DataError, UsageError
from framegate.runtime.regions.judge import Objects
from framegate.runtime.regions.label_map import LabelMap
from framegate.runtime.regions.open import open_regions
from framegate.runtime.regions.tracker import iou
from framegate.runtime.regions.tracks import TrackMemory
from framegate.runtime.session import Session
from framegate.runtime.sources.images import read_image
from framegate.runtime.verdict import Frame, Prediction

FORMAT = "framegate-boxes-1"
_SEED = 20260101


@dataclass(frozen=True)
class ImageCount:
    """One image.

    Attributes:
        judged: Boxes that have a verdict.
        accepted: For each accepted box, surest first, whether it was wrong.
        truths: Labelled boxes.
        found: Those of them that some box overlaps by `OVERLAP`, whatever became of it.
        used: Those with an accepted right box.
    """

    judged: int
    accepted: tuple[bool, ...]
    truths: int
    found: int
    used: int


def count_image(
    predictions: Sequence[Prediction], truths: Sequence[LabelledBox], labels: LabelMap | None
) -> ImageCount:
    """Compare the verdicts on one image with its labels.

    Args:
        predictions: Of its objects, surest first.
        truths: Its labelled boxes.
        labels: Category -> the classifier's labels that are right for it; a category that it does not name, and every
            one without a map, has to be the label itself.
    """
    boxes = [each.found.box for each in predictions if each.found is not None]
    found = sum(any(iou(box, truth.box) >= OVERLAP for box in boxes) for truth in truths)
    free = list(truths)
    accepted = []
    for each in predictions:
        if each.found is None or not each.accepted_when_decided:
            continue
        box = each.found.box
        best = max(free, key=lambda truth: iou(box, truth.box), default=None)
        if best is None or not iou(box, best.box) >= OVERLAP:
            accepted.append(True)
            continue
        free.remove(best)
        accepted.append(not _is_right(best.category, each.candidate, labels))
    return ImageCount(len(predictions), tuple(accepted), len(truths), found, accepted.count(False))


def _is_right(category: str, label: str, labels: LabelMap | None) -> bool:
    if labels is not None and labels.knows(category):
        return not labels.judge(category, label)
    return category == label


def figures(counts: Sequence[ImageCount], target_risk: float, confidence_level: float) -> dict[str, Any]:
    """The figures of many images as plain JSON values.

    Args:
        counts: One for each.
        target_risk: The share of wrong ones that is asked for.
        confidence_level: With which probability.
    """
    rng = np.random.default_rng(_SEED)
    drawn = [each.accepted[int(rng.integers(len(each.accepted)))] for each in counts if each.accepted]
    wrong_images = sum(any(each.accepted) for each in counts)
    accepted = [wrong for each in counts for wrong in each.accepted]
    truths = sum(each.truths for each in counts)
    missed, unused = truths - sum(each.found for each in counts), truths - sum(each.used for each in counts)
    bound = binomial_upper_bound(sum(drawn), len(drawn), confidence_level) if drawn else 1.0
    return {
        "images": len(counts),
        "boxes_judged": sum(each.judged for each in counts),
        "boxes_accepted": len(accepted),
        "boxes_accepted_wrong": sum(accepted),
        "one_box_of_each_image": {
            "wrong": sum(drawn),
            "images": len(drawn),
            "bound": bound,
            "target_risk": target_risk,
            "confidence_level": confidence_level,
            "kept": bool(bound <= target_risk),
        },
        "images_with_a_wrong_accepted_box": proportion(wrong_images, len(counts)).to_json(),
        "labelled_objects": truths,
        "missed_by_the_detector": missed,
        "without_an_accepted_right_box": unused,
    }


def run(arguments: argparse.Namespace) -> int:
    """Judge every image, print the figures and write the record.

    Raises:
        UsageError: ``--objects`` is missing.
        FramegateError: Something cannot be read, or the engine failed.
    """
    if arguments.objects is None:
        raise UsageError("--boxes needs --objects: a detector bundle, or recorded boxes, numbered as the images are")
    images = read_coco(arguments.boxes)
    session = Session.open(arguments.bundle, threads=arguments.threads, camera=False)
    if session.calibration is None:
        raise DataError(f"bundle {session.bundle.name}: {session.describe()}")
    labels = None if arguments.label_map is None else LabelMap.load(arguments.label_map, session.bundle.labels)
    objects = Objects(open_regions(arguments.objects))
    counts = judge_images(session, objects, images, arguments.data, labels)
    record = {
        "format": FORMAT,
        "bundle": {"name": session.bundle.name, "digest": session.bundle.digest},
        "engine": session.describe(),
        "objects": objects.giver.name,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": circumstances(),
        **figures(counts, arguments.target_risk, arguments.confidence_level),
    }
    out = (arguments.out or Path(f"runs/boxes-{session.bundle.name}")) / "boxes.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, rounded(record))
    if arguments.json:
        json_to_stdout(rounded(record))
    else:
        for line in sentences(record):
            to_stdout(line)
        to_stdout(f"figures: {out}")
    if arguments.store:
        # Another detector of the same name finds other boxes.
        giver = getattr(objects.giver, "identity", objects.giver.name)
        _store(session, record, giver, sha256_file(arguments.boxes))
    return 0


def _store(session: Session, record: dict[str, Any], giver: str, data: str) -> None:
    """Write the promise into the bundle. That nobody saw the images before is what the user says by ``--store``.

    Raises:
        UsageError: The figures do not keep the target.
    """
    one = record["one_box_of_each_image"]
    if not one["kept"] or session.calibration is None:
        raise UsageError(
            f"--store: nothing was stored, for nothing is promised: {one['wrong']} of {one['images']} were wrong, "
            f"bound {one['bound']:.2%}, asked for {one['target_risk']:.2%}"
        )
    promise = ObjectPromise(
        BOXES, one["target_risk"], one["confidence_level"], one["wrong"], one["images"], one["bound"],
        session.calibration.threshold, giver=giver, labelled=record["labelled_objects"],
        missed=record["missed_by_the_detector"], data=data,
    )  # fmt: skip
    key = record_key(session.scorer.backend.name, session.precision)
    store_promise(session.bundle, key, promise)
    note(f"stored in {session.bundle.path} for {key}")


def judge_images(
    session: Session, objects: Objects, images: Sequence[LabelledImage], folder: Path, labels: LabelMap | None
) -> list[ImageCount]:
    """What became of the objects of every image, each judged for itself.

    Raises:
        DataError: An image cannot be read, or nobody knows where its objects are.
    """
    memory = TrackMemory(session.stream_policy, objects.rule)
    judge, health = session.object_judge(objects, memory), session.camera_health(fixed_size=False)
    counts = []
    with progress_bar() as progress:
        for number, image in enumerate(images):
            pixels = read_image(folder / image.file)
            if not pixels.size:
                raise DataError(f"{folder / image.file}: missing or damaged")
            verdicts = judge.judge(Frame(number, time.monotonic_ns(), pixels), health)
            counts.append(count_image(verdicts.predictions, image.boxes, labels))
            progress("images", number + 1, len(images))
    return counts


def sentences(record: dict[str, Any]) -> list[str]:
    """The figures for people."""
    one, share = record["one_box_of_each_image"], record["images_with_a_wrong_accepted_box"]
    any_wrong = Interval(share["value"], share["low"], share["high"], share["n"])
    kept = "kept" if one["kept"] else "NOT kept"
    return [
        f"{record['boxes_judged']} boxes on {record['images']} images; {record['boxes_accepted']} accepted, "
        f"{record['boxes_accepted_wrong']} of them wrong (no labelled box of that category there)",
        f"one accepted box of each image: {one['wrong']} of {one['images']} wrong, at most {one['bound']:.2%} with "
        f"probability {one['confidence_level']:.0%}; {one['target_risk']:.2%} is {kept}",
        f"images with any wrong accepted box: {any_wrong.value:.2%} [{any_wrong.low:.2%}, {any_wrong.high:.2%}]",
        f"objects: {record['labelled_objects']} labelled, {record['missed_by_the_detector']} MISSED by the detector, "
        f"{record['without_an_accepted_right_box']} without an accepted right box; no promise covers them",
    ]
