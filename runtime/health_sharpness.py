"""Fine detail, noise and compression damage of the rows of one frame, without a reference picture.

All three look along the rows only: what happens between rows (a vertical motion blur) is seen less well.
"""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from framegate.runtime.verdict import Image

_FLAT_SHARE = 0.2
"""The noise is read off the flattest fifth of the blocks: there, hardly anything else varies."""
_USABLE = (8, 247)
"""Block means (levels) between which noise can show at all: at the ends of the range it is cut off."""
_FEWEST_BLOCKS = 4
ZONES = 4
"""Zones along each side of the frame."""
_EDGE = 32.0
"""Larger steps (levels) are edges of the scene and count as this much, wherever they fall."""
_ROUNDING = 1 / 12
"""Variance that rounding to whole levels adds."""
_LAPLACE_MEAN = math.sqrt(6.0) * math.sqrt(2.0 / math.pi)
"""Mean absolute value of x[i-1] - 2 x[i] + x[i+1] for independent normal noise of standard deviation 1."""


def noise_level(grey: Image, sums: npt.NDArray[np.int32]) -> float:
    """Standard deviation of the noise in levels, from second differences in the flattest fifth of the blocks.

    After Immerkaer 1996 (Fast noise variance estimation), in one dimension and with a quantile against texture; the
    quantile makes it read about a fifth low. NaN if fewer than four blocks lie inside the sensor's range.

    Args:
        grey: (rows, width) uint8.
        sums: Sums of its 16-pixel blocks, (rows, width // 16).
    """
    grey, sums = grey[::2], sums[::2]  # half of the rows are enough for a quantile
    blocks = sums.shape[1]
    curved = cv2.convertScaleAbs(cv2.Sobel(grey, cv2.CV_16S, 2, 0, ksize=1))
    size = 16  # of a block
    pieces = np.ascontiguousarray(curved[:, : blocks * size]).reshape(-1, size)
    totals = np.asarray(cv2.reduce(pieces, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)).ravel()
    usable = totals[((sums > _USABLE[0] * size) & (sums < _USABLE[1] * size)).ravel()]
    if usable.size < _FEWEST_BLOCKS:
        return math.nan
    rank = int(_FLAT_SHARE * (usable.size - 1))
    return float(np.partition(usable, rank)[rank]) / size / _LAPLACE_MEAN


def sharpness(grey: Image, noise: float) -> tuple[float, float]:
    """Sharpness and detail.

    Sharpness: how much of the detail within five pixels sits in single pixels: 1 for points, 0 for smooth ramps.

    The squared differences over one and over four pixels are compared. A smooth picture has a ratio of 1/16, a sharp
    edge or a point one of 1/4 to 1; the ratio is stretched so that 1/16 gives 0. It does not depend on the contrast.
    What the noise adds to both is taken off first; NaN where nothing is left. Detail: the root of the mean squared
    difference over four pixels without the noise, in levels; it depends on the contrast.

    Args:
        grey: (rows, width) uint8, at least 6 wide.
        noise: Standard deviation in levels, from `noise_level`.
    """
    rows, width = grey.shape
    added = 2.0 * max(noise * noise, _ROUNDING)
    fine = cv2.norm(grey[:, 1:], grey[:, :-1], cv2.NORM_L2SQR) / (rows * (width - 1)) - added
    coarse = cv2.norm(grey[:, 4:], grey[:, :-4], cv2.NORM_L2SQR) / (rows * (width - 4)) - added
    if not coarse > 0.0:
        return math.nan, 0.0
    return max((16.0 * fine / coarse - 1.0) / 15.0, 0.0), math.sqrt(coarse)


def zone_detail(grey: Image) -> tuple[float, ...]:
    """Mean difference over four pixels in each of 4x4 zones, row by row, in levels: dirt on the lens takes it away.

    Args:
        grey: (rows, width) uint8, at least 4 and 8.
    """
    steps = cv2.absdiff(grey[:, 4:], grey[:, :-4])
    down, right = ([side * k // ZONES for k in range(ZONES + 1)] for side in steps.shape)
    zones = (steps[top:bottom, left:end] for top, bottom in pairwise(down) for left, end in pairwise(right))
    return tuple(cv2.norm(zone, cv2.NORM_L1) / zone.size for zone in zones)


def blockiness(grey: Image) -> float:
    """Mean step across the borders of 8x8 blocks, divided by the mean step elsewhere (plus half a level).

    About 1 for pictures without damage; after JPEG or MPEG compression of an 8-pixel grid that starts at the left
    edge it grows with the damage. After scaling or cropping the grid is elsewhere and is not seen.

    Args:
        grey: (rows, width) uint8, at least 16 wide.
    """
    rows, width = grey.shape
    _, limited = cv2.threshold(cv2.absdiff(grey[:, 1:], grey[:, :-1]), _EDGE, 255, cv2.THRESH_TRUNC)
    steps = cv2.reduce(limited, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[0]
    across = steps[7::8]
    total, borders = int(steps.sum()), int(across.sum())
    inner = (total - borders) / (rows * (width - 1 - across.size))
    return float(borders / (rows * across.size) / (inner + 0.5))
