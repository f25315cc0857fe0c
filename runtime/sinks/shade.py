"""Draws what a dense network says into a picture: usable pixels in the colour of their label, the others hatched."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from framegate.runtime.roi import Roi
from framegate.runtime.verdict import DenseRegion, Image, Prediction

_TINTS = ((200, 120, 40), (0, 200, 255), (200, 60, 200), (60, 190, 60), (255, 170, 60), (120, 220, 220))
"""BGR, one for a label, over and over."""
_HATCH = (40, 40, 220)
_PERIOD, _STROKE = 10, 3
"""Of the hatching, in pixels."""


def shaded(image: Image, predictions: Sequence[Prediction], rois: Sequence[Roi]) -> Image:
    """The picture with the regions of a dense network shaded; the same array where there are none.

    Args:
        image: (height, width, 3) uint8 BGR, not changed.
        predictions: On this frame.
        rois: Where each of them lies.
    """
    canvas = image
    for prediction, roi in zip(predictions, rois, strict=True):
        box = roi.pixels(image.shape[1], image.shape[0])
        if prediction.dense is not None and box is not None:
            canvas = canvas.copy() if canvas is image else canvas
            x, y, width, height = box
            _shade(canvas[y : y + height, x : x + width], prediction.dense)
    return canvas


def mask_picture(region: DenseRegion) -> bytes:
    """The usable pixels of a region's map as PNG: 255 where a pixel is usable, 0 elsewhere."""
    x, y, width, height = region.box
    inside = np.ascontiguousarray(region.mask[y : y + height, x : x + width], np.uint8) * 255
    return bytes(cv2.imencode(".png", inside)[1])


def _shade(part: Image, region: DenseRegion) -> None:
    """Shade a part of a picture in place."""
    height, width = part.shape[:2]
    x, y, columns, rows = region.box
    mask, labels = (
        cv2.resize(
            each[y : y + rows, x : x + columns].astype(np.int16), (width, height), interpolation=cv2.INTER_NEAREST
        )
        for each in (region.mask, region.candidates)
    )
    usable = mask > 0
    tints = np.array(_TINTS, np.uint8)[labels % len(_TINTS)]
    mixed = cv2.addWeighted(part, 0.65, tints, 0.35, 0)
    down, right = np.indices((height, width), sparse=True)
    hatched = ~usable & ((right + down) % _PERIOD < _STROKE)
    np.copyto(part, mixed, where=usable[..., None])
    part[hatched] = _HATCH
