"""Blur: four of the common corruptions of CIFAR-10-C (Hendrycks and Dietterich 2019, arXiv:1903.12261).

The published widths are in pixels of a 32x32 image and are not scaled here: on a larger image the same blur matters
less. Signatures as in `framegate.evaluation.corruptions.noise`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from framegate.evaluation.corruptions.noise import Generators, Pixels

_DEFOCUS = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1))
"""Radius of the disk, standard deviation that smooths its edge; pixels."""
_GLASS = ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))
"""Standard deviation before and after the shuffle (pixels), number of shuffles."""
_MOTION = ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5))
"""Radius and standard deviation along the line; pixels."""
_ZOOM = tuple(np.arange(1, end, 0.01) for end in (1.06, 1.11, 1.16, 1.21, 1.26))
"""Zoom factors. The published ranges, rounding included: np.arange reaches its open end in the first two."""


def _each(images: Pixels, change: Callable[[Pixels, int], npt.NDArray[np.generic]]) -> Pixels:
    # OpenCV drops a last axis of length 1, hence the reshape.
    changed = [np.reshape(change(image, k), image.shape) for k, image in enumerate(images)]
    return np.stack(changed).astype(np.float32, copy=False)


def _smooth(images: Pixels, sigma: float) -> Pixels:
    """Gaussian filter cut off at four standard deviations, edge pixels repeated."""
    width = 2 * int(4 * sigma + 0.5) + 1
    if width == 1:
        return images
    return _each(
        images, lambda image, _: cv2.GaussianBlur(image, (width, width), sigma, borderType=cv2.BORDER_REPLICATE)
    )


def defocus_blur(images: Pixels, severity: int, rngs: Generators) -> Pixels:
    """Out of focus: a disk of radius 0.3 to 1.5 pixels with a smoothed edge."""
    del rngs
    radius, edge = _DEFOCUS[severity - 1]
    y, x = np.mgrid[-3:4, -3:4]
    disk = (x**2 + y**2 <= radius**2).astype(np.float32)
    kernel = cv2.GaussianBlur(disk / disk.sum(), (3, 3), edge)
    return _each(images, lambda image, _: cv2.filter2D(image, -1, kernel))


def glass_blur(images: Pixels, severity: int, rngs: Generators) -> Pixels:
    """Frosted glass: smoothing, then every pixel takes the value of a neighbour above and left or of itself, smoothing.

    The paper describes swaps of neighbouring pixels. The published program assigns views of one array to each other,
    so what the data set really holds is this one-way copy, which is written down here.
    """
    sigma, shuffles = _GLASS[severity - 1]
    count, height, width, channels = images.shape
    rows, columns = np.mgrid[2:height, 2:width]
    flat = _smooth(images, sigma).reshape(count, -1, channels)
    for _ in range(shuffles):
        step = np.stack([rng.integers(0, 2, (2, height - 2, width - 2)) for rng in rngs])
        source = np.broadcast_to(np.arange(height * width), (count, height * width)).copy()
        source.reshape(count, height, width)[:, 2:, 2:] = (rows - step[:, 0]) * width + columns - step[:, 1]
        flat = np.take_along_axis(flat, source[..., None], axis=1)
    return _smooth(flat.reshape(images.shape), sigma)


def line_kernel(radius: int, sigma: float, degrees: float) -> tuple[npt.NDArray[np.float32], tuple[int, int]]:
    """One-sided motion blur as ImageMagick defines it: half a Gaussian along a line, on whole pixels.

    Args:
        radius: The line has 2 * radius + 1 points.
        sigma: Standard deviation in pixels.
        degrees: Direction from the pixel, 0 to the right, 90 downwards.

    Returns:
        The kernel, cut to the line's bounding box, and the anchor (x, y) in it; for `cv2.filter2D`.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    angle = math.radians(degrees)
    x = np.ceil(steps * math.cos(angle) - 0.5).astype(np.int64)
    y = np.ceil(steps * math.sin(angle) - 0.5).astype(np.int64)
    kernel = np.zeros((np.ptp(y) + 1, np.ptp(x) + 1), np.float32)
    np.add.at(kernel, (y - y.min(), x - x.min()), (weights / weights.sum()).astype(np.float32))
    return kernel, (int(-x.min()), int(-y.min()))


def blur_along_lines(images: Pixels, radius: int, sigma: float, degrees: npt.NDArray[np.float64]) -> Pixels:
    """Motion blur of (N, h, w, c) images, one direction each (``degrees``, (N,)); edge pixels are repeated."""

    def blur(image: Pixels, k: int) -> npt.NDArray[np.generic]:
        kernel, anchor = line_kernel(radius, sigma, float(degrees[k]))
        return cv2.filter2D(image, -1, kernel, anchor=anchor, borderType=cv2.BORDER_REPLICATE)

    return _each(images, blur)


def motion_blur(images: Pixels, severity: int, rngs: Generators) -> Pixels:
    """A moving camera: half a Gaussian along a line at a random angle within 45 degrees of horizontal.

    The original calls ImageMagick; this is the same kernel (`line_kernel`), applied with OpenCV.
    """
    radius, sigma = _MOTION[severity - 1]
    return blur_along_lines(images, radius, sigma, np.array([rng.uniform(-45, 45) for rng in rngs]))


def _zoom_axis(images: Pixels, factor: float, axis: int) -> Pixels:
    """Enlarge the middle along one axis with linear interpolation, corner on corner, and cut to the old length."""
    length = images.shape[axis]
    crop = math.ceil(length / factor)
    enlarged = round(crop * factor)
    position = (np.arange(length) + (enlarged - length) // 2) * ((crop - 1) / (enlarged - 1))
    low = np.minimum(position.astype(np.int64), crop - 2)
    share = (position - low).astype(np.float32).reshape(-1, *[1] * (3 - axis))
    low += (length - crop) // 2
    first = images.take(low, axis)
    return np.asarray(first + share * (images.take(low + 1, axis) - first), np.float32)


def zoom_in(images: Pixels, factor: float) -> Pixels:
    """The middle of (N, h, w, c) images, enlarged ``factor`` (>= 1) times; same shape."""
    return _zoom_axis(_zoom_axis(images, factor, 1), factor, 2)


def zoom_blur(images: Pixels, severity: int, rngs: Generators) -> Pixels:
    """Moving towards the scene: the mean of the image and its enlargements by 1.00, 1.01, ... up to 1.06 to 1.25."""
    del rngs
    # Images last: gathering rows and columns then copies long runs of memory.
    last = np.ascontiguousarray(images.transpose(1, 2, 3, 0))
    total = last.copy()
    for factor in _ZOOM[severity - 1]:
        total += _zoom_axis(_zoom_axis(last, float(factor), 0), float(factor), 1)
    total /= np.float32(len(_ZOOM[severity - 1]) + 1)
    return np.ascontiguousarray(total.transpose(3, 0, 1, 2))
