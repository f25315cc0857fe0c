"""Figures with their 95 % intervals: Clopper-Pearson for counts, the percentile bootstrap for everything else.

Clopper and Pearson 1934 (Biometrika 26); bootstrap over frames, Efron 1979. Both treat frames as independent draws.
All bootstraps of n frames with one seed use the same resamples, so the scores of one set can be compared pairwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from framegate.export.calibration.selective_risk import binomial_upper_bound
from framegate.runtime.errors import UsageError

CONFIDENCE = 0.95
RESAMPLES = 1000
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A measured figure.

    Attributes:
        value: The figure; NaN where it is not defined, for example the accuracy of no frames.
        low: Lower end of its 95 % interval, NaN likewise.
        high: Upper end.
        n: Frames (or decisions) it rests on.
    """

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float | int | None]:
        """``value``, ``low``, ``high`` and ``n``; a number that is not finite becomes None."""
        ends = {"value": self.value, "low": self.low, "high": self.high}
        return {**{key: float(end) if np.isfinite(end) else None for key, end in ends.items()}, "n": self.n}


def proportion(count: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """``count`` of ``n`` with its two-sided Clopper-Pearson interval; n = 0 gives NaN.

    Raises:
        UsageError: Not 0 <= count <= n, or confidence outside (0, 1).
    """
    if not 0 <= count <= n or not 0 < confidence < 1:
        raise UsageError(f"proportion: {count} of {n} at confidence {confidence:g}; expected 0 <= count <= n, (0, 1)")
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0)
    one_sided = (1.0 + confidence) / 2.0
    low = 1.0 - binomial_upper_bound(n - count, n, one_sided)
    return Interval(count / n, low, binomial_upper_bound(count, n, one_sided), n)


def share(flags: ArrayLike) -> Interval:
    """Share of True among (N,) flags, with its Clopper-Pearson interval."""
    array = np.asarray(flags, dtype=bool)
    return proportion(int(array.sum()), array.size)


@lru_cache(maxsize=8)
def _resampled(n: int, resamples: int, stream: tuple[int, ...]) -> NDArray[np.uint16]:
    """(resamples, n) how often each frame was drawn."""
    rng = np.random.default_rng(stream)
    counts = np.empty((resamples, n), dtype=np.uint16)
    for row in counts:
        row[:] = np.bincount(rng.integers(0, n, n), minlength=n)
    return counts


def resamples_of(n: int, resamples: int = RESAMPLES, *stream: int) -> Iterator[Counts]:
    """How often each of n frames was drawn, (n,) per resample; the same for the same arguments.

    Args:
        n: At least 1.
        resamples: At least 1.
        stream: Seed, and numbers that distinguish independent draws; each at least 0.
    """
    if n < 1 or resamples < 1 or min(stream, default=0) < 0:
        raise UsageError(f"bootstrap: {n} frames, {resamples} resamples, seed {stream}; expected 1, 1 and 0 or more")
    for row in _resampled(n, resamples, stream):
        yield row.astype(np.int64)


def percentile_interval(value: float, drawn: ArrayLike, n: int, confidence: float = CONFIDENCE) -> Interval:
    """The figure with the percentiles of its bootstrap values; resamples where it is not defined (NaN) are left out."""
    values = np.asarray(drawn, dtype=np.float64)
    values = values[~np.isnan(values)]
    if not np.isfinite(value) or values.size == 0:
        return Interval(value, np.nan, np.nan, n)
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high), n)


def bootstrap(
    statistic: Callable[[Counts], NDArray[np.float64]], n: int, resamples: int = RESAMPLES, seed: int = 0
) -> list[Interval]:
    """Several figures of n frames at once.

    Args:
        statistic: Called with (n,) how often each frame counts; gives (K,) figures.
        n: Frames.
        resamples: Bootstrap resamples.
        seed: At least 0.
    """
    values = statistic(np.ones(n, dtype=np.int64))
    drawn = np.stack([statistic(counts) for counts in resamples_of(n, resamples, seed)])
    return [percentile_interval(float(value), drawn[:, k], n) for k, value in enumerate(values)]
