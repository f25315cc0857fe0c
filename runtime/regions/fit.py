"""How a frame is brought to the size of a detector's input, and how boxes come back: exactly, to the pixel.

``stretch``: both axes are scaled to the input. ``letterbox``: the frame keeps its shape, is centred, and the rest is
grey (114), as in ultralytics' ``LetterBox``. ``letterbox-corner``: the same at the top left, as in YOLOX's ``preproc``.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from framegate.runtime.preprocess import INTERPOLATION

FITS = ("stretch", "letterbox", "letterbox-corner")
_GREY = 114

Pixels = npt.NDArray[np.uint8]
Corners = npt.NDArray[np.float32]


class Fit:
    """Brings frames to one size. Without allocating while frames keep theirs.

    Args:
        kind: One of `FITS`.
        width: Of the input, in pixels.
        height: Of the input.
        resize: ``bilinear`` or ``area``.
    """

    def __init__(self, kind: str, width: int, height: int, resize: str) -> None:
        self._kind, self._size = kind, (width, height)
        self._interpolation = INTERPOLATION[resize]
        self._canvas = np.full((height, width, 3), _GREY, np.uint8)
        self._frame = (0, 0)
        self._place = (0, 0, width, height)

    def __call__(self, image: Pixels) -> Pixels:
        """The input's picture, (height, width, 3) uint8, overwritten by the next call."""
        rows, columns = image.shape[:2]
        if (columns, rows) != self._frame:
            self._frame = (columns, rows)
            self._place = placed(self._kind, (columns, rows), self._size)
            self._canvas[:] = _GREY
        x, y, width, height = self._place
        target = self._canvas[y : y + height, x : x + width]
        if target.flags.c_contiguous:
            cv2.resize(image, (width, height), dst=target, interpolation=self._interpolation)
        else:  # cv2 would write into an array of its own
            np.copyto(target, cv2.resize(image, (width, height), interpolation=self._interpolation))
        return self._canvas

    def back(self, corners: Corners) -> Corners:
        """(N, 4) left, top, right, bottom from pixels of the input to pixels of the last frame."""
        x, y, width, height = self._place
        scale = np.array([self._frame[0] / width, self._frame[1] / height] * 2, np.float32)
        return ((corners - np.array([x, y, x, y], np.float32)) * scale).astype(np.float32)


def placed(kind: str, frame: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Where a frame lies in the input: x, y, width, height.

    Args:
        kind: One of `FITS`.
        frame: (width, height) of the frame.
        size: (width, height) of the input.
    """
    if kind == "stretch":
        return 0, 0, *size
    ratio = min(size[0] / frame[0], size[1] / frame[1])
    if kind == "letterbox-corner":
        return 0, 0, max(1, int(frame[0] * ratio)), max(1, int(frame[1] * ratio))
    width, height = max(1, round(frame[0] * ratio)), max(1, round(frame[1] * ratio))
    return round((size[0] - width) / 2 - 0.1), round((size[1] - height) / 2 - 0.1), width, height
