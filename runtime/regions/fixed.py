"""Fixed rectangles as regions, so that they are judged in one engine call."""

from __future__ import annotations

from framegate.runtime.regions.base import Box, Found
from framegate.runtime.regions.intake import require_free_names
from framegate.runtime.roi import Roi
from framegate.runtime.verdict import Frame, Reason


class FixedRegions:
    """The same rectangles on every frame; each is a track of its own, with a number below 0.

    See `framegate.runtime.regions.base.RegionGiver`.

    Args:
        rois: The rectangles.

    Raises:
        UsageError: A name cannot be told apart from those of objects (`framegate.runtime.regions.intake`).
    """

    def __init__(self, rois: tuple[Roi, ...]) -> None:
        require_free_names([roi.name for roi in rois])
        self.name = f"{len(rois)} fixed regions"
        self._rois = rois

    def find(self, frame: Frame) -> Found:
        """See `RegionGiver.find`; a rectangle that reaches outside the frame is a mistake, no object at its edge."""
        boxes = []
        for number, roi in enumerate(self._rois):
            pixels = roi.pixels(frame.image.shape[1], frame.image.shape[0])
            if pixels is None:
                return Found((), {Reason.NO_REGIONS: f"region {roi.name!r} reaches outside the frame"})
            boxes.append(Box(*pixels, track=-1 - number, stream=roi.name))
        return Found(tuple(boxes))

    def close(self) -> None:
        """Nothing is held open."""
