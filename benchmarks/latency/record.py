"""The JSON record of `framegate bench`. docs/benchmark.md says how to read it; `bench_compare` compares two of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from framegate.benchmarks.latency.compare import FORMAT, VERSION
from framegate.benchmarks.latency.measure import BLOCK, Configuration
from framegate.benchmarks.latency.series import (
    duration_summary,
    percentiles,
    ratio,
    stage_summary,
    summarise,
    verdict_counts,
)
from framegate.evaluation.report.files import write_text
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.circumstances import circumstances
from framegate.runtime.errors import FramegateError

CLOSED_LOOP = "closed loop, frame available -> verdict ready, against the bare engine, interleaved in one process"
SCENARIOS = "closed loop, capture -> verdict, paced or back to back, variants interleaved in one process"


def head(what: str, command: str, bundle: Bundle, source: str) -> dict[str, Any]:
    """What every record begins with."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "what": what,
        "command": command,
        "source": source,
        "bundle": {"name": bundle.name, "models": {p: bundle.hashes[f] for p, f in bundle.models.items()}},
        "machine": circumstances(),
    }


def latency_record(results: list[Configuration], default: str) -> dict[str, Any]:
    """Configurations and series of `framegate.benchmarks.latency.measure.measure_latency`.

    Args:
        results: At least one.
        default: Name of the configuration that runs unless told otherwise.
    """
    rows: dict[str, dict[str, Any]] = {}
    series: dict[str, dict[str, Any]] = {}
    for result in results:
        bare, verdict = percentiles(result.bare_ns), percentiles(result.verdict_ns)
        samples = result.samples
        rows[result.name] = {
            "engine": result.engine,
            "frames": len(result.bare_ns),
            "resize_normalise_infer": bare,
            "capture_to_verdict": verdict,
            "engine_call_in_pipeline": percentiles(result.call_ns),
            "ratio_p50": verdict["p50_ms"] / bare["p50_ms"],
            "ratio_p99": verdict["p99_ms"] / bare["p99_ms"],
            "ratio_p50_spread": ratio(result.verdict_ns, result.bare_ns, BLOCK),
        }
        series[f"{result.name} bare"] = summarise(result.bare_ns, BLOCK)
        series[result.name] = {
            **summarise(result.verdict_ns, BLOCK),
            "reference": f"{result.name} bare",
            "stages": stage_summary(result.stages_ns),
            "hand_over": duration_summary(samples.hand_over_ns),
            "floors": result.floors,
            "fed": samples.fed,
            "dropped": samples.dropped,
            "verdicts": verdict_counts(samples.reasons, len(samples.frame_ids), samples.accepted),
        }
    floor = min(rows, key=lambda name: rows[name]["resize_normalise_infer"]["p50_ms"])
    return {
        "configurations": rows,
        "series": series,
        "fastest_bare": floor,
        "default": default,
        "default_p50_to_fastest_bare_p50": rows[default]["capture_to_verdict"]["p50_ms"]
        / rows[floor]["resize_normalise_infer"]["p50_ms"],
    }


def startup_record(seconds: list[float], resident_mib: list[float]) -> dict[str, float]:
    """Start-up times in seconds, and how much memory such a process holds."""
    return {
        "median": float(np.median(seconds)),
        "max": max(seconds),
        "runs": len(seconds),
        "resident_mib": float(np.median(resident_mib)),
    }


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record.

    Raises:
        SinkError: It cannot be written.
    """
    write_text(path, json.dumps(record, separators=(",", ":")) + "\n")  # indented, half of it would be spaces


def written(path: Path, record: Mapping[str, Any], script: str) -> int:
    """Write a record as the last step of a script, and return its exit code: a fault is one line."""
    try:
        write_record(path, record)
    except FramegateError as error:
        print(f"{script}: {error}", file=sys.stderr)
        return error.exit_code
    return 0
