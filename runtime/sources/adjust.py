"""Small changes on the way in that every source can have: mirrored, rate-limited, without its first frames."""

from __future__ import annotations

from dataclasses import replace

import cv2

from framegate.runtime.pixel_format import flip_image
from framegate.runtime.sources.base import BaseSource, Source
from framegate.runtime.sources.options import FLIPS
from framegate.runtime.verdict import Frame, Image


class AdjustedSource(BaseSource):
    """Another source, adjusted. What is left out is left out before it is numbered, and counted in `status.skipped`.

    Args:
        source: The source; closed along with this one.
        flip: A key of `FLIPS`.
        skip: Frames left out at the start and after every reconnection.
        fps: Frames that come sooner than this rate allows are left out; None: none are.

    The limit looks at times of capture. It keeps a schedule, so that 30 frames a second limited to 20 become 20 and not
    15; allows a tenth of a period of jitter; makes up for half a period, and for none after a pause.
    """

    def __init__(self, source: Source, *, flip: str = "none", skip: int = 0, fps: float | None = None) -> None:
        self._source = source
        self._flip = FLIPS[flip]
        self._skip = self._to_skip = skip
        self._connections = source.status.reconnects
        self._period_ns = round(1e9 / fps) if fps else 0
        self._due_ns = 0
        rate = source.fps if fps is None or (source.fps is not None and source.fps < fps) else fps
        super().__init__(
            source.name,
            live=source.live,
            frame_size=source.frame_size,
            fixed_size=source.fixed_size,
            fps=rate,
            length=None if source.length is None else max(0, source.length - skip),
            status=source.status,
        )
        self.hands_over = source.hands_over

    def close(self) -> None:
        """Close this and the source, whose blocked `read` returns."""
        super().close()
        self._source.close()

    def _produce(self, frame_id: int) -> Frame | None:
        while (frame := self._source.read()) is not None:
            if self._is_left_out(frame):
                self.status.skipped += 1
                continue
            return replace(frame, frame_id=frame_id, image=self._flipped(frame))
        return None

    def _flipped(self, frame: Frame) -> Image:
        image = frame.image
        if self._flip is None or not image.size:  # an unreadable file has no pixels
            return image
        try:
            return flip_image(image, frame.pixel_format, self._flip)
        except (ValueError, TypeError, cv2.error):  # not the picture that it should be: left to be rejected
            return image

    def _is_left_out(self, frame: Frame) -> bool:
        if self.status.reconnects != self._connections:
            self._connections, self._to_skip = self.status.reconnects, self._skip
        if self._to_skip > 0:
            self._to_skip -= 1
            return True
        if frame.captured_ns < self._due_ns - self._period_ns // 10:
            return True
        paused = frame.captured_ns - self._due_ns > self._period_ns
        makes_up = 0 if paused else self._period_ns // 2
        self._due_ns = max(self._due_ns, frame.captured_ns - makes_up) + self._period_ns
        return False
