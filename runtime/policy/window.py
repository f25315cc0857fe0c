"""Means of signals over the last frames of a stream: they show a small but lasting shift that one frame cannot."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping

from framegate.runtime.bundle.calibration import Limit


class Windows:
    """Judges the limits that span several frames (`Limit.frames` > 1) on one stream.

    A lasting shift beyond a limit is seen at the latest when it fills the window, after `Limit.frames` frames. Before
    so many frames were seen there is no judgement: let the policy warm up if that must not be.

    Args:
        limits: All limits of a calibration; those of single frames are left to the caller.
    """

    def __init__(self, limits: Iterable[Limit]) -> None:
        self._limits = tuple((limit, deque[float](maxlen=limit.frames)) for limit in limits if limit.frames > 1)

    @property
    def frames(self) -> int:
        """The longest window, 0 if there is none."""
        return max((limit.frames for limit, _ in self._limits), default=0)

    def hold(self, values: Mapping[str, float]) -> bool:
        """Take the values of a frame; True if no full window is outside its limit.

        A value that is missing, NaN or infinite breaks the limit for as long as it is in the window, full or not.

        Args:
            values: Signal -> value on this frame.
        """
        return all([self._holds(limit, past, values) for limit, past in self._limits])  # a list: each takes its value

    @staticmethod
    def _holds(limit: Limit, past: deque[float], values: Mapping[str, float]) -> bool:
        past.append(values.get(limit.signal, math.nan))
        if not all(map(math.isfinite, past)):
            return False
        # A plain sum: one that overflows is infinite and breaks the limit, where math.fsum would raise.
        return len(past) < limit.frames or limit.holds(sum(past) / len(past))
