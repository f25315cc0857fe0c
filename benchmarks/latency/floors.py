"""The least that each stage of a frame can cost on this machine, measured beside the stages themselves.

A floor is what remains of a stage when everything is taken away that could be written differently: the memory that it
must read, the call it must make, the thread it must wake. How far a stage lies above it is what is left to gain.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from framegate.benchmarks.latency.series import duration_summary
from framegate.runtime.health.check import MAX_STEP, ROWS
from framegate.runtime.native import library
from framegate.runtime.preprocess import PreprocessSpec
from framegate.runtime.verdict import Image, Prediction, Reason

LINE = 64
"""Bytes that a processor fetches at once."""
WHAT = {
    "wait_for_frame": "one thread wakes another that sleeps on a lock",
    "preprocess": "the cache lines with a pixel that the resize reads, copied",
    "health": "the cache lines of the looked-at rows, copied",
    "engine": "the engine's own call in the bare loop",
    "scores": "the compiled scores of one row of logits, called with addresses",
    "policy": "one prediction is made",
    "hand_over": "one thread wakes another that sleeps on a lock",
}
"""Stage -> what its floor is."""


class Waking:
    """How long a thread that sleeps on a lock needs to see that it was released. Use as a context manager."""

    def __init__(self) -> None:
        self._asked, self._answered = threading.Lock(), threading.Lock()
        self._asked.acquire()
        self._answered.acquire()
        self._released_ns = self._took_ns = 0
        self._ended = False
        self._thread = threading.Thread(target=self._answer, name="framegate-bench-waking", daemon=True)

    def __enter__(self) -> Waking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._asked.release()
        self._thread.join()

    def __call__(self) -> int:
        """Nanoseconds of one waking."""
        self._released_ns = time.monotonic_ns()
        self._asked.release()
        self._answered.acquire()
        return self._took_ns

    def _answer(self) -> None:
        while self._asked.acquire() and not self._ended:
            self._took_ns = time.monotonic_ns() - self._released_ns
            self._answered.release()


def lines_of_resize(spec: PreprocessSpec, width: int, height: int) -> npt.NDArray[np.intp]:
    """Numbers of the cache lines of a (height, width, 3) frame that a resize to the input's size must read.

    Two rows and two columns for each output pixel; with ``area``, and where nothing is left out, all of them.
    """
    rows, columns = (_read(target, source, spec) for target, source in ((spec.height, height), (spec.width, width)))
    first = rows[:, None] * (3 * width) + columns[None, :] * 3
    return np.unique(np.concatenate([first.ravel(), first.ravel() + 2]) // LINE)


def lines_of_rows(width: int, height: int) -> npt.NDArray[np.intp]:
    """Numbers of the cache lines of the rows that the camera check looks at."""
    rows = np.arange(0, height, max(1, min(MAX_STEP, height // ROWS)))
    return np.unique((rows[:, None] * (3 * width) + np.arange(0, 3 * width, LINE)[None, :]).ravel() // LINE)


def _read(target: int, source: int, spec: PreprocessSpec) -> npt.NDArray[np.intp]:
    if spec.resize == "area" or spec.depth > 1:
        return np.arange(source)
    at = np.floor((np.arange(target) + 0.5) * source / target - 0.5).astype(np.intp)
    return np.unique(np.clip(np.concatenate([at, at + 1]), 0, source - 1))


class Copy:
    """Copies cache lines of a frame: nothing but the reading of memory, in one call.

    Args:
        lines: Their numbers.
        size: Of the frame in bytes.
    """

    def __init__(self, lines: npt.NDArray[np.intp], size: int) -> None:
        self._count = size // LINE
        self._lines = lines[lines < self._count]
        self._out = np.zeros(len(self._lines), f"V{LINE}")

    @property
    def bytes_read(self) -> int:
        """How much memory that is."""
        return len(self._lines) * LINE

    def __call__(self, image: Image) -> int:
        """Nanoseconds of one copy."""
        whole = image.reshape(-1)[: self._count * LINE].view(self._out.dtype)
        started = time.perf_counter_ns()
        np.take(whole, self._lines, out=self._out, mode="clip")
        return time.perf_counter_ns() - started


class Floors:
    """Measures the floors of one configuration, a few frames a turn.

    Args:
        spec: How the bundle wants its input.
        size: (width, height) of the frames.
        classes: Of the network.
        waking: Running; it may be shared.
        compute: The engine's own call.
    """

    def __init__(
        self, spec: PreprocessSpec, size: tuple[int, int], classes: int, waking: Waking, compute: Callable[[], object]
    ) -> None:
        self._waking, self._compute = waking, compute
        count = 3 * size[0] * size[1]
        self._resize = Copy(lines_of_resize(spec, *size), count)
        self._rows = Copy(lines_of_rows(*size), count)
        self._scores = _scores_call(classes)
        self.durations_ns: dict[str, list[int]] = {stage: [] for stage in WHAT if self._scores or stage != "scores"}

    def sample(self, cold: Image, warm: Image) -> None:
        """Measure each once on a frame that was not shown for a while, and once on one that was.

        In a closed loop half of the frames were just read by the other path; so are these.
        """
        for image in (cold, warm):
            for stage, copy in (("preprocess", self._resize), ("health", self._rows)):
                self.durations_ns[stage].append(copy(image))
        for stage in ("wait_for_frame", "hand_over"):
            self.durations_ns[stage].append(self._waking())
        self._timed("engine", self._compute)
        self._timed("policy", _one_prediction)
        if self._scores is not None:
            self._timed("scores", self._scores)

    def _timed(self, stage: str, call: Callable[[], object]) -> None:
        started = time.perf_counter_ns()
        call()
        self.durations_ns[stage].append(time.perf_counter_ns() - started)

    def summary(self) -> dict[str, Any]:
        """Stage -> percentiles and mean in ms, what the floor is, and the bytes that it reads."""
        read = {"preprocess": self._resize.bytes_read, "health": self._rows.bytes_read}
        return {
            stage: {**duration_summary(found), "what": WHAT[stage], **({"bytes": read[stage]} if stage in read else {})}
            for stage, found in self.durations_ns.items()
            if found
        }


def above_floor(stages: Mapping[str, Any], floors: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Stage -> its median and its floor's, both in ms, for every stage that has a floor."""
    return {name: (stages[name]["p50_ms"], floor["p50_ms"]) for name, floor in floors.items() if name in stages}


def _scores_call(classes: int) -> Callable[[], object] | None:
    code, _ = library()
    if code is None:
        return None
    logits = np.linspace(-2, 2, classes, dtype=np.float32)
    at, found, call = logits.ctypes.data, (ctypes.c_double * 5)(), code.framegate_scores

    def scores(_kept: object = logits) -> None:
        call(at, classes, 1.0, found)

    return scores


def _one_prediction() -> Prediction:
    return Prediction(0, "frame", (Reason.HIGH_SCORE,), "", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0)
