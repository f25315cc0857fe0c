"""The button "slow engine": an engine whose calls take longer, for real."""

from __future__ import annotations

import time
from typing import Protocol, cast

from framegate.runtime.backends.base import Backend, RecoverableBackend, StartedBackend
from framegate.runtime.scores import Tensor


class _Gpu(Backend, StartedBackend, RecoverableBackend, Protocol):
    pass


class DelayedBackend:
    """Another backend, whose calls can be delayed while it runs. Make one with `delayed`.

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
        self.wait()
        return self._backend.infer()

    def wait(self) -> None:
        """Let the delay pass."""
        if self.delay_s > 0:
            time.sleep(self.delay_s)


class DelayedGpu(DelayedBackend):
    """The same of a backend that computes in two steps and can be started again: the demo is no other product."""

    def __init__(self, backend: _Gpu) -> None:
        super().__init__(backend)
        self._gpu = backend

    @property
    def fault(self) -> str:
        """See `RecoverableBackend`."""
        return self._gpu.fault

    @fault.setter
    def fault(self, value: str) -> None:
        self._gpu.fault = value

    def reinitialise(self) -> None:
        """See `RecoverableBackend.reinitialise`."""
        self._gpu.reinitialise()

    def start(self) -> None:
        """See `StartedBackend.start`."""
        self._gpu.start()

    def finish(self) -> Tensor:
        """See `StartedBackend.finish`; later by `delay_s`."""
        self.wait()
        return self._gpu.finish()


def delayed(backend: Backend) -> DelayedBackend:
    """The backend with a delay, and with everything else that the session asks it for."""
    if isinstance(backend, StartedBackend) and isinstance(backend, RecoverableBackend):
        return DelayedGpu(cast("_Gpu", backend))
    return DelayedBackend(backend)
