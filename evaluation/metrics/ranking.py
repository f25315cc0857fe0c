"""How well a score separates two kinds of frames: AUROC and false positive rate at a true positive rate, exact.

Positives are what should be found (an error, an attacked frame, a frame out of distribution) and are meant to have the
higher score. A score that is not finite is never accepted, so it ranks above all others, tied among themselves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from framegate.evaluation.metrics.intervals import Counts

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def ranked(scores: Floats) -> Floats:
    """(N,) scores with everything that can't be accepted, NaN and both infinities, as +infinity."""
    scores = np.asarray(scores, dtype=np.float64)
    return np.where(np.isfinite(scores), scores, np.inf)


class Ranking:
    """Frames sorted by score once, for many weightings of them.

    Args:
        scores: (N,), N >= 1.
        positive: (N,).

    Attributes:
        order: (N,) positions of the frames in ascending score.
        positive: (N,) in that order.
        starts: (G,) where each group of equal scores begins in that order.
    """

    def __init__(self, scores: Floats, positive: Flags) -> None:
        values = ranked(scores)
        self.order = np.argsort(values, kind="stable")
        ordered = values[self.order]
        self.positive = np.asarray(positive, dtype=bool)[self.order]
        self.starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))

    def below(self, counts: Counts) -> tuple[Counts, Counts]:
        """Positives and negatives that score below each group, (G + 1,), the last entry being all of them.

        Args:
            counts: (N,) how often each frame counts, in the order of the frames as given.
        """
        ordered = counts[self.order]
        if len(self.starts) < len(ordered):
            every = np.add.reduceat(ordered, self.starts)
            positives = np.add.reduceat(ordered * self.positive, self.starts)
        else:
            every, positives = ordered, ordered * self.positive
        negatives = every - positives
        return _cumulated(positives), _cumulated(negatives)


def _cumulated(counts: Counts) -> Counts:
    sums = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=sums[1:])
    return sums


def auroc(positives: Counts, negatives: Counts) -> float:
    """Mann-Whitney: probability that a positive scores above a negative, ties counting one half.

    Args:
        positives: (G + 1,) of `Ranking.below`.
        negatives: (G + 1,) likewise.

    Returns:
        In [0, 1]; NaN where one kind is missing.
    """
    pairs = float(positives[-1]) * float(negatives[-1])
    if pairs == 0:
        return float("nan")
    # Twice the number of pairs won, in whole numbers: exact.
    return int(np.dot(np.diff(positives), negatives[1:] + negatives[:-1])) / (2.0 * pairs)


def false_positive_rate(positives: Counts, negatives: Counts, tpr: float = 0.95) -> float:
    """Share of negatives at or above the highest threshold that at least ``tpr`` of the positives reach.

    The convention of OpenOOD and torch-uncertainty, and of "catch 95 % of the errors". Ties stay together.

    Returns:
        In [0, 1]; NaN where one kind is missing.
    """
    if positives[-1] == 0 or negatives[-1] == 0:
        return float("nan")
    needed = _at_least(tpr, int(positives[-1]))
    group = int(np.searchsorted(positives[:-1], positives[-1] - needed, side="right")) - 1
    return float((negatives[-1] - negatives[group]) / negatives[-1])


def accepted_positives(positives: Counts, negatives: Counts, accepted: float = 0.95) -> float:
    """Share of positives at or below the lowest threshold that accepts at least ``accepted`` of the negatives.

    The other convention under the same name, found in papers on misclassification: keep 95 % of the correct frames and
    count the share of errors that is accepted along with them.

    Returns:
        In [0, 1]; NaN where one kind is missing.
    """
    if positives[-1] == 0 or negatives[-1] == 0:
        return float("nan")
    needed = _at_least(accepted, int(negatives[-1]))
    end = int(np.searchsorted(negatives, needed, side="left"))
    return float(positives[end] / positives[-1])


def _at_least(share: float, total: int) -> int:
    """Smallest whole number that is at least this share of the total; 0.95 of 100 is 95, whatever rounding says."""
    return max(1, int(np.ceil(share * total - 1e-9 * total)))
