"""How many threads compute a network on the CPU, where nobody said it."""

from __future__ import annotations

import time
from collections.abc import Callable

from framegate.runtime.native.processors import processors

SMALL_S = 0.0025
"""A network that one thread computes in this time, in seconds, stays on it. Between the frames of a camera the other
idle threads sleep, and waking them costs more time than they save. On two cores, at 60 frames per second, one thread
has the same latencies for half of the processor time, also for one of 2.3 ms; back to back all threads are faster, by a
sixth for a network of 0.7 ms, by two thirds for one of 2.3 ms (benchmarks/results/engine-threads.json). And the camera
check, with its share of the resize, has the other processor for itself."""
_TRIALS = 5
_GAIN = 0.6
"""What each further processor adds to the speed of a small network, of what the first brings; beyond four nothing. On
two the shipped hybrid is 1.54 times as fast in fp32 and 1.29 times in int8 (benchmarks/results/pareto.json and
pareto-one-thread.json): where the guess is too high, a network near `SMALL_S` stays on all processors."""


def alone_s(together_s: float) -> float:
    """About how long one thread takes for what takes all processors so many seconds."""
    return together_s * (1 + _GAIN * (min(processors(), 4) - 1))


def fastest_s(call: Callable[[], object]) -> float:
    """Seconds of the fastest of a few calls: what a call costs when nothing disturbs it."""
    seconds = []
    for _ in range(_TRIALS):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
