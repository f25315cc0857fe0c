"""Images that hold none of the labels, for outlier exposure (Hendrycks et al. 2019, arXiv:1812.04606).

A classifier that never saw an empty patch of sky or road answers with a confident label. During training these images
are pulled towards the uniform distribution, so their entropy is high. They are made from the training images and from
noise, so no second data set is needed; measured detection on them would say nothing, and none is quoted.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

_SIZE = 32


def _patch(images: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A 4 to 9 pixel wide patch of an image, enlarged: texture without an object."""
    image = images[rng.integers(len(images))]
    side = int(rng.integers(4, 10))
    top, left = rng.integers(0, _SIZE - side + 1, 2)
    if rng.random() < 0.5:  # borders hold background more often than the middle
        top, left = rng.choice([0, _SIZE - side]), rng.choice([0, _SIZE - side])
    crop = image[top : top + side, left : left + side]
    return np.asarray(cv2.resize(crop, (_SIZE, _SIZE), interpolation=cv2.INTER_CUBIC), np.uint8)


def _gradient(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A linear colour gradient in a random direction with slight noise: sky, walls, tarmac."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:_SIZE, 0:_SIZE] / (_SIZE - 1) - 0.5
    t = (np.cos(angle) * x + np.sin(angle) * y)[..., None] * rng.uniform(0.0, 1.4) + 0.5
    first = rng.uniform(0, 255, 3)
    second = np.clip(first + rng.normal(0, 60, 3), 0, 255)
    pixels = first * (1 - t) + second * t + rng.normal(0, rng.uniform(0, 10), (_SIZE, _SIZE, 3))
    return np.asarray(np.clip(pixels, 0, 255), np.uint8)


def _bands(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """A plain ground with one or two straight stripes: road and lane markings, horizon lines."""
    pixels = _gradient(rng)
    for _ in range(int(rng.integers(1, 3))):
        start, end = rng.integers(-8, _SIZE + 8, 2), rng.integers(-8, _SIZE + 8, 2)
        colour = tuple(float(v) for v in rng.uniform(0, 255, 3))
        thickness = int(rng.integers(1, 9))
        cv2.line(pixels, tuple(map(int, start)), tuple(map(int, end)), colour, thickness, cv2.LINE_AA)
    return pixels


def _noise(rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Noise of one random coarseness, from single pixels to large blobs."""
    cells = int(rng.choice([2, 4, 8, 16, 32]))
    pixels = np.clip(rng.normal(rng.uniform(40, 215, 3), rng.uniform(8, 70), (cells, cells, 3)), 0, 255)
    enlarged = cv2.resize(pixels.astype(np.uint8), (_SIZE, _SIZE), interpolation=cv2.INTER_CUBIC)
    return np.asarray(enlarged, np.uint8)


def make_outliers(images: npt.NDArray[np.uint8], count: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """``count`` images without an object, half of them textures cut from ``images``.

    Args:
        images: (N, 32, 32, 3) uint8, the source of textures.
        count: How many to make.
        rng: Source of randomness; the same state gives the same images.

    Returns:
        (count, 32, 32, 3) uint8.
    """
    made = np.empty((count, _SIZE, _SIZE, 3), np.uint8)
    for k in range(count):
        draw = rng.random()
        if draw < 0.5:
            made[k] = _patch(images, rng)
        elif draw < 0.7:
            made[k] = _gradient(rng)
        elif draw < 0.9:
            made[k] = _bands(rng)
        else:
            made[k] = _noise(rng)
    return made
