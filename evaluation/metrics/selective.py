"""Selective prediction: risk-coverage curves, the areas under them, and thresholds from the calibration split.

A threshold accepts a frame iff isfinite(score) and score <= threshold. Coverage = accepted / evaluated, selective risk
= errors / accepted, false accepts = frames that are wrong and accepted.

Frames are accepted in ascending score; E(k) is the number of errors among the first k of n. Within frames of equal
score every order is as likely, so E(k) is its expected value: a straight line across the tie. Then

    AURC   = mean over k of E(k) / k      Geifman, Uziel and El-Yaniv 2019 (arXiv:1805.08206)
    E-AURC = AURC - that of an oracle which accepts all right frames first (there; exact, not the logarithm)
    AUGRC  = mean over k of E(k) / n      Traub et al. 2024 (arXiv:2407.01032)

Scores that are not finite come last, though no threshold ever accepts them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from framegate.evaluation.metrics.intervals import Counts
from framegate.evaluation.metrics.ranking import Flags, Floats, Ranking

GATE_COVERAGE = 0.95
"""Share of the clean calibration frames that a rule accepts wherever rules and scores are compared."""


def accepts(scores: Floats, threshold: float) -> Flags:
    """(N,) isfinite(score) and score <= threshold."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.isfinite(scores) & (scores <= threshold))


def threshold_at(calibration_scores: Floats, coverage: float) -> float:
    """The lowest threshold that accepts at least ``coverage`` of the calibration frames.

    Where too few scores are finite it is the highest finite one; without any it is -infinity, which accepts nothing.
    The coverage measured with it shows that.

    Args:
        calibration_scores: (n,).
        coverage: In (0, 1].
    """
    finite = np.sort(calibration_scores[np.isfinite(calibration_scores)])
    if finite.size == 0:
        return float("-inf")
    needed = int(np.ceil(coverage * len(calibration_scores) - 1e-9 * len(calibration_scores)))
    return float(finite[min(max(needed, 1), finite.size) - 1])


def areas(positives: Counts, negatives: Counts) -> tuple[float, float, float]:
    """AURC, E-AURC and AUGRC; NaN without frames.

    Across a group that begins after a frames and e errors, and in which errors rise by s a frame, the sum of E(k) / k
    is that of (e - s a) / k + s, so harmonic numbers give it without a step per frame.

    Args:
        positives: (G + 1,) errors below each group of equal score, of `Ranking.below`.
        negatives: (G + 1,) right frames likewise.
    """
    ends = positives + negatives
    n, errors = int(ends[-1]), int(positives[-1])
    if n == 0:
        return float("nan"), float("nan"), float("nan")
    harmonic = _harmonic(n)
    size, rise = np.diff(ends), np.diff(positives)
    slope = rise / np.maximum(size, 1)
    at_ends = harmonic[ends]
    aurc = float(np.dot(positives[:-1] - slope * ends[:-1], np.diff(at_ends)) + errors) / n
    augrc = float(np.dot(size, positives[:-1]) + 0.5 * np.dot(rise, size + 1)) / n**2
    # The oracle's errors begin after all right frames: sum over k > right of (k - right) / k.
    oracle = (errors - (n - errors) * float(harmonic[n] - harmonic[n - errors])) / n
    return aurc, aurc - oracle, augrc


def curve(scores: Floats, wrong: Flags, points: int = 200) -> dict[str, list[float | None]]:
    """The risk-coverage curve of (N,) frames at up to ``points`` coverages, for plots.

    Returns:
        ``coverage``, ``risk`` and ``threshold``, the score up to which so many frames are accepted; None where none
        accepts so many, because scores are not finite.
    """
    n = len(scores)
    errors, right = Ranking(scores, wrong).below(np.ones(n, dtype=np.int64))
    k = np.unique(np.linspace(1, n, min(points, n)).round().astype(np.int64))
    risk = np.interp(k, errors + right, errors) / k
    thresholds = [float(score) if np.isfinite(score) else None for score in np.sort(scores)[k - 1]]
    return {"coverage": (k / n).tolist(), "risk": risk.tolist(), "threshold": thresholds}


@lru_cache(maxsize=8)
def _harmonic(n: int) -> NDArray[np.float64]:
    """(n + 1,) sum of 1 / j for j up to k, k = 0 to n."""
    return np.concatenate(([0.0], np.cumsum(1.0 / np.arange(1, n + 1))))
