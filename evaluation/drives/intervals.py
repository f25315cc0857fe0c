"""Intervals for figures of drives: the drive is what is drawn, its frames are not independent of each other.

Percentile bootstrap over drives (Efron 1979; Field and Welsh 2007 for clusters), with a fixed seed, so that the same
table gives the same interval. Fewer than `FEWEST` drives have none: a resample of a few drives says nothing.

Where nothing was counted, or everything, every resample says the same, which is no certainty. The interval is then that
of drives that have any: none among n is what at most 1 - 0.025^(1/n) of all drives leave possible (Clopper and Pearson
1934), and the share of frames is at most that of the drives.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from framegate.evaluation.report.values import Estimate

FEWEST = 5
RESAMPLES = 2000
Counts = npt.NDArray[np.int64]


def ratio(counted: Counts, of: Counts) -> Estimate | None:
    """A share over all drives, with its 95 % interval; None if there is nothing to count.

    Args:
        counted: (drives,) what is counted in each.
        of: (drives,) of how many.
    """
    found = difference(counted, of, np.zeros_like(counted), of)
    if found is None or found.low is None or 0 < counted.sum() < of.sum():
        return found
    possible = 1.0 - 0.025 ** (1.0 / int((of > 0).sum()))
    if counted.sum():
        return Estimate(found.value, found.value - possible, found.value, found.n)
    return Estimate(found.value, found.value, found.value + possible, found.n)


def difference(after: Counts, of_after: Counts, before: Counts, of_before: Counts) -> Estimate | None:
    """The difference of two shares of the same drives, after less before, with its 95 % interval.

    Args:
        after: (drives,) what is counted in each, afterwards.
        of_after: (drives,) of how many.
        before: The same before.
        of_before: The same before.
    """
    if not of_after.sum() or not of_before.sum():
        return None
    value = after.sum() / of_after.sum() - before.sum() / of_before.sum()
    drives = len(after)
    n = int(of_after.sum())
    if drives < FEWEST:
        return Estimate(float(value), n=n)
    drawn = np.random.default_rng(0).multinomial(drives, np.full(drives, 1.0 / drives), RESAMPLES)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = drawn @ after / (drawn @ of_after) - drawn @ before / (drawn @ of_before)
    found = found[np.isfinite(found)]
    if not len(found):
        return Estimate(float(value), n=n)
    low, high = np.percentile(found, (2.5, 97.5))
    return Estimate(float(value), float(low), float(high), n)
