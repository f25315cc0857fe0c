"""Promises about single labels: of the accepted frames that are read as one of them, at most so many are wrong.

Frames are divided by the label that they are **read as**, as driving logic sees them. Every label that was asked for
has a threshold of its own, all other labels share one, and each of these groups is proved for itself:
1 - confidence_level is divided by their number (union bound). The promise about all accepted frames follows without a
proof of its own: the share of errors among all is a weighted mean of the groups' shares, and no group's target is above
the common one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from framegate.export.calibration.decisions import Flags, Floats, Indices
from framegate.export.calibration.design import DESIGN_SHARE
from framegate.export.calibration.selective_risk import Part, images_needed
from framegate.runtime.errors import CalibrationError, UsageError

Asked = Mapping[int, tuple[str, float]]
"""Number of a label -> its name and target risk."""


def asked_classes(risks: Sequence[tuple[str, float]], labels: Sequence[str]) -> dict[int, tuple[str, float]]:
    """The labels that have a target risk of their own.

    Args:
        risks: Name and target risk of each.
        labels: The network's.

    Raises:
        UsageError: The network has no such label, or two of this name.
    """
    found = {}
    for name, risk in risks:
        if labels.count(name) != 1:
            near = [each for each in labels if name.casefold() in each.casefold()]
            raise UsageError(
                f"--risk {name}={risk:g}: the network has {labels.count(name)} labels {name!r}, expected one of "
                f"{', '.join((near or list(labels))[:5])}{'' if near else ', ...'}"
            )
        found[labels.index(name)] = (name, risk)
    return found


def among(compared: Floats, members: Flags) -> Floats:
    """(N,) scores of a group's frames, NaN elsewhere, so that no other frame is accepted."""
    return np.where(members, compared, np.nan)


def others(read_as: Indices, asked: Asked) -> Flags:
    """(N,) frames that are read as a label that was not asked for; all where none was."""
    return ~np.isin(read_as, list(asked))


def require_frames(name: str, risk: float, scores: tuple[Floats, Floats], level: float, unit: str) -> None:
    """Refuse a label that hardly any frame is read as, before its thresholds are looked for.

    Args:
        name: The label.
        risk: Its target.
        scores: `among` of the images that design, and of those that prove.
        level: Confidence of this proof alone.
        unit: What one image that proves is called.

    Raises:
        CalibrationError: Without a single error there are too few.
    """
    design, proof = (int(np.isfinite(each).sum()) for each in scores)
    needed = images_needed(risk, level)
    if design and proof >= needed:
        return
    raise CalibrationError(_missing(name, risk, needed, proof, len(scores[1]), unit))


def refusal(name: str, risk: float, parts: Sequence[Part], level: float, unit: str) -> str:
    """Why no threshold of a label could be proved, and what is missing."""
    accepted, errors = min((part.counts[part.start] for part in parts), key=lambda each: each[0] - each[1] / risk)
    needed = images_needed(risk, level)
    found = (
        f"{_asked(name, risk)}: at the threshold that the design images pointed to, {errors} of {accepted} accepted "
        f"{unit}s that are read as {name!r} are wrong"
    )
    if accepted < needed:
        return f"{found}. {_enough(name, needed, accepted, parts[0].size, unit)}"
    return f"{found}; give more {unit}s, a network that knows this label better, or a larger --risk"


def _missing(name: str, risk: float, needed: int, there: int, size: int, unit: str) -> str:
    found = f"{_asked(name, risk)}: of the {size} {unit}s that prove, {there} are read as {name!r} within the limits"
    return f"{found}. {_enough(name, needed, there, size, unit)}"


def _asked(name: str, risk: float) -> str:
    return f"calibration: risk {risk:g} of {name!r} cannot be proved"


def _enough(name: str, needed: int, there: int, size: int, unit: str) -> str:
    whole = f", about {in_all(needed, there / size)} labelled {unit}s in all if the share of this label stays as it is"
    return (
        f"Without a single error {needed} accepted ones are needed{whole if there else ''}; give more {unit}s of "
        f"{name!r}, or a larger --risk"
    )


def in_all(needed: int, share: float) -> int:
    """Units of a split of which so many prove a label that this share of them is read as."""
    return math.ceil(needed / share / (1 - DESIGN_SHARE))
