"""What can be asked of a source beside its address, and the check that the kind of source can do it."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import parse_qsl

from framegate.runtime.errors import UsageError
from framegate.runtime.passwords import HIDDEN, hide_parameters, hide_value

FLIPS = {"none": None, "horizontal": 1, "vertical": 0, "180": -1}
"""Name -> OpenCV's flip code."""
FORMATS = ("mjpeg", "yuyv", "nv12")
_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")


@dataclass(frozen=True)
class SourceOptions:
    """What is asked of a source. None, 0 and "none" mean: as it comes.

    Attributes:
        size: (width, height) in pixels that the camera should deliver.
        fps: Cameras and the test pattern: the rate to ask for. Files and images: the rate to play them at. Network
            streams and GStreamer pipelines: the rate not to exceed.
        format: What the camera sends: ``mjpeg``, ``yuyv`` or ``nv12``. NV12 stays NV12 until the preprocessing.
        exposure_ms: Fixed exposure time in ms; None leaves it to the camera.
        buffers: Frames the driver may hold, 1 to 10.
        flip: ``none``, ``horizontal`` (mirrored), ``vertical`` or ``180`` (mounted upside down).
        skip: Frames left out after opening and after each reconnection, while exposure and white balance settle.
        reconnect: Open a camera or stream again when it breaks off. False: that is an error.
        open_timeout_s: For how long to try to open a network stream, in seconds.
        read_timeout_s: A network stream that is silent for so long has broken off, in seconds.
        transport: How RTSP sends the pictures: ``tcp`` or ``udp``.

    Raises:
        UsageError: A value is out of range.
    """

    size: tuple[int, int] | None = None
    fps: float | None = None
    format: str | None = None
    exposure_ms: float | None = None
    buffers: int = 1
    flip: str = "none"
    skip: int = 0
    reconnect: bool = True
    open_timeout_s: float = 4.0
    read_timeout_s: float = 4.0
    transport: str = "tcp"

    def __post_init__(self) -> None:
        if self.size is not None:
            _require(all(16 <= side <= 16384 for side in self.size), "size", self.size, "16..16384 pixels each way")
        _require(self.fps is None or 0 < self.fps <= 1000, "fps", self.fps, "above 0 and at most 1000")
        _require(self.format in (None, *FORMATS), "format", self.format, f"one of {', '.join(FORMATS)}")
        exposed = self.exposure_ms is None or 0 < self.exposure_ms <= 10_000
        _require(exposed, "exposure_ms", self.exposure_ms, "above 0 and at most 10000")
        _require(1 <= self.buffers <= 10, "buffers", self.buffers, "1 to 10")
        _require(self.flip in FLIPS, "flip", self.flip, f"one of {', '.join(FLIPS)}")
        _require(0 <= self.skip <= 100_000, "skip", self.skip, "0 to 100000 frames")
        for name in ("open_timeout_s", "read_timeout_s"):
            value = getattr(self, name)
            _require(math.isfinite(value) and 0.1 <= value <= 600, name, value, "0.1 to 600 seconds")
        _require(self.transport in ("tcp", "udp"), "transport", self.transport, "tcp or udp")

    def require_only(self, what: str, possible: Collection[str]) -> None:
        """Refuse options that this kind of source would silently ignore.

        Args:
            what: Names the source in the message.
            possible: The attributes that it honours.

        Raises:
            UsageError: Another one was set.
        """
        default = SourceOptions()
        for field in fields(self):
            if field.name not in possible and getattr(self, field.name) != getattr(default, field.name):
                option = " (--timeout)" if field.name in ("open_timeout_s", "read_timeout_s") else ""
                raise UsageError(f"{what} has no {field.name}{option}; possible are {', '.join(sorted(possible))}")

    def with_query(self, uri: str, query: str) -> SourceOptions:
        """These options with those written behind the ``?`` of an address, which win.

        Raises:
            UsageError: An unknown or repeated parameter, or a value that is none.
        """
        known = {field.name for field in fields(self)}
        shown = hide_parameters(uri)
        given: dict[str, Any] = {}
        for key, text in parse_qsl(query, keep_blank_values=True):
            if key not in known:
                name = repr(key) if text.strip("=") else HIDDEN  # else it may be anything
                raise UsageError(f"source {shown!r}: unknown parameter {name}; possible are {', '.join(sorted(known))}")
            if key in given:
                raise UsageError(f"source {shown!r}: parameter {key!r} is given twice")
            try:
                given[key] = _parse(key, text)
            except ValueError as error:
                raise UsageError(
                    f"source {shown!r}: parameter {key} is {hide_value(text)!r}; expected {error}"
                ) from None
        return replace(self, **given)


def parse_size(text: str) -> tuple[int, int]:
    """Read ``1280x720``.

    Raises:
        ValueError: It is not of that form.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError("WIDTHxHEIGHT, e.g. 1280x720")
    return int(match[1]), int(match[2])


def _parse(key: str, text: str) -> Any:
    if key == "size":
        return parse_size(text)
    if key in ("format", "flip", "transport"):
        return text.lower()
    if key == "reconnect":
        if text not in ("yes", "no"):
            raise ValueError("yes or no")
        return text == "yes"
    kind = int if key in ("buffers", "skip") else float
    try:
        return kind(text)
    except ValueError:
        raise ValueError("a whole number" if kind is int else "a number") from None


def _require(holds: bool, what: str, value: object, expected: str) -> None:
    if not holds:
        raise UsageError(f"source option {what} is {value}; expected {expected}")
