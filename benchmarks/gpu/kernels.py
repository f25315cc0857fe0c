"""Measure the CUDA kernels: ``python -m framegate.benchmarks.gpu.kernels``.

First each case is checked against the reference; a wrong one is reported and not timed, and the exit code is 1. Then
its time, GB/s and share of the copy bandwidth that this very device reaches, next to PyTorch eager, torch.compile and
Triton where they are installed. Bytes are the least that any version must move. Each sample is the mean over a graph of
launches on different inputs, together larger than the second-level cache.

On a machine without a GPU it says "no device: nothing measured", writes no file, and ends with exit code 0.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from framegate.benchmarks.checkout import RESULTS, ROOT
from framegate.benchmarks.gpu.device import Stopwatch, circumstances_of, copy_bandwidth, open_gpu, percentiles
from framegate.benchmarks.gpu.kernel_cases import GRID, Case, check, prepare, release
from framegate.benchmarks.gpu.kernel_rivals import measure, rivals, versions
from framegate.benchmarks.gpu.small import bench_graph_node, bench_preprocess
from framegate.cuda_kernels.driver.open import CudaError, Driver
from framegate.cuda_kernels.kernels import Kernels
from framegate.runtime.circumstances import circumstances

OUT = RESULTS / "kernels.json"
PARTS = ("grid", "graph", "preprocess")
NO_DEVICE = "no device: nothing measured"


def bench_case(
    gpu: Driver, kernels: Kernels, watch: Stopwatch, case: Case, copy: float, repeats: int
) -> dict[str, Any]:
    """Check and time one case and its rivals."""
    # Four times the cache, but not thousands of copies of a small case.
    copies = max(2, min(64, -(-4 * gpu.info.l2_bytes // case.input_bytes)))
    result: dict[str, Any] = {"case": case.name, "why": case.why, "bytes": case.least_bytes, "inputs": copies}
    if case.target:
        result["target"] = case.target
    prepared = prepare(gpu, case, watch.stream, seed=time.time_ns() % 2**32, copies=copies)
    try:
        problem = check(gpu, kernels, prepared, watch.stream)
        if problem:
            return result | {"wrong": problem}
        times = watch.microseconds(prepared.calls(kernels), repeats)
    finally:
        release(gpu, prepared)
    result["us"] = percentiles(times)
    result |= rate(case, result["us"]["p50"], copy)
    result["rivals"] = {}
    for name, function in rivals(case.kind).items():
        try:
            answer = measure(case, prepared.logits, function, copies, max(20, repeats // 5))
        except Exception as error:  # noqa: BLE001 - a rival that fails must not end the measurement of ours
            answer = {"failed": f"{type(error).__name__}: {error}"[:300]}
        if "us" in answer:
            answer |= rate(case, answer["us"]["p50"], copy)
            answer["ours_is_faster"] = round(answer["us"]["p50"] / result["us"]["p50"], 2)
        result["rivals"][name] = answer
    return result


def rate(case: Case, microseconds: float, copy: float) -> dict[str, float]:
    """Turn a time into GB/s and a share of the copy bandwidth."""
    speed = case.least_bytes / (microseconds * 1e-6) / 1e9
    return {"GB_per_s": round(speed, 1), "share_of_copy": round(speed / copy, 3)}


def table_of(results: list[dict[str, Any]]) -> Table:
    """Lay the results out."""
    names = list(dict.fromkeys(name for one in results for name in one.get("rivals", {})))
    table = Table(title="time in us (p50), and how many times faster than each other version")
    for column in ("case", "us", "GB/s", "of copy", *names):
        table.add_column(column, justify="left" if column == "case" else "right")
    for one in results:
        if "us" not in one:
            table.add_row(one["case"], f"WRONG: {one['wrong']}", style="red")
            continue
        others = [one["rivals"].get(name, {}) for name in names]
        cells = [f"{o['us']['p50']} ({o['ours_is_faster']}x)" if "us" in o else "-" for o in others]
        table.add_row(one["case"], str(one["us"]["p50"]), str(one["GB_per_s"]), f"{one['share_of_copy']:.0%}", *cells)
    return table


def main(arguments: list[str] | None = None) -> int:
    """Check, measure, write. Exit code 1 if a result is wrong or the GPU can't be used."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help=f"result file (default {OUT.relative_to(ROOT)})")
    parser.add_argument("--only", choices=PARTS, action="append", help="default: all")
    parser.add_argument("--repeats", type=int, default=1000, help="samples a case (default 1000)")
    parser.add_argument("--frames", type=int, default=10_000, help="frames of the graph comparison (default 10000)")
    parser.add_argument("--driver", default="auto", help="CUDA layer: auto, bindings or pycuda")
    options = parser.parse_args(arguments)
    parts = set(options.only or PARTS)
    try:
        gpu = open_gpu(options.driver)
    except CudaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if gpu is None:
        print(NO_DEVICE)
        return 0
    with gpu:
        report = measure_all(gpu, parts, options.repeats, options.frames)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written: {options.out}")
    wrong = [one for part in ("grid", "preprocess") for one in report.get(part, []) if "wrong" in one]
    wrong += [report["graph"]] if "wrong" in report.get("graph", {}) else []
    for one in wrong:
        print(f"WRONG: {one.get('case', 'graph')}: {one['wrong']}", file=sys.stderr)
    return 1 if wrong else 0


def measure_all(gpu: Driver, parts: set[str], repeats: int, frames: int) -> dict[str, Any]:
    """Run the parts that were asked for and return the report."""
    console = Console(width=160)
    watch = Stopwatch(gpu)
    report: dict[str, Any] = {"machine": circumstances() | circumstances_of(gpu) | versions()}
    copy = copy_bandwidth(gpu, watch)
    report["copy_GB_per_s"] = round(copy, 1)
    print(
        f"{gpu.info.name}: a copy on the device moves {copy:.0f} GB/s, read and written bytes both counted", flush=True
    )
    if parts & {"grid", "graph"}:
        softmax = Kernels(gpu, "softmax_entropy")
    if "graph" in parts:
        report["graph"] = bench_graph_node(gpu, softmax, frames)
        print(json.dumps(report["graph"], indent=2), flush=True)
    if "preprocess" in parts:
        report["preprocess"] = bench_preprocess(gpu, Kernels(gpu, "camera_preprocess"), watch, repeats)
        print(json.dumps(report["preprocess"], indent=2), flush=True)
    if "grid" in parts:
        report["grid"] = []
        for number, case in enumerate(GRID, 1):
            print(f"[{number}/{len(GRID)}] {case.name} ...", flush=True)
            report["grid"].append(bench_case(gpu, softmax, watch, case, copy, repeats))
        console.print(table_of(report["grid"]))
    return report


if __name__ == "__main__":
    raise SystemExit(main())
