"""The race itself: contenders take turns in blocks on the same frames."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from framegate.benchmarks.latency.machine import Usage
from framegate.benchmarks.latency.measure import BLOCK
from framegate.benchmarks.latency.rivals import Rival
from framegate.benchmarks.latency.series import duration_summary, ratio, stage_summary, summarise
from framegate.benchmarks.latency.stream import BenchStream
from framegate.runtime.verdict import Image

SETTLE = 5


@dataclass
class Contender:
    """Somebody in the race: a pipeline of framegate's, or a rival.

    Attributes:
        name: For people.
        engine: Library and version.
        stream: The pipeline, or None.
        rival: The function, or None.
        times_ns: What was measured.
    """

    name: str
    engine: str
    stream: BenchStream | None = None
    rival: Rival | None = None
    times_ns: list[int] = field(default_factory=list)

    def block(self, images: Sequence[Image]) -> None:
        """One turn."""
        if self.stream is not None:
            self.stream.run(SETTLE, BLOCK)
            return
        assert self.rival is not None
        for k in range(SETTLE + BLOCK):
            image = images[k % len(images)]
            started = time.perf_counter_ns()
            self.rival(image)
            if k >= SETTLE:
                self.times_ns.append(time.perf_counter_ns() - started)


def race(
    contenders: Sequence[Contender],
    images: Sequence[Image],
    turns: int,
    title: str,
    progress: Callable[[str, int, int], None],
) -> Usage:
    """Let all take turns."""
    usage = Usage()
    with usage.measuring():
        for turn in range(turns):
            for contender in contenders if turn % 2 else reversed(contenders):
                contender.block(images)
            progress(title, turn + 1, turns)
    return usage


def series_of(contenders: Sequence[Contender], prefix: str) -> dict[str, dict[str, Any]]:
    """What the record says about each; the first contender is the reference of all."""
    reference = contenders[0]
    found: dict[str, dict[str, Any]] = {}
    for contender in contenders:
        stream = contender.stream
        if stream is not None:
            contender.times_ns = stream.samples.verdict_ns
        row = summarise(contender.times_ns, BLOCK) | {"engine": contender.engine, "bundle": prefix}
        if stream is not None:
            row["stages"] = stage_summary(stream.stages_ns)
            row["hand_over"] = duration_summary(stream.samples.hand_over_ns)
            row |= {"fed": stream.samples.fed, "dropped": stream.samples.dropped}
        if contender is not reference:
            row["reference"] = f"{prefix}: {reference.name}"
            row["to_reference"] = {
                name: ratio(contender.times_ns, reference.times_ns, BLOCK, percent)
                for name, percent in (("p50", 50.0), ("p99", 99.0))
            }
        found[f"{prefix}: {contender.name}"] = row
    return found
