"""A capture that can be given up, for OpenCV before 4.7, which waits for a silent GStreamer pipeline for ever."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import cv2

from framegate.runtime.verdict import Image

_Work = Callable[[cv2.VideoCapture], Any]


class WatchedCapture:
    """A `cv2.VideoCapture` on a thread of its own, with the methods that a connection uses.

    What takes longer than the timeout raises TimeoutError. OpenCV cannot be called off, so that the thread stays in
    its call until the pipeline delivers or ends; then it frees the pipeline and ends, too.

    Args:
        name: A pipeline.
        api: ``cv2.CAP_GSTREAMER``.
        timeout_s: For every call; the first one also waits until it is open.
    """

    def __init__(self, name: str, api: int, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._wanted: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()
        self._late = False
        # A daemon: one that waits for ever must not keep the process.
        self._thread = threading.Thread(target=self._work, args=(name, api), name="framegate-pipeline", daemon=True)
        self._thread.start()

    @property
    def waits(self) -> bool:
        """Whether a call that took too long is still under way."""
        return self._late and self._thread.is_alive()

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        """See OpenCV."""
        return bool(self._call(cv2.VideoCapture.isOpened))

    def get(self, prop: int) -> float:
        """See OpenCV."""
        return float(self._call(lambda capture: capture.get(prop)))

    def grab(self) -> bool:
        """See OpenCV."""
        return bool(self._call(cv2.VideoCapture.grab))

    def retrieve(self) -> tuple[bool, Image | None]:
        """See OpenCV."""
        ok, image = self._call(cv2.VideoCapture.retrieve)
        return ok, image

    def release(self) -> None:
        """Free it now, or as soon as its last call comes back. May be called twice."""
        self._wanted.put(None)
        if not self._late:
            self._thread.join(self._timeout_s)

    def _call(self, work: _Work) -> Any:
        if self._late:
            raise TimeoutError
        self._wanted.put(work)
        try:
            result, error = self._done.get(timeout=self._timeout_s)
        except queue.Empty:
            self._late = True
            self._wanted.put(None)
            raise TimeoutError from None
        if error is not None:
            raise error
        return result

    def _work(self, name: str, api: int) -> None:
        capture: cv2.VideoCapture | None = None
        while (work := self._wanted.get()) is not None:
            try:
                if capture is None:
                    capture = cv2.VideoCapture(name, api)
                self._done.put((work(capture), None))
            except Exception as error:  # noqa: BLE001 - whatever OpenCV raises belongs to whoever asked
                self._done.put((None, error))
        if capture is not None:
            capture.release()
