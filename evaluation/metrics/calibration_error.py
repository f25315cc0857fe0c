"""Expected calibration error (ECE): how far the largest probability is from the share of right predictions.

15 equal-width bins of the largest softmax probability (Naeini et al. 2015; Guo et al. 2017, arXiv:1706.04599); a
probability on a boundary belongs to the upper bin, 1 to the last. ECE = sum over bins |errors of the mean| n_bin / n.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores
from framegate.evaluation.frames.observations import Observations
from framegate.evaluation.metrics.intervals import RESAMPLES, Counts, Interval, bootstrap

BINS = 15


def calibration_error(
    observations: Observations, temperature: float = 1.0, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """ECE in [0, 1] of the frames with finite logits, with its bootstrap interval; NaN without any.

    Args:
        observations: Labelled frames.
        temperature: The logits are divided by it; finite, > 0.
        resamples: Bootstrap resamples.
        seed: At least 0.
    """
    usable = observations.finite
    if not usable.any():
        return Interval(np.nan, np.nan, np.nan, 0)
    confidence = softmax_scores(observations.logits[usable], temperature).max_probability
    gap = confidence - (~observations.wrong[usable])
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)

    def statistic(counts: Counts) -> NDArray[np.float64]:
        return np.array([np.abs(np.bincount(bins, counts * gap, BINS)).sum() / len(gap)])

    found = bootstrap(statistic, len(gap), resamples, seed)[0]
    # Chance adds to every bin's gap, in a resample once more than in the sample: for a well calibrated network all
    # resamples may lie above the estimate. The interval is widened to hold it.
    return replace(found, low=min(found.low, found.value), high=max(found.high, found.value))


def reliability(observations: Observations, temperature: float = 1.0) -> dict[str, list[float | None]]:
    """The reliability diagram: per bin its ``confidence`` and ``accuracy`` (None if empty) and ``share`` of frames."""
    usable = observations.finite
    confidence = softmax_scores(observations.logits[usable], temperature).max_probability
    right = ~observations.wrong[usable]
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    rows: dict[str, list[float | None]] = {"confidence": [], "accuracy": [], "share": []}
    for k in range(BINS):
        chosen = bins == k
        rows["confidence"].append(float(confidence[chosen].mean()) if counts[k] else None)
        rows["accuracy"].append(float(right[chosen].mean()) if counts[k] else None)
        rows["share"].append(float(counts[k]) / max(len(bins), 1))
    return rows
