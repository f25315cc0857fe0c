"""Pipelines as they run in a vehicle: paced by cameras or back to back, several at once, beside load, tuned or not.

The variants of a scenario (without and with load, tuned or not) take turns in blocks within one process, so that what
one costs against the other does not hang on the minute in which it was measured.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from framegate.benchmarks.latency.machine import ForeignLoad, Usage
from framegate.benchmarks.latency.measure import Progress
from framegate.benchmarks.latency.series import (
    duration_summary,
    percentiles,
    ratio,
    stage_summary,
    summarise,
    verdict_counts,
)
from framegate.benchmarks.latency.stream import BenchStream, FrameFeed
from framegate.runtime.realtime import Tuning, realtime
from framegate.runtime.session import Session
from framegate.runtime.sources.base import Source
from framegate.runtime.verdict import Image

SETTLE = 5
BLOCK = 50
_CONSUMERS = "bench-consumer"


@dataclass(frozen=True)
class Scenario:
    """What is measured.

    Attributes:
        pace: Frames per second of every stream; None offers the next frame when the last verdict is there.
        streams: Cameras at once, each with its own session; they fire at the same moment, which is the worst case.
        load: Also with another process on the last core.
        tuned: Also under `realtime`.
        spin_us: Of the tuned pipelines.
        deadline_ms: Older verdicts are LATE; None sets no deadline.
    """

    pace: float | None
    streams: int
    load: bool = False
    tuned: bool = False
    spin_us: float = 0.0
    deadline_ms: float | None = None

    @property
    def name(self) -> str:
        """For people: pace and streams."""
        pace = "back to back" if self.pace is None else f"{self.pace:g} fps"
        return f"{pace}, {self.streams} stream{'s' if self.streams > 1 else ''}"

    @property
    def block(self) -> int:
        """Frames of one turn: a second of a camera, so that a slow one has enough turns, too."""
        return BLOCK if self.pace is None else max(10, round(self.pace))


class PacedBareLoop:
    """The yardstick at a camera's pace, which sleeps until a frame is due: how unsteady a machine is by itself.

    Args:
        loop: One frame.
        images: Frames, in a circle.
        fps: Frames per second.
    """

    def __init__(self, loop: Callable[[Image], object], images: Sequence[Image], fps: float) -> None:
        self._loop, self._images, self._period_ns = loop, images, round(1e9 / fps)
        self._fed = 0
        self.took_ns: list[int] = []
        """Of each counted frame, from the waking on: like a camera's frame it is stamped when it is there."""

    def run(self, settle: int, count: int) -> None:
        """Compute ``settle`` frames that are not counted, then ``count`` that are."""
        due, never = time.monotonic_ns(), threading.Event()
        for k in range(settle + count):
            while (ahead := due - time.monotonic_ns()) > 0 and not never.wait(ahead / 1e9):
                pass
            started = time.monotonic_ns()
            self._loop(self._images[self._fed % len(self._images)])
            if k >= settle:
                self.took_ns.append(time.monotonic_ns() - started)
            self._fed += 1
            due += self._period_ns


@dataclass
class Variant:
    """One way to run a scenario, with its streams and what the process used."""

    name: str
    load: bool
    tuned: bool
    streams: list[BenchStream]
    usage: Usage = field(default_factory=Usage)
    tuning: str = ""

    def pooled(self, values: Callable[[BenchStream], Sequence[int]]) -> list[int]:
        """The values of all streams, frame by frame in turns, as they were measured."""
        each = [list(values(stream)) for stream in self.streams]
        longest = max(map(len, each))
        return [one[k] for k in range(longest) for one in each if k < len(one)]


def measure_scenario(
    scenario: Scenario,
    open_session: Callable[[], Session],
    images: Sequence[Image],
    frames: int,
    progress: Progress,
    open_live: Callable[[], Source] | None = None,
    bare: PacedBareLoop | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure all variants of a scenario in turns.

    Args:
        scenario: What.
        open_session: Opens one more session.
        images: Frames to feed.
        frames: Counted per stream and variant, rounded up to whole blocks.
        progress: Called with (description, done, total).
        open_live: Opens one more source that has its own pace, in place of ``images``.
        bare: Takes its turns, too; it keeps its own times.

    Returns:
        Name of the variant -> its series.

    Raises:
        FramegateError: A source broke off.
    """
    turns = -(-frames // scenario.block)
    capacity = turns * (scenario.block + SETTLE + 4) + SETTLE
    with ExitStack() as stack:
        load = stack.enter_context(ForeignLoad()) if scenario.load else None
        variants = [
            _open(stack, scenario, with_load, tuned, open_session, images, capacity, open_live)
            for with_load in ((False, True) if scenario.load else (False,))
            for tuned in ((False, True) if scenario.tuned else (False,))
        ]
        pool = stack.enter_context(ThreadPoolExecutor(scenario.streams, thread_name_prefix=_CONSUMERS))
        for turn in range(turns):
            # The order turns, too: nobody is always measured after the same neighbour.
            for variant in variants if turn % 2 else reversed(variants):
                _block(variant, scenario.block, pool, load)
            if bare is not None:
                bare.run(SETTLE, scenario.block)
            progress(scenario.name, turn + 1, turns)
        return _series(scenario, variants)


def _open(
    stack: ExitStack,
    scenario: Scenario,
    load: bool,
    tuned: bool,
    open_session: Callable[[], Session],
    images: Sequence[Image],
    capacity: int,
    open_live: Callable[[], Source] | None,
) -> Variant:
    streams = []
    for _ in range(scenario.streams):
        stream = BenchStream(
            open_session(),
            FrameFeed(images, scenario.pace) if open_live is None else open_live(),
            # A source with its own pace goes on between its turns.
            capacity if open_live is None else 20 * capacity,
            deadline_ms=scenario.deadline_ms,
            spin_us=scenario.spin_us if tuned else 0.0,
        )
        streams.append(stack.enter_context(stream))
    name = ", ".join([scenario.name, *(["load"] if load else []), *(["realtime"] if tuned else [])])
    return Variant(name, load, tuned, streams)


def _block(variant: Variant, count: int, pool: ThreadPoolExecutor, load: ForeignLoad | None) -> None:
    with (
        load.running() if load is not None and variant.load else nullcontext(),
        _tuned(variant) if variant.tuned else nullcontext() as tuning,
        variant.usage.measuring(),
    ):
        if tuning is not None:
            variant.tuning = str(tuning)
        if len(variant.streams) == 1:
            variant.streams[0].run(SETTLE, count)
            return
        for done in [pool.submit(stream.run, SETTLE, count) for stream in variant.streams]:
            done.result()


def _tuned(variant: Variant) -> AbstractContextManager[Tuning]:
    several = len(variant.streams) > 1
    consumers = [thread for thread in threading.enumerate() if thread.name.startswith(_CONSUMERS)] if several else []
    return realtime(*(stream.pipeline for stream in variant.streams), consumers=consumers)


def _series(scenario: Scenario, variants: list[Variant]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    plain: dict[bool, Variant] = {}
    for variant in variants:
        block = scenario.block * scenario.streams
        verdict_ns = variant.pooled(lambda stream: stream.samples.verdict_ns)
        each = [stream.samples for stream in variant.streams]
        reasons: Counter[str] = sum((samples.reasons for samples in each), Counter())
        row: dict[str, Any] = {
            **summarise(verdict_ns, block),
            "stages": stage_summary(np.concatenate([stream.stages_ns for stream in variant.streams])),
            "hand_over": duration_summary(variant.pooled(lambda stream: stream.samples.hand_over_ns)),
            "fed": sum(samples.fed for samples in each),
            "dropped": sum(samples.dropped for samples in each),
            "deadline_ms": scenario.deadline_ms,
            "deadline_misses": sum(samples.deadline_misses for samples in each),
            "verdicts": verdict_counts(reasons, len(verdict_ns), sum(samples.accepted for samples in each)),
            "usage": variant.usage.to_json(),
        }
        if scenario.pace is not None:
            row["publication_interval"] = _intervals(variant, scenario.pace)
        if variant.tuned:
            other = plain[variant.load].pooled(lambda stream: stream.samples.verdict_ns)
            waits = f"looks {scenario.spin_us:g} us for a frame before it sleeps" if scenario.spin_us else "sleeps"
            row["tuning"] = f"{variant.tuning}; the waiting worker {waits}"
            row["reference"] = plain[variant.load].name
            row["to_untuned"] = {
                name: ratio(verdict_ns, other, block, percent)
                for name, percent in (("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9))
            }
        else:
            plain[variant.load] = variant
            if variant.load:
                row["reference"] = plain[False].name
        found[variant.name] = row
    return found


def _intervals(variant: Variant, fps: float) -> dict[str, float]:
    """How far the times between verdicts of consecutive frames were from the camera's period, in ms."""
    off: list[int] = []
    for stream in variant.streams:
        samples = stream.samples
        ids, published = np.asarray(samples.frame_ids), np.add(samples.captured_ns, samples.verdict_ns)
        neighbours = np.diff(ids) == 1
        off += np.abs(np.diff(published)[neighbours] - round(1e9 / fps)).tolist()
    return {f"off_period_{name}": value for name, value in percentiles(off).items()} if off else {}
