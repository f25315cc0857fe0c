"""Sources and engines that misbehave on request, around real ones: for the campaign of faults and for the tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from framegate.runtime.backends.base import Backend, CpuBackend
from framegate.runtime.scores import Tensor
from framegate.runtime.sources.base import BaseSource, Source
from framegate.runtime.verdict import Frame, Image


class PictureCamera(BaseSource):
    """A live camera that shows given pictures, each in an array of its own; it can hang.

    Args:
        images: Shown in turns, all of one size.
        fps: Frames per second.
        frames: How many; None: endless.

    Attributes:
        hangs: Set, the next `read` does not return before `goes_on` is set.
        goes_on: See ``hangs``.
    """

    hands_over = True

    def __init__(self, images: Sequence[Image], fps: float = 50.0, frames: int | None = None) -> None:
        height, width = images[0].shape[:2]
        super().__init__("camera", live=True, frame_size=(width, height), fps=fps)
        self._images, self._frames = images, frames
        self.hangs = threading.Event()
        self.goes_on = threading.Event()

    def _produce(self, frame_id: int) -> Frame | None:
        if self._frames is not None and frame_id >= self._frames:
            return None
        self._pace(frame_id)
        if self.hangs.is_set():
            self.goes_on.wait()
        return Frame(frame_id, time.monotonic_ns(), self._images[frame_id % len(self._images)].copy())


class OneBufferSource(Source):
    """What a careless person may write: a live source that writes every frame into the same array.

    Args:
        images: Shown in turns, all of one size.
        frames: How many.
        pause_s: Seconds between two frames.
    """

    def __init__(self, images: Sequence[Image], frames: int, pause_s: float = 0.002) -> None:
        height, width = images[0].shape[:2]
        self.name, self.live, self.frame_size, self.fixed_size = "one buffer", True, (width, height), True
        self.fps, self.length = 200.0, None
        self._images, self._frames, self._pause_s, self._number = images, frames, pause_s, -1
        self._buffer = images[0].copy()

    def read(self) -> Frame | None:
        """See `Source.read`."""
        self._number += 1
        if self._number >= self._frames:
            return None
        time.sleep(self._pause_s)
        self._buffer[:] = self._images[self._number % len(self._images)]
        return Frame(self._number, time.monotonic_ns(), self._buffer)

    def close(self) -> None:
        """See `Source.close`."""
        self._frames = 0


class BrokenEngine(CpuBackend):
    """A real engine on the CPU that can hang, and whose logits can be changed.

    Args:
        inner: The engine.

    Attributes:
        hangs: Set, the next call does not return before `goes_on` is set.
        goes_on: See ``hangs``.
        change: What becomes of the logits.
    """

    def __init__(self, inner: Backend) -> None:
        self._inner = inner
        self.name, self.engine, self.classes = inner.name, inner.engine, inner.classes
        self.hangs, self.goes_on = threading.Event(), threading.Event()
        self.change: Callable[[Tensor], Tensor] = lambda logits: logits

    @property
    def pooled(self) -> Tensor | None:
        """See `Backend.pooled`."""
        return self._inner.pooled

    def bind(self, tensor: Tensor) -> None:
        """See `Backend.bind`."""
        self._inner.bind(tensor)

    def share(self) -> Backend:
        """See `Backend.share`: the engine without its faults."""
        return self._inner.share()

    def finish(self) -> Tensor:
        """See `Backend.finish`."""
        if self.hangs.is_set():
            self.goes_on.wait()
        return self.change(self._inner.finish())
