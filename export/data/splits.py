"""Labelled images, divided among the parts of an export's work."""

from __future__ import annotations

from dataclasses import dataclass

from framegate.models.labelled import LabelledImages


@dataclass(frozen=True)
class Splits:
    """Three disjoint sets of images.

    Attributes:
        train: Sets the INT8 ranges.
        calibration: Sets temperature and threshold.
        test: Serves the accuracy gate and the report.
        names: The data set's label names, one per class.
        unseen: Who says that the network never saw the calibration and test images, see
            `framegate.runtime.calibration.Calibration.unseen`; empty if nobody does: then they prove nothing.
    """

    train: LabelledImages
    calibration: LabelledImages
    test: LabelledImages
    names: tuple[str, ...]
    unseen: str = ""
