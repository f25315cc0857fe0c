"""Harmless changes of an image, which a monitor must not take for an attack: those that cameras and codecs make."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from framegate.runtime.errors import UsageError

Images = npt.NDArray[np.uint8]
QUALITY = (50, 95)
"""Of JPEG."""
SCALE = (0.6, 1.0)
"""Down by this factor and up again."""
GAIN = (0.75, 1.25)
OFFSET = (-20.0, 20.0)
"""Of the brightness, in grey levels."""


def harmless(images: Images, seed: int, depth: int = 1) -> Images:
    """Each image compressed, resampled and exposed a little differently.

    Args:
        images: (N, height, width, 3) uint8; of a volume, its slices one below the other.
        seed: Image k changes in the same way for the same seed.
        depth: Slices of a volume, which are resampled one by one; volumes are not compressed.
    """
    if images.ndim != 4 or images.dtype != np.uint8:
        raise UsageError(f"views: (N, height, width, 3) uint8 expected, found {images.shape} of {images.dtype}")
    changed = np.empty_like(images)
    for k, image in enumerate(images):
        rng = np.random.default_rng([seed, k])
        slices = np.split(image, depth) if depth > 1 else [image]
        scale = rng.uniform(*SCALE)
        gain, offset = rng.uniform(*GAIN), rng.uniform(*OFFSET)
        quality = int(rng.integers(*QUALITY, endpoint=True))
        parts = [_exposed(_resampled(part, scale), gain, offset) for part in slices]
        joined = np.concatenate(parts) if depth > 1 else _compressed(parts[0], quality)
        changed[k] = joined
    return changed


def _resampled(image: Images, scale: float) -> Images:
    height, width = image.shape[:2]
    small = cv2.resize(
        image, (max(2, round(width * scale)), max(2, round(height * scale))), interpolation=cv2.INTER_AREA
    )
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _exposed(image: Images, gain: float, offset: float) -> Images:
    middle = 127.5
    return np.asarray(np.clip((image.astype(np.float32) - middle) * gain + middle + offset, 0, 255), np.uint8)


def _compressed(image: Images, quality: int) -> Images:
    done, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise UsageError(f"views: OpenCV cannot write a JPEG of shape {image.shape}")
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)
