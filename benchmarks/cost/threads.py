"""One engine thread or all: capture to verdict of the same network with both, in turns, at a camera's pace and without.

    python -m framegate.benchmarks.cost.threads --out benchmarks/results/engine-threads.json

Why OpenVINO computes small networks on one thread (framegate/runtime/backends/openvino_cpu.py): between the frames of a
camera the other idle threads sleep, and waking them costs more time than they save.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from framegate.benchmarks.checkout import CLIPS, classifiers
from framegate.benchmarks.latency.machine import Usage
from framegate.benchmarks.latency.measure import synthetic_frames
from framegate.benchmarks.latency.options import frame_size
from framegate.benchmarks.latency.record import written
from framegate.benchmarks.latency.series import percentiles, ratio
from framegate.benchmarks.latency.stream import HELD, BenchStream, FrameFeed, read_frames
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.circumstances import circumstances
from framegate.runtime.console import progress_bar, to_stdout
from framegate.runtime.errors import FramegateError
from framegate.runtime.native.processors import processors
from framegate.runtime.session import Session
from framegate.runtime.verdict import Image

CLIP = CLIPS / "highway_1280x720_25fps.mp4"
BACKEND = "openvino"
SETTLE = 5


def measure(bundle: Bundle, images: list[Image], fps: float | None, frames: int, cores: int) -> dict[str, Any]:
    """One bundle at one pace: figures for one thread and for all, and their ratio.

    Raises:
        BackendError: The engine does not run it.
    """
    block = 50 if fps is None else round(fps)
    turns = -(-frames // block)
    usage = {threads: Usage() for threads in (1, cores)}
    with ExitStack() as stack:
        streams = {
            threads: stack.enter_context(
                BenchStream(
                    Session.open(bundle, BACKEND, threads=threads), FrameFeed(images, fps), turns * (block + SETTLE)
                )
            )
            for threads in (1, cores)
        }
        for turn in range(turns):
            for threads in (1, cores) if turn % 2 else (cores, 1):
                with usage[threads].measuring():
                    streams[threads].run(SETTLE, block)
        one, many = (streams[threads].samples for threads in (1, cores))
    return {
        "bundle": bundle.name,
        "pace_fps": fps,
        "frames": len(one.verdict_ns),
        "one_thread": {**percentiles(one.verdict_ns), "dropped": one.dropped, **usage[1].to_json()},
        "all_threads": {**percentiles(many.verdict_ns), "dropped": many.dropped, **usage[cores].to_json()},
        "one_to_all": {
            name: ratio(one.verdict_ns, many.verdict_ns, block, percent)
            for name, percent in (("p50", 50.0), ("p99", 99.0))
        },
    }


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundles", type=Path, nargs="+", default=classifiers())
    parser.add_argument("--frames", type=int, default=1_200)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    cores = processors()
    if arguments.frames < 100:
        parser.error(f"--frames {arguments.frames}: expected at least 100")
    if cores < 2:
        parser.error("this machine lets the process use one core; there is nothing to compare")
    found = []
    try:
        clip = read_frames(str(CLIP))
        with progress_bar() as progress:
            for k, path in enumerate(arguments.bundles):
                bundle = Bundle.open(path)
                spec = bundle.preprocess
                images = clip if spec.depth == 1 else synthetic_frames(HELD, *frame_size(None, spec))
                found += [measure(bundle, images, fps, arguments.frames, cores) for fps in (None, 60.0)]
                progress("threads", k + 1, len(arguments.bundles))
    except FramegateError as error:
        print(f"bench_threads: {error}", file=sys.stderr)
        return error.exit_code
    for each in found:
        pace = f"{each['pace_fps']:g} fps" if each["pace_fps"] else "back to back"
        one, many = each["one_thread"], each["all_threads"]
        to_stdout(
            f"{each['bundle']}, {pace}: one thread p50 {one['p50_ms']:.2f} p99 {one['p99_ms']:.2f} ms, {cores} threads "
            f"{many['p50_ms']:.2f} and {many['p99_ms']:.2f} ms"
        )
    record = {
        "what": "capture to verdict with one engine thread and with all, the same frames, in turns",
        "command": f"python -m framegate.benchmarks.cost.threads --frames {arguments.frames}",
        "backend": BACKEND,
        "threads": [1, cores],
        "machine": circumstances(),
        "bundles": found,
    }
    return written(arguments.out, record, "bench_threads")


if __name__ == "__main__":
    sys.exit(main())
