"""TensorRT's build phases as a progress bar, and Ctrl-C during a build."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from framegate.runtime.backends.tensorrt.library import TensorRt
from framegate.runtime.errors import BackendError

Progress = Callable[[str, int, int], None]

_ALIVE: list[Any] = []  # nothing says that TensorRT's threads report to a monitor no more once a stopped build returns


@contextmanager
def interrupt_event() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets inside the block; KeyboardInterrupt follows when the block ends.

    An exception out of a callback would have to cross TensorRT's C++, which ends the process.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = signal.signal(signal.SIGINT, lambda *_: event.set())
    try:
        yield event
    except BackendError:  # a build that was stopped says that it failed
        if not event.is_set():
            raise
    finally:
        signal.signal(signal.SIGINT, previous)
    if event.is_set():
        raise KeyboardInterrupt


def progress_monitor(trt: TensorRt, title: str, progress: Progress, stop: threading.Event) -> Any:
    """An IProgressMonitor that reports the innermost phase and stops the build once ``stop`` is set.

    TensorRT calls it from several threads.
    """
    lock = threading.Lock()
    steps: dict[str, int] = {}

    class Monitor(trt.module.IProgressMonitor):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.module.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            del parent_phase
            with lock:
                steps[phase_name] = max(1, num_steps)
            self._show(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._show(phase_name, step + 1)
            return not stop.is_set()

        def phase_finish(self, phase_name: str) -> None:
            with lock:
                steps.pop(phase_name, None)

        def _show(self, phase: str, done: int) -> None:
            with lock:
                total = steps.get(phase)
                if total is not None:
                    progress(f"{title}: {phase}", min(done, total), total)

    monitor = Monitor()
    _ALIVE.append(monitor)
    return monitor
