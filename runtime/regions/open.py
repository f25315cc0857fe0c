"""Opens what the command line names as giver of regions."""

from __future__ import annotations

from pathlib import Path

from framegate.runtime.regions.base import RegionGiver
from framegate.runtime.regions.detector import DetectorRegions
from framegate.runtime.regions.recorded import open_recorded


def open_regions(text: str, *, loop: bool = False) -> RegionGiver:
    """A giver of regions.

    Args:
        text: A detector bundle (its folder or name), a file of boxes (``.jsonl``, ``.mcap``) or a named pipe.
        loop: The clip starts again when it ends.

    Raises:
        FramegateError: It cannot be opened.
    """
    place = Path(text)
    if place.is_dir() or not (place.exists() or place.suffix.lower() in (".jsonl", ".mcap", ".json")):
        return DetectorRegions.open(text)
    return open_recorded(place, loop=loop)
