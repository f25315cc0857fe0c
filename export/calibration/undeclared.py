"""Frames of tracks that nobody declared: neighbours that resemble each other far more than chance would have it.

Consecutive frames of one object are hardly more than copies. Calibrated as if each stood for itself, they break the
promise. Within a label and in the order of names, the network's entropy then resembles that of the frame before: the
lag-1 correlation of its logarithm is 0.71 on traffic signs and at most 0.08 by chance. A permutation test (1,000
orders) tells the two apart with power above 0.95 from 100 images.
"""

from __future__ import annotations

import numpy as np

from framegate.export.calibration.decisions import Outputs, values_of
from framegate.models.labelled import LabelledImages

PERMUTATIONS = 1000
CORRELATION = 0.1
"""Less is no track, however sure the test is."""
_SMALLEST = 1e-12


def neighbours_alike(outputs: Outputs, split: LabelledImages) -> tuple[float, float]:
    """Lag-1 correlation of the log entropy within the labels, and its probability by chance.

    Args:
        outputs: Of one engine on the split.
        split: Its ``sequence`` gives the order.

    Returns:
        Correlation in [-1, 1], NaN if there is nothing to compare, and the permutation test's p-value.
    """
    entropy = np.log(np.maximum(values_of(outputs, 1.0)["entropy"], _SMALLEST))
    order = np.arange(len(split)) if split.sequence is None else split.sequence
    usable = np.flatnonzero(np.isfinite(entropy))
    usable = usable[np.lexsort((order[usable], split.labels[usable]))]
    labels, values = split.labels[usable], entropy[usable].copy()
    for label in np.unique(labels):
        values[labels == label] -= values[labels == label].mean()
    pairs = labels[1:] == labels[:-1]
    scale = float((values**2).mean()) if len(values) else 0.0
    if not pairs.any() or scale == 0:
        return float("nan"), 1.0

    def correlation(of: np.ndarray) -> float:
        return float((of[1:] * of[:-1])[pairs].mean() / scale)

    found = correlation(values)
    rng = np.random.default_rng(0)
    as_high = sum(
        correlation(values[np.lexsort((rng.random(len(values)), labels))]) >= found for _ in range(PERMUTATIONS)
    )
    return found, (1 + as_high) / (1 + PERMUTATIONS)


def undeclared_tracks(outputs: Outputs, split: LabelledImages) -> str:
    """A warning for people if images that were taken for independent look like frames of tracks; else empty."""
    if split.groups is not None or len(split) < 20:
        return ""
    found, chance = neighbours_alike(outputs, split)
    if not (found > CORRELATION and chance <= 0.005):
        return ""
    return (
        f"images that follow each other resemble each other (lag-1 correlation {found:.2f} of the log entropy, "
        f"p = {chance:.3g}): if they are frames of one track or slices of one patient, the promise is too good to be "
        "true; name the units with --group"
    )
