"""Intervals of frames that resemble each other: what a sample of tracks is worth in independent frames.

Frames of a track are hardly more than copies, so a share of n frames is known no better than one of n / D independent
ones, D being the design effect (Kish 1965, "Survey Sampling", section 5.4): the variance of a share over whole units
beside that of independent frames. Where the units of a test split are not known, D is measured on the calibration
tracks of the same data. Few frames drawn at random from many tracks resemble each other less; with D measured for N
frames in these tracks, n of them have

    D(n) = 1 + (D - 1) min(n, N) / N.

Counts get Clopper and Pearson's interval of n / D frames; other figures keep their bootstrap interval, widened by the
square root of D. An intra-class correlation of 0.44 and tracks of 30 frames give D = 14: nominal intervals, that take
frames for independent, then cover 41 % instead of 95 %.

Simulated with D measured on 113 tracks of 30 frames and intervals of 421 other ones (rates of the tracks from a beta
distribution of mean 5, 10 and 90 %): nominal intervals cover 39, 60 and 42 %, these 96, 96 and 98 %, a bootstrap of
whole tracks, which needs the test tracks, 94, 95 and 95 % (1,000, 250 and 250 simulations; standard error 0.7 to 1.4).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framegate.evaluation.metrics.intervals import CONFIDENCE, proportion
from framegate.export.calibration.selective_risk import binomial_upper_bound
from framegate.models.labelled import LabelledImages
from framegate.runtime.errors import DataError

KEY = "design_effect"
_FIGURE = {"value", "low", "high", "n"}
PATIENT = 2.0
"""At most two volumes of MedMNIST's AdrenalMNIST3D are of one patient, who is not recorded: their largest effect."""


def design_effect(flags: NDArray[np.bool_], groups: NDArray[np.int64]) -> float:
    """By how much more the share of True varies if whole units are drawn instead of frames; at least 1.

    Args:
        flags: (N,).
        groups: (N,) unit of each frame.

    Raises:
        DataError: Fewer than two units, or another number of flags than groups.
    """
    units, inverse = np.unique(groups, return_inverse=True)
    if len(units) < 2 or flags.shape != groups.shape:
        raise DataError(f"design effect: {len(flags)} flags in {len(units)} units; at least two units are needed")
    share = float(flags.mean())
    if share in (0.0, 1.0):
        return 1.0
    sums = np.bincount(inverse.reshape(-1), flags - share)
    clustered = len(units) / (len(units) - 1) * float((sums**2).sum()) / len(flags) ** 2
    return max(1.0, clustered / (share * (1 - share) / len(flags)))


def widened(record: Mapping[str, Any], effect: float, frames: int, measured_on: str) -> dict[str, Any]:
    """A record of figures with honest intervals, and where the design effect comes from.

    Args:
        record: Any nesting of figures with ``value``, ``low``, ``high`` and ``n``, whose intervals take frames for
            independent.
        effect: Design effect of ``frames`` frames.
        frames: Of the test split.
        measured_on: In words.

    Raises:
        DataError: They have been widened already, or the effect is below 1.
    """
    if KEY in record or not effect >= 1:
        raise DataError(f"design effect: {effect:g} for a record that has {record.get(KEY)}; expected 1 or more, once")
    about = {"effect": round(effect, 2), "frames": frames, "measured_on": measured_on}
    return {**_walk(dict(record), effect, frames), KEY: about}


def honest(
    record: dict[str, Any], calibration: LabelledImages, wrong: NDArray[np.bool_], frames: int
) -> dict[str, Any]:
    """A record of a test split whose units nobody knows, with the design effect of the calibration split's units.

    Where images stand for themselves nothing is changed; nor is the simulation of the promise, whose trials are
    independent.

    Args:
        record: Of an evaluation or a gate.
        calibration: The calibration split.
        wrong: (N,) errors on it.
        frames: Of the test split.
    """
    if calibration.groups is None:
        return record
    effect = design_effect(np.asarray(wrong, dtype=bool), calibration.groups)
    units = len(np.unique(calibration.groups))
    said = f"errors of {len(wrong)} calibration images in {units} {calibration.unit or 'unit'}s"
    figures = widened({key: value for key, value in record.items() if key != "promise"}, effect, frames, said)
    return {**figures, **({"promise": record["promise"]} if "promise" in record else {})}


def _walk(node: Any, effect: float, frames: int) -> Any:
    if isinstance(node, dict):
        if set(node) == _FIGURE:
            return _wider(node, effect, frames)
        return {key: _walk(value, effect, frames) for key, value in node.items()}
    return [_walk(value, effect, frames) for value in node] if isinstance(node, list) else node


def _wider(figure: dict[str, Any], effect: float, frames: int) -> dict[str, Any]:
    value, low, high, n = (figure[key] for key in ("value", "low", "high", "n"))
    if value is None or low is None or high is None or not n:
        return figure
    here = 1.0 + (effect - 1.0) * min(n, frames) / frames
    if _is_count(value, low, high, n):
        found = of_count(value, independent(n, effect, frames))
    else:
        found = value - (value - low) * math.sqrt(here), value + (high - value) * math.sqrt(here)
    return {**figure, "low": min(low, found[0]), "high": max(high, found[1])}


def _is_count(value: float, low: float, high: float, n: int) -> bool:
    """Whether a figure is a share that was counted: then its interval is Clopper and Pearson's.

    By the value alone it cannot be told: an AUROC of 10,000 frames is often near some whole number of them. Where all
    resamples agree, at 0 or 1, the bootstrap has no width to widen, and counting gives the interval one.
    """
    if not 0 <= value <= 1:
        return False
    if low == high:
        return True
    counted = proportion(round(value * n), n)
    return max(abs(counted.value - value), abs(counted.low - low), abs(counted.high - high)) < 1e-5


def independent(n: float, effect: float, frames: int) -> float:
    """What n frames drawn from a test split are worth in independent ones.

    Args:
        n: At least 0.
        effect: Design effect of all ``frames`` of the split, at least 1.
        frames: At least 1.
    """
    return n / (1.0 + (effect - 1.0) * min(n, frames) / frames)


def of_count(share: float, n: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share of n independent frames, n not always whole."""
    trials = max(1, math.floor(n))
    one_sided = (1.0 + CONFIDENCE) / 2.0
    most, least = min(trials, math.ceil(share * trials - 1e-9)), max(0, math.floor(share * trials + 1e-9))
    return 1.0 - binomial_upper_bound(trials - least, trials, one_sided), binomial_upper_bound(most, trials, one_sided)
