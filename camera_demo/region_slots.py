"""Which line of the charts an object is shown on: objects come and go, lines stay."""

from __future__ import annotations

from collections.abc import Sequence

from framegate.runtime.verdict import Prediction

OBJECT_LINES = 3
"""Objects that have a line of their own in the charts; the page lists all."""


class RegionSlots:
    """Gives regions and tracks their lines. One thread calls it.

    Args:
        fixed: Names of regions that are always there.
        moving: Whether there are objects, too.
    """

    def __init__(self, fixed: Sequence[str], moving: bool) -> None:
        self._fixed = {name: place for place, name in enumerate(fixed)}
        self._free = list(range(len(fixed), len(fixed) + OBJECT_LINES)) if moving else []
        self._lines: dict[str, int] = {}
        self.names = [*fixed, *(f"object {chr(65 + k)}" for k in range(len(self._free)))]

    def place(self, predictions: Sequence[Prediction]) -> dict[str, int]:
        """Name of a stream -> its line, for those of this frame that have one."""
        present = {each.stream for each in predictions}
        for name in [name for name in self._lines if name not in present]:
            self._free.append(self._lines.pop(name))
        self._free.sort()
        for each in predictions:
            if each.stream not in self._fixed and each.stream not in self._lines and self._free:
                self._lines[each.stream] = self._free.pop(0)
        return {**{name: place for name, place in self._fixed.items() if name in present}, **self._lines}

    def title(self, stream: str) -> str:
        """What a stream is called on the page: its name, after the letter of its line if it has one that changes."""
        line = self._lines.get(stream)
        return stream if line is None else f"{self.names[line][-1]} · {stream}"
