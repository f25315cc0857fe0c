"""Measure the CUDA kernels: ``python -m framegate.benchmarks.gpu.kernels``.

First each case is checked against the reference; a wrong one is reported and not timed, and the exit code is 1. Then
its time, GB/s and share of the copy bandwidth that this very device reaches, next to PyTorch eager, torch.compile and
Triton where they are installed (``--rivals``). Bytes are the least that any version must move. Each sample is the mean
over a graph of at least 64 launches on different inputs, together larger than the second-level cache.

The record is written after each case, the cases with a target come first, and a case that fails does not end the
others.

On a machine without a GPU it says "no device: nothing measured", writes no file, and ends with exit code 0.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from framegate.benchmarks.checkout import RESULTS, ROOT
from framegate.benchmarks.gpu.device import Stopwatch, circumstances_of, copy_bandwidth, open_gpu, percentiles
from framegate.benchmarks.gpu.kernel_cases import GRID, Case, check, prepare, release
from framegate.benchmarks.gpu.kernel_rivals import measure, rivals, versions
from framegate.benchmarks.gpu.small import bench_graph_node, bench_preprocess
from framegate.cuda_kernels.compile.cache import write_json
from framegate.cuda_kernels.driver.open import CudaError, Driver
from framegate.cuda_kernels.kernels import Kernels
from framegate.runtime.circumstances import circumstances

OUT = RESULTS / "kernels.json"
PARTS = ("grid", "graph", "preprocess")
LAUNCHES = 64
"""Of a graph, at least: what a graph costs besides is then a fiftieth of a microsecond of each."""
FIVE = (0, 1, 2, 5, 7)
"""Places in `GRID` of the shapes that others are compared on if time is short."""
NO_DEVICE = "no device: nothing measured"


def bench_case(
    gpu: Driver, kernels: Kernels, watch: Stopwatch, case: Case, copy: float, repeats: int, others: bool = True
) -> dict[str, Any]:
    """Check and time one case, and its rivals if `others`."""
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
        if repeats == 0:
            return result | {"checked": True}
        times = watch.microseconds(prepared.calls(kernels) * -(-LAUNCHES // copies), repeats)
    finally:
        release(gpu, prepared)
    result["us"] = percentiles(times)
    result |= rate(case, result["us"]["p50"], copy)
    result["rivals"] = {}
    for name, function in rivals(case.kind).items() if others else ():
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
            problem = f"WRONG: {one['wrong']}" if "wrong" in one else one.get("failed", "")
            table.add_row(one["case"], problem or "right", style="red" if problem else None)
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
    parser.add_argument("--repeats", type=int, default=1000, help="samples a case (default 1000; 0 only checks)")
    parser.add_argument("--frames", type=int, default=10_000, help="frames of the graph comparison (default 10000)")
    parser.add_argument("--driver", default="auto", help="CUDA layer: auto, bindings or pycuda")
    parser.add_argument("--rivals", choices=("all", "five", "none"), default="all", help="compare on which shapes")
    options = parser.parse_args(arguments)
    try:
        gpu = open_gpu(options.driver)
    except CudaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if gpu is None:
        print(NO_DEVICE)
        return 0
    cases = [GRID[place] for place in FIVE if place < len(GRID)] if options.rivals == "five" else GRID
    with gpu:
        measurement = Measurement(gpu, options.out, options.repeats)
        if options.only is None or {"grid", "graph"} & set(options.only):
            softmax = Kernels(gpu, "softmax_entropy")
        for part in options.only or PARTS:
            if part == "grid":
                measurement.grid(softmax, cases, options.rivals != "none")
            elif part == "graph":
                measurement.part(part, lambda: bench_graph_node(gpu, softmax, options.frames))
            else:
                measurement.part(part, partial(_preprocess, gpu, measurement.watch, options.repeats))
    print(f"written: {options.out}")
    problems = measurement.problems()
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def _preprocess(gpu: Driver, watch: Stopwatch, repeats: int) -> list[dict[str, Any]]:
    return bench_preprocess(gpu, Kernels(gpu, "camera_preprocess"), watch, repeats)


class Measurement:
    """A report that is on the disk after each of its parts.

    Attributes:
        report: What was found.
        watch: The clock.
    """

    def __init__(self, gpu: Driver, out: Path, repeats: int) -> None:
        self._gpu, self._out, self._repeats = gpu, out, repeats
        self.watch = Stopwatch(gpu)
        self._copy = copy_bandwidth(gpu, self.watch)
        self.report: dict[str, Any] = {"machine": circumstances() | circumstances_of(gpu) | versions()}
        self.report["copy_GB_per_s"] = round(self._copy, 1)
        print(f"{gpu.info.name}: a copy on the device moves {self._copy:.0f} GB/s, read and written bytes both counted")
        self._write()

    def _write(self) -> None:
        write_json(self._out, self.report)

    def part(self, name: str, work: Callable[[], Any]) -> None:
        """Do a part that is one piece."""
        try:
            self.report[name] = work()
        except CudaError as error:
            self.report[name] = {"failed": str(error)}
        print(json.dumps(self.report[name], indent=2), flush=True)
        self._write()

    def grid(self, softmax: Kernels, cases: Sequence[Case], others: bool) -> None:
        """Measure cases one after the other."""
        found = self.report["grid"] = []
        for number, case in enumerate(cases, 1):
            print(f"[{number}/{len(cases)}] {case.name} ...", flush=True)
            try:
                found.append(bench_case(self._gpu, softmax, self.watch, case, self._copy, self._repeats, others))
            except CudaError as error:
                found.append({"case": case.name, "failed": str(error)})
            self._write()
        Console(width=160).print(table_of(found))

    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        parts: list[tuple[str, dict[str, Any]]] = []
        for name in PARTS:
            found = self.report.get(name, [])
            parts += [(name, one) for one in ([found] if isinstance(found, dict) else found)]
        words = {"wrong": "WRONG", "failed": "FAILED"}
        return [
            f"{word}: {one.get('case', name)}: {one[key]}"
            for name, one in parts
            for key, word in words.items()
            if key in one
        ]


if __name__ == "__main__":
    raise SystemExit(main())
