"""Pictures as recordings and the page carry them."""

from __future__ import annotations

import math

import cv2
import numpy as np

from framegate.runtime.health.check import unusable
from framegate.runtime.verdict import Image

WIDTH = 960
"""Pixels across, at most: what a page shows without scaling up on most screens, for half the bytes of 1280."""
_QUALITY = 75


def shown(image: Image | None) -> Image:
    """What people can be shown of a frame: (height, width, 3) uint8 BGR; black for what is no picture."""
    if isinstance(image, np.ndarray) and image.size:
        if image.dtype == np.uint16:
            image = (image >> 8).astype(np.uint8)
        if image.ndim == 2 and image.dtype == np.uint8:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        if not unusable(image):
            return image
    return np.zeros((180, 320, 3), np.uint8)


def jpeg(image: Image, width: int) -> bytes:
    """Encode, at most so many pixels across."""
    height, across = image.shape[:2]
    if across > width:
        whole = across // width
        if whole > 1:  # OpenCV averages over a whole number of pixels ten times as fast as over another one
            image = cv2.resize(image, (across // whole, max(1, height // whole)), interpolation=cv2.INTER_AREA)
        size = (width, max(1, round(height * width / across)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)  # by less than 2: nothing is left out
    return bytes(cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, _QUALITY))[1])


def number(value: float) -> float | None:
    """A value for JSON, four digits; None for NaN and infinities."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
