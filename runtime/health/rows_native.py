"""`framegate.runtime.health.rows` in compiled code (rows.c)."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable

import numpy as np

from framegate.runtime.health.beside import Beside, Job
from framegate.runtime.health.content import CHANNELS, EQUAL, Content
from framegate.runtime.health.rows import BLOCK, FLAT_SHARE, ZONES, Change, RowCounts, RowMemory
from framegate.runtime.health.thresholds import HealthThresholds
from framegate.runtime.native import library
from framegate.runtime.native.processors import processors
from framegate.runtime.verdict import Image

_WIDEST = 10_000
"""Pixels up to which a row's sum of squares fits into 31 bits."""
_TOTALS = 255 * BLOCK + 1
_SINGLE = RowCounts._fields.index("zones")
"""So many counts are single numbers; zones, and three numbers for each of the rest, follow."""


_PLAIN = Content._fields.index("zones")
"""So many measures are single numbers; zones, the lost channel and whether there is colour follow."""
_LIMITS = 15
LOST = ("", *CHANNELS, *EQUAL)
"""What content.c says as a number."""
_MOST_PIXELS = 3_000_000
"""Of all rows, up to which the moments of all values fit into 63 bits."""
_FEWEST_CORES = 2


def row_memory(rows: int, width: int, slots: int) -> RowMemory:
    """The fastest memory there is for frames of this size; see `RowMemory`."""
    code, _ = library()
    if code is None or width > _WIDEST:
        return RowMemory(rows, width, slots)
    return NativeRowMemory(code, rows, width, slots)


class NativeRowMemory(RowMemory):
    """A `RowMemory` that counts and compares in one call each.

    Args:
        code: From `framegate.runtime.native.library`.
        rows: See `RowMemory`.
        width: See `RowMemory`; at most 10,000.
        slots: See `RowMemory`.
    """

    def __init__(self, code: ctypes.CDLL, rows: int, width: int, slots: int) -> None:
        super().__init__(rows, width, slots)
        self._code = code
        self._size = rows, width
        self._counts = np.zeros(_SINGLE + ZONES * ZONES + 9, np.int64)
        self._spare = np.zeros(width, np.uint8)
        self._summary = np.zeros(len(Change._fields), np.int32)
        self._content = np.zeros(_PLAIN + ZONES * ZONES + 2, np.float64)
        self._limits = np.zeros(_LIMITS + ZONES * ZONES, np.float64)
        self._healthy = np.zeros(1, np.int32)
        self._judging_at = self._content.ctypes.data, self._limits.ctypes.data
        self._limits_of: tuple[HealthThresholds, bool] | None = None
        self._judged_for: tuple[HealthThresholds, bool] | None = None
        self._measures_fit = rows * width <= _MOST_PIXELS
        self._beside: Beside | None = None
        self._running: Image | None = None
        self._begun_slot = 0
        self._counted = False  # what was begun last, and is not looked at yet
        self._known_change = False
        self._histogram = np.zeros(_TOTALS, np.int32)
        # Asking an array for its address costs a microsecond; these arrays stay where they are.
        self._grey_at = [grey.ctypes.data for grey in self.grey]
        self._counting = [array.ctypes.data for array in (self._sums, self._spare, self._histogram, self._counts)]
        self._compared = [
            array.ctypes.data
            for array in (
                self._weights,
                self._starts,
                self._means,
                self._marks,
                self.known,
                self._farthest,
                self.equal,
                self.changed,
                self._summary,
            )
        ]

    def count(self, slot: int, pixels: Image) -> RowCounts:
        """See `RowMemory.count`."""
        self._count(slot, pixels)
        found = self._counts.tolist()
        rest = (tuple(found[_SINGLE:-9]), tuple(found[-9:-6]), tuple(found[-6:-3]), tuple(found[-3:]))
        return RowCounts._make((*found[:_SINGLE], *rest))

    def _count(self, slot: int, pixels: Image) -> None:
        rows, width = self._size
        if pixels.shape != (rows, width, 3) or pixels.dtype != np.uint8:
            raise ValueError(f"expected ({rows}, {width}, 3) uint8, got {pixels.shape} {pixels.dtype}")
        if pixels.strides[1:] != (3, 1):  # a mirrored view, for example
            pixels = np.ascontiguousarray(pixels)
        self._settle()
        self._known_change = False
        self.known[slot] = 0
        sums, spare, histogram, counts = self._counting
        self._code.framegate_count_rows(
            # Not __array_interface__, which loses memory at every view it is asked of (NumPy 2.4.6).
            pixels.ctypes.data,
            pixels.strides[0],
            rows,
            width,
            FLAT_SHARE,
            self._grey_at[slot],
            sums,
            spare,
            histogram,
            counts,
        )

    def begin(self, slot: int, previous: int, pixels: Image, share: float | None) -> bool:
        """See `RowMemory.begin`."""
        self._settle()
        rows, width = self._size
        if pixels.shape != (rows, width, 3) or pixels.dtype != np.uint8 or pixels.strides[1:] != (3, 1):
            return False
        if not self._measures_fit or not self.prepare() or self._beside is None:
            return False
        self._known_change, self._judged_for = share is not None, self._limits_of
        self._job.rank = self._rank(share or 0.0)
        before = -1 if share is None else previous
        self._running, self._begun_slot, self._counted = pixels, slot, True  # whose memory is being read
        self._beside.start(self._job_at, pixels, pixels.strides[0], self._grey_at[slot], slot, before)
        return True

    def begin_again(self, slot: int, previous: int, frame: Image, row_bytes: int) -> None:
        """See `RowMemory.begin_again`."""
        self._settle()
        beside = self._beside
        assert beside is not None  # `begin` had one
        self._known_change, self._judged_for = True, self._limits_of
        self._running, self._begun_slot, self._counted = frame, slot, True
        beside.start(self._job_at, frame, row_bytes, self._grey_at[slot], slot, previous)

    def counting(self) -> tuple[int, int, Callable[[object], None]] | None:
        """See `RowMemory.counting`."""
        beside = self._beside
        return None if beside is None else (beside.at, self._job_at, beside.keep)

    def announce(self, slot: int, frame: Image, limits: HealthThresholds) -> int | None:
        """See `RowMemory.announce`."""
        judged = self._limits_of
        if judged is None or judged[0] is not limits or judged[1]:
            return None
        if self._running is not None:
            self._settle()
        self._known_change, self._judged_for = True, judged
        self._running, self._begun_slot, self._counted = frame, slot, True
        return self._grey_at[slot]

    def counted(self) -> tuple[bytes, bytes]:
        """See `RowMemory.counted`."""
        self._running = None
        return self._summary.tobytes(), self.changed.tobytes()

    def change_if_healthy(self, limits: HealthThresholds, small: bool) -> Change | None:
        """See `RowMemory.change_if_healthy`."""
        judged = self._judged_for
        if judged is None or judged[0] is not limits or judged[1] != small or not self._known_change:
            return None
        self._settle()
        return Change._make(self._summary.tolist()) if self._healthy[0] else None

    def look(self, slot: int, pixels: Image) -> bool:
        """See `RowMemory.look`."""
        if not self._measures_fit:
            return False
        if self._counted and self._begun_slot == slot:
            self._settle()
        else:
            self._count(slot, pixels)
            self._code.framegate_content(self._counting[-1], *self._size, self._judging_at[0])
            self._judged_for = None
        self._counted = False
        return True

    def healthy(self, limits: HealthThresholds, small: bool) -> bool:
        """See `RowMemory.healthy`."""
        if not self._measures_fit:
            return False
        if self._judged_for is not None and self._judged_for[0] is limits and self._judged_for[1] == small:
            return bool(self._healthy[0])
        self._limits[:] = _as_numbers(limits, small)
        self._limits_of = limits, small
        return bool(self._code.framegate_healthy(*self._judging_at))

    @property
    def content(self) -> Content:
        """See `RowMemory.content`."""
        self._settle()
        *found, lost, coloured = self._content.tolist()
        values = (*found[:_PLAIN], tuple(found[_PLAIN:]), LOST[int(lost)], bool(coloured))
        return Content._make((*values, math.nan, math.nan))

    def close(self) -> None:
        """See `RowMemory.close`."""
        if self._beside is not None:
            self._beside.close()

    def attend(self) -> None:
        """See `RowMemory.attend`."""
        beside = self._beside
        if beside is not None:
            beside.attend()

    def forget_begun(self) -> None:
        """See `RowMemory.forget_begun`."""
        self._settle()
        self._known_change = self._counted = False

    def _settle(self) -> None:
        """Wait for what was begun, if anything was."""
        if self._running is not None and self._beside is not None:
            self._beside.finish()
            self._running = None

    def prepare(self) -> bool:
        """Start the thread that counts beside; False where there is no other core, or no thread."""
        if self._beside is not None:
            return True
        if processors() < _FEWEST_CORES:
            return False
        try:
            self._beside = Beside(self._code)
        except (OSError, RuntimeError):  # no room for another thread
            return False
        rows, blocks = self._sums.shape
        sums, spare, histogram, counts = self._counting
        weights, starts, means, marks, known, farthest, equal, changed, summary = self._compared
        self._job = Job(
            flat_share=FLAT_SHARE,
            rows=rows,
            width=self._size[1],
            blocks=blocks,
            pieces=self._marks.shape[2],
            slots=len(self.known),
            sums=sums,
            spare=spare,
            histogram=histogram,
            counts=counts,
            weights=weights,
            starts=starts,
            means=means,
            marks=marks,
            known=known,
            farthest=farthest,
            equal=equal,
            changed=changed,
            summary=summary,
            content=self._judging_at[0],
            limits=self._judging_at[1],
            healthy=self._healthy.ctypes.data,
        )
        self._job_at = ctypes.addressof(self._job)
        # Everything that the thread reads and writes.
        self._beside.kept += [each for each in vars(self).values() if isinstance(each, (np.ndarray, Job))]
        return True

    def compare(self, slot: int, previous: int, share: float) -> Change:
        """See `RowMemory.compare`."""
        if not self._known_change:
            rows, blocks = self._sums.shape
            pieces, slots = self._marks.shape[2], len(self.known)
            self._code.framegate_compare_rows(
                self._counting[0], rows, blocks, pieces, slots, slot, previous, self._rank(share), *self._compared
            )
        self._known_change = False
        return Change._make(self._summary.tolist())


def _as_numbers(limits: HealthThresholds, small: bool) -> list[float]:
    """Limits as content.c reads them."""
    zones = limits.zones if len(limits.zones) == ZONES * ZONES else ()
    return [
        limits.black_mean,
        limits.black_std,
        limits.saturated_share,
        limits.missing_rows,
        limits.contrast,
        limits.light,
        limits.detail,
        limits.zone_fall,
        limits.zone_share,
        limits.sharpness,
        limits.noise,
        limits.blockiness,
        bool(limits.colour),
        small,
        bool(zones),
        *(zones or (0.0,) * (ZONES * ZONES)),
    ]
