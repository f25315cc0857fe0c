"""What says where to look on a frame: one interface, and what it hands over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from framegate.runtime.verdict import NO_FINDINGS, Findings, Frame

MAX_OBJECTS = 16
"""Objects of a frame that are judged at most: the largest batch of one engine call."""


NO_SCORES: Mapping[str, float] = MappingProxyType({})


class Box(NamedTuple):
    """One region that was found on a frame. Nothing about it is checked yet (`framegate.runtime.regions.intake`).

    Attributes:
        x: Left edge in pixels; like the other three it may be outside the frame, or no number at all.
        y: Top edge in pixels.
        width: In pixels.
        height: In pixels.
        label: What the giver calls the object; empty if it does not say.
        score: How sure the giver is, in [0, 1]; NaN if it does not say.
        track: The object's number, the same on every frame, if the giver knows it; None if it does not.
        stream: Name of the stream that the object forms; empty: one made from its track.
        scores: What the giver's own network says about the box (`framegate.runtime.regions.box_scores`), by name.
        against: What the giver itself holds against using the box; the object is then rejected with it.
    """

    x: float
    y: float
    width: float
    height: float
    label: str = ""
    score: float = math.nan
    track: int | None = None
    stream: str = ""
    scores: Mapping[str, float] = NO_SCORES
    against: Findings = NO_FINDINGS


class Found(NamedTuple):
    """What a giver says about one frame.

    Attributes:
        boxes: The regions; empty where there is nothing to look at.
        problem: Why it is not known where to look; then nothing on this frame may be used, and that no boxes came
            does not mean that there is no object.
    """

    boxes: tuple[Box, ...]
    problem: Findings = NO_FINDINGS


class RegionGiver(Protocol):
    """Says where the objects of a frame are. One thread calls it, frame by frame, in the order of capture.

    Attributes:
        name: What people call it.
    """

    name: str

    def find(self, frame: Frame) -> Found:
        """The regions of one frame.

        Args:
            frame: Usable, and BGR.

        Raises:
            Exception: Anything; every object of the frame is then rejected with NO_REGIONS.
        """

    def close(self) -> None:
        """Give back what is held open. May be called twice."""
