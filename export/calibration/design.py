"""What the design part of a calibration split decides: units, limits, windows, and the score that is compared.

None of this looks at the images that prove the threshold.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from framegate.export.calibration.decisions import Flags, Floats
from framegate.export.calibration.temperature import Labels
from framegate.runtime.bundle.calibration import SCORES, Limit
from framegate.runtime.errors import CalibrationError
from framegate.runtime.monitor import SHIFT

DESIGN_SHARE = 0.2
"""Share of the calibration units that design; the rest proves, where images are worth more."""
LIMITED = (("energy", "low"), (SHIFT, "high"))
"""Which signals are limited, and on which side: an attack makes a network too certain, its energy too low."""
_DRAWS = 20_000
_WINDOW_SHARE = 0.01
_WORTH_CHANGING = 0.01  # of coverage: less is not worth leaving entropy for


def division_seed(split_sha256: str) -> int:
    """What divides a split: its own fingerprint, so that no seed can be tried until the proof succeeds."""
    return int.from_bytes(hashlib.sha256(f"division {split_sha256}".encode()).digest()[:8], "big")


def require_units(groups: npt.NDArray[np.int64] | None) -> None:
    """Refuse units that cannot be: a single one, or one of each image.

    Raises:
        CalibrationError: They are.
    """
    if groups is None:
        return
    units = len(np.unique(groups))
    if units == len(groups) > 1:
        raise CalibrationError(
            f"calibration: {len(groups)} images in as many units; units hold images that are alike, so name what "
            "they share (--group), or take every image for itself (--group none)"
        )
    if units < 2:
        raise CalibrationError(
            f"calibration: all {len(groups)} images belong to one unit, which proves nothing about others; give "
            "images of at least some hundred units"
        )


def split_units(count: int, groups: npt.NDArray[np.int64] | None, seed: int) -> tuple[Labels, Labels]:
    """Positions of the images that design and of those that prove: no unit in both, one image of each unit proves."""
    rng = np.random.default_rng(seed)
    if groups is None:
        order = rng.permutation(count)
        cut = round(count * DESIGN_SHARE)
        return order[:cut], order[cut:]
    order = rng.permutation(count)
    # The first image of each unit in a random order is a random image of the unit.
    units, first = np.unique(groups[order], return_index=True)
    chosen = rng.permutation(len(units))
    cut = round(len(units) * DESIGN_SHARE)
    design = np.flatnonzero(np.isin(groups, units[chosen[:cut]]))
    return design, order[first[chosen[cut:]]]


def choose_limits(values: dict[str, Floats], share: float) -> tuple[Limit, ...]:
    """Limits that a share of the design images fail in all, the same share for each signal.

    Args:
        values: Signal -> (n,) values of the design images.
        share: In [0, 0.5).
    """
    known = [(signal, side) for signal, side in LIMITED if signal in values]
    if share == 0 or not known:
        return ()
    tail = share / len(known)
    limits = []
    for signal, side in known:
        finite = values[signal][np.isfinite(values[signal])]
        if finite.size == 0:
            raise CalibrationError(f"calibration: no image has a finite {signal}; the network's outputs are not usable")
        if side == "low":
            limits.append(Limit(signal, low=float(np.quantile(finite, tail, method="lower"))))
        else:
            limits.append(Limit(signal, high=float(np.quantile(finite, 1 - tail, method="higher"))))
    return tuple(limits)


def choose_window(
    values: dict[str, Floats],
    design: Labels,
    groups: Labels | None,
    frames: int,
    share: float,
    seed: int,
    sequence: Labels | None = None,
) -> tuple[Limit, ...]:
    """The limit of the mean ``shift`` over a window, which the limit share of clean streams exceed.

    With units, the streams are the design units themselves, in the order of ``sequence``, and a stream exceeds the
    limit if any of its windows does. Without, they are windows of independent images, and frames of a real stream,
    which resemble each other, will exceed the limit more often.
    """
    if SHIFT not in values:
        raise CalibrationError(
            f"calibration: a window of {frames} frames was asked for, but this bundle has no monitor; "
            "framegate monitor BUNDLE adds one"
        )
    shift = values[SHIFT]
    if groups is None:
        draws = np.random.default_rng(seed).choice(design, (_DRAWS, frames))
        means = shift[draws].mean(axis=1)
    else:
        units = [np.flatnonzero(groups == unit) for unit in np.unique(groups[design])]
        if sequence is not None:
            units = [unit[np.argsort(sequence[unit], kind="stable")] for unit in units]
        kernel = np.full(frames, 1 / frames)
        long = [np.convolve(shift[unit], kernel, "valid").max() for unit in units if len(unit) >= frames]
        means = np.array(long)
    means = means[np.isfinite(means)]
    share = share or _WINDOW_SHARE
    if len(means) < 1 / share:
        raise CalibrationError(
            f"calibration: {len(means)} design streams of at least {frames} frames; to let {share:.1%} of "
            f"clean streams exceed a limit, {int(np.ceil(1 / share))} are needed. Give more data, or a larger "
            "--limit-share"
        )
    return (Limit(SHIFT, high=float(np.quantile(means, 1 - share, method="higher")), frames=frames),)


def choose_score(values: dict[str, Floats], wrong: Flags, inside: Flags, design: Labels, target_risk: float) -> str:
    """The score that accepts most design images at the target risk; entropy unless another accepts a point more."""
    coverages = {name: _coverage_at(values[name][design], (wrong & inside)[design], inside[design], target_risk)
                 for name in SCORES}  # fmt: skip
    best = max(SCORES, key=lambda name: coverages[name])
    return best if coverages[best] >= coverages["entropy"] + _WORTH_CHANGING else "entropy"


def _coverage_at(scores: Floats, wrong: Flags, usable: Flags, target_risk: float) -> float:
    """Largest share of images that a threshold on the score accepts with at most the target share of errors."""
    keep = usable & np.isfinite(scores)
    order = np.argsort(scores[keep], kind="stable")
    errors = np.cumsum(wrong[keep][order])
    accepted = np.arange(1, len(errors) + 1)
    good = np.flatnonzero(errors <= target_risk * accepted)
    return float(accepted[good[-1]] / len(scores)) if len(good) else 0.0
