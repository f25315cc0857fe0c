"""What the gate costs on top of a bare loop, stage by stage, for a large and for small networks: gate-cost.json.

    python -m framegate.benchmarks.latency.gate_cost --out benchmarks/results/gate-cost.json

Each bundle in the engine and precision that it runs in unless told otherwise, on frames of the shipped clip, against
the yardstick of `framegate.benchmarks.latency.yardstick`, with the floor of every stage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from framegate.benchmarks.checkout import ROOT
from framegate.benchmarks.latency.measure import BLOCK, Configuration, measure_latency
from framegate.benchmarks.latency.record import written
from framegate.benchmarks.latency.series import duration_summary, percentiles, ratio, stage_summary
from framegate.benchmarks.latency.stream import read_frames
from framegate.runtime.backends.choice import choose_backend, default_precision
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.circumstances import circumstances
from framegate.runtime.cli.options import SWITCH_INTERVAL_S
from framegate.runtime.console import progress_bar, to_stdout
from framegate.runtime.verdict import Image

BUNDLES = ("hybrid-cifar10", "mobilenet-cifar10", "simplecnn-cifar10")
CLIP = "camera_demo/clips/highway_1280x720_25fps.mp4"
_FIGURES = ("p50_ms", "p99_ms", "mean_ms")


def _short(summary: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a stage or of its floor."""
    kept = {name: round(summary[name], 5) for name in _FIGURES}
    return kept | {name: summary[name] for name in ("what", "bytes") if name in summary}


def row_of(result: Configuration) -> dict[str, Any]:
    """What the record says about one bundle."""
    stages = {
        name: _short(found)
        for name, found in {
            **stage_summary(result.stages_ns),
            "hand_over": duration_summary(result.samples.hand_over_ns),
        }.items()
    }
    return {
        "configuration": result.name,
        "engine": result.engine,
        "frames": len(result.verdict_ns),
        "capture_to_verdict": percentiles(result.verdict_ns),
        "bare": percentiles(result.bare_ns),
        "ratio_p50": ratio(result.verdict_ns, result.bare_ns, BLOCK),
        "stages": stages,
        "floors": {name: _short(found) for name, found in result.floors.items()},
    }


def measure(name: str, images: Sequence[Image], frames: int) -> dict[str, Any]:
    """One bundle."""
    bundle = Bundle.open(ROOT / "models" / "bundles" / f"{name}.bundle")
    backend = choose_backend("auto")
    wanted = [(backend, default_precision(backend, bundle.models))]
    size = images[0].shape[1], images[0].shape[0]
    with progress_bar() as progress:
        return row_of(measure_latency(bundle, wanted, frames, None, size, progress, images)[0])


def main(arguments: list[str] | None = None) -> int:
    """Measure, and write the record."""
    parser = argparse.ArgumentParser(description="what the gate costs, and the floor of every stage")
    parser.add_argument("--frames", type=int, default=2000, metavar="N", help="of each bundle (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the record (JSON)")
    chosen = parser.parse_args(arguments)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    images = read_frames(str(ROOT / CLIP))
    rows = {name: measure(name, images, chosen.frames) for name in BUNDLES}
    for name, row in rows.items():
        found = row["ratio_p50"]
        to_stdout(f"{name}, {row['configuration']}: p50 {found['ratio']:.3f} [{found['low']:.3f}, {found['high']:.3f}]")
    record = {
        "what": "capture to verdict against the bare loop, and the floor of every stage, interleaved in one process",
        "source": f"{CLIP}, {images[0].shape[1]}x{images[0].shape[0]}",
        "machine": circumstances(),
        "bundles": rows,
    }
    return written(chosen.out, record, "gate_cost")


if __name__ == "__main__":
    sys.exit(main())
