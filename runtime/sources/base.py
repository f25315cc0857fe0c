"""The interface of every source of frames."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType

from framegate.runtime.console import writable
from framegate.runtime.errors import SourceError
from framegate.runtime.verdict import Frame


@dataclass
class SourceStatus:
    """How a source is doing. Written by the thread that reads; looking at it from others is harmless.

    Attributes:
        state: ``open``; ``reconnecting`` (there are no frames meanwhile); ``ended``, ``failed`` or ``closed``.
        reconnects: How often a camera or stream broke off and came back.
        error: Why it last broke off; empty if it never did.
        skipped: Frames that arrived and were left out before they were numbered: warm-up, a limited rate, a backlog.
        timestamps: Where `captured_ns` comes from: ``driver``, ``stream`` (see `StreamClock`) or ``arrival``.
    """

    state: str = "open"
    reconnects: int = 0
    error: str = ""
    skipped: int = 0
    timestamps: str = "arrival"


class Source(ABC):
    """A stream of frames: what the pipeline asks of one. `BaseSource` is the easy way to write one.

    Attributes:
        name: What people call it: path, device or address.
        live: Frames come by themselves at their own pace, so a late reader wants the newest one (a camera, and
            anything paced like one). False: every frame waits until it is read.
        frame_size: (width, height) in pixels if every frame should have this one, else None.
        fixed_size: Every frame has the same size, known beforehand or not. False for a folder of photographs.
        fps: Nominal frames per second, None if there is no such rate.
        length: Frames expected until the end, for progress bars; None if unknown or endless. An estimate.
        status: How it is doing.
        hands_over: The array of a frame belongs to the reader: the source never writes into it again. False, the
            default for sources that others write, makes the pipeline copy every frame.
    """

    hands_over = False
    status = SourceStatus()  # of sources that keep none; BaseSource has one for each
    name: str
    live: bool
    frame_size: tuple[int, int] | None
    fixed_size: bool
    fps: float | None
    length: int | None

    @abstractmethod
    def read(self) -> Frame | None:
        """Block for the next frame. One thread reads.

        Returns:
            The frame, or None at the regular end and after `close`. `frame_id` counts from 0 without gaps;
            `captured_ns` is `time.monotonic_ns()` right after the image was available.

        Raises:
            SourceError: The stream broke off.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop: a blocked `read`, in whatever thread, and every later one returns None. May be called twice."""

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BaseSource(Source):
    """What all sources of this package share: numbering, pacing, and closing from another thread.

    Subclasses implement `_produce` and, if they hold something open, `_release`. Releasing a cv2.VideoCapture while
    it reads would crash, so what is open is freed by whichever comes last, the reading thread or the closing one.

    Each frame must have an array of its own, into which nobody writes later (`Source.hands_over`).

    After a SourceError every later `read` raises it again: a broken stream has no regular end.
    """

    def __init__(
        self,
        name: str,
        *,
        live: bool = False,
        frame_size: tuple[int, int] | None = None,
        fixed_size: bool = True,
        fps: float | None = None,
        length: int | None = None,
        status: SourceStatus | None = None,
    ) -> None:
        self.status = SourceStatus() if status is None else status
        self.name = writable(name)
        self.live = live
        self.frame_size = frame_size
        self.fixed_size = fixed_size
        self.fps = fps
        self.length = length
        self._closed = threading.Event()
        self._reading = threading.Lock()
        self._next_id = 0
        self._ended = False
        self._failure: SourceError | None = None
        self._start_ns: int | None = None

    def read(self) -> Frame | None:
        """Block for the next frame; see `Source.read`."""
        try:
            with self._reading:
                return self._read()
        finally:
            self._release_if_closed()

    def close(self) -> None:
        """Stop, without waiting for a blocked `read`; see `Source.close`."""
        self._closed.set()
        if self.status.state in ("open", "reconnecting"):
            self.status.state = "closed"
        self._release_if_closed()

    @abstractmethod
    def _produce(self, frame_id: int) -> Frame | None:
        """The next frame, numbered `frame_id`; None at the regular end; SourceError if the stream broke off."""

    def _release(self) -> None:
        """Free what is held open. May be called more than once."""

    def _pace(self, frame_id: int) -> None:
        """Sleep until the frame is due: `frame_id` / fps seconds after the first one was. `close` ends the sleep.

        A frame that is overdue passes at once. Nothing is skipped here: dropping is done by the reader.
        """
        now = time.monotonic_ns()
        if self._start_ns is None or self.fps is None:
            self._start_ns = now
            return
        due = self._start_ns + round(frame_id * 1e9 / self.fps)
        while now < due and not self._closed.wait((due - now) / 1e9):
            now = time.monotonic_ns()

    def _read(self) -> Frame | None:
        if self._closed.is_set() or self._ended:
            return None
        if self._failure is not None:
            raise self._failure
        try:
            frame = self._produce(self._next_id)
        except SourceError as error:
            if self._closed.is_set():  # the camera was closed while the read waited: that is an end, not a fault
                return None
            self._failure = error
            self.status.state, self.status.error = "failed", str(error)
            raise
        self._next_id += 1
        self._ended = frame is None
        if self._ended and not self._closed.is_set():
            self.status.state = "ended"
        return None if self._closed.is_set() else frame

    def _release_if_closed(self) -> None:
        # A thread that does not get the lock may return: its holder does the same after releasing it.
        if self._closed.is_set() and self._reading.acquire(blocking=False):
            try:
                self._release()
            finally:
                self._reading.release()
