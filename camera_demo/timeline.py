"""The last two minutes, frame by frame, with a picture of every frame on which something was rejected.

Notes of all frames are a few numbers each. A picture costs two to three milliseconds of a core, so pictures are made by
a thread of low priority that takes frames from a short queue: where a machine has no time for all, frames go without a
picture, and neither the pipeline nor the page waits. Memory is bounded by time, number and bytes.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable

from framegate.camera_demo.picture import gone, message
from framegate.runtime.console import to_stderr
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.roi import Roi
from framegate.runtime.verdict import Reason

SECONDS = 120.0
"""How far back it reaches."""
MOST_NOTES = 16_384
"""Frames that are noted at most: two minutes at 136 frames a second."""
MOST_BYTES = 80 * 2**20
"""Of pictures; where a camera's are so large that two minutes do not fit, the oldest go first."""
WIDTH = 512
"""Pixels across of a picture, at most."""
_QUEUED = 8
NICE = 5
REASONS = tuple(Reason)
"""Bit k of a note's reasons is the reason number k."""
Note = tuple[int, int, int, int, int]
"""Frame, milliseconds since the start, regions that may be used, regions, reasons as bits."""


def note_of(result: FrameResult, ms: int) -> Note:
    """What is noted of a frame.

    Args:
        result: Its verdicts.
        ms: When, in milliseconds since the start.
    """
    bits = 0
    for each in result.verdicts:
        for reason in each.decided_reasons:
            bits |= 1 << REASONS.index(reason)
    usable = sum(each.accepted_when_decided for each in result.predictions)
    return result.first.frame_id, ms, usable, len(result.predictions), bits


class Timeline:
    """Notes and pictures of the last two minutes.

    Args:
        rois: The pipeline's fixed regions.
        title: What a stream is called on the page.

    Attributes:
        run: Names this run of the demo, so that a link to a moment of another run can be told from one that still is.
        keeps: False keeps no pictures from now on.
    """

    def __init__(self, rois: tuple[Roi, ...], title: Callable[[str], str] = str) -> None:
        self.run = secrets.token_hex(4)
        self.keeps = True
        self._rois = rois
        self._title = title
        self._started = time.monotonic()
        self._notes: deque[Note] = deque(maxlen=MOST_NOTES)
        self._pictures: dict[int, bytes] = {}  # in the order of capture
        self._times: dict[int, int] = {}
        self._bytes = 0
        self._queue: deque[tuple[FrameResult, int, dict[str, str]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="framegate-demo-timeline", daemon=True)
        self._thread.start()

    @property
    def now_ms(self) -> int:
        """Milliseconds since the start."""
        return int(1e3 * (time.monotonic() - self._started))

    @property
    def held_bytes(self) -> int:
        """Bytes of the pictures that are kept."""
        return self._bytes

    @property
    def pictures(self) -> int:
        """Pictures that are kept."""
        return len(self._pictures)

    def saw(self, result: FrameResult) -> None:
        """Note one frame; belongs to one thread, and waits for nobody."""
        ms = self.now_ms
        note = note_of(result, ms)
        titles = {each.stream: self._title(each.stream) for each in result.predictions}  # now: lines change hands
        with self._changed:
            self._notes.append(note)
            while self._notes and self._notes[0][1] < ms - 1e3 * SECONDS:
                self._notes.popleft()
            if note[4] and self.keeps and len(self._queue) < _QUEUED:
                self._queue.append((result, ms, titles))
                self._changed.notify()

    def notes(self, count: int) -> list[Note]:
        """The newest notes.

        Args:
            count: How many at most.
        """
        with self._changed:
            return list(self._notes)[-count:] if count > 0 else []

    def moment(self, frame: int) -> bytes:
        """A frame as a message of the page (`framegate.camera_demo.picture`); one that says ``gone`` without a picture.

        Args:
            frame: Its number.
        """
        with self._changed:
            kept = self._pictures.get(frame)
        return kept if kept is not None else gone(frame)

    def close(self) -> None:
        """End the thread and forget everything."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        self._pictures.clear()

    def _work(self) -> None:
        with contextlib.suppress(AttributeError, OSError):  # of this thread alone; Linux
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or bool(self._queue))
                if self._closed:
                    return
                result, ms, titles = self._queue.popleft()
            try:
                made = message(result, self._rois, titles.__getitem__, WIDTH, {"moment": True})
            except Exception as error:  # noqa: BLE001 - one picture less; the next frame may be a usual one again
                to_stderr(f"framegate: frame {result.first.frame_id} has no picture to look back at: {error!r}")
                continue
            with self._changed:
                self._keep(result.first.frame_id, ms, made)

    def _keep(self, frame: int, ms: int, made: bytes) -> None:
        self._bytes += len(made) - len(self._pictures.pop(frame, b""))
        self._pictures[frame], self._times[frame] = made, ms
        oldest_ms = self.now_ms - 1e3 * SECONDS
        while self._pictures:
            oldest = next(iter(self._pictures))
            if self._bytes <= MOST_BYTES and self._times[oldest] >= oldest_ms:
                break
            self._bytes -= len(self._pictures.pop(oldest))
            del self._times[oldest]
