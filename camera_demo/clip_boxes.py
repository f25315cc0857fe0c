"""The boxes of the shipped clip: what a detector found on each of its frames, recorded once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from framegate.runtime.regions.base import Found
from framegate.runtime.regions.recorded import RecordedRegions
from framegate.runtime.verdict import Frame


def place_name(number: int, right: int, down: int) -> str:
    """What a frame of the looped clip is called: its number in the clip, and by how many pixels it is shifted."""
    return f"{number}+{right}+{down}"


class ClipBoxes:
    """Boxes for the clip in a loop. See `framegate.runtime.regions.base.RegionGiver`.

    Args:
        path: JSON lines, see `framegate.runtime.regions.recorded`.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._recorded = RecordedRegions(path, loop=True)

    def find(self, frame: Frame) -> Found:
        """See `RegionGiver.find`: the boxes move with the picture. A frame without a name counts from the start."""
        if not frame.name:
            return self._recorded.find(frame)
        number, right, down = map(int, frame.name.split("+"))
        found = self._recorded.find(replace(frame, frame_id=number))
        moved = (box._replace(x=box.x + right, y=box.y + down) for box in found.boxes)
        return Found(tuple(moved), found.problem)

    def close(self) -> None:
        """Nothing is held open."""
