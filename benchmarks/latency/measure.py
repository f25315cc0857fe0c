"""Latency measured as ratios: the whole way of a frame against the bare engine, interleaved in one process.

Per configuration (backend and precision) two paths are timed in turn on the same frames:

    bare      resize + normalise + the engine's own call, in a plain loop (benchmarks/latency/yardstick.py)
    pipeline  capture -> mailbox -> health -> preprocess -> engine -> scores -> policy -> verdict, as in production

Configurations take turns in blocks, so that a noisy minute of a shared machine hits all of them alike. The loop is
closed: the next frame is offered when the verdict on the last one is known.

Where a frame's time goes, stage by stage, is measured in blocks of its own: the clock costs time, and a pipeline in
production has none.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from framegate.benchmarks.latency.floors import Floors, Waking
from framegate.benchmarks.latency.machine import resident_mib
from framegate.benchmarks.latency.stream import HELD, BenchStream, FrameFeed, Samples, read_frames
from framegate.benchmarks.latency.yardstick import BareLoop
from framegate.runtime.backends.choice import BACKENDS, choose_backend, load_backend
from framegate.runtime.backends.compiled import VARIABLE as COMPILED
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.errors import BackendError
from framegate.runtime.pipeline import Pipeline
from framegate.runtime.session import Session
from framegate.runtime.sources.open import open_source
from framegate.runtime.verdict import Image

BLOCK = 50
_FLOORS = 4  # times that floors are measured at the start of a block
_CLOCKED = 3  # every so many blocks another one is run with the clock of the stages
_SETTLE = 5  # frames at the start of a block that are not counted: caches and threads of the engine before

Progress = Callable[[str, int, int], None]


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
        stages_ns: (other frames, stages) what the pipeline spent where, see `framegate.runtime.stage_clock`.
        samples: The pipeline's frames: verdicts, hand-over, drops.
        floors: What each stage costs at least, see `framegate.benchmarks.latency.floors`.
    """

    backend: str
    precision: str
    engine: str
    bare_ns: list[int] = field(default_factory=list)
    verdict_ns: list[int] = field(default_factory=list)
    call_ns: list[int] = field(default_factory=list)
    stages_ns: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    samples: Samples = field(default_factory=Samples)
    floors: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``backend/precision``."""
        return f"{self.backend}/{self.precision}"


def synthetic_frames(count: int, width: int, height: int) -> list[Image]:
    """``count`` different frames of the moving test pattern."""
    return read_frames(f"synthetic://?width={width}&height={height}&frames={count}", count=count)


def configurations(bundle: Bundle) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """Every (backend, precision) of the bundle that runs here, and why the others do not: name -> reason."""
    wanted, left_out = [], {}
    for name, entry in BACKENDS.items():
        for precision in bundle.models:
            try:
                chosen = choose_backend(name)
                if entry.gpu:
                    load_backend(chosen, bundle.model_path(precision))  # a GPU, an engine: found out now
            except BackendError as error:
                left_out[f"{name}/{precision}"] = str(error)
                continue
            wanted.append((chosen, precision))
    return wanted, left_out


class _Rig:
    """A configuration with its two paths ready to run."""

    def __init__(
        self,
        bundle: Bundle,
        backend: str,
        precision: str,
        threads: int | None,
        images: Sequence[Image],
        capacity: int,
        waking: Waking,
    ) -> None:
        session = Session.open(bundle, backend, precision, threads)
        self.result = Configuration(backend, precision, session.scorer.backend.engine)
        self._bare = BareLoop(bundle, backend, precision, threads)
        self._images = images
        height, width = images[0].shape[:2]
        self._floors = Floors(bundle.preprocess, (width, height), len(bundle.labels), waking, self._bare.compute)
        self._fed = 0
        self.stream = BenchStream(session, FrameFeed(images), capacity)

    def bare(self, image: Image) -> int:
        started = time.perf_counter_ns()
        self._bare(image)
        return time.perf_counter_ns() - started

    def block(self, turn: int, clocked: bool = False) -> None:
        self.stream.clock(clocked)
        for _ in range(_FLOORS):
            far = self._images[(self._fed + len(self._images) // 2) % len(self._images)]
            self._floors.sample(far, self._images[(self._fed - 1) % len(self._images)])
        for k in range(BLOCK + _SETTLE):
            image = self._images[self._fed % len(self._images)]  # what the feed will deliver next
            self._fed += 1
            counted = int(k >= _SETTLE)
            if (turn + k) % 2:
                self.stream.run(1 - counted, counted)
                bare_ns = self.bare(image)
            else:
                bare_ns = self.bare(image)
                self.stream.run(1 - counted, counted)
            if counted and not clocked:
                self.result.bare_ns.append(bare_ns)

    def finish(self) -> Configuration:
        self.stream.clock(False)
        self.result.samples = self.stream.samples
        self.result.verdict_ns = self.stream.samples.verdict_ns
        self.result.call_ns = self.stream.samples.engine_ns
        self.result.stages_ns = self.stream.stages_ns
        self.result.floors = self._floors.summary()
        return self.result


def measure_latency(
    bundle: Bundle,
    wanted: list[tuple[str, str]],
    frames: int,
    threads: int | None,
    size: tuple[int, int],
    progress: Progress,
    images: Sequence[Image] | None = None,
) -> list[Configuration]:
    """Time all configurations in turns.

    Args:
        bundle: The model.
        wanted: (backend, precision) pairs.
        frames: Frames counted per configuration, rounded up to whole blocks.
        threads: CPU threads of every engine; None leaves it to each.
        size: (width, height) of synthetic frames in pixels; not read if there are ``images``.
        progress: Called with (description, done, total).
        images: Real frames, (height, width, 3) uint8 BGR of one size; None takes the moving test pattern.
    """
    images = synthetic_frames(HELD, *size) if images is None else images
    turns = -(-frames // BLOCK)
    capacity = turns * (BLOCK + _SETTLE)
    with ExitStack() as stack:
        waking = stack.enter_context(Waking())
        rigs = [_Rig(bundle, backend, precision, threads, images, capacity, waking) for backend, precision in wanted]
        for rig in rigs:
            stack.enter_context(rig.stream)
        for turn in range(turns):
            for rig in rigs:
                rig.block(turn)
                if turn % _CLOCKED == 0:
                    rig.block(turn, clocked=True)
            progress("latency", turn + 1, turns)
    return [rig.finish() for rig in rigs]


_START_SCRIPT = """
import numpy, sys
from framegate.runtime import Session
session = Session.open(sys.argv[1], sys.argv[2], sys.argv[3])
session.infer(numpy.full((int(sys.argv[5]), int(sys.argv[4]), 3), 128, numpy.uint8))
print(flush=True)  # the verdict is there: the clock stops
from framegate.benchmarks.latency.machine import resident_mib
print(resident_mib())
"""


def measure_startup(
    bundle: Path, backend: str, precision: str, size: tuple[int, int], repetitions: int, kept: bool, progress: Progress
) -> tuple[list[float], list[float]]:
    """Seconds from starting an interpreter to its first verdict, and the process's resident MiB then.

    What the process needs to end, after the verdict, is not counted, and neither is a first process: it leaves compiled
    Python files, which every installed package has, and the compiled network.

    Args:
        bundle: Folder.
        backend: A name.
        precision: Of the bundle.
        size: (width, height) of the frame.
        repetitions: Counted processes.
        kept: Whether the engine may take the network as an earlier process compiled it
            (`framegate.runtime.backends.compiled`).
        progress: Called after each.

    Raises:
        BackendError: The process failed.
    """
    seconds, resident = [], []
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    if not kept:
        environment[COMPILED] = "off"
    for k in range(repetitions + 1):
        command = [sys.executable, "-c", _START_SCRIPT, str(bundle), backend, precision, *map(str, size)]
        started = time.perf_counter()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            took_s = time.perf_counter() - started
            # Not communicate(): it does not see what readline has already taken from the pipe.
            held, complaint = process.stdout.read(), process.stderr.read()
        if process.returncode:
            raise BackendError(f"start-up of {backend}/{precision} failed: {complaint.strip().splitlines()[-1:]}")
        if k:
            seconds.append(took_s)
            resident.append(float(held))
            progress("start-up", k, repetitions)
    return seconds, resident


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
