"""Is the camera itself well? Checks that need no network: size, darkness, frozen content."""

from __future__ import annotations

import cv2
import numpy as np

from framegate.runtime.pixel_format import nv12_problem, nv12_rows
from framegate.runtime.verdict import BGR, NV12, Image, Reason

MIN_SIDE = 16
"""Smaller regions (pixels) carry too little to classify."""
BLACK_MEAN = 12.0
BLACK_STD = 6.0
"""A frame is black if mean and standard deviation of all its values (0..255) are at most these: a covered lens with
sensor noise is, a night street with lamps is not."""
ROW_STEP = 32
"""Of a camera's frame every so many rows are looked at."""
_HISTORY = 32
_NEVER = (-1.0, -1.0)  # no pixels have a negative mean


def unusable(image: object, depth: int = 1) -> str:
    """Why this image cannot be classified at all, or an empty string.

    Args:
        image: What came as pixels.
        depth: Slices that it must be a column of, for volumes.
    """
    if not isinstance(image, np.ndarray):
        return f"expected a (height, width, 3) uint8 BGR array, got {type(image).__name__}"
    if image.ndim != 3 or image.shape[2] != 3:
        shape = "x".join(map(str, image.shape))
        return f"expected a colour image (height, width, 3), got shape {shape}"
    if image.dtype != np.uint8:
        return f"expected 8-bit pixels (uint8), got {image.dtype}"
    if min(image.shape[:2]) < MIN_SIDE:
        return f"expected at least {MIN_SIDE}x{MIN_SIDE} pixels, got {image.shape[1]}x{image.shape[0]}"
    if depth > 1 and (image.shape[0] % depth or image.shape[0] // depth < MIN_SIDE):
        return (
            f"expected {depth} slices of equal height, at least {MIN_SIDE} pixels, one below the other, "
            f"got {image.shape[1]}x{image.shape[0]}"
        )
    return ""


def _unusable_nv12(image: Image) -> str:
    problem = nv12_problem(image)
    if not problem and min(image.shape[0] * 2 // 3, image.shape[1]) < MIN_SIDE:
        size = f"{image.shape[1]}x{image.shape[0] * 2 // 3}"
        problem = f"expected at least {MIN_SIDE}x{MIN_SIDE} pixels, got {size}"
    return problem


class CameraHealth:
    """Judges whole frames of one stream; keeps what it needs of the last few.

    Args:
        frame_size: (width, height) that every frame must have; None: the first usable frame decides.
        fixed_size: False for sources whose images may differ in size (a folder of photographs).

    Frozen content is found by comparing every 32nd row (of a volume every row) with those rows of the last 32 frames.
    Identical frames are always found, also when a ring of stale buffers is played again and when time stamps advance;
    a live camera's noise makes an accidental match practically impossible, and if it happens, the frame is rejected,
    not accepted.
    """

    def __init__(self, frame_size: tuple[int, int] | None = None, fixed_size: bool = True) -> None:
        self._expected = frame_size
        self._fixed = fixed_size
        self._ring: list[Image] = []
        self._flat: list[Image] = []
        self._moments: list[tuple[float, float]] = []
        self._slot = 0

    def check(self, image: Image, row_step: int = ROW_STEP, pixel_format: str = BGR) -> tuple[tuple[Reason, ...], str]:
        """Reasons to reject this frame whatever the network says, and a sentence for people.

        Args:
            image: The whole frame.
            row_step: Look at every so many rows, always the same for one stream. Volumes need 1: most rows of a
                shape in empty space are black in all of them.
            pixel_format: Of the image. Of NV12 only those rows are converted, with the findings that the whole
                conversion would give.
        """
        problem = _unusable_nv12(image) if pixel_format == NV12 else unusable(image)
        if problem:
            return (Reason.BAD_INPUT,), problem
        height, width = image.shape[:2]
        if pixel_format == NV12:
            height = height * 2 // 3
        if self._fixed:
            if self._expected is None:
                self._expected = (width, height)
            elif (width, height) != self._expected:
                return (Reason.WRONG_SIZE,), f"{width}x{height}, the stream is {self._expected[0]}x{self._expected[1]}"
        pixels = self._remember(nv12_rows(image, row_step) if pixel_format == NV12 else image[::row_step])
        mean, std = cv2.meanStdDev(pixels)
        reasons: tuple[Reason, ...] = ()
        if mean[0, 0] <= BLACK_MEAN and std[0, 0] <= BLACK_STD:
            reasons += (Reason.BLACK,)
        if self._fixed and self._is_frozen(pixels, (mean[0, 0], std[0, 0])):
            reasons += (Reason.FROZEN,)
        return reasons, ""

    def _remember(self, rows: Image) -> Image:
        """Copy the rows into the next slot of the ring; returns its bytes as one row of numbers.

        One contiguous channel is what OpenCV's reductions are fastest on.
        """
        if not self._ring or self._ring[0].shape != rows.shape:
            self._ring = [np.empty_like(rows, order="C") for _ in range(_HISTORY + 1)]
            self._flat = [slot.reshape(1, -1) for slot in self._ring]
            self._moments = [_NEVER] * len(self._ring)
            self._slot = 0
        self._slot = (self._slot + 1) % len(self._ring)
        self._moments[self._slot] = _NEVER
        np.copyto(self._ring[self._slot], rows)
        return self._flat[self._slot]

    def _is_frozen(self, pixels: Image, moments: tuple[float, float]) -> bool:
        # Equal pixels have equal moments, so only slots with the same ones need the comparison.
        frozen = moments in self._moments and any(
            known == moments and cv2.norm(past, pixels, cv2.NORM_INF) == 0
            for known, past in zip(self._moments, self._flat, strict=True)
        )
        self._moments[self._slot] = moments
        return frozen
