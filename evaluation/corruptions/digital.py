"""Contrast and digital faults: four of the common corruptions of CIFAR-10-C (arXiv:1903.12261).

Channels are BGR where it matters (JPEG). Signatures as in `framegate.evaluation.corruptions.noise`.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from framegate.evaluation.corruptions.noise import Generators, Pixels

_CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)
_ELASTIC = ((0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))
"""Strength and smoothness of the displacement, jitter of the affine map; all as shares of the image's shorter side."""
_PIXELATE = (0.95, 0.9, 0.85, 0.75, 0.65)
_JPEG_QUALITY = (80, 65, 58, 50, 40)


def contrast(images: Pixels, severity: int, rngs: Generators) -> Pixels:
    """Every channel is drawn towards its mean over the image by a factor of 0.75 down to 0.15."""
    del rngs
    mean = images.mean(axis=(1, 2), keepdims=True, dtype=np.float64).astype(np.float32)
    return np.asarray((images - mean) * np.float32(_CONTRAST[severity - 1]) + mean, np.float32)


def _displacement(height: int, width: int, sigma: float, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Uniform noise in [-1, 1] under a Gaussian filter cut off at three standard deviations."""
    noise = rng.uniform(-1, 1, (height, width)).astype(np.float32)
    taps = 2 * int(3 * sigma + 0.5) + 1
    smooth = cv2.GaussianBlur(noise, (taps, taps), sigma, borderType=cv2.BORDER_REFLECT)
    return np.asarray(smooth, np.float32)


def _warp(image: Pixels, strength: float, sigma: float, jitter: float, rng: np.random.Generator) -> Pixels:
    height, width = image.shape[:2]
    middle = np.array([width // 2, height // 2], np.float32)
    reach = min(height, width) // 3
    corners = middle + np.array([[reach, reach], [reach, -reach], [-reach, -reach]], np.float32)
    moved = corners + rng.uniform(-jitter, jitter, corners.shape).astype(np.float32)
    affine = cv2.getAffineTransform(corners, moved)
    warped = cv2.warpAffine(image, affine, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    if strength > 0:
        x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        x += np.float32(strength) * _displacement(height, width, sigma, rng)
        y += np.float32(strength) * _displacement(height, width, sigma, rng)
        warped = cv2.remap(warped, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(warped, np.float32).reshape(image.shape)


def elastic_transform(images: Pixels, severity: int, rngs: Generators) -> Pixels:
    """A small random affine map, then local displacements (Simard et al. 2003).

    The published parameters trade one for the other: the affine part shrinks while the local part grows, so the
    difference from the clean image does **not** grow with severity; the local distortion does.
    """
    side = min(images.shape[1:3])
    strength, sigma, jitter = (share * side for share in _ELASTIC[severity - 1])
    return np.stack([_warp(i, strength, sigma, jitter, rng) for i, rng in zip(images, rngs, strict=True)])


def _box_filter(length: int, shorter: int) -> npt.NDArray[np.float32]:
    """(length, length) matrix that shrinks to ``shorter`` samples and enlarges again, both with Pillow's box filter.

    Pillow's box averages, with equal weights, the samples whose centres lie within half an output sample: unlike
    OpenCV's area mode it does not weigh samples that lie partly inside. Enlarging takes the nearest sample.
    """
    # In half samples and whole numbers: a sample may lie exactly on an edge.
    offset = (2 * np.arange(length) + 1) * shorter - (2 * np.arange(shorter)[:, None] + 1) * length
    inside = (offset > -length) & (offset <= length)
    weights = inside / inside.sum(axis=1, keepdims=True)
    nearest = (2 * np.arange(length) + 1) * shorter // (2 * length)
    return np.asarray(weights[nearest], np.float32)


def pixelate(images: Pixels, severity: int, rngs: Generators) -> Pixels:
    """Too few pixels: shrunk to 0.95 down to 0.65 of the size and enlarged again, both with a box filter."""
    del rngs
    share = _PIXELATE[severity - 1]
    count, height, width, channels = images.shape
    rows, columns = (_box_filter(length, math.floor(length * share)) for length in (height, width))
    tall = np.matmul(rows, images.reshape(count, height, width * channels)).reshape(images.shape)
    wide = np.matmul(columns, tall.swapaxes(1, 2).reshape(count, width, height * channels))
    return np.ascontiguousarray(wide.reshape(count, width, height, channels).swapaxes(1, 2))


def jpeg_compression(images: Pixels, severity: int, rngs: Generators) -> Pixels:
    """JPEG at quality 80 down to 40, through the encoder of OpenCV (chroma at half resolution, as in the original)."""
    del rngs
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY[severity - 1]]
    decoded = []
    for image in np.rint(images * 255).astype(np.uint8):
        _, data = cv2.imencode(".jpg", image, quality)
        decoded.append(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)))
    return np.stack(decoded).astype(np.float32) / np.float32(255)
