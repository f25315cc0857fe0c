"""The calibration record of a bundle: which threshold was set, on what, and what it promises."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from framegate.runtime.errors import CalibrationError

FORMAT = "framegate-calibration-2"
SCORES = ("entropy", "max_probability", "margin", "energy")
"""Scores of the output that this version can threshold; a bundle's own signals come on top.

All are turned so that higher is less trustworthy: entropy in nats, 1 - max_probability, 1 - margin, energy.
"""


def binomial_tail(errors: int, trials: int, rate: float) -> float:
    """P(X <= errors) for X ~ Binomial(trials, rate)."""
    if not 0 <= errors <= trials:
        return math.nan
    if rate <= 0 or errors == trials:
        return 1.0
    if rate >= 1:
        return 0.0
    of_all, log_rate, log_rest = math.lgamma(trials + 1), math.log(rate), math.log1p(-rate)
    return math.fsum(
        math.exp(of_all - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * log_rate + (trials - k) * log_rest)
        for k in range(errors + 1)
    )


def record_key(backend: str, precision: str) -> str:
    """The name under which a calibration is stored: thresholds hold for one backend and one precision."""
    return f"{backend}/{precision}"


@dataclass(frozen=True)
class Limit:
    """The range in which a signal, or its mean over a window of the stream, must lie.

    Attributes:
        signal: A score of the output, or a signal of the bundle.
        low: Accept iff low <= value <= high; None is no limit on this side.
        high: See ``low``.
        frames: 1 judges each frame; n > 1 judges the mean over the last n frames of a stream, which sees a small but
            lasting shift after at most n frames.
    """

    signal: str
    low: float | None = None
    high: float | None = None
    frames: int = 1

    def __post_init__(self) -> None:
        """Check the values that decide.

        Raises:
            CalibrationError: Neither side has a finite limit, or the window is not a whole positive number.
        """
        given = [side for side in (self.low, self.high) if side is not None]
        if not given or not all(math.isfinite(side) for side in given) or sorted(given) != given:
            raise CalibrationError(f"limits of {self.signal} are {self.low} and {self.high}; expected an ordered range")
        if not (isinstance(self.frames, int) and self.frames >= 1):
            raise CalibrationError(f"the window of {self.signal} is {self.frames} frames; expected 1 or more")

    def holds(self, value: float) -> bool:
        """Whether a value lies inside; NaN and infinities never do."""
        return (
            math.isfinite(value)
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
        )


@dataclass(frozen=True)
class Calibration:
    """One threshold and its promise: selective risk <= target_risk with probability confidence_level.

    The promise holds for frames exchangeable with the calibration split. It does not hold under attack or for
    scenes the calibration data do not represent.

    Attributes:
        temperature: Logits are divided by it before the softmax, positive.
        score: Name of the score that is compared.
        threshold: Accept iff score <= threshold; in the score's unit (entropy: nats).
        target_risk: Largest share of errors among accepted frames, in (0, 1).
        confidence_level: Probability with which the target is kept, in (0, 1).
        risk_bound: The upper bound that the calibration proved, <= target_risk.
        coverage: Share of accepted frames on the calibration split, in (0, 1].
        selective_risk: Share of errors among them, in [0, 1].
        size: Images in the calibration split.
        fingerprint: SHA-256 of the split's images and labels.
        model_sha256: The model file whose outputs were calibrated.
        engine: Name and version of the engine that computed them.
        method: How the threshold was proved: ``learn-then-test`` or ``geifman-el-yaniv``.
        groups: Independent units of the split (tracks), None where every image is one.
        limits: Ranges that signals must keep; the promise, coverage and risk count only frames within all single-frame
            limits.
        score_quantiles: Quantiles 0, 1/n, ..., 1 of the score on the tested calibration images, ascending: what a
            stream's scores are compared with to find drift. Empty in old records.
    """

    temperature: float
    score: str
    threshold: float
    target_risk: float
    confidence_level: float
    risk_bound: float
    coverage: float
    selective_risk: float
    size: int
    fingerprint: str
    model_sha256: str
    engine: str
    method: str = "learn-then-test"
    groups: int | None = None
    limits: tuple[Limit, ...] = ()
    score_quantiles: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the values that decide.

        Raises:
            CalibrationError: A value is outside its range.
        """
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise CalibrationError(f"calibrated temperature is {self.temperature}; expected a positive number")
        if not math.isfinite(self.threshold):
            raise CalibrationError(f"calibrated threshold is {self.threshold}; expected a finite number")
        if not (0 < self.target_risk < 1 and 0 < self.confidence_level < 1):
            raise CalibrationError("target_risk and confidence_level must lie between 0 and 1")
        ordered = all(a <= b for a, b in pairwise(self.score_quantiles))  # NaN is in no order
        if not ordered:
            raise CalibrationError("score_quantiles of the calibration are not in ascending order")

    def require_consistent(self, classes: int, key: str) -> None:
        """Refuse a record that contradicts itself: an edited one, say.

        The bound must follow from the counts: P(X <= errors) <= 1 - confidence_level at rate `risk_bound`, which is
        Clopper and Pearson's definition (1934). Where units are tracks the counts are not those of images, and it
        cannot be computed again. A threshold must reject something.

        Args:
            classes: Of the network.
            key: ``backend/precision``, for the message.

        Raises:
            CalibrationError: It does.
        """
        if not (0 <= self.selective_risk <= self.risk_bound <= self.target_risk):
            raise CalibrationError(
                f"{key}: selective_risk {self.selective_risk}, risk_bound {self.risk_bound} and target_risk "
                f"{self.target_risk} must be in this order"
            )
        if not (0 < self.coverage <= 1 and isinstance(self.size, int) and self.size >= 1):
            raise CalibrationError(
                f"{key}: coverage is {self.coverage} of {self.size} images; expected a share of some"
            )
        self._require_selective(classes, key)
        if self.groups is not None:
            return
        accepted = round(self.coverage * self.size)
        errors = round(self.selective_risk * accepted)
        if not binomial_tail(errors, accepted, self.risk_bound) <= (1 - self.confidence_level) * (1 + 1e-6):
            raise CalibrationError(
                f"{key}: risk_bound {self.risk_bound} does not follow from {errors} errors among {accepted} accepted "
                "images"
            )

    def _require_selective(self, classes: int, key: str) -> None:
        """Refuse a threshold that no score can exceed, or above every score of the calibration images."""
        highest = {"entropy": math.log(classes), "max_probability": 1 - 1 / classes, "margin": 1.0}.get(self.score)
        if self.score_quantiles:
            # Thresholds are scores of calibration images: none lies above the largest.
            highest = min(self.score_quantiles[-1], math.inf if highest is None else highest)
        if highest is not None and self.threshold > highest + 1e-9 * max(1.0, abs(highest)):
            raise CalibrationError(
                f"{key}: the threshold is {self.threshold:g}, no {self.score} is above {highest:g}: it rejects nothing"
            )

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Calibration:
        """Read one record.

        Raises:
            CalibrationError: A field is missing, unknown or out of range.
        """
        try:
            limits = tuple(Limit(**each) for each in record.get("limits", ()))
            quantiles = tuple(float(each) for each in record.get("score_quantiles", ()))
            return cls(**{**record, "limits": limits, "score_quantiles": quantiles})
        except (TypeError, ValueError) as error:
            raise CalibrationError(f"calibration record is not usable: {error}") from error

    def to_json(self) -> dict[str, Any]:
        """A plain record, the inverse of `from_json`."""
        return asdict(self)

    def promise(self) -> str:
        """The promise in one sentence, with its limits."""
        return (
            f"at most {self.target_risk:.2%} of accepted frames wrong, with probability {self.confidence_level:.0%} "
            f"(bound {self.risk_bound:.2%} on {self.size} calibration images, coverage {self.coverage:.1%}; "
            "for frames like the calibration data, not under attack)"
        )
