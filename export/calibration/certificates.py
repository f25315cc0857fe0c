"""Thresholds of certificates: the loosest one whose bound on clean calibration frames is at most the target.

An attacker within the budget can make a wrong label accepted only on frames whose clean picture lies in an event that
shrinks as the threshold rises (docs/certificates.md). How often it occurs is counted with the exact binomial bound.
Scanned from strict to loose the events are nested, so the first threshold that fails ends the scan and no correction
for their number is needed (fixed sequence testing, as in `framegate.export.calibration.selective_risk`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from framegate.export.calibration.decisions import Floats
from framegate.export.calibration.selective_risk import binomial_upper_bound, check_promise, images_needed
from framegate.export.calibration.temperature import Labels
from framegate.runtime.errors import CalibrationError, UsageError

FRAME, TRACK = "frame", "track"
_DRAW = 0
"""Seeds the draw of frames; nobody can choose it."""


@dataclass(frozen=True)
class Proof:
    """A threshold and what it was proved on.

    Attributes:
        tau: Above every possible value but those of the counted events.
        events: Units in the event.
        units: Units counted.
        risk_bound: Upper confidence bound of the event's probability, at most the target.
    """

    tau: float
    events: int
    units: int
    risk_bound: float


class Closer(NamedTuple):
    """Closer bounds of some images, which cost more.

    Attributes:
        find: Positions of images, and how many stand as high by now -> bounds of their values; NaN where there is none.
        at_once: Images in one call.
    """

    find: Callable[[Labels, int], Floats]
    at_once: int


def counted(count: int, groups: Labels | None, unit: str, images: int | None) -> Labels:
    """Positions of the images that a proof looks at; always the same: the best of several draws would prove nothing.

    Args:
        count: Images of the split.
        groups: (count,) track of each image, or None.
        unit: ``frame``: of each track one random frame; ``track``: all of them.
        images: Random images at most; None takes all. Not for tracks.

    Raises:
        UsageError: Whole tracks shall count, and there are none, or only some images of them.
    """
    rng = np.random.default_rng(_DRAW)
    if unit == TRACK:
        if groups is None or images is not None:
            raise UsageError("unit track: it needs data with tracks, and all of their images; leave --images out")
        return np.arange(count)
    order = rng.permutation(count)
    if groups is not None:
        # In the order of the draw, not of the tracks' numbers: the first N are N random tracks.
        order = order[np.sort(np.unique(groups[order], return_index=True)[1])]
    return np.sort(order[:images])


def prove(
    possible: Floats,
    groups: Labels | None,
    lowest: float,
    target_risk: float,
    confidence_level: float,
    closer: Sequence[Closer] = (),
) -> Proof:
    """The smallest threshold that keeps the target.

    Args:
        possible: (N,) for each clean image the highest value that a wrong label can reach; -inf where none can.
        groups: (N,) track of each image, whose worst image counts; None: every image counts for itself.
        lowest: No threshold below this is tried.
        target_risk: Largest share of units in the event, in (0, 1).
        confidence_level: Of the bound, in (0, 1).
        closer: Closer bounds, each of them closer than those before: asked for those images alone that the threshold
            depends on.

    Raises:
        CalibrationError: No threshold keeps it; the message says what is missing.
        UsageError: target_risk or confidence_level is outside (0, 1).
    """
    values = np.where(np.isnan(possible), math.inf, possible)
    units = units_of(len(values), groups)
    check_units(units, target_risk, confidence_level)
    allowed = 0
    while allowed + 1 < units and binomial_upper_bound(allowed + 1, units, confidence_level) <= target_risk:
        allowed += 1
    for each in closer:
        values = lowered(values, groups, allowed, lowest, each)
    worst = _worst(values, groups)
    falling = np.sort(worst)[::-1]
    tau = max(float(np.nextafter(falling[allowed], math.inf)), lowest)
    events = int((worst >= tau).sum())
    if not math.isfinite(tau):
        raise CalibrationError(
            f"certificate: on {int(np.isinf(falling[: allowed + 1]).sum())} of {units} units the network's output is "
            "not finite, so no threshold keeps the target; the network is damaged"
        )
    return Proof(tau, events, units, binomial_upper_bound(events, units, confidence_level))


def units_of(count: int, groups: Labels | None) -> int:
    """How many units so many images are: tracks, or the images themselves."""
    return count if groups is None else len(np.unique(groups))


def check_units(units: int, target_risk: float, confidence_level: float) -> None:
    """Refuse what so many units cannot prove, even without a single event.

    Raises:
        CalibrationError: They are too few; the message says how many are needed.
        UsageError: target_risk or confidence_level is outside (0, 1).
    """
    check_promise(target_risk, confidence_level)
    needed = images_needed(target_risk, confidence_level)
    if units < needed:
        raise CalibrationError(
            f"certificate: a bound of {target_risk:g} with confidence {confidence_level:g} needs at least {needed} "
            f"units (frames, or tracks where there are some) without a single event; {units} are there. Give more "
            "calibration data, or raise --target-risk"
        )


def _worst(values: Floats, groups: Labels | None) -> Floats:
    """Of each unit the largest value."""
    if groups is None:
        return values
    return np.array([values[groups == each].max() for each in np.unique(groups)])


def lowered(values: Floats, groups: Labels | None, allowed: int, lowest: float, closer: Closer) -> Floats:
    """Closer bounds for all that stand at the threshold or above it, which falls with them.

    Args:
        values: See `prove`, where they are ``possible``.
        groups: See there.
        allowed: Units that may lie above the threshold.
        lowest: The threshold falls no further.
        closer: See there.
    """
    values, open_ones = values.copy(), np.isfinite(values)
    while True:
        threshold = max(np.sort(_worst(values, groups))[::-1][allowed], lowest)
        above = np.flatnonzero(open_ones & (values >= threshold))
        if not len(above):
            return values
        # The largest first: the threshold may fall no further than the others stand.
        chosen = above[np.argsort(-values[above], kind="stable")][: closer.at_once]
        values[chosen] = np.fmin(values[chosen], closer.find(chosen, len(above)))
        open_ones[chosen] = False


def first_certified(certified: npt.NDArray[np.bool_], groups: Labels) -> tuple[float, float | None]:
    """Share of the tracks with a certified frame, and the median frames until the first one of them, it included.

    Args:
        certified: (N,) frames in the order of capture within each track.
        groups: (N,) track of each.
    """
    firsts = [np.flatnonzero(certified[groups == each]) for each in np.unique(groups)]
    waited = [int(each[0]) + 1 for each in firsts if len(each)]
    return len(waited) / len(firsts), float(np.median(waited)) if waited else None


def possible_of_views(means: npt.NDArray[np.float64], label: int) -> float:
    """The highest mean log-probability that a wrong label has at some place of a patch, on one clean image.

    Args:
        means: (places, classes).
        label: The true one.
    """
    return float(np.delete(means, label, axis=1).max()) if np.isfinite(means).all() else math.inf
