"""`framegate.runtime.health.rows` in compiled code (rows.c)."""

from __future__ import annotations

import ctypes

import numpy as np

from framegate.runtime.health.rows import BLOCK, FLAT_SHARE, ZONES, Change, RowCounts, RowMemory
from framegate.runtime.native import library
from framegate.runtime.verdict import Image

_WIDEST = 10_000
"""Pixels up to which a row's sum of squares fits into 31 bits."""
_TOTALS = 255 * BLOCK + 1
_SINGLE = RowCounts._fields.index("zones")
"""So many counts are single numbers; zones, and three numbers for each of the rest, follow."""


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
        rows, width = self._size
        if pixels.shape != (rows, width, 3) or pixels.dtype != np.uint8:
            raise ValueError(f"expected ({rows}, {width}, 3) uint8, got {pixels.shape} {pixels.dtype}")
        if pixels.strides[1:] != (3, 1):  # a mirrored view, for example
            pixels = np.ascontiguousarray(pixels)
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
        found = self._counts.tolist()
        rest = (tuple(found[_SINGLE:-9]), tuple(found[-9:-6]), tuple(found[-6:-3]), tuple(found[-3:]))
        return RowCounts._make((*found[:_SINGLE], *rest))

    def compare(self, slot: int, previous: int, share: float) -> Change:
        """See `RowMemory.compare`."""
        rows, blocks = self._sums.shape
        pieces, slots = self._marks.shape[2], len(self.known)
        self._code.framegate_compare_rows(
            self._counting[0], rows, blocks, pieces, slots, slot, previous, self._rank(share), *self._compared
        )
        return Change._make(self._summary.tolist())
