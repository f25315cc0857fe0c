"""Temperature and threshold from the outputs of the very backend and precision that will run."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framegate.cuda_kernels.reference import softmax_scores
from framegate.export.selective_risk import Flags, Floats, check_promise, select_threshold
from framegate.models.labelled import LabelledImages
from framegate.runtime.calibration import Calibration
from framegate.runtime.errors import CalibrationError

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

DESIGN_SHARE = 0.5
"""Share of the calibration split that sets INT8 ranges, temperature and the order in which thresholds are tested."""
_TEMPERATURES = (0.05, 20.0)


@dataclass(frozen=True)
class Promise:
    """What a calibration shall promise.

    Attributes:
        target_risk: Largest share of errors among accepted frames, in (0, 1).
        confidence_level: Probability with which the target is kept, in (0, 1).
        seed: Which images go to which part of the calibration split.
    """

    target_risk: float = 0.02
    confidence_level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: A value is outside its range.
        """
        check_promise(self.target_risk, self.confidence_level)


def fingerprint(split: LabelledImages) -> str:
    """SHA-256 of a split's images and labels."""
    digest = hashlib.sha256(np.ascontiguousarray(split.images).tobytes())
    digest.update(split.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def negative_log_likelihood(logits: Logits, labels: Labels, temperature: float) -> float:
    """Mean of -log p(label) in nats at a temperature."""
    shifted = logits.astype(np.float64) / temperature
    shifted -= shifted.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    return float(np.mean(log_sum - shifted[np.arange(len(labels)), labels]))


def _golden_section(function: Callable[[float], float], low: float, high: float, tolerance: float = 1e-6) -> float:
    """The minimum of a function with one valley (Kiefer 1953)."""
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > tolerance:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """The temperature in [0.05, 20] of least negative log likelihood (Guo et al. 2017, arXiv:1706.04599).

    The likelihood is convex in 1 / temperature, hence has one valley in its logarithm too.

    Raises:
        CalibrationError: No row of logits is finite.
    """
    finite = np.isfinite(logits).all(axis=1)
    if not finite.any():
        raise CalibrationError("calibration: no image has finite logits; the model's outputs are not usable")
    usable, known = logits[finite], labels[finite]
    low, high = (math.log(value) for value in _TEMPERATURES)
    return math.exp(_golden_section(lambda x: negative_log_likelihood(usable, known, math.exp(x)), low, high))


def scores_and_errors(logits: Logits, labels: Labels, temperature: float) -> tuple[Floats, Flags]:
    """Entropy in nats (NaN where there is no distribution) and whether the prediction is wrong."""
    result = softmax_scores(logits, temperature)
    return result.entropy, result.argmax != labels


def design_and_proof(count: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Numbers of the calibration images that may be looked at freely, and of those that prove the threshold."""
    order = np.random.default_rng(seed).permutation(count)
    cut = round(count * DESIGN_SHARE)
    return order[:cut], order[cut:]


def calibrate(
    logits: Logits, labels: Labels, promise: Promise, *, split_sha256: str, model_sha256: str, engine: str
) -> Calibration:
    """Fit the temperature on one part of the calibration split and prove the threshold on the other.

    The parts are disjoint, so that nothing the threshold is tested with has been looked at before.

    Args:
        logits: (N, classes), the outputs on the calibration split.
        labels: (N,).
        promise: What shall hold.
        split_sha256: `fingerprint` of the split.
        model_sha256: The model file that computed the logits.
        engine: Name and version of the engine that ran it.

    Raises:
        CalibrationError: No threshold keeps the promise.
    """
    design, test = design_and_proof(len(labels), promise.seed)
    if len(design) == 0:
        raise CalibrationError(f"calibration: {len(labels)} images given; give a few thousand")
    temperature = fit_temperature(logits[design], labels[design])
    selection = select_threshold(
        scores_and_errors(logits[design], labels[design], temperature),
        scores_and_errors(logits[test], labels[test], temperature),
        promise.target_risk,
        promise.confidence_level,
    )
    return Calibration(
        temperature=temperature,
        score="entropy",
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
    )
