"""A moving test pattern that carries its frame number: a camera for machines without one."""

from __future__ import annotations

import math
import time
from urllib.parse import parse_qsl

import cv2
import numpy as np
import numpy.typing as npt

from framegate.runtime.errors import UsageError
from framegate.runtime.passwords import HIDDEN, hide_passwords
from framegate.runtime.pixel_format import to_nv12
from framegate.runtime.sources.base import BaseSource
from framegate.runtime.verdict import BGR, NV12, Frame, Image

_BITS = 32
_STRIP = 16
"""Height in pixels of the strip of blocks: two rows of 8x8 DCT blocks, so that JPEG and MPEG keep it legible."""
_GRAIN = 6
"""Largest deviation of the background's grain, in levels; the same in every frame."""
_BOX = (70, 30, 20)
"""Dark wherever it is: a box as bright as what is behind it would not be seen to move."""
_MIN_WIDTH, _MIN_HEIGHT, _MAX_SIDE = 128, 64, 8192
_PREFIX = "synthetic://"
_PARAMETERS = ("width", "height", "fps", "frames", "format")


class SyntheticSource(BaseSource):
    """A grained colour gradient, a moving disc and box, and the frame number as 32 black or white blocks along the top.

    Args:
        width: In pixels, 128 to 8192.
        height: In pixels, 64 to 8192.
        fps: Frames per second, above 0 and at most 1000.
        frames: How many; None: endless.
        realtime: Deliver at the pace of `fps` (and `live` is True). False: as fast as it is read.
        loop: After `frames` frames begin again with pattern number 0 (the frame ids go on).
        nv12: Deliver NV12, as hardware decoders do; width and height are then even.

    No two frames are equal within 2**32 frames, or within `frames` when looped.

    Raises:
        UsageError: A value is out of range.
    """

    hands_over = True

    def __init__(
        self,
        width: int = 640,
        height: int = 480,
        fps: float = 30.0,
        frames: int | None = None,
        *,
        realtime: bool = True,
        loop: bool = False,
        nv12: bool = False,
    ) -> None:
        _require(_MIN_WIDTH <= width <= _MAX_SIDE, "width", width, f"from {_MIN_WIDTH} to {_MAX_SIDE}")
        _require(_MIN_HEIGHT <= height <= _MAX_SIDE, "height", height, f"from {_MIN_HEIGHT} to {_MAX_SIDE}")
        _require(math.isfinite(fps) and 0 < fps <= 1000, "fps", fps, "above 0 and at most 1000")
        _require(frames is None or frames >= 1, "frames", frames, "at least 1")
        _require(not nv12 or (width % 2 == 0 and height % 2 == 0), "size", f"{width}x{height}", "even for nv12")
        self._nv12 = nv12
        self._frames = frames
        self._loop = loop
        grain = _grain(width, height)
        self._grain = grain[:_STRIP].astype(np.int16)
        self._background = _gradient(width, height, grain)
        super().__init__(
            f"{_PREFIX}?width={width}&height={height}&fps={fps:g}"
            + (f"&frames={frames}" if frames else "")
            + ("&format=nv12" if nv12 else ""),
            live=realtime,
            frame_size=(width, height),
            fps=fps,
            length=None if loop else frames,
        )

    @classmethod
    def parse(cls, uri: str, *, realtime: bool = True, loop: bool = False) -> SyntheticSource:
        """Open ``synthetic://?width=640&height=480&fps=30&frames=100``; every parameter may be left out.

        Raises:
            UsageError: An unknown or repeated parameter, or a value that is no number or out of range.
        """
        head, _, query = uri.partition("?")
        shown = hide_passwords(uri)
        if head != _PREFIX:
            raise UsageError(
                f"source {shown!r}: expected {_PREFIX} or {_PREFIX}?width=640&height=480&fps=30&frames=100"
            )
        given: dict[str, str] = {}
        for key, value in parse_qsl(query, keep_blank_values=True):
            if key not in _PARAMETERS:
                possible = ", ".join(_PARAMETERS)
                name = repr(key) if value.strip("=") else HIDDEN  # else it may be anything
                raise UsageError(f"source {shown!r}: unknown parameter {name}; possible are {possible}")
            if key in given:
                raise UsageError(f"source {shown!r}: parameter {key!r} is given twice")
            given[key] = value
        _require(given.get("format", "bgr") in (BGR, NV12), "format", given.get("format"), "bgr or nv12")
        try:
            return cls(
                int(given.get("width", "640")),
                int(given.get("height", "480")),
                float(given.get("fps", "30")),
                int(given["frames"]) if "frames" in given else None,
                realtime=realtime,
                loop=loop,
                nv12=given.get("format") == NV12,
            )
        except ValueError as error:
            raise UsageError(
                f"source {shown!r}: width, height and frames are whole numbers, fps is a number"
            ) from error

    def _produce(self, frame_id: int) -> Frame | None:
        if self._frames is not None and frame_id >= self._frames and not self._loop:
            return None
        image = self._draw(frame_id if self._frames is None else frame_id % self._frames)
        if self._nv12:
            image = to_nv12(image)
        if self.live:
            self._pace(frame_id)
        return Frame(frame_id, time.monotonic_ns(), image, "", NV12 if self._nv12 else BGR)

    def _draw(self, number: int) -> Image:
        image = self._background.copy()
        height, width = image.shape[:2]
        radius = min(width, height) // 8
        angle = number * 0.05
        centre = round(width * (0.5 + 0.35 * math.cos(angle))), round(height * (0.55 + 0.25 * math.sin(1.7 * angle)))
        cv2.circle(image, centre, radius, (40, 60, 230), cv2.FILLED)
        left = number * 3 % (width - radius)
        cv2.rectangle(image, (left, height - 2 * radius), (left + radius, height - radius), _BOX, cv2.FILLED)
        block = width // _BITS
        bits = [255 * (number >> (_BITS - 1 - k) & 1) for k in range(_BITS)]
        # With grain: rows that repeat each other are what a frame is filled with when the rest of it is missing.
        strip = (
            np.clip(np.repeat(np.array(bits), block)[:, None], _GRAIN, 255 - _GRAIN) + self._grain[:, : block * _BITS]
        )
        image[:_STRIP, : block * _BITS] = strip
        return image


def read_frame_number(image: Image) -> int:
    """The number of a synthetic frame, also after lossy compression, conversion to grey or scaling to half.

    Args:
        image: (height, width) or (height, width, channels), 8 bits, at least 32 pixels wide. Other pictures give
            some meaningless number.
    """
    block = image.shape[1] // _BITS
    # From the middle of each block, where compression leaves no ringing.
    centres = np.arange(_BITS) * block + block // 2
    levels = image[2:6, centres].reshape(4, _BITS, -1).mean(axis=(0, 2))
    number = 0
    for level in levels:
        number = number << 1 | int(level > 127)
    return number


def _grain(width: int, height: int) -> npt.NDArray[np.int64]:
    """That of a real surface: a perfectly smooth picture would be a blurred one to the health check."""
    return np.random.default_rng(0).integers(-_GRAIN, _GRAIN + 1, (height, width, 1))


def _gradient(width: int, height: int, grain: npt.NDArray[np.int64]) -> Image:
    """Blue grows to the right, green downwards, red against both: bright everywhere, never mistaken for black."""
    across = np.linspace(40, 215, width)[None, :]
    down = np.linspace(40, 215, height)[:, None]
    image = np.empty((height, width, 3), np.uint8)
    image[:, :, 0] = across
    image[:, :, 1] = down
    image[:, :, 2] = 255 - (across + down) / 2
    return (image + grain).astype(np.uint8)


def _require(holds: bool, what: str, value: object, expected: str) -> None:
    if not holds:
        raise UsageError(f"synthetic source: {what} must be {expected} (got {value})")
