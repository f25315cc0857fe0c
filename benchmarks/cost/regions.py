"""What the regions of a frame save by going through one engine call together, in place of a call each.

    python -m framegate.benchmarks.cost.regions --out benchmarks/results/regions.json

Both ways take turns on one thread; counted is the processor time of the engine's calls, without resize and scores.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from framegate.benchmarks.checkout import BUNDLES
from framegate.benchmarks.latency.record import written
from framegate.runtime.backends.base import Backend, infer
from framegate.runtime.circumstances import circumstances
from framegate.runtime.console import to_stdout
from framegate.runtime.errors import FramegateError
from framegate.runtime.preprocess import input_shape
from framegate.runtime.session import Session

CASES = (
    ("hybrid-cifar10", "openvino", "fp32"),
    ("mobilenet-cifar10", "openvino", "int8"),
    ("hybrid-gtsrb", "onnxruntime", "fp32"),
    ("simplecnn-cifar10", "openvino", "fp32"),
)
_WARM_UP = 5


def measure(session: Session, regions: int, frames: int) -> dict[str, Any]:
    """Medians of the processor time of a frame's engine calls, in milliseconds.

    Args:
        session: On the network that is measured.
        regions: Of a frame.
        frames: How often.

    Raises:
        FramegateError: The engine does not run.
    """
    shape = input_shape(session.bundle.preprocess, regions)
    tensor = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    single, together = (session.scorer.backend.share() for _ in range(2))
    single.bind(tensor[:1])
    together.bind(tensor)
    took = np.empty((2, frames))
    for k in range(_WARM_UP + frames):
        calls = _processor_ms(single, regions), _processor_ms(together, 1)
        if k >= _WARM_UP:
            took[:, k - _WARM_UP] = calls
    a_call_each, one_call = (round(float(each), 3) for each in np.median(took, axis=1))
    return {
        "bundle": session.bundle.name,
        "engine": session.scorer.backend.engine,
        "precision": session.precision,
        "a_call_each_ms": a_call_each,
        "one_call_ms": one_call,
    }


def _processor_ms(engine: Backend, calls: int) -> float:
    started = time.process_time_ns()
    for _ in range(calls):
        infer(engine)
    return (time.process_time_ns() - started) / 1e6


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regions", type=int, default=4, metavar="N", help="of a frame (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=100, metavar="N", help="measured (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="record to write (default: none)")
    options = parser.parse_args(arguments)
    record: dict[str, Any] = {
        "format": "framegate-regions-1",
        "what": "processor time of the engine's calls for a frame's regions: a call each, and one for all; medians",
        "command": f"python -m framegate.benchmarks.cost.regions --regions {options.regions} --frames {options.frames}",
        "machine": circumstances(),
        "regions": options.regions,
        "frames": options.frames,
        "threads": 1,
        "cases": [],
    }
    try:
        for name, backend, precision in CASES:
            session = Session.open(BUNDLES / f"{name}.bundle", backend, precision, threads=1)
            record["cases"].append(measure(session, options.regions, options.frames))
            to_stdout(str(record["cases"][-1]))
    except FramegateError as error:
        print(f"regions: {error}", file=sys.stderr)
        return error.exit_code
    return written(options.out, record, "regions") if options.out else 0


if __name__ == "__main__":
    sys.exit(main())
