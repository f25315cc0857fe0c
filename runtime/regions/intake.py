"""From what a giver says to regions that can be cut out: clipped to the frame, at most so many, nothing lost unsaid."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from framegate.runtime.errors import UsageError
from framegate.runtime.regions.base import Box
from framegate.runtime.roi import FULL
from framegate.runtime.stats import OBJECTS

NOT_FINITE, INVERTED, OUTSIDE, BEYOND = "not_finite", "inverted", "outside", "beyond"
"""Why a box has no verdict: an edge is NaN or infinite; its width or height is not positive; no pixel of it lies on the
frame; or there were more boxes than objects are judged."""
_SAYS = {
    NOT_FINITE: "with an edge that is no number",
    INVERTED: "without a positive width and height",
    OUTSIDE: "wholly outside the frame",
    BEYOND: "more than are judged",
}

_TAKEN = re.compile(rf"{FULL}|{OBJECTS}|(track|object)-\d+")
"""Names of streams that are not a giver's to give: of the scene, of what is counted together, of tracks and objects."""

Pixels = tuple[int, int, int, int]
"""x, y, width, height of a part of the frame, in whole pixels."""


class Taken(NamedTuple):
    """The boxes of a frame that are judged, and what became of the others.

    Attributes:
        boxes: What the giver said of each, the surest first.
        pixels: The part of each that lies on the frame.
        left_out: Why -> how many; empty if every box is judged.
    """

    boxes: tuple[Box, ...]
    pixels: tuple[Pixels, ...]
    left_out: dict[str, int]


def take(boxes: Sequence[Box], width: int, height: int, most: int) -> Taken:
    """Choose what is judged on a frame.

    A box that reaches over the frame's edge is judged by the part that is on it. Of more than ``most`` boxes the surest
    are kept, among equally sure ones, and among those without a score, the largest; before all of them those with a
    name of their own (`Box.stream`), which are fixed regions.

    Args:
        boxes: As the giver gave them.
        width: Of the frame, in pixels.
        height: Of the frame, in pixels.
        most: Boxes that are judged at most.

    Raises:
        UsageError: See `require_free_names`.
    """
    require_free_names([box.stream for box in boxes if box.stream])
    left_out: dict[str, int] = {}
    kept: list[tuple[float, int, int, Box, Pixels]] = []
    for place, box in enumerate(boxes):
        pixels = on_frame(box, width, height)
        if isinstance(pixels, str):
            left_out[pixels] = left_out.get(pixels, 0) + 1
            continue
        score = box.score if math.isfinite(box.score) else 0.0
        score = math.inf if box.stream else score
        kept.append((-score, -pixels[2] * pixels[3], place, box, pixels))
    if len(kept) > most:
        left_out[BEYOND] = len(kept) - most
    kept.sort(key=lambda each: each[:3])
    del kept[most:]
    return Taken(tuple(each[3] for each in kept), tuple(each[4] for each in kept), left_out)


def require_free_names(names: Sequence[str]) -> None:
    """Refuse names of regions by which the verdicts on a frame could not be told apart.

    Raises:
        UsageError: Two are the same, or one is that of the scene, or may be that of a track.
    """
    for name in names:
        if _TAKEN.fullmatch(name):
            raise UsageError(
                f"region name {name!r}: beside objects {FULL!r} is the scene, {OBJECTS!r} are all of them, and track-N "
                "and object-N are single ones; give the region another name"
            )
    if len(set(names)) < len(names):
        raise UsageError(f"region names {', '.join(names)}: each region needs a name of its own")


def on_frame(box: Box, width: int, height: int) -> Pixels | str:
    """The part of a box that lies on a frame of this size, or why there is none."""
    if not all(map(math.isfinite, box[:4])):
        return NOT_FINITE
    if not (box.width > 0 and box.height > 0):
        return INVERTED
    # Clipped before it is rounded: a whole number made from 1e300 would cost time.
    left, top = max(0.0, min(box.x, width)), max(0.0, min(box.y, height))
    right, bottom = max(0.0, min(box.x + box.width, width)), max(0.0, min(box.y + box.height, height))
    x, y = round(left), round(top)
    across, down = round(right) - x, round(bottom) - y
    return (x, y, across, down) if across > 0 and down > 0 else OUTSIDE


def describe(left_out: dict[str, int]) -> str:
    """What has no verdict on a frame, for people; empty if nothing was left out."""
    parts = [f"{count} {_SAYS[why]}" for why, count in left_out.items()]
    return f"boxes without a verdict: {', '.join(parts)}" if parts else ""
