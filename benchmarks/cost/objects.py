"""What eight objects a frame cost, beside the bare engine's batch of eight; and whether a stream of them is kept up.

    python -m framegate.benchmarks.cost.objects --out benchmarks/results/objects.json

Three things take turns on the frames of the shipped clip, so that whatever else the machine does meets all of them: the
engine's own call on such a batch, all of it in one request, and nothing else; the camera check of one frame; and
everything from a frame to the verdicts on its objects (their crops, the batch, the camera check, scores, monitor,
tracks). Asked for is

    everything <= 1.1 x bare engine + camera check

Then a camera's stand-in delivers frames at 30 per second, each with as many objects, and the dropped ones are counted.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from framegate.benchmarks.cost.monitor import summary
from framegate.benchmarks.latency.record import written
from framegate.benchmarks.latency.yardstick import bare_batch
from framegate.camera_demo.shipped import BUNDLE, CLIP
from framegate.runtime.circumstances import circumstances
from framegate.runtime.console import progress_bar, to_stdout
from framegate.runtime.errors import FramegateError
from framegate.runtime.health.check import CameraHealth
from framegate.runtime.pipeline import Pipeline
from framegate.runtime.regions.base import Box, Found
from framegate.runtime.regions.batch_scorer import SIZES
from framegate.runtime.regions.judge import DEFAULT_RULE, ObjectJudge, Objects
from framegate.runtime.regions.tracker import OverlapTracker
from framegate.runtime.regions.tracks import TrackMemory
from framegate.runtime.session import Session
from framegate.runtime.sources.base import BaseSource
from framegate.runtime.sources.video import VideoFileSource
from framegate.runtime.verdict import Frame, Image

_WARM_UP = 20
_FPS = 30.0
_ALLOWED = 1.1


class _MovingBoxes:
    """As many boxes as are asked for, which drift a pixel a frame. See `RegionGiver`."""

    def __init__(self, count: int) -> None:
        self.name, self._count = f"{count} moving boxes", count

    def find(self, frame: Frame) -> Found:
        shift = frame.frame_id % 40
        places = ((150 * (k % 4) + 40 * k + shift, 60 + 300 * (k // 4)) for k in range(self._count))
        return Found(tuple(Box(x % 1100, y, 140, 120, "car", 0.9) for x, y in places))

    def close(self) -> None:
        """Nothing is held open."""


class _Camera(BaseSource):
    """The clip's frames at a camera's pace, with noise that differs from frame to frame."""

    def __init__(self, images: list[Image], frames: int) -> None:
        height, width = images[0].shape[:2]
        super().__init__("clip", live=True, frame_size=(width, height), fps=_FPS, length=frames)
        self._images, self._frames = images, frames

    def _produce(self, frame_id: int) -> Frame | None:
        if frame_id >= self._frames:
            return None
        self._pace(frame_id)
        image = self._images[frame_id % len(self._images)].copy()
        image[:: 1 + frame_id % 7, :: 1 + frame_id % 11] ^= 1
        return Frame(frame_id, time.monotonic_ns(), image)


def clip_images() -> list[Image]:
    """All frames of the shipped clip."""
    with VideoFileSource(CLIP) as clip:
        return [frame.image for frame in iter(clip.read, None)]


def measure(session: Session, images: list[Image], count: int, frames: int, threads: int | None) -> dict[str, Any]:
    """The three of them in turn.

    Args:
        session: On the network that is measured.
        images: Of a clip.
        count: Objects of a frame.
        frames: How often.
        threads: Of the engines; None as they choose.

    Raises:
        FramegateError: The engine does not run.
    """
    objects = Objects(_MovingBoxes(count), tracker=OverlapTracker(), rule=DEFAULT_RULE)
    memory = TrackMemory(session.stream_policy, objects.rule)
    judge: ObjectJudge = session.object_judge(objects, memory)
    size = next(each for each in SIZES if each >= count)
    bare = bare_batch(session.bundle, session.scorer.backend.name, session.precision, threads, size)
    health, alone = (session.camera_health() for _ in range(2))
    times = np.empty((3, frames), np.int64)
    with progress_bar() as progress:
        for k, place in enumerate(itertools.islice(itertools.cycle(range(len(images))), _WARM_UP + frames)):
            image = images[place].copy()
            image[:: 1 + k % 7, :: 1 + k % 11] ^= 1  # no frame is the same as one before
            took = _turns(k, bare, judge, health, alone, image)
            if k >= _WARM_UP:
                times[:, k - _WARM_UP] = took
            progress("objects", k + 1, _WARM_UP + frames)
    engine, check, everything = (summary(each) for each in times)
    allowed = _ALLOWED * times[0] + times[1]
    return {
        "objects": count,
        "batch": size,
        "frames": frames,
        "bare_engine": engine,
        "camera_check": check,
        "everything": everything,
        # Of the medians, and of each frame with what was measured right beside it.
        "ratio_of_medians": round(everything["p50_us"] / (engine["p50_us"] + check["p50_us"]), 4),
        "median_of_ratios": round(float(np.median(times[2] / (times[0] + times[1]))), 4),
        "within_target": bool(np.median(times[2] - allowed) <= 0),
    }


def _turns(
    k: int, bare: Callable[[], Any], judge: ObjectJudge, health: CameraHealth, alone: CameraHealth, image: Image
) -> tuple[int, int, int]:
    """Nanoseconds of engine, check and everything on one frame; who comes first changes."""

    def engine() -> None:
        bare()

    def check() -> None:
        alone.check(image)

    def everything() -> None:
        judge.judge(Frame(k, time.monotonic_ns(), image), health)

    works = (engine, check, everything)
    took = [0, 0, 0]
    for turn in range(3):
        which = (turn + k) % 3
        started = time.perf_counter_ns()
        works[which]()
        took[which] = time.perf_counter_ns() - started
    return took[0], took[1], took[2]


def stream(session: Session, images: list[Image], count: int, seconds: float) -> dict[str, Any]:
    """A live stream of frames with objects: what was dropped, and how old the verdicts were."""
    objects = Objects(_MovingBoxes(count), tracker=OverlapTracker(), rule=DEFAULT_RULE)
    source = _Camera(images, round(seconds * _FPS))
    with Pipeline(source, session, objects=objects, deadline_ms=1000.0) as pipeline:
        for _ in pipeline.results():
            pass
    stats = pipeline.stats
    return {
        "fps": _FPS,
        "captured": stats.captured,
        "dropped": stats.dropped,
        "capture_to_verdict": stats.latency.summary(),
    }


def main() -> int:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default=BUNDLE, help="default: %(default)s")
    parser.add_argument("--backend", default="auto", help="default: %(default)s")
    parser.add_argument("--precision", help="default: the backend's fastest")
    parser.add_argument("--objects", type=int, default=8, metavar="N", help="of a frame (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=500, metavar="N", help="measured (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="of the live stream; 0 leaves it out")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of the engine")
    parser.add_argument("--out", type=Path, help="record to write (default: none)")
    arguments = parser.parse_args()
    try:
        session = Session.open(arguments.bundle, arguments.backend, arguments.precision, arguments.threads)
        images = clip_images()
        record: dict[str, Any] = {
            "format": "framegate-objects-1",
            "bundle": session.bundle.name,
            "engine": session.scorer.backend.engine,
            "precision": session.precision,
            "machine": circumstances(),
            "cost": measure(session, images, arguments.objects, arguments.frames, arguments.threads),
        }
        if arguments.seconds > 0:
            record["stream"] = stream(session, images, arguments.objects, arguments.seconds)
    except FramegateError as error:
        print(f"objects: {error}", file=sys.stderr)
        return error.exit_code
    for name in ("cost", "stream"):
        to_stdout(f"{name}: {record.get(name, 'not measured')}")
    return written(arguments.out, record, "objects") if arguments.out else 0


if __name__ == "__main__":
    sys.exit(main())
