"""What a calibration split can prove at best, before anything is computed.

With a perfect network: not one error among the accepted. Real errors only raise what is needed, so a target that is out
of reach here is out of reach. The figures follow from the number of images or units alone and do not move when a
calibration has been tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from framegate.export.calibration.calibrate import Promise, fingerprint, groups_of
from framegate.export.calibration.classes import asked_classes
from framegate.export.calibration.design import DESIGN_SHARE, division_seed, require_units, split_units
from framegate.export.calibration.selective_risk import binomial_upper_bound, images_needed
from framegate.models.labelled import LabelledImages
from framegate.runtime.bundle.calibration import UNITS

COVERAGES = (1.0, 0.8, 0.5)
"""Shares of accepted images for which a plan says what can be proved."""


@dataclass(frozen=True)
class Plan:
    """What the images at hand can prove, and what a target needs.

    Attributes:
        images: In the split.
        units: In the split; as many as images where each stands for itself.
        unit: What a unit is called.
        proving: Units that prove: four fifths.
        shares: Promises that share the confidence.
        lowest: (coverage, target): the lowest target that so many accepted units could prove without a single error.
        needed: (target, accepted, in all): accepted units without an error that the target needs, and units of the
            split if all were accepted.
        classes: (label, its target, accepted, there): of each label that was asked for by name, accepted units without
            an error that its target needs, and units of the split that show it.
    """

    images: int
    units: int
    unit: str
    proving: int
    shares: int
    lowest: tuple[tuple[float, float], ...]
    needed: tuple[tuple[float, int, int], ...]
    classes: tuple[tuple[str, float, int, int], ...] = ()

    def lines(self) -> list[str]:
        """The plan for people."""
        name = f"{self.unit}s"
        said = f"{self.images} images" if self.images == self.units else f"{self.images} images of {self.units} {name}"
        lines = [f"{said}: {self.proving} {name} prove, the rest designs; {self.shares} promises share the confidence"]
        for coverage, target in self.lowest:
            lines.append(
                f"  if {coverage:.0%} are accepted and none of them is wrong: target risk {target:.4f} or more"
            )
        for target, accepted, whole in self.needed:
            enough = "these may do" if accepted <= self.proving else f"there are {self.units}"
            lines.append(
                f"  for target risk {target:g}: {accepted} accepted {name} without an error, so {whole} {name} at "
                f"least; {enough}"
            )
        for label, target, accepted, there in self.classes:
            usable = int(there * (1 - DESIGN_SHARE))
            more = int(np.ceil(accepted / (1 - DESIGN_SHARE))) - there
            enough = "these may do" if accepted <= usable else f"give at least {more} more of it"
            lines.append(
                f"  for risk {target:g} of {label!r}: {accepted} accepted {name} that are read as it without an error; "
                f"{there} {name} show it, of which about {usable} prove; {enough}"
            )
        lines.append("  real errors need more; what a network can prove is known when it was asked once")
        return lines


def plan(split: LabelledImages, promise: Promise, precisions: int, labels: tuple[str, ...]) -> Plan:
    """Plan a calibration.

    Args:
        split: The calibration split.
        promise: What is wished.
        precisions: Of the run.
        labels: The network's.

    Raises:
        CalibrationError: The units cannot be.
        UsageError: A label that was asked for by name is none of the network's.
    """
    asked = asked_classes(promise.class_risks, labels)
    require_units(split.groups)
    units = len(split) if split.groups is None else len(np.unique(split.groups))
    proving = len(split_units(len(split), split.groups, division_seed(fingerprint(split)))[1])
    shares = precisions * len(promise.targets) * groups_of(promise, labels)
    level = 1.0 - (1.0 - promise.confidence_level) / shares
    coverages: Sequence[float] = (1.0,) if promise.about == UNITS else COVERAGES
    lowest = tuple((each, binomial_upper_bound(0, int(each * proving), level)) for each in coverages)
    needed = []
    for target in promise.targets:
        accepted = images_needed(target, level)
        needed.append((target, accepted, int(np.ceil(accepted / (1 - DESIGN_SHARE)))))
    classes = []
    for class_id, (name, risk) in asked.items():
        shown = split.labels == class_id
        there = int(shown.sum()) if split.groups is None else len(np.unique(split.groups[shown]))
        classes.append((name, risk, images_needed(risk, level), there))
    unit = split.unit or ("image" if split.groups is None else "track")
    return Plan(len(split), units, unit, proving, shares, lowest, tuple(needed), tuple(classes))
