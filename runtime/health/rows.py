"""The looked-at rows of a stream's frames: what each of them shows, counted, and what was seen before.

Counted in whole numbers, so that the two implementations give the same ones: OpenCV and NumPy here, and one call of
compiled code in `framegate.runtime.health.rows_native`, about four times as fast, where it could be compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from framegate.runtime.verdict import Image

BLOCK = 16
"""Length in pixels of the pieces of a row whose means are compared."""
ZONES = 4
"""Zones along each side of the frame."""
WHITE = 248
"""Grey level from which a pixel counts as saturated: codecs leave few pixels at exactly 255."""
FLAT_SHARE = 0.2
"""The noise is read off the flattest fifth of the blocks: there, hardly anything else varies."""
_BRIGHT_SHARE = 0.9
NEVER = np.iinfo(np.int32).max
"""Difference to a frame that never was: larger than any."""
_EDGE = 32.0
"""Larger steps (levels) are edges of the scene and count as this much, wherever they fall."""
_USABLE = (8, 247)
"""Block means (levels) between which noise can show at all: at the ends of the range it is cut off."""
_FEWEST_BLOCKS = 4
_PIECES = 8
"""Parts of a row, each of which must change for the row to be live: an object that passes by does not make it so."""


class RowCounts(NamedTuple):
    """What n rows of one frame show, in levels 0..255, summed up. Grey values unless channels are named.

    Attributes:
        total: Sum of all values of all channels.
        squares: Sum of their squares.
        saturated: Pixels of at least `WHITE`.
        block_total: Sum of the sums of 16-pixel blocks.
        block_squares: Sum of the squares of these sums.
        fine: Sum of squared differences of neighbours in a row.
        coarse: The same of pixels four apart.
        flat: Sum of |second differences| (255 at most, each) in the block at the `FLAT_SHARE` quantile of those whose
            mean lies inside the sensor's range, of every other row; -1 if there are fewer than four.
        steps: Sum of |differences| of neighbours, 32 at most, each.
        border_steps: Those of them between the 8th and 9th pixel, the 16th and 17th, and so on.
        repeated: Length of the longest run of rows that repeat the row above and are not white throughout.
        zones: Sums of |differences| of pixels four apart in 4x4 zones, row by row.
        channel_total: Sum of blue, green and red, of every fourth row.
        channel_squares: The same of the squares.
        equal: 1 if blue and green, green and red, blue and red are equal in all pixels of every fourth row, else 0.
    """

    total: int
    squares: int
    saturated: int
    block_total: int
    block_squares: int
    fine: int
    coarse: int
    flat: int
    steps: int
    border_steps: int
    repeated: int
    zones: tuple[int, ...]
    channel_total: tuple[int, ...]
    channel_squares: tuple[int, ...]
    equal: tuple[int, ...]


class Change(NamedTuple):
    """How a frame differs from those before, in levels by which block means changed.

    Attributes:
        closest: Slot of the frame that differs least.
        nearest: The largest change of a block since that one; `NEVER` if there is none.
        last: The same since the frame before.
        moved: The change since the frame before that at most a given share of the blocks exceeds; 0 if it is not known.
        follows: 1 if the frame before is known, else 0.
        some_equal: 1 if any row is probably equal to one of any frame held, else 0.
    """

    closest: int
    nearest: int
    last: int
    moved: int
    follows: int
    some_equal: int


class RowMemory:
    """Rows of the last frames of one size, in grey, with the block means by which they are compared.

    Args:
        rows: Looked at in each frame, at least 2.
        width: Of the frame in pixels, at least 16.
        slots: Frames held.

    Attributes:
        grey: (slots, rows, width) uint8.
        known: (slots,) uint8, 1 for a slot that holds a frame which was compared.
        equal: (slots, rows) uint8, 1 for rows that are probably equal to those of the frame compared last.
        changed: (rows,) uint8, 1 for rows every piece of which differs from the frame before.
    """

    def __init__(self, rows: int, width: int, slots: int) -> None:
        blocks = width // BLOCK
        pieces = min(_PIECES, blocks)
        self.grey = np.zeros((slots, rows, width), np.uint8)
        self.known = np.zeros(slots, np.uint8)
        self.equal = np.zeros((slots, rows), np.uint8)
        self.changed = np.zeros(rows, np.uint8)
        self._farthest = np.full(slots, NEVER, np.int32)
        self._sums = np.zeros((rows, blocks), np.int32)
        self._means = np.zeros((slots, rows * blocks), np.uint8)
        self._marks = np.zeros((slots, rows, pieces), np.int64)
        self._starts = np.arange(pieces, dtype=np.int64) * blocks // pieces
        # Equal pieces of a row have equal marks; what has equal marks is compared in full.
        self._weights = np.random.default_rng(0).integers(1, 1 << 40, blocks)

    def count(self, slot: int, pixels: Image) -> RowCounts:
        """Put a frame's rows into a slot, in grey, and count what they show.

        Args:
            slot: Which.
            pixels: (rows, width, 3) uint8 BGR, also a view of every so many rows.
        """
        rows = np.ascontiguousarray(pixels)
        grey = self.grey[slot]
        self.known[slot] = 0
        cv2.cvtColor(rows, cv2.COLOR_BGR2GRAY, dst=grey)
        self._sums[...] = _block_sums(grey)
        sums = self._sums.ravel().astype(np.int64)
        values = rows.reshape(1, -1)
        channels = cv2.split(rows[::4])
        steps, border_steps = _limited_steps(grey)
        return RowCounts(
            total=round(cv2.norm(values, cv2.NORM_L1)),
            squares=round(cv2.norm(values, cv2.NORM_L2SQR)),
            saturated=cv2.countNonZero(cv2.threshold(grey, WHITE - 1, 255, cv2.THRESH_BINARY)[1]),
            block_total=int(sums.sum()),
            block_squares=int(sums @ sums),
            fine=round(cv2.norm(grey[:, 1:], grey[:, :-1], cv2.NORM_L2SQR)),
            coarse=round(cv2.norm(grey[:, 4:], grey[:, :-4], cv2.NORM_L2SQR)),
            flat=_flat_block(grey[::2], self._sums[::2]),
            steps=steps,
            border_steps=border_steps,
            repeated=_repeated(rows, grey),
            zones=_zone_steps(grey),
            channel_total=tuple(round(cv2.norm(channel, cv2.NORM_L1)) for channel in channels),
            channel_squares=tuple(round(cv2.norm(channel, cv2.NORM_L2SQR)) for channel in channels),
            equal=tuple(
                int(cv2.norm(channels[a], channels[b], cv2.NORM_INF) == 0) for a, b in ((0, 1), (1, 2), (0, 2))
            ),
        )

    def compare(self, slot: int, previous: int, share: float) -> Change:
        """Compare the frame counted last with all that are held, which also fills `equal` and `changed`.

        Args:
            slot: Where it was put.
            previous: The slot of the frame before.
            share: Of the blocks, in [0, 1], for `Change.moved`.
        """
        means = (self._sums.ravel() // BLOCK).astype(np.uint8)
        marks = np.add.reduceat(self._sums * self._weights, self._starts, axis=1)
        differences = np.maximum(self._means, means) - np.minimum(self._means, means)
        known = self.known.astype(bool)
        self._farthest[:] = differences.max(axis=1)
        self._farthest[~known] = NEVER
        same = self._marks == marks
        self.equal[:] = same.all(axis=2) & known[:, None]
        moved = 0
        self.changed[:] = 0
        if known[previous]:
            self.changed[:] = ~same[previous].any(axis=1)
            rank = self._rank(share)
            moved = int(np.partition(differences[previous], rank)[rank])
        self._means[slot], self._marks[slot], self.known[slot] = means, marks, 1
        closest = int(self._farthest.argmin())
        nearest, last = int(self._farthest[closest]), int(self._farthest[previous])
        return Change(closest, nearest, last, moved, int(known[previous]), int(self.equal.any()))

    def begin(self, slot: int, previous: int, pixels: Image, share: float | None) -> bool:
        """Begin to count and compare a frame's rows on another core; False, the default, where nothing was begun.

        `look` must follow, and then `compare` with the same numbers, before anything else is asked.

        Args:
            slot: See `count`.
            previous: See `compare`.
            pixels: See `count`; they must stay as they are.
            share: See `compare`; None does not compare.
        """
        del slot, previous, pixels, share
        return False

    def begin_again(self, slot: int, previous: int, frame: Image, row_bytes: int) -> None:
        """`begin`, with comparison, where that began with the frame before, and with the same share.

        Args:
            slot: See `count`.
            previous: See `compare`.
            frame: The whole frame, of the same size and strides as before, its rows `row_bytes` apart.
            row_bytes: From one row that is looked at to the next.
        """
        raise NotImplementedError  # nothing begins here

    def counting(self) -> tuple[int, int, Callable[[object], None]] | None:
        """Addresses of the thread that counts on another core, and of its job; what keeps something for that thread.

        None, the default: there is none.
        """
        return None

    def announce(self, slot: int, frame: Image, limits: Any) -> int | None:
        """`begin_again` for whoever starts the counting in compiled code: where to put the rows in grey.

        None, the default, where limits as last judged by are others; nothing was begun then.

        Args:
            slot: See `count`.
            frame: See `begin_again`.
            limits: See `healthy`; of a frame that is not small.
        """
        del slot, frame, limits
        return None

    def counted(self) -> tuple[bytes, bytes]:
        """How the frame that was announced differs from those before; its counting has been waited for.

        Returns:
            The numbers of `Change`, int32; `changed`.
        """
        raise NotImplementedError  # nothing is announced here

    def change_if_healthy(self, limits: Any, small: bool) -> Change | None:
        """What `compare` would say of what was begun, if nothing is wrong with it; None, the default: look, and ask.

        Args:
            limits: See `healthy`.
            small: See `healthy`.
        """
        del limits, small
        return None

    def forget_begun(self) -> None:
        """What was begun will not be asked for; it counts as a frame that was seen."""

    def look(self, slot: int, pixels: Image) -> bool:
        """Count a frame's rows, or take what was begun, and measure, so that `content` and `healthy` can be asked.

        False, the default, where there is no compiled code for it: ask `count` and
        `framegate.runtime.health.content.measure`.

        Args:
            slot: See `count`.
            pixels: See `count`.
        """
        del slot, pixels
        return False

    @property
    def content(self) -> Any:
        """The measures of the frame looked at last, a `framegate.runtime.health.content.Content`."""
        raise NotImplementedError  # nothing was looked at: `look` says so

    def healthy(self, limits: Any, small: bool) -> bool:
        """Whether `framegate.runtime.health.judge.judge_content` would find nothing; False, the default: ask it.

        Args:
            limits: A `framegate.runtime.health.thresholds.HealthThresholds`.
            small: See there.
        """
        del limits, small
        return False

    def prepare(self) -> bool:
        """Start the thread that `begin` needs; False, the default, where there is none."""
        return False

    def attend(self) -> None:
        """Help with what is begun next, for a moment; by another thread than the one that begins."""

    def close(self) -> None:
        """End the thread that `prepare` started."""

    def bright(self) -> float:
        """The block mean of the frame counted last that a tenth of its blocks exceed, in levels.

        Its light, whatever covers a part of the lens: dirt makes the brightest places no darker, dusk makes all so.
        """
        sums = self._sums.ravel()
        rank = int(_BRIGHT_SHARE * (sums.size - 1))
        return float(np.partition(sums, rank)[rank]) / BLOCK

    def _rank(self, share: float) -> int:
        """How many blocks change by no more than what is found, less one."""
        return int((1.0 - share) * (self._sums.size - 1))


def _block_sums(grey: Image) -> npt.NDArray[np.int32]:
    """Sums of the 16-pixel pieces of every row, (rows, width // 16); what is left at the right is not looked at."""
    rows, blocks = grey.shape[0], grey.shape[1] // BLOCK
    pieces = np.ascontiguousarray(grey[:, : blocks * BLOCK]).reshape(-1, BLOCK)
    sums: npt.NDArray[np.int32] = np.asarray(cv2.reduce(pieces, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S), np.int32)
    return sums.reshape(rows, blocks)


def _flat_block(grey: Image, sums: npt.NDArray[np.int32]) -> int:
    totals = _block_sums(cv2.convertScaleAbs(cv2.Sobel(grey, cv2.CV_16S, 2, 0, ksize=1)))
    usable = totals[(sums > _USABLE[0] * BLOCK) & (sums < _USABLE[1] * BLOCK)]
    if usable.size < _FEWEST_BLOCKS:
        return -1
    rank = int(FLAT_SHARE * (usable.size - 1))
    return int(np.partition(usable, rank)[rank])


def _limited_steps(grey: Image) -> tuple[int, int]:
    _, limited = cv2.threshold(cv2.absdiff(grey[:, 1:], grey[:, :-1]), _EDGE, 255, cv2.THRESH_TRUNC)
    columns = cv2.reduce(limited, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[0]
    return int(columns.sum()), int(columns[7::8].sum())


def _zone_steps(grey: Image) -> tuple[int, ...]:
    steps = cv2.absdiff(grey[:, 4:], grey[:, :-4])
    down, right = zone_edges(*steps.shape)
    return tuple(
        round(cv2.norm(steps[top:bottom, left:end], cv2.NORM_L1))
        for top, bottom in pairwise(down)
        for left, end in pairwise(right)
    )


def zone_edges(rows: int, columns: int) -> tuple[list[int], list[int]]:
    """Where zones begin and end, in rows and in differences of pixels four apart."""
    down, right = ([side * k // ZONES for k in range(ZONES + 1)] for side in (rows, columns))
    return down, right


def _repeated(rows: Image, grey: Image) -> int:
    repeats = (rows[1:] == rows[:-1]).all(axis=(1, 2))
    if not repeats.any():
        return 0
    longest = run = 0
    for row, repeated in enumerate(repeats, start=1):
        run = run + 1 if repeated and int(grey[row].min()) < WHITE else 0
        longest = max(longest, run)
    return longest
