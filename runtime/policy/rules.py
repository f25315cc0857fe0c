"""From scores to a verdict: every reason not to use a prediction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from framegate.runtime.bundle.calibration import Calibration, Limit
from framegate.runtime.verdict import NO_CLASS, NO_FINDINGS, Findings, Reason


def judge_score(score: float, finite: bool, calibration: Calibration | None, class_id: int = NO_CLASS) -> Findings:
    """The reasons against the network's output; empty exactly when it may be used.

    Args:
        score: Higher is less trustworthy; may be NaN.
        finite: False if the network's output held NaN or +inf, or nothing but -inf.
        calibration: None if no threshold was calibrated for this backend and precision.
        class_id: Number of the most probable label, by which labels with a threshold of their own are known.
    """
    # Written so that NaN fails: only a true comparison accepts.
    kept = calibration is not None and finite and math.isfinite(score) and score <= calibration.threshold_of(class_id)
    if kept:
        return NO_FINDINGS
    found: dict[Reason, str] = {}
    if not finite:
        found[Reason.NOT_FINITE] = ""
    if calibration is None:
        found[Reason.NOT_CALIBRATED] = ""
    elif finite:
        found[Reason.HIGH_SCORE] = ""
    return found


def judge_limits(values: Mapping[str, float], limits: Iterable[Limit]) -> Findings:
    """ACTIVATION_SHIFT if a signal of this frame lies outside its range, and which one, for people.

    Args:
        values: The frame's scores and signals; one that is missing counts as NaN.
        limits: Ranges for single frames.
    """
    for limit in limits:
        value = values.get(limit.signal, math.nan)
        if not limit.holds(value):
            return {Reason.ACTIVATION_SHIFT: limit.words(value)}
    return NO_FINDINGS


def judge_age(age_ns: int, deadline_ns: int | None) -> Findings:
    """LATE if the frame is older than the deadline when its verdict is ready, or comes from the future."""
    if deadline_ns is None or 0 <= age_ns <= deadline_ns:
        return NO_FINDINGS
    return {Reason.LATE: ""}
