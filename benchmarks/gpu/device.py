"""The GPU under measurement: whether there is one, how fast it copies, and how long something takes on it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from framegate.cuda_kernels.driver.library import DriverLibrary
from framegate.cuda_kernels.driver.open import CudaError, Driver, open_driver

_ABSENT = ("NO_DRIVER", "NO_DEVICE", "CUDA_ERROR_NO_DEVICE")


def open_gpu(driver: str = "auto") -> Driver | None:
    """Open the first GPU, or return None if this machine has none.

    Raises:
        CudaError: there is a GPU, but it cannot be used: that is a failure, not an absence.
    """
    try:
        return open_driver(driver)
    except CudaError as error:
        if error.name in _ABSENT:
            return None
        if error.name == "NO_PACKAGE" and not _driver_present():
            return None
        raise


def _driver_present() -> bool:
    try:
        DriverLibrary().call("initialising the CUDA driver", "cuInit", 0)
    except CudaError as error:
        return error.name not in _ABSENT
    return True


def circumstances_of(gpu: Driver) -> dict[str, Any]:
    """Return the GPU's part of a measurement's circumstances."""
    return {
        "gpu": gpu.info.name,
        "architecture": f"sm_{gpu.info.architecture}",
        "multiprocessors": gpu.info.multiprocessors,
        "memory_gib": round(gpu.info.memory_bytes / 2**30, 1),
        "l2_mib": round(gpu.info.l2_bytes / 2**20, 1),
        "driver_cuda": ".".join(str(n) for n in gpu.info.driver_version),
        "cuda_layer": gpu.name,
    }


def percentiles(samples: Sequence[float], digits: int = 3) -> dict[str, float]:
    """Summarise samples; a tail that the sample is too small for is its maximum."""
    ordered = np.sort(np.asarray(samples, np.float64))
    summary = {
        name: float(ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)])
        for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))
    }
    return {name: round(value, digits) for name, value in (*summary.items(), ("max", float(ordered[-1])))}


_SPACER_BYTES = 256 << 20
"""Of a copy before the first time stamp: about 0.1 ms on a data centre's GPU, some on a board."""


class Stopwatch:
    """Times what was captured into a graph, on the GPU's own clock.

    A stamp on an idle stream is taken at once, and the host's launch, 8 to 12 us, would be measured with what it
    launches. So a copy goes first: while the GPU is busy with it, the host has queued stamp, work and stamp.
    """

    def __init__(self, gpu: Driver) -> None:
        self._gpu = gpu
        self.stream = gpu.create_stream()
        self._start, self._end = gpu.create_event(), gpu.create_event()
        self._spacer_bytes = min(_SPACER_BYTES, gpu.info.memory_bytes // 64)
        self._spacer = gpu.allocate(self._spacer_bytes), gpu.allocate(self._spacer_bytes)

    def microseconds(self, calls: Sequence[Callable[[int], None]], repeats: int) -> list[float]:
        """Time calls that enqueue work on a stream, as one graph, and return the mean of one call for each repeat.

        The calls should use different buffers, more of them than the second-level cache holds: a kernel that is
        repeated on one buffer measures the cache.
        """
        with self._gpu.capture(self.stream) as capture:
            for call in calls:
                call(self.stream)

        def replay() -> None:
            self._gpu.launch_graph(capture.graph, self.stream)

        try:
            return [ms * 1000 / len(calls) for ms in self.milliseconds(replay, repeats)]
        finally:
            self._gpu.destroy_graph(capture.graph)

    def milliseconds(self, replay: Callable[[], None], repeats: int, warm_up: int = 5) -> list[float]:
        """Time something that enqueues on this stopwatch's stream."""
        times = []
        for turn in range(warm_up + repeats):
            self._gpu.copy_on_device(*self._spacer, self._spacer_bytes, self.stream)
            self._gpu.record_event(self._start, self.stream)
            replay()
            self._gpu.record_event(self._end, self.stream)
            elapsed = self._gpu.elapsed_ms(self._start, self._end)
            if turn >= warm_up:
                times.append(elapsed)
        return times


def copy_bandwidth(gpu: Driver, watch: Stopwatch, nbytes: int = 1 << 30, repeats: int = 50) -> float:
    """Return GB/s of the driver's own copy on the device, bytes read and written both counted: the practical limit."""
    nbytes = min(nbytes, gpu.info.memory_bytes // 8)
    source, destination = gpu.allocate(nbytes), gpu.allocate(nbytes)
    try:
        times = watch.milliseconds(
            lambda: gpu.copy_on_device(destination, source, nbytes, watch.stream), repeats=repeats
        )
    finally:
        gpu.free(source)
        gpu.free(destination)
    return 2 * nbytes / (float(np.median(times)) * 1e-3) / 1e9
