"""What one frame shows, in numbers that need no network and no other frame: light, contrast, colour, missing rows.

Everything is measured on about 32 rows, spread over the height, and along the rows only: what happens between rows (a
vertical motion blur) is seen less well.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np

from framegate.runtime.health.rows import BLOCK, RowCounts, zone_edges
from framegate.runtime.verdict import Image

_LOST_STD = 0.5
"""A channel that varies less than this while another varies is stuck, in levels."""
_LIVE_STD = 6.0
CHANNELS = ("blue", "green", "red")
EQUAL = ("blue = green", "green = red", "blue = red")
_ROUNDING = 1 / 12
"""Variance that rounding to whole levels adds."""
_CELL = 4
"""Side in pixels of what `structure` compares."""
_LAPLACE_MEAN = math.sqrt(6.0) * math.sqrt(2.0 / math.pi)
"""Mean absolute value of x[i-1] - 2 x[i] + x[i+1] for independent normal noise of standard deviation 1."""


class Content(NamedTuple):
    """Measures of one frame, in levels 0..255 unless stated. NaN: could not be measured.

    Attributes:
        mean: Of all values of all channels.
        std: Standard deviation of all values.
        saturated: Share of pixels at the upper end of the range.
        contrast: Standard deviation of the means of 16-pixel pieces of rows: noise hardly adds to it.
        sharpness: How much of the detail within five pixels sits in single pixels: 1 for points, 0 for smooth ramps.
            It does not depend on the contrast.
        detail: Root of the mean squared difference over four pixels without the noise; it depends on the contrast.
        noise: Standard deviation of the noise, from second differences in the flattest fifth of the blocks. After
            Immerkaer 1996 (Fast noise variance estimation), in one dimension and with a quantile against texture; the
            quantile makes it read about a fifth low.
        blockiness: Mean step across the borders of 8x8 blocks, divided by the mean step elsewhere (plus half a level).
            About 1 without damage; after JPEG or MPEG compression of an 8-pixel grid that starts at the left edge it
            grows with the damage. After scaling or cropping the grid is elsewhere and is not seen.
        missing: Largest share of rows in one run that repeat the row above and are not white: a frame whose lower part
            never arrived is filled with one colour, or with its last row. An overexposed sky is not missing, and
            SATURATED has its own limit.
        zones: Mean difference over four pixels in 4x4 zones, row by row: dirt on the lens takes it away.
        lost: The channel that is stuck, or a pair that is equal while the third is not; empty if none.
        coloured: The channels are not all equal.
        structure: See `structure`; NaN where it was not measured, as in a bright frame.
        light: See `framegate.runtime.health.rows.RowMemory.bright`; NaN where it was not measured.
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
    structure: float = math.nan
    light: float = math.nan


def structure(grey: Image, row_step: int) -> float:
    """How much can be told apart in a dark frame, in levels: what neighbouring places have in common.

    The square root of the covariance of the means of neighbouring cells of about 4x4 pixels. Whatever a scene shows
    reaches over several cells; the noise of a sensor is another one in each. Rows that lie further apart than a cell
    are compared one below the other only: noise may be smeared along a row, and is not from row to row.

    Args:
        grey: (rows, width) uint8, at least 4 pixels wide.
        row_step: Distance of the rows in pixels.

    Returns:
        0 for noise without a scene; NaN if there are too few rows.
    """
    height = max(1, _CELL // row_step)
    across, down = grey.shape[1] // _CELL, grey.shape[0] // height
    if down < 2 or across < 2:
        return math.nan
    inside = grey[: down * height, : across * _CELL].astype(np.float32)
    cells = cv2.resize(inside, (across, down), interpolation=cv2.INTER_AREA)
    cells -= cells.mean()
    covariance = float(np.mean(cells[1:] * cells[:-1]))
    if row_step < _CELL:
        covariance = (covariance + float(np.mean(cells[:, 1:] * cells[:, :-1]))) / 2.0
    return math.sqrt(max(covariance, 0.0))


def measure(counts: RowCounts, rows: int, width: int) -> Content:
    """The measures of one frame from what was counted in its rows.

    Args:
        counts: Of them.
        rows: How many, at least 2.
        width: In pixels, at least 16.
    """
    pixels = rows * width
    mean, std = _moments(counts.total, counts.squares, 3 * pixels)
    noise = counts.flat / BLOCK / _LAPLACE_MEAN if counts.flat >= 0 else math.nan
    sharp, detail = _sharpness(counts, rows, width, noise)
    lost, coloured = _channels(counts, (rows + 3) // 4 * width)
    sizes = _zone_sizes(rows, width)
    return Content(
        mean,
        std,
        counts.saturated / pixels,
        _moments(counts.block_total, counts.block_squares, rows * (width // BLOCK))[1] / BLOCK,
        sharp,
        detail,
        noise,
        _blockiness(counts, rows, width),
        # The first row of a filled part repeats nothing.
        (counts.repeated + 1) / rows if counts.repeated else 0.0,
        tuple([total / size for total, size in zip(counts.zones, sizes, strict=True)]),
        lost,
        coloured,
    )


def _moments(total: int, squares: int, count: int) -> tuple[float, float]:
    """Mean and standard deviation; the numerator is a whole number, so nothing cancels."""
    return total / count, math.sqrt(squares * count - total * total) / count


def _sharpness(counts: RowCounts, rows: int, width: int, noise: float) -> tuple[float, float]:
    """Sharpness and detail; NaN and 0 where nothing but noise is left.

    The squared differences over one and over four pixels are compared. A smooth picture has a ratio of 1/16, a sharp
    edge or a point one of 1/4 to 1; the ratio is stretched so that 1/16 gives 0. What the noise adds to both is taken
    off first.
    """
    added = 2.0 * max(noise * noise, _ROUNDING)
    fine = counts.fine / (rows * (width - 1)) - added
    coarse = counts.coarse / (rows * (width - 4)) - added
    if not coarse > 0.0:
        return math.nan, 0.0
    return max((16.0 * fine / coarse - 1.0) / 15.0, 0.0), math.sqrt(coarse)


def _blockiness(counts: RowCounts, rows: int, width: int) -> float:
    borders = rows * (width // 8 - (width % 8 == 0))
    inner = (counts.steps - counts.border_steps) / (rows * (width - 1) - borders)
    return counts.border_steps / borders / (inner + 0.5)


@lru_cache(maxsize=16)
def _zone_sizes(rows: int, width: int) -> tuple[float, ...]:
    """Differences in each zone; NaN for none, so that its detail is not known."""
    down, right = zone_edges(rows, width - 4)
    return tuple(
        (end - top) * (close - left) or math.nan for top, end in pairwise(down) for left, close in pairwise(right)
    )


def _channels(counts: RowCounts, pixels: int) -> tuple[str, bool]:
    """Which channel is lost, and whether there is any colour."""
    if all(counts.equal):
        return "", False
    totals, squares = counts.channel_total, counts.channel_squares
    spread = [_moments(totals[k], squares[k], pixels)[1] for k in range(3)]
    least = min(spread)
    if not least > _LOST_STD and not max(spread) < _LIVE_STD:
        return CHANNELS[spread.index(least)], True
    if any(counts.equal):
        return EQUAL[counts.equal.index(1)], True
    return "", True


def is_measured(content: Content) -> bool:
    """True if no measure is NaN or infinite."""
    return all(math.isfinite(value) for value in content[:9])
