"""Content that comes back: whole frames (frozen) and rows of a frame (torn), also behind a codec or with added noise.

The last 32 frames are kept: about 32 rows of each, in grey, and the means of the 16-pixel blocks of these rows.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable

import cv2
import numpy as np

from framegate.runtime.health.content import Content, measure
from framegate.runtime.health.rows import Change, RowMemory
from framegate.runtime.health.rows_native import row_memory
from framegate.runtime.health.thresholds import HealthThresholds
from framegate.runtime.verdict import Image

HISTORY = 32
"""Frames of a stream that a new one is compared with."""
_RECENT = 3
_MOVING = 4.0
"""The scene as a whole moved if a twentieth of the blocks changed by at least this much, in levels."""
_MOVING_SHARE = 0.05
_ABRUPT = 3.0
"""A scene that comes to rest by itself moves, from one frame to the next, by no less than this part (1/3) of before."""
_ALIVE = 8
_ALIVE_LEAST = 3
"""A row is live if it changed in each of the last comparisons: at most eight, at least three."""
_FOLLOWS = Change._fields.index("follows") * np.dtype(np.int32).itemsize + (sys.byteorder == "big") * 3
"""The byte that says so among the numbers of a `Change`."""
_TORN_SHARE = 0.1
_REPEATED_NOISE = 0.7
"""Two frames with the same noise differ by less than this part of what independent noise gives."""
_NOISE_DIFFERENCE = 2.0 / np.sqrt(np.pi)
"""Mean absolute difference of two values with independent normal noise of standard deviation 1."""
_LEAST_DIFFERENCE = 0.2
"""Mean absolute difference in levels below which no live sensor can be told from a still picture."""


class RecentFrames:
    """The last frames of one stream, to find what is repeated.

    A frame is frozen if one of these holds for any of the last 32 frames:

    1. Its pixels are equal, in grey.
    2. No block changed by more than `still` levels, although in each of the last three frames that were not frozen
       the whole scene moved, and some block changed three times as much. A stuck picture behind a codec, or with
       noise of any kind added; a vehicle that brakes comes to rest over many frames.
    3. No block changed, and the pixels differ by less than 0.7 of what the noise in the frame would make two
       exposures differ: the noise itself is repeated.

    After 2 or 3 it stays frozen until some block changes by more than `still`.

    A scene at rest, seen by a live sensor, is none of these. What cannot be told from it: a picture that was already
    stuck while the scene was at rest and gets noise as strong as the sensor's added.

    A frame is torn if at least a tenth of the live rows (those that changed over their whole width in every one of the
    last frames), and at least two, are equal to those of one earlier frame, while others are new. That needs three
    frames before.

    Args:
        still: See `framegate.runtime.health.thresholds.HealthThresholds.still`.
        history: Frames to compare with; 0 for unrelated images, of which `repeats` must not be asked.
    """

    def __init__(self, still: float, history: int = HISTORY) -> None:
        self._still = still
        self._slots = history + 1
        self._shape: tuple[int, ...] = ()
        self._slot = 0
        self._lately = deque[tuple[bytes, bytes]](maxlen=_ALIVE)
        """What `RowMemory.counted` says of the last good frames whose frame before is known."""
        self._stuck = self._begun = False
        self._measured: Content | None = None
        self._begins: RowMemory | None = None
        """The memory in which `begin_again` may begin."""
        self._last: tuple[bytes, bytes] | None = None

    def begin(self, rows: Image, compare: bool) -> bool:
        """Begin to look at rows on another core, if there is one and compiled code; `take` of the same rows follows.

        Args:
            rows: (n, width, 3) uint8 BGR, which must stay as they are.
            compare: `repeats` will be asked.
        """
        self._place(rows)
        before = (self._slot - 1) % self._slots
        self._begun = self._memory.begin(self._slot, before, rows, _MOVING_SHARE if compare else None)
        if self._begun:
            self._begins = self._memory if compare else None
        else:
            self._slot = before
        return self._begun

    def prepare(self, rows: int, width: int) -> None:
        """Make room for rows of this size, and start the thread that `begin` needs."""
        self._require_memory((rows, width, 3))
        self._memory.prepare()

    def begin_again(self, frame: Image, row_bytes: int) -> bool:
        """`begin` of a frame of the same size and strides as the last for which it returned True.

        False, and nothing begun, where frames of another size came in between.

        Args:
            frame: The whole frame, which must stay as it is.
            row_bytes: From one row that is looked at to the next.
        """
        if self._memory is not self._begins:
            return False
        before = self._slot
        self._slot = slot = (before + 1) % self._slots
        self._memory.begin_again(slot, before, frame, row_bytes)
        self._begun = True
        return True

    def counting(self) -> tuple[int, int, Callable[[object], None], float, RowMemory] | None:
        """What counts frames like the last one on another core; None before `begin` returned True for one.

        Returns:
            See `RowMemory.counting`; by more than how many levels some block must change; the memory.
        """
        if self._begins is None or self._memory is not self._begins:
            return None
        found = self._memory.counting()
        return None if found is None else (*found, self._still, self._memory)

    def announce(self, frame: Image, memory: object, limits: HealthThresholds) -> tuple[int, int, int] | None:
        """`begin_again` for whoever starts the counting in compiled code; None, and nothing begun, where it cannot be.

        Args:
            frame: See `begin_again`.
            memory: From `counting`.
            limits: See `is_good`.

        Returns:
            Address for the rows in grey, the frame's slot, the slot of the frame before.
        """
        if memory is not self._memory or memory is not self._begins:
            return None
        before = self._slot
        slot = (before + 1) % self._slots
        grey = self._memory.announce(slot, frame, limits)
        if grey is None:
            return None
        self._slot, self._begun = slot, True
        return grey, slot, before

    def saw_good(self) -> None:
        """Learn from a frame that was announced and counted, and of which `is_good` is known to be true."""
        self._begun = self._stuck = False
        self._measured = None
        counted = self._memory.counted()
        if counted[0][_FOLLOWS]:
            self._lately.append(counted)

    def is_good(self, limits: HealthThresholds, small: bool) -> bool:
        """True, and everything is learnt, if the frame that was begun is healthy and resembles none of before.

        False: nothing was changed; `take` it, and see what it is.
        """
        change = self._memory.change_if_healthy(limits, small) if self._begun and not small else None
        if change is None or change.some_equal or not change.nearest > self._still:
            return False
        self._begun = self._stuck = False
        self._measured = None
        if change.follows:
            self._lately.append(self._as_counted(change))
        return True

    def _as_counted(self, change: Change) -> tuple[bytes, bytes]:
        return np.asarray(change, np.int32).tobytes(), self._memory.changed.tobytes()

    def attend(self) -> None:
        """Help with what is begun next, for a moment; by another thread than the one that begins."""
        if self._shape:
            self._memory.attend()

    def close(self) -> None:
        """End the thread that `begin` needs."""
        if self._shape:
            self._memory.close()

    def take(self, rows: Image) -> None:
        """Remember rows (n, width, 3), in grey; `content` and `healthy` then say what they show."""
        if not self._begun:
            self._place(rows)
        self._begun = False
        self._measured = None
        if not self._memory.look(self._slot, rows):
            self._measured = measure(self._memory.count(self._slot, rows), *rows.shape[:2])

    @property
    def content(self) -> Content:
        """What the rows taken last show."""
        if self._measured is None:
            self._measured = self._memory.content
        return self._measured

    def healthy(self, limits: HealthThresholds, small: bool) -> bool:
        """Whether it was quickly seen that nothing is wrong with them: see `RowMemory.healthy`."""
        return self._measured is None and self._memory.healthy(limits, small)

    def forget_begun(self) -> None:
        """What was begun will not be taken."""
        if self._begun:
            self._memory.forget_begun()
        self._begun = False

    def _place(self, rows: Image) -> None:
        self._require_memory(rows.shape)
        self._slot = (self._slot + 1) % self._slots

    def _require_memory(self, shape: tuple[int, ...]) -> None:
        if shape != self._shape:
            self._memory = row_memory(shape[0], shape[1], self._slots)
            self._shape = shape  # last: `attend` asks from another thread whether there is a memory
            self._lately.clear()
            self._slot = 0

    @property
    def rows(self) -> Image:
        """The rows of the frame taken last, in grey."""
        grey: Image = self._memory.grey[self._slot]
        return grey

    def light(self) -> float:
        """See `framegate.runtime.health.rows.RowMemory.bright`."""
        return self._memory.bright()

    def repeats(self, small: bool = False) -> tuple[bool, bool]:
        """Whether the frame taken last is (frozen, torn).

        Call `learn` next if it was a good one.

        Args:
            small: The frame has too few blocks for more than equal pixels to be looked for.
        """
        change = self._memory.compare(self._slot, (self._slot - 1) % self._slots, _MOVING_SHARE)
        self._last = self._as_counted(change) if change.follows else None
        if small:
            return self._is_equal(change), False
        if change.nearest > self._still:
            self._stuck = False
            return False, self._is_torn(change)
        if self._is_equal(change):
            return True, False
        # A stuck picture stays stuck until something moves, however the codec varies.
        self._stuck = self._stuck or self._is_stuck(change, self.content.noise)
        return self._stuck, False

    def learn(self) -> None:
        """Remember how the frame taken last moved, as that of a live camera."""
        if self._last is not None:
            self._lately.append(self._last)

    def _is_stuck(self, change: Change, noise: float) -> bool:
        lately = [Change._make(np.frombuffer(each, np.int32).tolist()) for each, _ in self._lately][-_RECENT:]
        if len(lately) == _RECENT and all(
            each.moved >= _MOVING and each.last >= _ABRUPT * change.nearest for each in lately
        ):
            return True
        grey = self._memory.grey[self._slot]
        difference = cv2.norm(self._memory.grey[change.closest], grey, cv2.NORM_L1) / grey.size
        # Written so that an unknown noise (NaN) counts as repeated.
        return not (difference >= _LEAST_DIFFERENCE and difference >= _REPEATED_NOISE * _NOISE_DIFFERENCE * noise)

    def _is_equal(self, change: Change) -> bool:
        if not change.some_equal:
            return False
        grey = self._memory.grey
        equal = self._memory.equal.all(axis=1)
        return any(cv2.norm(grey[slot], grey[self._slot], cv2.NORM_INF) == 0 for slot in np.flatnonzero(equal))

    def _is_torn(self, change: Change) -> bool:
        if len(self._lately) < _ALIVE_LEAST or not change.some_equal:
            return False
        grey = self._memory.grey
        alive = np.logical_and.reduce([np.frombuffer(each, np.uint8) for _, each in self._lately])
        least = max(2, _TORN_SHARE * int(alive.sum()))
        equal = self._memory.equal.astype(bool) & alive
        for slot in np.flatnonzero(equal.sum(axis=1) >= least):
            rows = np.flatnonzero(equal[slot])
            same = (grey[slot][rows] == grey[self._slot][rows]).all(axis=1)
            if int(same.sum()) >= least:
                return True
        return False
