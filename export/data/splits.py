"""Labelled images, divided among the parts of an export's work."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framegate.models.labelled import LabelledImages
from framegate.runtime.errors import DataError

COPIES = 0.01
"""Share of a split's images that may lie in another split, too: known data sets hold a few copies."""


@dataclass(frozen=True)
class Splits:
    """Three disjoint sets of images.

    Attributes:
        train: Sets the INT8 ranges.
        calibration: Sets temperature and threshold.
        test: Serves the accuracy gate and the report.
        names: The data set's label names, one per class.
        unseen: Who says that the network never saw the calibration and test images, see
            `framegate.runtime.bundle.calibration.Calibration.unseen`; empty if nobody does: then they prove nothing.
    """

    train: LabelledImages
    calibration: LabelledImages
    test: LabelledImages
    names: tuple[str, ...]
    unseen: str = ""


def check_disjoint(splits: Splits) -> None:
    """Refuse splits that share images, and a report split that is the calibration split.

    Raises:
        DataError: More than `COPIES` of a split's images lie in another one.
    """
    prints = {part.name: _hashes(part.images) for part in (splits.train, splits.calibration, splits.test)}
    names = list(prints)
    for k, name in enumerate(names):
        for other in names[k + 1 :]:
            both = len(prints[name] & prints[other])
            if both > COPIES * min(len(prints[name]), len(prints[other])):
                raise DataError(
                    f"{both} images of {name} lie in {other}, too: what proves and what reports must not have been "
                    "looked at before; give images that lie in one place only"
                )


def _hashes(images: npt.NDArray[np.uint8]) -> set[bytes]:
    return {hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).digest() for image in images}
