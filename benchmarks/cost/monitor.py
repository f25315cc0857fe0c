"""What the monitor costs: the same engine with and without its extra output, and the head on top, interleaved.

    python -m framegate.benchmarks.cost.monitor --out benchmarks/results/monitor-latency.json

Every shipped bundle, OpenVINO, its default precision. The engine without the output is the bundle's own file with that
output taken away. The floor is the bare engine; `added` is engine with output plus head minus bare engine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from framegate.benchmarks.checkout import classifiers
from framegate.benchmarks.latency.record import written
from framegate.export.graph.pooled import without_pooled
from framegate.runtime.backends.base import Backend, infer
from framegate.runtime.backends.choice import default_precision, load_backend
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.circumstances import circumstances
from framegate.runtime.console import progress_bar, to_stdout
from framegate.runtime.errors import FramegateError, UsageError
from framegate.runtime.preprocess import Preprocessor

BACKEND = "openvino"
WARM_UP = 200


def summary(nanoseconds: np.ndarray) -> dict[str, float]:
    """p50, p99, p99.9 and max in microseconds."""
    p50, p99, p999 = np.percentile(nanoseconds, [50, 99, 99.9]) / 1e3
    return {
        "p50_us": round(float(p50), 2),
        "p99_us": round(float(p99), 2),
        "p99.9_us": round(float(p999), 2),
        "max_us": round(float(nanoseconds.max()) / 1e3, 2),
    }


def measure(bundle: Bundle, frames: int) -> dict[str, Any]:
    """One bundle, with a monitor.

    Raises:
        UsageError: It has none.
        BackendError: The engine does not run it.
    """
    monitor = bundle.monitor
    if monitor is None:
        raise UsageError(f"bundle {bundle.path}: has no monitor to measure; framegate monitor adds one")
    precision = default_precision(BACKEND, bundle.models)
    tensor = Preprocessor(bundle.preprocess).tensor
    tensor[...] = np.random.default_rng(0).standard_normal(tensor.shape)
    with tempfile.TemporaryDirectory(prefix="framegate-monitor-") as folder:
        bare_file = Path(folder) / "bare.onnx"
        onnx.save(without_pooled(onnx.load(str(bundle.model_path(precision)))), str(bare_file))
        bare, whole = (load_backend(BACKEND, file) for file in (bare_file, bundle.model_path(precision)))
    for backend in (bare, whole):
        backend.bind(tensor)
    times = np.empty((3, frames), np.int64)
    for k in range(-WARM_UP, frames):
        # In turn, and each first as often as the other: the second finds the caches warm.
        order: tuple[Backend, ...] = (bare, whole) if k % 2 else (whole, bare)
        took = {}
        for backend in order:
            started = time.perf_counter_ns()
            infer(backend)
            took[backend is whole] = time.perf_counter_ns() - started
        started = time.perf_counter_ns()
        assert whole.pooled is not None
        monitor(whole.pooled[0])
        head = time.perf_counter_ns() - started
        if k >= 0:
            times[:, k] = took[False], took[True], head
    blocks = np.array_split(times, 10, axis=1)
    ratios = [float(np.median(block[1] + block[2]) / np.median(block[0])) for block in blocks]
    return {
        "bundle": bundle.name,
        "backend": whole.engine,
        "precision": precision,
        "layers": [tap.name for tap in monitor.taps],
        "pooled_values": monitor.size,
        "frames": frames,
        "bare_engine": summary(times[0]),
        "engine_with_output": summary(times[1]),
        "head": summary(times[2]),
        "ratio_p50": round(float(np.median(times[1] + times[2]) / np.median(times[0])), 4),
        "ratio_p50_of_ten_blocks": [round(min(ratios), 4), round(max(ratios), 4)],
    }


def main() -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--bundles", type=Path, nargs="+", help="default: those shipped classifiers that have a monitor"
    )
    parser.add_argument("--frames", type=int, default=5_000)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.frames < 100:
        parser.error(f"--frames {arguments.frames}: expected at least 100")
    found = []
    try:
        bundles = [Bundle.open(path) for path in arguments.bundles or classifiers()]
        if not arguments.bundles:
            bundles = [bundle for bundle in bundles if bundle.monitor is not None]
        with progress_bar() as progress:
            for k, bundle in enumerate(bundles):
                progress("monitor", k, len(bundles))
                found.append(measure(bundle, arguments.frames))
            progress("monitor", len(found), len(found))
    except FramegateError as error:
        print(f"bench_monitor: {error}", file=sys.stderr)
        return error.exit_code
    for each in found:
        to_stdout(
            f"{each['bundle']} {each['precision']}: bare {each['bare_engine']['p50_us']:.0f} us, with the monitor x "
            f"{each['ratio_p50']:.3f} (blocks {each['ratio_p50_of_ten_blocks']}), head {each['head']['p50_us']:.1f} us"
        )
    record = {
        "what": "engine with the monitor's output, and its head, against the same engine without; interleaved",
        "command": "python -m framegate.benchmarks.cost.monitor --out benchmarks/results/monitor-latency.json",
        "machine": circumstances(),
        "bundles": found,
    }
    return written(arguments.out, record, "bench_monitor")


if __name__ == "__main__":
    sys.exit(main())
