"""Several givers of regions as one: a detector, and rectangles that stay where they are."""

from __future__ import annotations

from framegate.runtime.regions.base import Found, RegionGiver
from framegate.runtime.verdict import Frame


class TogetherRegions:
    """The regions of all givers. If one of them does not know where to look, nobody does.

    Args:
        givers: Asked in this order.
    """

    def __init__(self, givers: tuple[RegionGiver, ...]) -> None:
        self.name = " and ".join(giver.name for giver in givers)
        self._givers = givers

    def find(self, frame: Frame) -> Found:
        """See `RegionGiver.find`; raises what a giver raises."""
        found = [giver.find(frame) for giver in self._givers]
        for each in found:
            if each.problem:
                return Found((), each.problem)
        return Found(tuple(box for each in found for box in each.boxes))

    def close(self) -> None:
        """Close all of them."""
        for giver in self._givers:
            giver.close()
