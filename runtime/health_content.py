"""What one frame shows, in numbers that need no network and no other frame: light, contrast, colour, missing rows.

Everything is measured on about 32 rows, spread over the height: a 1080p frame costs a tenth of a millisecond.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from framegate.runtime.health_sharpness import blockiness, noise_level, sharpness, zone_detail
from framegate.runtime.verdict import Image

BLOCK = 16
"""Length in pixels of the pieces of a row whose means are compared."""
_WHITE = 248
"""Grey level from which a pixel counts as saturated: codecs leave few pixels at exactly 255."""
_LOST_STD = 0.5
"""A channel that varies less than this while another varies is stuck, in levels."""
_LIVE_STD = 6.0
_CHANNELS = ("blue", "green", "red")


class Content(NamedTuple):
    """Measures of one frame, in levels 0..255 unless stated. NaN: could not be measured.

    Attributes:
        mean: Of all values of all channels.
        std: Standard deviation of all values.
        saturated: Share of pixels at the upper end of the range.
        contrast: Standard deviation of the means of 16-pixel pieces of rows: noise hardly adds to it.
        sharpness: See `framegate.runtime.health_sharpness.sharpness`.
        detail: See there.
        noise: See `framegate.runtime.health_sharpness.noise_level`.
        blockiness: See `framegate.runtime.health_sharpness.blockiness`.
        missing: Largest share of rows in one run that repeat the row above and are not white.
        zones: Detail of 4x4 zones, see `framegate.runtime.health_sharpness.zone_detail`.
        lost: The channel that is stuck, or a pair that is equal while the third is not; empty if none.
        coloured: The channels are not all equal.
    """

    mean: float
    std: float
    saturated: float
    contrast: float
    sharpness: float
    detail: float
    noise: float
    blockiness: float
    missing: float
    zones: tuple[float, ...]
    lost: str
    coloured: bool


def block_sums(grey: Image) -> npt.NDArray[np.int32]:
    """Sums of the 16-pixel pieces of every row, (rows, width // 16); what is left at the right is not looked at.

    Args:
        grey: (rows, width) uint8, at least 16 wide.
    """
    rows, blocks = grey.shape[0], grey.shape[1] // BLOCK
    pieces = np.ascontiguousarray(grey[:, : blocks * BLOCK]).reshape(-1, BLOCK)
    sums: npt.NDArray[np.int32] = np.asarray(cv2.reduce(pieces, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S), np.int32)
    return sums.reshape(rows, blocks)


def measure(rows: Image, grey: Image, sums: npt.NDArray[np.int32]) -> Content:
    """Measure the rows of one frame that are looked at.

    Args:
        rows: (n, width, 3) uint8 BGR, contiguous, n >= 2, width >= 16.
        grey: The same rows in grey, (n, width) uint8.
        sums: `block_sums` of them.
    """
    mean, std = cv2.meanStdDev(rows.reshape(1, -1))
    noise = noise_level(grey, sums)
    sharp, detail = sharpness(grey, noise)
    lost, coloured = _channels(rows[::4])
    return Content(
        mean=float(mean[0, 0]),
        std=float(std[0, 0]),
        saturated=cv2.countNonZero(cv2.threshold(grey, _WHITE - 1, 255, cv2.THRESH_BINARY)[1]) / grey.size,
        contrast=_std(sums) / BLOCK,
        sharpness=sharp,
        detail=detail,
        noise=noise,
        blockiness=blockiness(grey),
        missing=_missing(rows, grey),
        zones=zone_detail(grey),
        lost=lost,
        coloured=coloured,
    )


def _std(sums: npt.NDArray[np.int32]) -> float:
    _, std = cv2.meanStdDev(sums.reshape(1, -1).astype(np.float32))
    return float(std[0, 0])


def _channels(rows: Image) -> tuple[str, bool]:
    """Which channel is lost, and whether there is any colour."""
    channels = cv2.split(rows)
    spread = [float(cv2.meanStdDev(channel)[1][0, 0]) for channel in channels]
    equal = [cv2.norm(channels[a], channels[b], cv2.NORM_INF) == 0 for a, b in ((0, 1), (1, 2), (0, 2))]
    if all(equal):
        return "", False
    weakest = min(range(3), key=spread.__getitem__)
    if not spread[weakest] > _LOST_STD and not max(spread) < _LIVE_STD:
        return _CHANNELS[weakest], True
    if any(equal):
        first, second = ((0, 1), (1, 2), (0, 2))[equal.index(True)]
        return f"{_CHANNELS[first]} = {_CHANNELS[second]}", True
    return "", True


def _missing(rows: Image, grey: Image) -> float:
    """Share of the rows in the longest run in which each repeats the one above, unless they are white.

    A frame whose lower part never arrived is filled with one colour, or with its last row. Rows of a white background
    are left out: an overexposed sky is not a missing one, and SATURATED has its own limit.
    """
    repeats = (rows[1:] == rows[:-1]).all(axis=(1, 2))
    if not repeats.any():
        return 0.0
    longest = run = 0
    for row, repeated in enumerate(repeats, start=1):
        run = run + 1 if repeated and int(grey[row].min()) < _WHITE else 0
        longest = max(longest, run)
    # The first row of a filled part repeats nothing.
    return (longest + 1) / len(rows) if longest else 0.0


def is_measured(content: Content) -> bool:
    """True if no measure is NaN or infinite."""
    return all(math.isfinite(value) for value in content[:9])
