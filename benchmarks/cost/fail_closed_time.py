"""What failing closed around a frame costs: the same work with these checks and without, in turns.

    python -m framegate.benchmarks.cost.fail_closed_time --out benchmarks/results/fail-closed-time.json

Left out in one of the two: the numbers by which a frame's pixels are known again, and known answers. In both: on the
fast path, which these frames take, an engine's answer is compared with its last one within the call that scores it; the
end of a verdict is one comparison when it is read; who may use a session is asked once a stream; the watchdog's thread
sleeps.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import date
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from framegate.benchmarks.checkout import BUNDLES, CLIPS
from framegate.benchmarks.latency.record import written
from framegate.benchmarks.latency.series import percentiles, ratio
from framegate.runtime import frame_judge
from framegate.runtime.circumstances import circumstances
from framegate.runtime.native import fast_path
from framegate.runtime.roi import Roi
from framegate.runtime.session import Session
from framegate.runtime.sources.open import open_source
from framegate.runtime.verdict import Frame, Image

CLIP = CLIPS / "highway_1280x720_25fps.mp4"
CAR = (Roi.parse("car=795,385,160,130"),)
ALLOWED = 1.03
"""The largest ratio of the medians that all of it together may cost."""
_TURN, _WARM_UP = 50, 5


@contextmanager
def _without_checks() -> Iterator[None]:
    with (
        patch.object(frame_judge, "witness", lambda image: b""),
        patch.object(fast_path, "_places", lambda *_: np.zeros(0, np.int64)),
        patch.object(Session, "look_after_engine", lambda self: None),
    ):
        yield


class _Stream:
    """One session and the memory of its stream, judging frames as a pipeline's worker does."""

    def __init__(self, precision: str) -> None:
        self.session = Session.open(BUNDLES / "hybrid-cifar10.bundle", "openvino", precision)
        self._health = self.session.camera_health()
        self._policies = (self.session.stream_policy(),)
        self.took_ns: list[int] = []

    def judge(self, number: int, image: Image) -> int:
        """How long one frame takes."""
        frame = Frame(number, time.monotonic_ns(), image)
        began = time.perf_counter_ns()
        self.session.frame_judge.judge(frame, CAR, self._health, 10**9, self._policies)
        self.session.look_after_engine()
        return time.perf_counter_ns() - began

    def turn(self, first: int, images: list[Image]) -> None:
        """Time `_TURN` frames, after some that are not counted."""
        took = [self.judge(first + k, images[(first + k) % len(images)]) for k in range(_WARM_UP + _TURN)]
        self.took_ns += took[_WARM_UP:]


def compare(precision: str, images: list[Image], frames: int) -> dict[str, Any]:
    """Time frames with the checks and without, in turns; the order within a pair of turns alternates."""
    checked, bare = _Stream(precision), _Stream(precision)
    number = 0
    while len(checked.took_ns) < frames:
        pair: list[tuple[_Stream, Callable[[], AbstractContextManager[None]]]]
        pair = [(checked, nullcontext), (bare, _without_checks)]
        for stream, around in pair if number // (_TURN + _WARM_UP) % 2 == 0 else pair[::-1]:
            with around():
                stream.turn(number, images)
        number += _TURN + _WARM_UP
    return {
        "configuration": f"openvino/{precision}",
        "frames": len(checked.took_ns),
        "checked": percentiles(checked.took_ns),
        "bare": percentiles(bare.took_ns),
        "p50": ratio(checked.took_ns, bare.took_ns, _TURN),
        "p99": ratio(checked.took_ns, bare.took_ns, _TURN, 99.0),
    }


def time_copies(image: Image, count: int) -> dict[str, Any]:
    """Time the copy that a frame costs whose source does not promise to leave its array alone."""
    took = []
    for _ in range(count):
        began = time.perf_counter_ns()
        image.copy()
        took.append(time.perf_counter_ns() - began)
    return {"of": f"{image.shape[1]}x{image.shape[0]}", **percentiles(took)}


def main(words: list[str] | None = None) -> int:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description="What failing closed around a frame costs.")
    parser.add_argument("--out", type=Path, required=True, help="the record")
    parser.add_argument("--frames", type=int, default=5000, help="timed frames of each (default: %(default)s)")
    arguments = parser.parse_args(words)
    with open_source(str(CLIP), realtime=False) as source:
        images = [frame.image for frame in iter(source.read, None) if frame is not None]
    rows = [compare(precision, images, arguments.frames) for precision in ("int8", "fp32")]
    for row in rows:
        found = row["p50"]
        print(
            f"{row['configuration']}: p50 {row['bare']['p50_ms']:.3f} ms without, {row['checked']['p50_ms']:.3f} with: "
            f"x {found['ratio']:.3f} [{found['low']:.3f}, {found['high']:.3f}], at most {ALLOWED} allowed"
        )
    record = {
        "what": "judging one region of a frame with the checks around it, and without them, in turns",
        "command": f"python -m framegate.benchmarks.cost.fail_closed_time --frames {arguments.frames}",
        "date": date.today().isoformat(),
        "machine": circumstances(),
        "bundle": "hybrid-cifar10",
        "allowed": ALLOWED,
        "rows": rows,
        "copy": time_copies(images[0], arguments.frames),
    }
    return written(arguments.out, record, "fail_closed_time")


if __name__ == "__main__":
    sys.exit(main())
