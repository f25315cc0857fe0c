"""``framegate bench``: capture-to-verdict latency against the bare engine, start-up time and memory growth."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from framegate.runtime import bench
from framegate.runtime.backend import BACKENDS, choose_backend, default_precision, load_backend
from framegate.runtime.bundle import Bundle
from framegate.runtime.command_run import SWITCH_INTERVAL_S
from framegate.runtime.console import OUT, progress_bar, say
from framegate.runtime.errors import BackendError, SinkError, UsageError
from framegate.runtime.machine import circumstances
from framegate.runtime.preprocess import PreprocessSpec


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``bench`` to the command line."""
    parser = commands.add_parser("bench", help="measure latency, start-up and memory on this machine")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--frames", type=int, default=2000, help="timed frames per configuration (default: 2000)")
    parser.add_argument("--memory-frames", type=int, default=10_000, help="frames of the memory test, 0 skips it")
    parser.add_argument("--threads", type=int, help="CPU threads of every engine (default: each engine's own choice)")
    parser.add_argument(
        "--size", metavar="WxH", help="size of the synthetic frames (default: 1280x720, for volumes a column of slices)"
    )
    parser.add_argument("--out", type=Path, help="also write the figures with their circumstances to this JSON file")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure and report."""
    if arguments.frames < 1 or arguments.memory_frames < 0:
        raise UsageError("--frames must be at least 1 and --memory-frames at least 0")
    bundle = Bundle.open(arguments.bundle)
    size = _size(arguments.size, bundle.preprocess)
    if arguments.out and not arguments.out.parent.is_dir():
        raise SinkError(f"results {arguments.out}: the folder {arguments.out.parent} does not exist")
    installed = []
    for name, entry in BACKENDS.items():
        try:
            chosen = choose_backend(name)
            for precision in bundle.models if entry.gpu else ():
                load_backend(chosen, bundle.model_path(precision))  # a GPU, an engine: found out now
            installed.append(chosen)
        except BackendError as error:
            say(f"left out: {error}")
    wanted = [(backend, precision) for backend in installed for precision in bundle.models]
    default = choose_backend("auto")
    precision = default_precision(default, bundle.models)

    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with progress_bar() as progress:
        results = bench.measure_latency(bundle, wanted, arguments.frames, arguments.threads, size, progress)
        startup = bench.measure_startup(arguments.bundle, default, precision, size, 5, progress)
        memory = (
            bench.measure_memory(bundle, default, precision, arguments.memory_frames, size, progress)
            if arguments.memory_frames
            else None
        )
    record = _record(arguments, size, bundle, results, f"{default}/{precision}", startup, memory)
    if arguments.out:
        try:
            arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise SinkError(f"results {arguments.out}: cannot be written ({error.strerror})") from error
    if arguments.json:
        say(json.dumps(record, indent=2))
    else:
        _print(record)
    return 0


def _size(text: str | None, spec: PreprocessSpec) -> tuple[int, int]:
    """Width and height of the frames; without a wish the smallest column of slices that the test pattern can fill."""
    if text is None:
        if spec.depth == 1:
            return 1280, 720
        scale = max(-(-128 // spec.width), -(-64 // (spec.depth * spec.height)), -(-16 // spec.height))
        return scale * spec.width, scale * spec.depth * spec.height
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) >= 64 and int(height) >= 64):
        raise UsageError(f"--size {text!r}: expected WIDTHxHEIGHT in pixels, at least 64x64")
    if int(height) % spec.depth:
        raise UsageError(f"--size {text!r}: the height must be a multiple of the {spec.depth} slices of a volume")
    return int(width), int(height)


def _record(
    arguments: argparse.Namespace,
    size: tuple[int, int],
    bundle: Bundle,
    results: list[bench.Configuration],
    default: str,
    startup: list[float],
    memory: dict[str, float] | None,
) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = {}
    for result in results:
        bare, verdict = bench.percentiles(result.bare_ns), bench.percentiles(result.verdict_ns)
        rows[result.name] = {
            "engine": result.engine,
            "frames": len(result.bare_ns),
            "resize_normalise_infer": bare,
            "capture_to_verdict": verdict,
            "engine_call_in_pipeline": bench.percentiles(result.call_ns),
            "ratio_p50": verdict["p50_ms"] / bare["p50_ms"],
            "ratio_p99": verdict["p99_ms"] / bare["p99_ms"],
        }
    floor = min(rows, key=lambda name: rows[name]["resize_normalise_infer"]["p50_ms"])
    floor_p50 = rows[floor]["resize_normalise_infer"]["p50_ms"]
    return {
        "what": "closed loop, frame available -> verdict ready, against the bare engine, interleaved in one process",
        "command": f"framegate bench {arguments.bundle} --frames {arguments.frames}"
        + (f" --threads {arguments.threads}" if arguments.threads else "")
        + f" --size {size[0]}x{size[1]}",
        "bundle": {"name": bundle.name, "models": {p: bundle.hashes[f] for p, f in bundle.models.items()}},
        "machine": circumstances(),
        "configurations": rows,
        "fastest_bare": floor,
        "default": default,
        "default_p50_to_fastest_bare_p50": rows[default]["capture_to_verdict"]["p50_ms"] / floor_p50,
        "startup_s": {"median": float(np.median(startup)), "max": max(startup), "runs": len(startup)},
        "memory": memory,
    }


def _print(record: dict[str, Any]) -> None:
    table = Table(title="Latency in ms: capture to verdict, and (resize + normalise + bare engine call)")
    for column in ("backend/precision", "p50", "p99", "p99.9", "max", "ratio p50", "ratio p99"):
        first = column.startswith("backend")
        table.add_column(column, justify="left" if first else "right", no_wrap=first)
    for name, row in record["configurations"].items():
        verdict, bare = row["capture_to_verdict"], row["resize_normalise_infer"]
        table.add_row(
            name + (" (default)" if name == record["default"] else ""),
            *(f"{verdict[key]:.2f} ({bare[key]:.2f})" for key in verdict),
            f"{row['ratio_p50']:.2f}",
            f"{row['ratio_p99']:.2f}",
        )
    OUT.print(table)
    say(
        f"default {record['default']} p50 / fastest bare p50 ({record['fastest_bare']}): "
        f"{record['default_p50_to_fastest_bare_p50']:.2f}"
    )
    startup = record["startup_s"]
    say(f"start-up, new process to first verdict: median {startup['median']:.2f} s, max {startup['max']:.2f} s")
    if record["memory"]:
        memory = record["memory"]
        say(
            f"resident memory over {memory['frames']} frames: {memory['after_warm_up_mib']:.1f} -> "
            f"{memory['at_end_mib']:.1f} MiB ({memory['growth_mib']:+.1f})"
        )
