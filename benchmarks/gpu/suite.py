"""Everything there is to do on a machine with an NVIDIA GPU: ``python -m framegate.benchmarks.gpu.suite``.

Ten minutes at most. The steps run one after the other, each in its own process with its own share of the time; one that
fails is reported and the others still run. Results go to benchmarks/results/. It runs from a plain checkout with NumPy,
OpenCV, rich, pytest and cuda-bindings (or PyCUDA); PyTorch and Triton are compared with if they are there.

On a machine without a GPU it says "no device: nothing measured", writes no file, and ends with exit code 0.

A new step is one line in STEPS.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from framegate.benchmarks.checkout import ROOT
from framegate.benchmarks.gpu.device import open_gpu
from framegate.cuda_kernels.driver.open import CudaError

NO_DEVICE = "no device: nothing measured"
SECONDS = 570
"""A little less than the ten minutes, for the start and the end."""

PYTHON = sys.executable
RESULTS = "{results}"
SANITIZER = "{sanitizer}"
GPU_TESTS = (PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the suite.

    Attributes:
        name: for the report and for --only.
        command: `{results}` stands for the folder of results, `{sanitizer}` for compute-sanitizer.
        seconds: the most it may take.
    """

    name: str
    command: tuple[str, ...]
    seconds: int


STEPS = (
    # The camera check and the scores, as an installation compiles them; without it they run in NumPy.
    Step("compile", (PYTHON, "setup.py", "-q", "build_ext", "--inplace"), 60),
    Step("doctor", (PYTHON, "-m", "framegate.runtime.cli.main", "doctor"), 30),
    Step("tests", (*GPU_TESTS, "tests/cuda_kernels"), 180),
    Step(
        "memcheck",
        (SANITIZER, "--tool", "memcheck", "--error-exitcode", "1", *GPU_TESTS, "-k", "small", "tests/cuda_kernels"),
        90,
    ),
    Step(
        "racecheck",
        (SANITIZER, "--tool", "racecheck", "--error-exitcode", "1", *GPU_TESTS, "-k", "small", "tests/cuda_kernels"),
        90,
    ),
    Step(
        "latency",
        (PYTHON, "-m", "framegate.benchmarks.gpu.kernels", "--only", "graph", "--out", f"{RESULTS}/gpu-latency.json"),
        60,
    ),
    Step("engines", (PYTHON, "-m", "framegate.benchmarks.gpu.engine", "--out", f"{RESULTS}/gpu-engines.json"), 240),
    # After the engines, which it finds in their store; the first place of its field is the engine that auto takes.
    Step(
        "rivals",
        (
            PYTHON,
            "-m",
            "framegate.benchmarks.latency.against_rivals",
            "--frames",
            "2000",
            "--no-compile",
            "--out",
            f"{RESULTS}/gpu-rivals.json",
        ),
        120,
    ),
    Step(
        "kernels",
        (
            *(
                PYTHON,
                "-m",
                "framegate.benchmarks.gpu.kernels",
                "--only",
                "preprocess",
                "--only",
                "grid",
            ),
            *("--out", f"{RESULTS}/kernels.json"),
        ),
        300,
    ),
)


def find_sanitizer() -> str | None:
    """Return compute-sanitizer, which toolkits carry in different places."""
    found = shutil.which("compute-sanitizer")
    places = ("/usr/local/cuda*/bin/compute-sanitizer", "/usr/local/cuda*/compute-sanitizer/compute-sanitizer")
    return found or next((path for place in places for path in sorted(glob(place))), None)


def run_step(step: Step, results: Path, seconds_left: float) -> str:
    """Run one step; return what became of it: ``ok``, ``skipped: ...`` or ``FAILED: ...``."""
    seconds = min(step.seconds, seconds_left)
    if seconds < 5:
        return "skipped: no time left"
    sanitizer = find_sanitizer()
    if SANITIZER in step.command and sanitizer is None:
        return "skipped: compute-sanitizer was not found"
    if "pytest" in step.command and importlib.util.find_spec("pytest") is None:
        return "FAILED: pytest is not installed"
    command = [part.replace(RESULTS, str(results)).replace(SANITIZER, str(sanitizer)) for part in step.command]
    try:
        # Its own session, so that a step that is out of time is ended together with what it started.
        child = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    except OSError as error:
        return f"FAILED: {error}"
    try:
        code = child.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return f"FAILED: not done after {seconds:.0f} s"
    return "ok" if code == 0 else f"FAILED: exit code {code}"


def main(arguments: list[str] | None = None) -> int:
    """Run the steps. Exit code 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=[step.name for step in STEPS], help="default: all")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"time for all steps (default {SECONDS})")
    options = parser.parse_args(arguments)
    try:
        gpu = open_gpu()
    except CudaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if gpu is None:
        print(NO_DEVICE)
        return 0
    print(gpu.info, flush=True)
    gpu.close()  # each step opens it anew
    begin = time.monotonic()
    options.results.mkdir(parents=True, exist_ok=True)
    outcomes: list[tuple[str, str, float]] = []
    for step in STEPS:
        if options.only and step.name not in options.only:
            continue
        print(f"\n== {step.name}", flush=True)
        started = time.monotonic()
        outcome = run_step(step, options.results.resolve(), options.seconds - (started - begin))
        outcomes.append((step.name, outcome, time.monotonic() - started))
    print("\n== summary")
    for name, outcome, seconds in outcomes:
        print(f"{name:<10} {seconds:6.1f} s  {outcome}")
    return 1 if any(outcome.startswith("FAILED") for _, outcome, _ in outcomes) else 0


if __name__ == "__main__":
    raise SystemExit(main())
