"""What is said about a series of durations: percentiles, jitter, blocks, a histogram, and ratios with their spread.

Durations of consecutive frames are not independent: a noisy second of the machine makes a thousand of them slow. So
every interval here comes from blocks of consecutive frames, which are drawn with replacement as a whole (Kuensch 1989,
block bootstrap with blocks that do not overlap).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from framegate.runtime.stage_clock import STAGES

PERCENTILES = (("p50_ms", 50.0), ("p90_ms", 90.0), ("p99_ms", 99.0), ("p99.9_ms", 99.9))
_HISTOGRAM_RATIO = 1.03  # neighbouring edges: fine enough to see a second mode, coarse enough for a small file
_MOST_BLOCKS = 50
_DRAWS = 500

Durations = Sequence[int] | npt.NDArray[np.int64]


def percentiles(durations_ns: Durations) -> dict[str, float]:
    """p50, p90, p99, p99.9 and max in milliseconds (nearest rank)."""
    values = np.sort(np.asarray(durations_ns, np.float64)) / 1e6
    found = {name: float(values[max(0, math.ceil(len(values) * p / 100) - 1)]) for name, p in PERCENTILES}
    return {**found, "max_ms": float(values[-1])}


def jitter_ms(durations_ns: Durations) -> float:
    """Mean absolute difference of consecutive durations in ms (RFC 3550, section 6.4.1, without its smoothing)."""
    values = np.asarray(durations_ns, np.float64)
    return float(np.abs(np.diff(values)).mean() / 1e6) if len(values) > 1 else 0.0


def histogram(durations_ns: Durations) -> dict[str, Any]:
    """Counts between edges ``lowest_ms * ratio ** k``, k = 0, 1, ...; every duration is in one of them."""
    values = np.maximum(np.asarray(durations_ns, np.float64), 1.0) / 1e6
    lowest, step = float(values.min()), math.log(_HISTOGRAM_RATIO)
    places = np.floor(np.log(values / lowest) / step + 1e-9).astype(int)
    return {"lowest_ms": lowest, "ratio": _HISTOGRAM_RATIO, "counts": np.bincount(places).tolist()}


def histogram_edges(found: Mapping[str, Any]) -> list[float]:
    """The edges in milliseconds between which a `histogram` has counted, one more than there are counts."""
    return [found["lowest_ms"] * found["ratio"] ** k for k in range(len(found["counts"]) + 1)]


def in_blocks(durations_ns: Durations, block: int) -> list[npt.NDArray[np.int64]]:
    """Consecutive blocks of ``block`` durations, joined so that there are at most 50; a short rest joins the last."""
    values = np.asarray(durations_ns, np.int64)
    count = max(1, len(values) // block)
    count = max(1, count // math.ceil(count / _MOST_BLOCKS))
    return [part for part in np.array_split(values, count) if len(part)]


def summarise(durations_ns: Durations, block: int) -> dict[str, Any]:
    """Everything a record says about one series.

    Args:
        durations_ns: At least one duration, in the order of measuring.
        block: Frames measured in one go before another configuration had its turn.
    """
    blocks = [percentiles(part) for part in in_blocks(durations_ns, block)]
    return {
        "frames": len(durations_ns),
        **percentiles(durations_ns),
        "mean_ms": float(np.mean(durations_ns) / 1e6),
        "jitter_ms": jitter_ms(durations_ns),
        "blocks": {name: [found[name] for found in blocks] for name in ("p50_ms", "p99_ms")},
        "histogram": histogram(durations_ns),
    }


def duration_summary(durations_ns: Durations) -> dict[str, float]:
    """Percentiles and mean in ms."""
    return {**percentiles(durations_ns), "mean_ms": float(np.mean(durations_ns) / 1e6)}


def stage_summary(durations_ns: npt.NDArray[np.int64]) -> dict[str, dict[str, float]]:
    """Percentiles and mean of every stage; the means add up to the mean of capture to verdict.

    Args:
        durations_ns: (frames, stages).
    """
    return {name: duration_summary(column) for name, column in zip(STAGES, durations_ns.T, strict=True)}


def ratio(mine_ns: Durations, others_ns: Durations, block: int, percent: float = 50.0) -> dict[str, float]:
    """A percentile of mine over the same of the others', measured in turns, with its 95 % interval.

    Args:
        mine_ns: Durations.
        others_ns: As many, block by block measured beside mine.
        block: Frames of a turn.
        percent: Which percentile, in (0, 100].
    """
    mine, others = in_blocks(mine_ns, block), in_blocks(others_ns, block)
    rng = np.random.default_rng(0)

    def of(chosen: npt.NDArray[np.int64]) -> float:
        above, below = (
            float(np.percentile(np.concatenate([side[k] for k in chosen]), percent)) for side in (mine, others)
        )
        return above / below

    count = min(len(mine), len(others))
    drawn = [of(rng.integers(0, count, count)) for _ in range(_DRAWS)]
    low, high = np.percentile(drawn, (2.5, 97.5))
    return {"ratio": of(np.arange(count)), "low": float(low), "high": float(high), "blocks": count}


def ratio_of_blocks(
    before: Sequence[float], after: Sequence[float], confidence: float, centre: Callable[..., Any] = np.median
) -> tuple[float, float, float]:
    """The centre of ``after`` over that of ``before``, with an interval.

    Args:
        before: One figure a block.
        after: The same of another run, which shares nothing with the first but the question.
        confidence: Of the interval, in (0, 1).
        centre: ``numpy.median``, which a few disturbed blocks do not move, or ``numpy.mean``, which they should.
    """
    rng = np.random.default_rng(0)
    first, second = np.asarray(before, np.float64), np.asarray(after, np.float64)
    above, below = (
        centre(side[rng.integers(0, len(side), (4 * _DRAWS, len(side)))], axis=1) for side in (second, first)
    )
    drawn = above / below
    low, high = np.percentile(drawn, (50 * (1 - confidence), 50 * (1 + confidence)))
    return float(centre(second) / centre(first)), float(low), float(high)


def verdict_counts(reasons: Mapping[str, int], evaluated: int, accepted: int) -> dict[str, Any]:
    """How many frames were accepted and why the others were not: a latency of rejected garbage is no latency."""
    return {"evaluated": evaluated, "accepted": accepted, "rejected_by_reason": dict(reasons)}
