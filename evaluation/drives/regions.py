"""Where the region of a verdict lies on its picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framegate.evaluation.drives.table import About
from framegate.runtime.errors import DataError
from framegate.runtime.roi import Roi


class Regions:
    """The regions of the recordings of a table.

    Args:
        about: What the table says about its recordings.
    """

    def __init__(self, about: About) -> None:
        self._about = about
        self._known: dict[str, dict[str, Roi]] = {}

    def of(self, row: Mapping[str, Any]) -> Roi:
        """The region of a verdict: its own box, if it is on an object.

        Raises:
            DataError: The recording does not name the region.
        """
        if row["x"] is not None:
            return Roi(row["region"], row["x"], row["y"], row["width"], row["height"], fractions=False)
        key = row["recording"]
        if key not in self._known:
            self._known[key] = {roi.name: roi for roi in self._about.recording(key).rois}
        roi = self._known[key].get(row["region"]) or (Roi.whole() if row["region"] == Roi.whole().name else None)
        if roi is None:
            raise DataError(f"drive {row['drive']}: its recording does not say where the region {row['region']!r} is")
        return roi
