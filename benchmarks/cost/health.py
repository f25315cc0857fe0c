"""What the camera-health check costs per frame, on one core.

    python -m framegate.benchmarks.cost.health --out benchmarks/results/health-latency.json

The frames are those of a clip, scaled to the size asked for. Wall time, and the processor time of the thread, which
other programs on the machine lengthen less; the first frames, which fill the memory of recent ones, are not counted.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import numpy.typing as npt

from framegate.benchmarks.checkout import CLIPS
from framegate.benchmarks.latency.record import written
from framegate.runtime.circumstances import circumstances
from framegate.runtime.health.check import CameraHealth
from framegate.runtime.health.rows import RowMemory
from framegate.runtime.native import library
from framegate.runtime.sources.open import open_source
from framegate.runtime.verdict import Image

CLIP = CLIPS / "highway_1280x720_25fps.mp4"
SIZES = ((1920, 1080), (1280, 720), (960, 540))
BUDGET_MS = 0.3
_WARM_UP = 100


def frames_of(clip: Path, size: tuple[int, int]) -> list[Image]:
    """All frames of a clip, scaled."""
    images = []
    with open_source(str(clip), realtime=False) as source:
        while (frame := source.read()) is not None:
            images.append(cv2.resize(frame.image, size, interpolation=cv2.INTER_LINEAR))
    return images


def time_checks(images: list[Image], count: int) -> dict[str, dict[str, Any]]:
    """Time `count` checks over the images in turn, compiled (where it is) and in NumPy, frame by frame.

    A clip that starts again repeats frames of more than 32 before, which is a live stream to the check.
    """
    ways = {"numpy": CameraHealth()}
    with patch("framegate.runtime.health.frozen.row_memory", RowMemory):
        ways["numpy"].check(images[0])  # now it has its memory
    if library()[0] is not None:
        ways["compiled"] = CameraHealth()
        ways["compiled"].check(images[0])
    wall, processor = ({way: np.empty(count, np.int64) for way in ways} for _ in range(2))
    rejected = dict.fromkeys(ways, 0)
    for k in range(1 - _WARM_UP, count):
        image = images[k % len(images)]
        for way in list(ways) if k % 2 else reversed(list(ways)):
            cpu, start = time.thread_time_ns(), time.perf_counter_ns()
            reasons = ways[way].check(image)
            if k >= 0:
                wall[way][k], processor[way][k] = time.perf_counter_ns() - start, time.thread_time_ns() - cpu
                rejected[way] += bool(reasons)
    return {
        way: {
            "frames": count,
            "rejected": rejected[way],
            "wall_ms": _percentiles(wall[way]),
            "processor_ms": _percentiles(processor[way]),
        }
        for way in ways
    }


def _percentiles(ns: npt.NDArray[np.int64]) -> dict[str, float]:
    values = np.percentile(ns / 1e6, [50, 99, 99.9, 100])
    return {name: round(float(v), 4) for name, v in zip(("p50", "p99", "p99.9", "max"), values, strict=True)}


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=3000, help="timed frames per size (default: 3000)")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    if arguments.frames < 1:
        parser.error("--frames: expected at least 1")
    cv2.setNumThreads(1)
    sizes = {f"{w}x{h}": time_checks(frames_of(CLIP, (w, h)), arguments.frames) for w, h in SIZES}
    record = {
        "what": "camera-health check of one frame, all measures, one thread, compiled and in NumPy in turns",
        "command": "python -m framegate.benchmarks.cost.health" + (f" --frames {arguments.frames}"),
        "machine": circumstances(),
        "budget_ms": BUDGET_MS,
        "sizes": sizes,
    }
    for name, ways in sizes.items():
        for way, row in ways.items():
            print(f"{name} {way}: wall {row['wall_ms']}, processor {row['processor_ms']}, rejected {row['rejected']}")
    return written(arguments.out, record, "bench_health") if arguments.out else 0


if __name__ == "__main__":
    sys.exit(main())
