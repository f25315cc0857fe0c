"""Latency measured as ratios: the whole way of a frame against the bare engine, interleaved in one process.

Per configuration (backend and precision) two paths are timed in turn on the same frames:

    bare      resize + normalise + the engine's own call, in a plain loop: the floor
    pipeline  capture -> mailbox -> health -> preprocess -> engine -> scores -> policy -> verdict, as in production

Configurations take turns in blocks, so that a noisy minute of a shared machine hits all of them alike. The loop is
closed: the next frame is offered when the verdict on the last one is known.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from framegate.runtime.backend import Backend, load_backend
from framegate.runtime.bundle import Bundle
from framegate.runtime.channel import Channel
from framegate.runtime.errors import BackendError
from framegate.runtime.pipeline import FrameResult, Pipeline
from framegate.runtime.preprocess import Preprocessor
from framegate.runtime.session import Session
from framegate.runtime.source import BaseSource, open_source
from framegate.runtime.verdict import Frame, Image

BLOCK = 50
_SETTLE = 5  # frames at the start of a block that are not counted: caches and threads of the engine before

Progress = Callable[[str, int, int], None]


class _OfferedFrames(BaseSource):
    """A source that delivers what the benchmark offers, stamped at delivery like a camera's frame."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__("benchmark", live=True, frame_size=(width, height))
        self._offered: Channel[Image] = Channel(1, overwrite=False)

    def offer(self, image: Image) -> None:
        self._offered.put(image)

    def close(self) -> None:
        self._offered.close()
        super().close()

    def _produce(self, frame_id: int) -> Frame | None:
        image = self._offered.take()
        return None if image is None else Frame(frame_id, time.monotonic_ns(), image)


@dataclass
class Configuration:
    """One backend and precision under test, with its measurements in nanoseconds.

    Attributes:
        backend: Name of the backend.
        precision: Which model.
        engine: Library and version.
        bare_ns: Durations of the bare path.
        verdict_ns: Capture to verdict of the pipeline, same frames.
        call_ns: The engine call inside the pipeline.
    """

    backend: str
    precision: str
    engine: str
    bare_ns: list[int] = field(default_factory=list)
    verdict_ns: list[int] = field(default_factory=list)
    call_ns: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        """``backend/precision``."""
        return f"{self.backend}/{self.precision}"


def percentiles(durations_ns: list[int]) -> dict[str, float]:
    """p50, p99, p99.9 and max in milliseconds (nearest rank)."""
    values = np.sort(np.asarray(durations_ns, np.float64)) / 1e6
    ranks = {
        name: max(0, int(np.ceil(len(values) * p / 100)) - 1)
        for name, p in (("p50_ms", 50.0), ("p99_ms", 99.0), ("p99.9_ms", 99.9))
    }
    return {**{name: float(values[rank]) for name, rank in ranks.items()}, "max_ms": float(values[-1])}


def synthetic_frames(count: int, width: int, height: int) -> list[Image]:
    """``count`` different frames of the moving test pattern."""
    with open_source(f"synthetic://?width={width}&height={height}&frames={count}", realtime=False) as source:
        return [frame.image for frame in iter(source.read, None) if frame is not None]


class _Rig:
    """A configuration with its two paths ready to run."""

    def __init__(
        self, bundle: Bundle, backend: str, precision: str, threads: int | None, size: tuple[int, int]
    ) -> None:
        session = Session.open(bundle, backend, precision, threads)
        self.result = Configuration(backend, precision, session.backend.engine)
        self._preprocess = Preprocessor(bundle.preprocess)
        self._engine: Backend = load_backend(backend, bundle.model_path(precision), threads)
        self._engine.bind(self._preprocess.tensor)
        self._source = _OfferedFrames(*size)
        self.pipeline = Pipeline(self._source, session)
        self._results: Iterator[FrameResult] = self.pipeline.results()

    def bare(self, image: Image) -> int:
        started = time.perf_counter_ns()
        self._preprocess(image)
        self._engine.infer()
        return time.perf_counter_ns() - started

    def whole(self, image: Image) -> tuple[int, int]:
        self._source.offer(image)
        prediction = next(self._results).predictions[0]
        return prediction.published_ns - prediction.captured_ns, prediction.engine_ns

    def block(self, images: list[Image], turn: int) -> None:
        for k, image in enumerate(images[: BLOCK + _SETTLE]):
            if (turn + k) % 2:
                verdict_ns, call_ns = self.whole(image)
                bare_ns = self.bare(image)
            else:
                bare_ns = self.bare(image)
                verdict_ns, call_ns = self.whole(image)
            if k >= _SETTLE:
                self.result.bare_ns.append(bare_ns)
                self.result.verdict_ns.append(verdict_ns)
                self.result.call_ns.append(call_ns)


def measure_latency(
    bundle: Bundle,
    wanted: list[tuple[str, str]],
    frames: int,
    threads: int | None,
    size: tuple[int, int],
    progress: Progress,
) -> list[Configuration]:
    """Time all configurations in turns.

    Args:
        bundle: The model.
        wanted: (backend, precision) pairs.
        frames: Frames counted per configuration, rounded up to whole blocks.
        threads: CPU threads of every engine; None leaves it to each.
        size: (width, height) of the frames in pixels.
        progress: Called with (description, done, total).
    """
    images = synthetic_frames(BLOCK + _SETTLE, *size)
    rigs = [_Rig(bundle, backend, precision, threads, size) for backend, precision in wanted]
    turns = -(-frames // BLOCK)
    with ExitStack() as stack:
        for rig in rigs:
            stack.enter_context(rig.pipeline)
        for turn in range(turns):
            for rig in rigs:
                rig.block(images, turn)
            progress("latency", turn + 1, turns)
    return [rig.result for rig in rigs]


_START_SCRIPT = """
import numpy, sys
from framegate.runtime import Session
session = Session.open(sys.argv[1], sys.argv[2], sys.argv[3])
session.infer(numpy.full((int(sys.argv[5]), int(sys.argv[4]), 3), 128, numpy.uint8))
"""


def measure_startup(
    bundle: Path, backend: str, precision: str, size: tuple[int, int], repetitions: int, progress: Progress
) -> list[float]:
    """Seconds from starting an interpreter to the end of the first verdict's process, for each repetition.

    Raises:
        BackendError: The process failed.
    """
    seconds = []
    for k in range(repetitions):
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", _START_SCRIPT, str(bundle), backend, precision, *map(str, size)],
            capture_output=True,
            text=True,
            check=False,
        )
        seconds.append(time.perf_counter() - started)
        if done.returncode:
            raise BackendError(f"start-up of {backend}/{precision} failed: {done.stderr.strip().splitlines()[-1:]}")
        progress("start-up", k + 1, repetitions)
    return seconds


def resident_mib() -> float:
    """Resident memory of this process in MiB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def measure_memory(
    bundle: Bundle, backend: str, precision: str, frames: int, size: tuple[int, int], progress: Progress
) -> dict[str, float]:
    """Resident memory after the first tenth and after all of ``frames`` synthetic frames, in MiB."""
    uri = f"synthetic://?width={size[0]}&height={size[1]}&frames={frames}"
    session = Session.open(bundle, backend, precision)
    warm, start, done = max(1, frames // 10), 0.0, 0
    with Pipeline(open_source(uri, realtime=False), session, lossless=True) as pipeline:
        for _ in pipeline.results():
            done += 1
            if done == warm:
                start = resident_mib()
            if done % 100 == 0:
                progress("memory", done, frames)
        end = resident_mib()
    return {"frames": done, "after_warm_up_mib": start, "at_end_mib": end, "growth_mib": end - start}
