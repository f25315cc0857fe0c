"""The button "slow engine": an engine whose calls take longer, for real."""

from __future__ import annotations

import time

from framegate.runtime.backend import Backend, Tensor


class DelayedBackend:
    """Another backend, whose calls can be delayed while it runs.

    Args:
        backend: Does the work; bound already.

    Attributes:
        delay_s: Seconds added to every call; 0 adds nothing. May be set from any thread.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.name = backend.name
        self.engine = backend.engine
        self.classes = backend.classes
        self.delay_s = 0.0

    @property
    def pooled(self) -> Tensor | None:
        """See `Backend.pooled`."""
        return self._backend.pooled

    @pooled.setter
    def pooled(self, value: Tensor | None) -> None:
        self._backend.pooled = value

    def bind(self, tensor: Tensor) -> None:
        """See `Backend.bind`."""
        self._backend.bind(tensor)

    def infer(self) -> Tensor:
        """See `Backend.infer`; later by `delay_s`."""
        if self.delay_s > 0:
            time.sleep(self.delay_s)
        return self._backend.infer()
