"""Which box of a frame is which object of the frames before: identities by overlap and motion.

Each track keeps its last box and how fast it moved; a box of the next frame belongs to the track whose predicted box it
overlaps most (intersection over union), the best pairs first. This is the association of SORT (Bewley et al. 2016,
arXiv:1602.00763) with a constant velocity in place of the Kalman filter and the best pair first in place of the
Hungarian method, which for at most 16 boxes gives nearly the same.

The libraries that do more do not go into a vehicle as they are: ``trackers`` (2.6) brings a second OpenCV, PyAV and
supervision, and ``norfair`` (2.3) holds NumPy below 2 and needs SciPy, filterpy and Matplotlib. Anything with the one
method of `Tracker` can be given in place of this one, also a few lines around either of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from framegate.runtime.regions.base import Box
from framegate.runtime.regions.intake import Pixels

MIN_OVERLAP = 0.2
"""Boxes that overlap a track's predicted box by less (intersection over union) begin a track of their own."""
PATIENCE = 12
"""A track that was not seen for more frames has ended: half a second at 25 frames per second."""
_BLEND = 0.5
"""Share of the newest step in a track's velocity."""

_Edges = tuple[float, float, float, float]


class Tracker(Protocol):
    """Gives the objects of a stream their numbers. One thread calls it, frame by frame."""

    def update(self, boxes: Sequence[Box], pixels: Sequence[Pixels], frame_id: int) -> Sequence[int]:
        """A number for each box of a frame, the same for the same object, no number twice.

        Args:
            boxes: What the giver said.
            pixels: x, y, width, height of each on the frame.
            frame_id: The frame's number; dropped frames leave gaps.
        """


@dataclass(slots=True)
class _Track:
    """What is remembered of one object: edges in pixels, their movement per frame, the last frame with it."""

    number: int
    edges: _Edges
    velocity: _Edges
    frame_id: int

    def predicted(self, frame_id: int) -> _Edges:
        steps = frame_id - self.frame_id
        (x, y, w, h), (a, b, c, d) = self.edges, self.velocity
        w, h = w + steps * c, h + steps * d
        return x + steps * a, y + steps * b, w if w > 1.0 else 1.0, h if h > 1.0 else 1.0

    def saw(self, edges: _Edges, frame_id: int) -> None:
        steps = frame_id - self.frame_id
        (x, y, w, h), (p, q, r, s), (a, b, c, d) = edges, self.edges, self.velocity
        old = 1 - _BLEND
        self.velocity = (  # written out: a loop over four numbers takes three times as long, for each object of a frame
            old * a + _BLEND * (x - p) / steps,
            old * b + _BLEND * (y - q) / steps,
            old * c + _BLEND * (w - r) / steps,
            old * d + _BLEND * (h - s) / steps,
        )
        self.edges, self.frame_id = edges, frame_id


class OverlapTracker:
    """See the module, and `Tracker`.

    Args:
        min_overlap: See `MIN_OVERLAP`, in (0, 1].
        patience: See `PATIENCE`, in frames, 0 or more.
    """

    def __init__(self, min_overlap: float = MIN_OVERLAP, patience: int = PATIENCE) -> None:
        self._min_overlap, self._patience = min_overlap, patience
        self._tracks: list[_Track] = []
        self._next = 1

    def update(self, boxes: Sequence[Box], pixels: Sequence[Pixels], frame_id: int) -> list[int]:
        """See `Tracker.update`."""
        self._tracks = [t for t in self._tracks if 0 < frame_id - t.frame_id <= self._patience + 1]
        predicted = [track.predicted(frame_id) for track in self._tracks]
        pairs = _overlapping(pixels, predicted, self._min_overlap)
        numbers, taken = [0] * len(pixels), set()
        for _, row, column in pairs:
            if numbers[row] or column in taken:
                continue
            taken.add(column)
            track = self._tracks[column]
            track.saw(pixels[row], frame_id)
            numbers[row] = track.number
        for row, box in enumerate(pixels):
            if not numbers[row]:
                numbers[row] = self._next
                self._tracks.append(_Track(self._next, box, (0.0, 0.0, 0.0, 0.0), frame_id))
                self._next += 1
        return numbers


def _overlapping(pixels: Sequence[Pixels], predicted: Sequence[_Edges], least: float) -> list[tuple[float, int, int]]:
    """Minus the overlap, place of the box, place of the track, the best pairs first.

    Most boxes of a frame are apart: four comparisons say so, before a function is called.
    """
    sides = [(x, y, x + w, y + h) for x, y, w, h in predicted]
    pairs = []
    for row, box in enumerate(pixels):
        left, top, width, height = box
        right, bottom = left + width, top + height
        for column, (a, b, c, d) in enumerate(sides):
            if a < right and left < c and b < bottom and top < d:
                overlap = iou(box, predicted[column])
                if overlap >= least:
                    pairs.append((-overlap, row, column))
    pairs.sort()
    return pairs


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes (x, y, width, height), in [0, 1]."""
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if not (across > 0 and down > 0):
        return 0.0
    shared = across * down
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)
