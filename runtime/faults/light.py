"""Faults of light and air: no light, too much of it, fog, rain, a low sun. Each maps an image to a corrupted copy.

Signature of all: (image, severity 1 to 5, frame_id) -> new image of the same shape. The same arguments give the same
pixels. Images are (height, width) or (height, width, channels) uint8.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from framegate.runtime.verdict import Image

_SATURATED = (0.85, 0.9, 0.95, 0.98, 1.0)
_CONTRAST = (0.4, 0.25, 0.15, 0.08, 0.03)
_FOG = (0.3, 0.5, 0.65, 0.8, 0.92)
_AIRLIGHT = 215.0
_RAIN_DROPS = (150, 300, 600, 1200, 2400)
_RAIN_VEIL = (0.05, 0.1, 0.15, 0.25, 0.35)
_GLARE_RADIUS = (0.06, 0.12, 0.2, 0.32, 0.5)
_GLARE_VEIL = (20.0, 40.0, 70.0, 110.0, 160.0)


def black(image: Image, severity: int, frame_id: int) -> Image:
    """No light, or no signal: every value is 0."""
    del severity, frame_id
    return np.zeros_like(image)


def saturated(image: Image, severity: int, frame_id: int) -> Image:
    """An exposure stuck far too long: the gain at which 85, 90, 95, 98 or 100 % of the pixels reach the end."""
    del frame_id
    darkest = image if image.ndim == 2 else image.min(axis=2)
    level = float(np.quantile(darkest, 1.0 - _SATURATED[severity - 1]))
    # The offset stands for what a pixel without light collects in so long a time.
    return _pixels(image.astype(np.float32) * (255.0 / max(level, 1.0)) + (255.0 if level < 1.0 else 0.0))


def contrast(image: Image, severity: int, frame_id: int) -> Image:
    """Values are drawn towards their mean: 40, 25, 15, 8 or 3 % of the contrast stay."""
    del frame_id
    mean = float(image.mean())
    return _pixels((image.astype(np.float32) - mean) * _CONTRAST[severity - 1] + mean)


def fog(image: Image, severity: int, frame_id: int) -> Image:
    """Scattered light in drifting patches: up to 30, 50, 65, 80 or 92 % of the light comes from the air.

    Koschmieder's law with a depth that grows from the lower edge to the middle of the frame.
    """
    height, width = image.shape[:2]
    patches = np.random.default_rng(7).random((8, 12), np.float32)
    patches = np.roll(patches, frame_id // 10, axis=1)
    cloud = np.asarray(cv2.resize(patches, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
    depth = np.clip(1.6 * (1.0 - np.linspace(0.0, 1.0, height, dtype=np.float32)), 0.35, 1.0)[:, None]
    share = np.clip(_FOG[severity - 1] * depth * (0.85 + 0.3 * (cloud - 0.5)), 0.0, 1.0)
    return _mix(image, share, _AIRLIGHT)


def rain(image: Image, severity: int, frame_id: int) -> Image:
    """150 to 2,400 bright streaks per frame, others in each, and a grey veil of 5 to 35 %."""
    height, width = image.shape[:2]
    rng = np.random.default_rng((frame_id, severity))
    streaks = np.zeros((height, width), np.uint8)
    for _ in range(_RAIN_DROPS[severity - 1]):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        length = max(2, int(height * rng.uniform(0.01, 0.05)))
        cv2.line(streaks, (x, y), (x + length // 6, y + length), int(rng.integers(60, 160)), max(1, height // 500))
    veiled = _mix(image, np.full((height, width), _RAIN_VEIL[severity - 1], np.float32), 150.0)
    return _mix(veiled, cv2.GaussianBlur(streaks, (3, 3), 0).astype(np.float32) / 255.0, 230.0)


def glare(image: Image, severity: int, frame_id: int) -> Image:
    """A low sun in the upper right: a white disc with a halo, and veiling glare over the whole frame."""
    del frame_id
    height, width = image.shape[:2]
    y, x = np.ogrid[:height, :width]
    radius = _GLARE_RADIUS[severity - 1] * height
    distance = np.hypot(x - 0.65 * width, y - 0.3 * height).astype(np.float32) / max(radius, 1.0)
    light = _GLARE_VEIL[severity - 1] + 600.0 / (1.0 + distance**2) ** 1.5
    return _pixels(image.astype(np.float32) + (light if image.ndim == 2 else light[..., None]))


def _mix(image: Image, share: npt.NDArray[np.float32], level: float) -> Image:
    """The image with a share (height, width) of each pixel replaced by one level."""
    share = share if image.ndim == 2 else share[..., None]
    return _pixels(image.astype(np.float32) * (1.0 - share) + level * share)


def _pixels(values: npt.NDArray[np.float32]) -> Image:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
