"""Pixel formats of frames: what NV12 looks like in memory, and its one conversion to BGR.

Hardware decoders and camera processors deliver NV12: half the bytes of BGR, and what the GPU's preprocessing reads.
Everything on the CPU works on BGR, so a frame that stays there is converted once. OpenCV, the CUDA kernel and its
reference share one arithmetic: ITU-R BT.601, limited range.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from framegate.runtime.verdict import BGR, NV12, Frame, Image


def frame_size(frame: Frame) -> tuple[int, int]:
    """(width, height) in pixels of what the frame shows; (0, 0) for an array that has no such thing."""
    if frame.image.ndim < 2:
        return 0, 0
    rows, width = frame.image.shape[:2]
    return (width, rows * 2 // 3) if frame.pixel_format == NV12 else (width, rows)


def nv12_problem(image: Image) -> str:
    """Why this array is no NV12 image, or an empty string.

    NV12 is one (height * 3/2, width) uint8 array with even width and height: `height` rows of luma, then the
    chroma of 2x2 pixels each as pairs U, V.
    """
    if image.ndim != 2 or image.dtype != np.uint8 or image.shape[0] % 3 or image.shape[1] % 2 or not image.size:
        shape = "x".join(map(str, image.shape))
        return f"expected NV12 (height * 3/2, width) uint8 with even sides, got {image.dtype} of shape {shape}"
    return ""


def to_bgr(frame: Frame, into: Image | None = None) -> Frame:
    """The frame as BGR; one that is BGR already is returned as it is.

    Args:
        frame: BGR or NV12.
        into: A (height, width, 3) uint8 array to convert into, if it has the right size.

    Raises:
        ValueError: It claims to be NV12 and is not, or its format is unknown.
    """
    if frame.pixel_format == BGR:
        return frame
    if frame.pixel_format != NV12:
        raise ValueError(f"pixel format is {frame.pixel_format!r}; expected {BGR} or {NV12}")
    problem = nv12_problem(frame.image)
    if problem:
        raise ValueError(problem)
    image = cv2.cvtColor(frame.image, cv2.COLOR_YUV2BGR_NV12, dst=into)
    return replace(frame, image=image, pixel_format=BGR)


def viewable(frame: Frame) -> Frame:
    """The frame as BGR; one that cannot be converted stays as it is, and is rejected as BAD_INPUT."""
    try:
        return to_bgr(frame)
    except ValueError:
        return frame


def nv12_rows(image: Image, step: int) -> Image:
    """Every `step`-th row of an NV12 image as BGR, exactly as the whole conversion would give them.

    Args:
        image: NV12, see `nv12_problem`.
        step: Even.

    Returns:
        (ceil(height / step), width, 3) uint8 BGR.
    """
    height, width = image.shape[0] * 2 // 3, image.shape[1]
    luma, chroma = image[:height], image[height:]
    some = chroma[:: step // 2]
    # The converter wants pairs of rows; the second one of each pair is not looked at.
    pairs = np.empty((len(some) * 3, width), np.uint8)
    pairs[0 : 2 * len(some) : 2] = luma[::step]
    pairs[1 : 2 * len(some) : 2] = luma[::step]
    pairs[2 * len(some) :] = some
    return cv2.cvtColor(pairs, cv2.COLOR_YUV2BGR_NV12)[::2]


def to_nv12(image: Image) -> Image:
    """A BGR image with even sides as NV12 (for tests and the test pattern; chroma is averaged by OpenCV).

    Args:
        image: (height, width, 3) uint8.

    Returns:
        (height * 3/2, width) uint8.
    """
    height, width = image.shape[:2]
    planar = cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)
    chroma = planar[height:].reshape(2, -1)  # all of U, then all of V
    planar[height:] = chroma.T.reshape(height // 2, width)
    return planar


def flip_image(image: Image, pixel_format: str, code: int) -> Image:
    """Mirror or turn an image into a new array.

    Args:
        image: BGR or NV12.
        pixel_format: Which of them.
        code: OpenCV's: 0 top to bottom, 1 left to right, -1 both (turned by 180 degrees).
    """
    if pixel_format != NV12:
        return cv2.flip(image, code)
    height = image.shape[0] * 2 // 3
    flipped = np.empty_like(image)
    cv2.flip(image[:height], code, dst=flipped[:height])
    pairs = image[height:].reshape(height // 2, -1, 2)  # U and V of a block stay side by side
    flipped[height:] = cv2.flip(pairs, code).reshape(height // 2, -1)
    return flipped
