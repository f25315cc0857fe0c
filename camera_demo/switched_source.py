"""A source whose faults are switched on and off while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from framegate.camera_demo.fault_panel import FaultPanel
from framegate.camera_demo.live_attacks import LiveAttacks
from framegate.runtime.console import to_stderr
from framegate.runtime.errors import SourceError
from framegate.runtime.faults.inject import KINDS, PAST_KINDS, corrupt
from framegate.runtime.pixel_format import to_bgr
from framegate.runtime.sources.base import BaseSource, Source, SourceStatus
from framegate.runtime.sources.live import FIRST_DELAY_S, LONGEST_DELAY_S
from framegate.runtime.verdict import Frame, Image


class SwitchedSource(BaseSource):
    """Another source with the faults of a panel.

    Args:
        open_source: Opens the real source; called at once, and again after the camera was killed.
        panel: Says what is switched on. This source takes over its `kill`.
        attacks: Makes the faults that come from other packages.

    A killed camera is closed for real. While it is away there are no frames, as with any camera that breaks off, and
    `status` says ``reconnecting``; plugged in, it is opened again with growing delays. Frames are numbered on without a
    gap. A fault stands for something in front of the lens or in the camera: the time that computing it takes here is
    added to the time of capture, so that it does not look like a slow pipeline.

    Raises:
        SourceError: It cannot be opened, at the start.
    """

    def __init__(
        self,
        open_source: Callable[[], Source],
        panel: FaultPanel,
        attacks: LiveAttacks,
    ) -> None:
        self._open = open_source
        self._panel = panel
        self._attacks = attacks
        self._good: Image | None = None
        self._was: tuple[str, int] | None = None
        self._delay_s = FIRST_DELAY_S
        self._plugged = threading.Event()
        self._cut: Source | None = None
        self._inner: Source | None = open_source()
        inner = self._inner
        super().__init__(
            inner.name,
            live=inner.live,
            frame_size=inner.frame_size,
            fixed_size=inner.fixed_size,
            fps=inner.fps,
            length=inner.length,
            status=inner.status,
        )
        self.hands_over = inner.hands_over
        panel.kill = self._kill

    def close(self) -> None:
        """Close this and the source, whose blocked `read` returns."""
        super().close()
        self._plugged.set()
        inner = self._inner
        if inner is not None:
            inner.close()

    def _kill(self, killed: bool) -> None:
        if not killed:
            self._plugged.set()
            return
        self._plugged.clear()
        self._delay_s = FIRST_DELAY_S
        self._cut = self._inner
        if self._cut is not None:
            self._cut.close()

    def _produce(self, frame_id: int) -> Frame | None:
        while not self._closed.is_set():
            inner = self._inner
            if inner is None:
                if self._panel.killed:
                    self._plugged.wait()
                else:
                    self._reopen()
                continue
            frame = inner.read()
            if inner is self._cut:  # what a killed camera still had is not shown, and its end is not the end
                self._lose()
                continue
            if frame is None:
                return None
            return self._with_fault(replace(frame, frame_id=frame_id))
        return None

    def _lose(self) -> None:
        self._inner = self._cut = None
        was = self.status
        self.status = SourceStatus("reconnecting", was.reconnects, "killed on the page", was.skipped, was.timestamps)

    def _reopen(self) -> None:
        """Try once to open it; wait if that does not work."""
        was = self.status
        try:
            inner = self._open()
        except SourceError as error:
            was.error = str(error)
            self._closed.wait(self._delay_s)
            self._delay_s = min(2 * self._delay_s, LONGEST_DELAY_S)
            return
        inner.status.reconnects = was.reconnects + 1
        inner.status.skipped += was.skipped
        self.status = inner.status
        self._inner = inner
        if self._closed.is_set():  # close() came while it was opened, and saw none to close
            inner.close()
        to_stderr(f"framegate: {self.name} is plugged in again")

    def _with_fault(self, frame: Frame) -> Frame:
        fault = self._panel.fault
        if fault is None or fault[0] in KINDS or fault[0] in PAST_KINDS:
            self._attacks.rest()
        if fault is None:
            self._was = None
            return frame
        started = time.monotonic_ns()
        frame = to_bgr(frame)
        kind, severity = fault
        if fault != self._was:  # the picture that a frozen camera repeats is the first one it is frozen on
            self._was = fault
            self._good = frame.image.copy() if kind in PAST_KINDS else None
        if kind in KINDS or kind in PAST_KINDS:
            image = corrupt(frame.image, kind, severity, frame.frame_id, self._good)
        else:
            image = self._attacks.apply(frame.image, kind, severity)
        return replace(frame, image=image, captured_ns=frame.captured_ns + time.monotonic_ns() - started)
