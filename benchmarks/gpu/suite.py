"""Everything there is to do on a machine with an NVIDIA GPU: ``python -m framegate.benchmarks.gpu.suite``.

Ten minutes at most: the steps' limits together are no more. They run in the order in which they would be missed, each
in its own process; one that fails or is out of time is reported, and the others still run. Every record is written
after each of its cases, and what the steps print goes to the log as well, so nothing is lost if the machine is taken
away.

It runs from a plain checkout, or from the folder that ``make gpu-pack`` makes, with NumPy, OpenCV, rich and
cuda-bindings (or PyCUDA). pytest, compute-sanitizer, ncu, PyTorch, Triton and TensorRT are used if they are there.

On a machine without a GPU it says "no device: nothing measured", writes no file, and ends with exit code 0; with
``--dry-run`` every step runs up to the line that needs the GPU.

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
import tempfile
import threading
import time
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import IO

from framegate.benchmarks.checkout import RESULTS as RESULTS_FOLDER
from framegate.benchmarks.checkout import ROOT
from framegate.benchmarks.gpu.device import circumstances_of, open_gpu
from framegate.cuda_kernels.compile.cache import write_json
from framegate.cuda_kernels.driver.open import CudaError
from framegate.runtime.circumstances import circumstances

NO_DEVICE = "no device: nothing measured"
SECONDS = 570
"""A little less than the ten minutes, for the start and the end."""

PYTHON = sys.executable
RESULTS, SCRATCH, IMAGES = "{results}", "{scratch}", "{images}"
SANITIZER, PROFILER = "{compute-sanitizer}", "{ncu}"
TOOLS = {SANITIZER: "compute-sanitizer", PROFILER: "ncu"}
MODULE = (PYTHON, "-m")
KERNELS = (*MODULE, "framegate.benchmarks.gpu.kernels")
# Without the conftest of all tests, which needs what only a developer has.
GPU_TESTS = (
    *MODULE,
    "pytest",
    "-q",
    "-p",
    "no:cacheprovider",
    "--noconftest",
    "-m",
    "gpu",
    "tests/cuda_kernels/test_gpu.py",
)
# A kernel that is not there is asked for on purpose; the sanitizer would call the driver's answer an error.
CHECKED = (SANITIZER, "--error-exitcode", "1", "--report-api-errors", "no", "--tool")


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the suite.

    Attributes:
        name: For the report and for --only.
        command: `{results}` stands for the folder of results, `{scratch}` for one that is thrown away, `{images}` for
            the file of images, `{compute-sanitizer}` and `{ncu}` for these programs.
        seconds: The most it may take.
        packages: Python packages without which it is skipped: all of them, or with "a|b" one of each.
        counts: Whether its failure is one of the suite.
    """

    name: str
    command: tuple[str, ...]
    seconds: int
    packages: tuple[str, ...] = ()
    counts: bool = True


STEPS = (
    Step("doctor", (*MODULE, "framegate.runtime.cli.main", "doctor"), 15, counts=False),
    Step("tests", GPU_TESTS, 75, ("pytest",)),
    Step(
        "grid",
        (*KERNELS, "--only", "grid", "--rivals", "none", "--repeats", "300", "--out", f"{RESULTS}/kernels.json"),
        80,
    ),
    Step(
        "latency",
        (
            *KERNELS,
            "--only",
            "graph",
            "--only",
            "preprocess",
            "--repeats",
            "300",
            "--out",
            f"{RESULTS}/gpu-latency.json",
        ),
        40,
    ),
    Step(
        "frame",
        (
            *(*MODULE, "framegate.benchmarks.gpu.frame", "--frames", "5000"),
            *("--images", IMAGES, "--out", f"{RESULTS}/gpu-frame.json"),
        ),
        60,
    ),
    Step("memcheck", (*CHECKED, "memcheck", *GPU_TESTS, "-k", "small"), 45, ("pytest",)),
    Step("racecheck", (*CHECKED, "racecheck", *GPU_TESTS, "-k", "small"), 45, ("pytest",)),
    # One launch a case: the check's.
    Step(
        "profile",
        (
            *(PROFILER, "--clock-control", "none", "-k", "regex:softmax_entropy", *KERNELS),
            *("--only", "grid", "--rivals", "none", "--repeats", "0", "--out", f"{SCRATCH}/profiled.json"),
        ),
        40,
        counts=False,
    ),
    Step(
        "engines",
        (
            *(*MODULE, "framegate.benchmarks.gpu.engine", "--seconds", "60", "--frames", "3000"),
            *("--crops", IMAGES, "--out", f"{RESULTS}/gpu-engines.json"),
        ),
        75,
        ("tensorrt|tensorrt_rtx", "onnxruntime"),
    ),
    Step(
        "kernel-rivals",
        (
            *(*KERNELS, "--only", "grid", "--rivals", "five", "--repeats", "200"),
            *("--out", f"{RESULTS}/kernel-rivals.json"),
        ),
        75,
        ("torch",),
    ),
    # After the engines, which it finds in their store; the first place of its field is the engine that auto takes.
    Step(
        "rivals",
        (
            *(*MODULE, "framegate.benchmarks.latency.against_rivals", "--frames", "500", "--no-compile"),
            *("--out", f"{RESULTS}/gpu-rivals.json"),
        ),
        20,
        ("tensorrt|tensorrt_rtx", "onnxruntime", "openvino"),
        counts=False,
    ),
)


def find_tool(name: str) -> str | None:
    """Return a program of the CUDA toolkit, which toolkits carry in different places."""
    found = shutil.which(name)
    places = (f"/usr/local/cuda*/bin/{name}", f"/usr/local/cuda*/{name}/{name}", f"/opt/nvidia/nsight-compute/*/{name}")
    return found or next((path for place in places for path in sorted(glob(place))), None)


def _lacking(step: Step) -> str:
    """Why a step cannot run here; empty if it can."""
    for placeholder, name in TOOLS.items():
        if placeholder in step.command and find_tool(name) is None:
            return f"{name} was not found"
    for package in step.packages:
        if not any(importlib.util.find_spec(name) for name in package.split("|")):
            return f"{package.replace('|', ' or ')} is not installed"
    return ""


class Suite:
    """Runs steps and keeps what came of them.

    Attributes:
        outcomes: One entry a step: name, ``ok``, ``skipped: ...`` or ``FAILED: ...``, and seconds.
    """

    def __init__(self, results: Path, seconds: float, images: Path | None = None) -> None:
        self._results, self._images = results, images
        self._end = time.monotonic() + seconds
        self._scratch = tempfile.TemporaryDirectory(prefix="framegate-gpu-")
        results.mkdir(parents=True, exist_ok=True)
        self._log = (results / "gpu-run.log").open("wb")
        self.outcomes: list[dict[str, str | float]] = []

    def run(self, step: Step) -> str:
        """Run one step; return what became of it."""
        self._say(f"\n== {step.name}")
        started = time.monotonic()
        outcome = self._outcome(step)
        self.outcomes.append({"step": step.name, "outcome": outcome, "seconds": round(time.monotonic() - started, 1)})
        write_json(self._results / "gpu-run.json", {"machine": circumstances(), "steps": self.outcomes})
        return outcome

    def _outcome(self, step: Step) -> str:
        left = self._end - time.monotonic()
        if left < 5:
            return "skipped: no time left"
        seconds = min(step.seconds, left)
        if lacking := _lacking(step):
            return f"skipped: {lacking}"
        try:
            # Its own session, so that a step that is out of time is ended together with what it started.
            child = subprocess.Popen(
                self._command(step), cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        except OSError as error:
            return f"FAILED: {error}"
        assert child.stdout is not None
        reader = threading.Thread(target=self._follow, args=(child.stdout,), daemon=True)
        reader.start()
        late = False
        try:
            child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            late = True
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        reader.join(timeout=5)
        word = "FAILED" if step.counts else "noted"
        if late:
            return f"{word}: not done after {seconds:.0f} s"
        return "ok" if child.returncode == 0 else f"{word}: exit code {child.returncode}"

    def _command(self, step: Step) -> list[str]:
        values = {RESULTS: str(self._results), SCRATCH: self._scratch.name}
        values |= {
            placeholder: str(find_tool(name)) for placeholder, name in TOOLS.items() if placeholder in step.command
        }
        words = list(step.command)
        if IMAGES in words and self._images is None:  # then the step makes its own
            place = words.index(IMAGES)
            del words[place - 1 : place + 1]
        values[IMAGES] = str(self._images)
        for placeholder, value in values.items():
            words = [word.replace(placeholder, value) for word in words]
        return words

    def _follow(self, output: IO[bytes]) -> None:
        for line in output:
            self._log.write(line)
            self._log.flush()
            sys.stdout.write(line.decode(errors="replace"))
            sys.stdout.flush()

    def _say(self, text: str) -> None:
        print(text, flush=True)
        self._log.write(f"{text}\n".encode())
        self._log.flush()

    def summary(self) -> int:
        """Print what came of the steps; return the number of failures."""
        self._say("\n== summary")
        for one in self.outcomes:
            self._say(f"{one['step']:<14} {one['seconds']:6.1f} s  {one['outcome']}")
        self._log.close()
        self._scratch.cleanup()
        return sum(str(one["outcome"]).startswith("FAILED") for one in self.outcomes)


def main(arguments: list[str] | None = None) -> int:
    """Run the steps. Exit code 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=[step.name for step in STEPS], help="default: all")
    parser.add_argument("--results", type=Path, default=RESULTS_FOLDER, help="folder for the results")
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"time for all steps (default {SECONDS})")
    parser.add_argument("--images", type=Path, help=".npy of (N, height, width, 3) BGR images (default: the clip's)")
    parser.add_argument(
        "--dry-run", action="store_true", help="without a GPU: run every step up to the line that needs it"
    )
    options = parser.parse_args(arguments)
    try:
        gpu = open_gpu()
    except CudaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if gpu is None and not options.dry_run:
        print(NO_DEVICE)
        return 0
    if gpu is not None:
        print(circumstances_of(gpu), flush=True)
        gpu.close()  # each step opens it anew
    images = options.images.resolve() if options.images else None
    suite = Suite(options.results.resolve(), options.seconds, images)
    for step in STEPS:
        if options.only and step.name not in options.only:
            continue
        suite.run(step)
    return 1 if suite.summary() else 0


if __name__ == "__main__":
    raise SystemExit(main())
