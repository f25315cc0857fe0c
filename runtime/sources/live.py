"""Cameras and streams that may disappear and come back: what they have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import cv2

from framegate.runtime.console import to_stderr
from framegate.runtime.errors import SourceError
from framegate.runtime.sources.base import BaseSource
from framegate.runtime.verdict import BGR, Frame, Image

FIRST_DELAY_S, LONGEST_DELAY_S = 0.25, 8.0
"""The wait before an attempt to reconnect doubles from the first to the longest; a delivered frame resets it."""


@dataclass(frozen=True, slots=True)
class Captured:
    """What a connection delivers.

    Attributes:
        image: The pixels.
        captured_ns: Time of capture, see `Frame`.
        pixel_format: See `Frame`.
        timestamps: See `SourceStatus`.
        skipped: Older frames that were waiting in front of this one and were left out.
    """

    image: Image
    captured_ns: int
    pixel_format: str = BGR
    timestamps: str = "arrival"
    skipped: int = 0


def one_line(error: Exception) -> str:
    """An error's text without line breaks (OpenCV's have some)."""
    return " ".join(str(error).split())


class Connection(Protocol):
    """An open camera or stream. One thread uses it.

    Attributes:
        frame_size: (width, height) in pixels, None if it is not known yet.
        fps: Nominal rate, None if it states none.
    """

    frame_size: tuple[int, int] | None
    fps: float | None

    def read(self) -> Captured:
        """Block for the newest frame, at most for the time that means "broken off".

        Raises:
            SourceError: It broke off; the connection is used no more.
        """

    def close(self) -> None:
        """Free what it holds. May be called twice."""


class LiveSource(BaseSource):
    """Reads a connection; when it breaks off, opens it again and again until it works.

    Args:
        name: What people call it.
        connect: Opens it; raises SourceError if that does not work.
        reconnect: False: breaking off is an error, and a camera without a picture ends the run.

    The first attempt happens here and must succeed: a wrong address is an error, not something to wait for. Later,
    while it is away, `read` blocks and delivers nothing, so nothing is judged, and whoever waits for verdicts runs into
    their own timeout, which is REJECT. The numbers of the frames go on without a gap. A camera that comes back with
    another picture size is passed on as it is, not scaled: the health check says WRONG_SIZE.

    Raises:
        SourceError: It cannot be opened.
    """

    hands_over = True

    def __init__(self, name: str, connect: Callable[[], Connection], *, reconnect: bool = True) -> None:
        self._connect = connect
        self._may_reconnect = reconnect
        self._connection: Connection | None = connect()
        self._delay_s = FIRST_DELAY_S
        super().__init__(name, live=True, frame_size=self._connection.frame_size, fps=self._connection.fps)

    def _produce(self, frame_id: int) -> Frame | None:
        while not self._closed.is_set():
            if self._connection is None and not self._reopened():
                continue
            assert self._connection is not None
            try:
                captured = self._connection.read()
            except SourceError as error:
                self._release()
                if not self._may_reconnect or self._closed.is_set():
                    raise
                self._broke_off(str(error))
                continue
            self._works_again(captured)
            return Frame(frame_id, captured.captured_ns, captured.image, "", captured.pixel_format)
        return None

    def _reopened(self) -> bool:
        """Wait, then try once to open it again."""
        if self._closed.wait(self._delay_s):
            return False
        self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S)
        try:
            self._connection = self._connect()
        except SourceError as error:
            self.status.error = str(error)
            return False
        return True

    def _broke_off(self, why: str) -> None:
        self.status.error = why
        if self.status.state == "open":  # not once more for every attempt that opens and delivers nothing
            self.status.state = "reconnecting"
            to_stderr(f"framegate: {why}; trying to reconnect, no frames meanwhile")

    def _works_again(self, captured: Captured) -> None:
        status = self.status
        status.timestamps = captured.timestamps
        status.skipped += captured.skipped
        if status.state == "reconnecting":
            status.state = "open"
            status.reconnects += 1
            to_stderr(f"framegate: {self.name} delivers again (reconnected {status.reconnects} times)")
        self._delay_s = FIRST_DELAY_S

    def _release(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Stating(Protocol):
    def get(self, prop: int, /) -> float: ...


def size_and_rate(capture: _Stating, most: float = 1000.0) -> tuple[tuple[int, int] | None, float | None]:
    """(width, height) and frames per second that an opened capture states; None for what it does not know.

    Args:
        capture: Opened.
        most: Larger rates are no rates.
    """
    width, height = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return (width, height) if width > 0 and height > 0 else None, fps if 0 < fps <= most else None
