"""The button "slow engine": an engine whose calls take longer, for real."""

from __future__ import annotations

import time
from collections.abc import Callable

from framegate.runtime.backends.base import Backend, PixelMaps
from framegate.runtime.preprocess import PreprocessSpec
from framegate.runtime.scores import FrameScores, Tensor
from framegate.runtime.verdict import BGR, Image


class DelayedBackend:
    """Another backend, whose calls can be delayed while it runs; see `framegate.runtime.backends.base.Backend`.

    Args:
        backend: Does the work; bound already.

    Attributes:
        delay_s: Seconds added to every call, also of shared ones; 0 adds nothing. May be set from any thread.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.name = backend.name
        self.engine = backend.engine
        self.classes = backend.classes
        self._delay_s = [0.0]  # one for all that are shared

    @property
    def delay_s(self) -> float:
        """See the class."""
        return self._delay_s[0]

    @delay_s.setter
    def delay_s(self, seconds: float) -> None:
        self._delay_s[0] = seconds

    @property
    def takes_frames(self) -> bool:
        """See `Backend.takes_frames`."""
        return self._backend.takes_frames

    @property
    def fault(self) -> str:
        """See `Backend.fault`."""
        return self._backend.fault

    @property
    def pooled(self) -> Tensor | None:
        """See `Backend.pooled`."""
        return self._backend.pooled

    @property
    def scores(self) -> FrameScores | None:
        """See `Backend.scores`."""
        return self._backend.scores

    def bind(self, tensor: Tensor) -> None:
        """See `Backend.bind`."""
        self._backend.bind(tensor)

    @property
    def maps(self) -> PixelMaps | None:
        """See `Backend.maps`."""
        return self._backend.maps

    def bind_dense(self, tensor: Tensor, temperature: float) -> None:
        """See `Backend.bind_dense`."""
        self._backend.bind_dense(tensor, temperature)

    def bind_frames(
        self,
        spec: PreprocessSpec,
        width: int,
        height: int,
        temperature: float,
        pixel_format: str = BGR,
    ) -> None:
        """See `Backend.bind_frames`."""
        self._backend.bind_frames(spec, width, height, temperature, pixel_format)

    def start(self, frame: Image | None = None) -> None:
        """See `Backend.start`."""
        self._backend.start(frame)

    def start_filled(self, fill: Callable[[int, int], object]) -> None:
        """See `Backend.start_filled`."""
        self._backend.start_filled(fill)

    def finish(self) -> Tensor:
        """See `Backend.finish`; later by `delay_s`."""
        if self.delay_s > 0:
            time.sleep(self.delay_s)
        return self._backend.finish()

    def share(self) -> Backend:
        """See `Backend.share`; delayed together with this one, for batches of objects."""
        other = DelayedBackend(self._backend.share())
        other._delay_s = self._delay_s
        return other

    def reinitialise(self) -> None:
        """See `Backend.reinitialise`."""
        self._backend.reinitialise()

    def close(self) -> None:
        """See `Backend.close`."""
        self._backend.close()
