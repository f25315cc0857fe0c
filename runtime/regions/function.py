"""A Python function as giver of regions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from framegate.runtime.regions.base import Box, Found
from framegate.runtime.verdict import Frame, Image

Finder = Callable[[Image], Iterable[Sequence[Any]]]
"""(height, width, 3) uint8 BGR -> boxes: `Box`, or x, y, width, height [, label [, score [, track]]] in pixels."""


class FunctionRegions:
    """Asks a function of the user's. See `framegate.runtime.regions.base.RegionGiver`.

    Args:
        function: Gets the pixels of a frame, which it must not change, and returns its boxes.
        name: What people call it; None takes the function's.
    """

    def __init__(self, function: Finder, name: str | None = None) -> None:
        self.name = name or str(getattr(function, "__name__", type(function).__name__))
        self._function = function

    def find(self, frame: Frame) -> Found:
        """See `RegionGiver.find`; what is no box makes it raise."""
        return Found(tuple(as_box(each) for each in self._function(frame.image)))

    def close(self) -> None:
        """Nothing is held open."""


def as_box(values: Sequence[Any]) -> Box:
    """Four to seven values as a box.

    Raises:
        ValueError: They are none.
    """
    if isinstance(values, Box):
        return values
    found = list(values)
    if not 4 <= len(found) <= 7:
        raise ValueError(f"a box has x, y, width, height [, label [, score [, track]]], found {len(found)} values")
    x, y, width, height = (float(each) for each in found[:4])
    label = str(found[4]) if len(found) > 4 and found[4] is not None else ""
    score = float(found[5]) if len(found) > 5 and found[5] is not None else float("nan")
    track = int(found[6]) if len(found) > 6 and found[6] is not None else None
    return Box(x, y, width, height, label, score, track)
