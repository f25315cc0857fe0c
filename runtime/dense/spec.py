"""What a bundle says about a dense network: which pixels are usable, and which region of a frame is judged by them.

Its manifest has an entry ``dense``. A pixel is usable if its score is at most `DenseSpec.threshold`. The region's score
is `UNUSABLE`, the share of its pixels that are not; a calibration compares it like a classifier's score, and
its unit is the image: "of the accepted regions at most r have more than `DenseSpec.wrong_share` of their usable pixels
wrong". About a single pixel nothing is promised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import SCORES, Calibration
from framegate.runtime.errors import BundleError, UsageError
from framegate.runtime.roi import Roi

_SHARES = ("x", "y", "width", "height")


@dataclass(frozen=True)
class DenseSpec:
    """The ``dense`` entry of a manifest.

    Attributes:
        region: Name of the region.
        x: Its left edge as a share of the frame's width, in [0, 1].
        y: Its top edge as a share of the frame's height.
        width: Share of the frame's width.
        height: Share of the frame's height.
        score: What makes a pixel usable, one of `SCORES`.
        temperature: A pixel's logits are divided by it.
        threshold: The largest score of a usable pixel.
        wrong_share: A region is wrong if more than this share of its usable pixels has a wrong label, in [0, 1).
    """

    region: str
    x: float
    y: float
    width: float
    height: float
    score: str
    temperature: float
    threshold: float
    wrong_share: float

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            BundleError: One is unknown or out of range.
        """
        if self.score not in SCORES:
            raise BundleError(f"dense score is {self.score!r}; this version knows {', '.join(SCORES)}")
        if not (0 < self.temperature < math.inf and math.isfinite(self.threshold) and 0 <= self.wrong_share < 1):
            raise BundleError(
                f"dense temperature {self.temperature}, threshold {self.threshold} and wrong_share {self.wrong_share} "
                "must be positive, finite and a share"
            )
        try:
            inside = self.roi.pixels(1000, 1000)
        except UsageError as error:
            raise BundleError(f"dense region: {error}") from error
        if inside is None:
            raise BundleError(f"dense region {self.region!r} reaches outside the frame")

    @property
    def roi(self) -> Roi:
        """The region, in fractions of the frame."""
        return Roi(self.region, self.x, self.y, self.width, self.height, fractions=True)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> DenseSpec:
        """Read the entry of a manifest.

        Raises:
            BundleError: Something is missing or unknown.
        """
        try:
            numbers = {name: float(record[name]) for name in (*_SHARES, "temperature", "threshold", "wrong_share")}
            return cls(region=str(record["region"]), score=str(record["score"]), **numbers)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BundleError(f"manifest dense section is not usable: {error!r}") from error

    def to_json(self) -> dict[str, Any]:
        """The inverse of `from_json`."""
        return asdict(self)

    def promise(self, calibration: Calibration) -> str:
        """What is promised about the region, in one sentence, and what is not."""
        if not calibration.proved:
            return calibration.unproved
        errors, trials = calibration.counts
        return (
            f"of the accepted regions {self.region!r} at most {calibration.target_risk:.2%} have more than "
            f"{self.wrong_share:.1%} of their usable pixels wrong, for a random image; calibrations keep this with "
            f"probability {calibration.confidence_level:.0%} or refuse ({errors} of {trials} accepted had, coverage "
            f"{calibration.coverage:.1%}; nothing is promised about a single pixel, nor outside of the region, nor "
            "under attack)"
        )


def promise_of(bundle: Bundle, calibration: Calibration) -> str:
    """A calibration's promise in one sentence: about accepted frames, or about a dense bundle's region."""
    return calibration.promise() if bundle.dense is None else DenseSpec.from_json(bundle.dense).promise(calibration)
