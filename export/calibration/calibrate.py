"""Temperature, limits, score and threshold from the outputs of the very backend and precision that will run.

The calibration split is divided once, by whole units (tracks, where frames come in tracks): one part designs, the
other proves. The design part sets the temperature, the limits of the signals, which score is compared, and the order
in which thresholds are tested; nothing that the proof is made with has been looked at before. A frame outside a limit
counts as rejected in the proof, so the promise is about the whole verdict of a single frame.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framegate.export.calibration.decisions import Floats, Outputs, predicted, values_of, within
from framegate.export.calibration.design import choose_limits, choose_score, choose_window, split_units
from framegate.export.calibration.selective_risk import METHODS, check_promise, select_threshold
from framegate.export.calibration.temperature import Labels, fit_temperature
from framegate.models.labelled import LabelledImages
from framegate.runtime.calibration import SCORES, Calibration
from framegate.runtime.errors import CalibrationError, UsageError
from framegate.runtime.monitor import SHIFT

AUTO = "auto"
QUANTILES = 100


@dataclass(frozen=True)
class Promise:
    """What a calibration shall promise.

    Attributes:
        target_risk: Largest share of errors among accepted frames, in (0, 1).
        confidence_level: Probability with which the target is kept, in (0, 1).
        seed: Which images go to which part of the calibration split.
        method: How the threshold is proved, see `framegate.export.calibration.selective_risk`.
        score: What is compared with the threshold; ``auto`` takes the one that the design images favour.
        limit_share: Share of clean frames that all limits together may reject, in [0, 0.5); 0 sets no limits.
        window: Also limit the mean of the monitor's ``shift`` over so many frames of a stream; 0 does not.
    """

    target_risk: float = 0.02
    confidence_level: float = 0.95
    seed: int = 0
    method: str = METHODS[0]
    score: str = AUTO
    limit_share: float = 0.01
    window: int = 0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: A value is outside its range.
        """
        check_promise(self.target_risk, self.confidence_level)
        if self.method not in METHODS:
            raise UsageError(f"method: {self.method!r} given, expected {' or '.join(METHODS)}")
        if self.score not in (AUTO, *SCORES, SHIFT):
            raise UsageError(f"score: {self.score!r} given, expected {', '.join((AUTO, *SCORES, SHIFT))}")
        if not 0 <= self.limit_share < 0.5:
            raise UsageError(f"limit share: {self.limit_share:g} given, expected a number from 0 to below 0.5")
        if self.window != 0 and not 2 <= self.window <= 256:
            raise UsageError(f"window: {self.window} frames given, expected 2 to 256, or 0 for none")


def fingerprint(split: LabelledImages) -> str:
    """SHA-256 of a split's images and labels."""
    digest = hashlib.sha256(np.ascontiguousarray(split.images).tobytes())
    digest.update(split.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def calibrate(
    outputs: Outputs,
    labels: Labels,
    promise: Promise,
    *,
    split_sha256: str,
    model_sha256: str,
    engine: str,
    groups: npt.NDArray[np.int64] | None = None,
) -> Calibration:
    """Design on one part of the calibration split and prove the threshold on the other.

    Args:
        outputs: Of the engine on the calibration split, N images.
        labels: (N,).
        promise: What shall hold.
        split_sha256: `fingerprint` of the split.
        model_sha256: The model file that computed the outputs.
        engine: Name and version of the engine that ran it.
        groups: (N,) number of each image's unit (track); frames of a unit are alike and count as one: the proof takes
            one frame of each at random, so the promise is about a random frame of a new unit. None: each image is one.

    Raises:
        CalibrationError: The split or the outputs are not usable, or no threshold keeps the promise.
    """
    _check_split(outputs, labels)
    design, test = split_units(len(labels), groups, promise.seed)
    if min(len(design), len(test)) == 0:
        units = len(labels) if groups is None else len(np.unique(groups))
        raise CalibrationError(f"calibration: {len(labels)} images in {units} units given; give a few thousand images")
    temperature = fit_temperature(outputs.logits[design], labels[design])
    values = values_of(outputs, temperature)
    wrong = predicted(outputs) != labels
    limits = choose_limits({name: each[design] for name, each in values.items()}, promise.limit_share)
    if promise.window:
        limits += choose_window(values, design, groups, promise.window, promise.limit_share, promise.seed)
    inside = within(values, limits)
    score = promise.score
    if score == AUTO:
        score = choose_score(values, wrong, inside, design, promise.target_risk)
    elif score not in values:
        raise CalibrationError(f"calibration: score {score!r} was asked for, this bundle gives {', '.join(values)}")
    compared = np.where(inside, values[score], np.nan)
    _check_scores(score, compared)
    try:
        selection = select_threshold(
            (compared[design], wrong[design]),
            (compared[test], wrong[test]),
            promise.target_risk,
            promise.confidence_level,
            promise.method,
        )
    except CalibrationError as error:
        raise CalibrationError(str(error) + _guessing(outputs, labels)) from error
    tested = values[score][test]
    quantiles = np.quantile(tested[np.isfinite(tested)], np.linspace(0, 1, QUANTILES + 1))
    return Calibration(
        temperature=temperature,
        score=score,
        threshold=selection.threshold,
        target_risk=promise.target_risk,
        confidence_level=promise.confidence_level,
        risk_bound=selection.risk_bound,
        coverage=selection.accepted / selection.size,
        selective_risk=selection.errors / selection.accepted,
        size=selection.size,
        fingerprint=split_sha256,
        model_sha256=model_sha256,
        engine=engine,
        method=promise.method,
        groups=None if groups is None else len(np.unique(groups)),
        limits=limits,
        score_quantiles=tuple(float(each) for each in np.maximum.accumulate(quantiles)),
    )


def _check_split(outputs: Outputs, labels: Labels) -> None:
    if len(labels) == 0:
        raise CalibrationError("calibration: 0 images given; give a few thousand")
    if len(outputs) != len(labels):
        raise CalibrationError(f"calibration: {len(outputs)} outputs, {len(labels)} labels; they must belong together")
    classes = outputs.logits.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise CalibrationError(
            f"calibration: labels run from {labels.min()} to {labels.max()}, the network knows 0 to {classes - 1}; "
            "give data with this network's labels"
        )
    if len(np.unique(labels)) < 2:
        raise CalibrationError(
            f"calibration: all {len(labels)} images have one label, number {labels[0]}; a threshold from them says "
            "nothing about the others. Give images of all labels"
        )


def _check_scores(score: str, compared: Floats) -> None:
    finite = compared[np.isfinite(compared)]
    if finite.size == 0:
        raise CalibrationError(
            "calibration: no image has finite logits and a finite score; the model's outputs are not usable"
        )
    if finite.min() == finite.max():
        raise CalibrationError(
            f"calibration: all {len(finite)} images have the same {score}, {finite[0]:.6g}; it cannot tell right from "
            "wrong. Is the model file the trained one?"
        )


def _guessing(outputs: Outputs, labels: Labels) -> str:
    """A hint if the network does no better than always giving the most frequent label."""
    right = float((predicted(outputs) == labels).mean())
    usual = float(np.bincount(labels).max() / len(labels))
    if right > usual:
        return ""
    return (
        f". The network is right on {right:.1%} of these images, always giving the most frequent label on {usual:.1%}: "
        "do labels and images belong together?"
    )
