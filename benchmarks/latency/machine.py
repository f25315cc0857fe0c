"""The machine under a measurement: load on the other cores, what the process uses, and the GPU's clocks and power."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np

# Arithmetic and memory traffic, as a neighbour on a vehicle's computer makes both; ends by itself with its parent.
_LOAD_SCRIPT = """
import os, sys
import numpy
os.sched_setaffinity(0, {int(sys.argv[1])}) if hasattr(os, "sched_setaffinity") else None
parent, block, other = os.getppid(), numpy.ones(4_000_000, numpy.float32), numpy.ones(4_000_000, numpy.float32)
try:
    os.write(1, b"ready\\n")
except BrokenPipeError:  # the parent ended meanwhile
    os._exit(0)
while os.getppid() == parent:
    numpy.multiply(block, 1.0000001, out=other)
    numpy.copyto(block, other)
    sum(k * k for k in range(20_000))
"""


class ForeignLoad:
    """A process that keeps one core busy while it is let run. Use as a context manager; it starts halted.

    Args:
        core: Which one; None takes the last that this process may use.
    """

    def __init__(self, core: int | None = None) -> None:
        allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
        self.core = allowed[-1] if core is None else core
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> ForeignLoad:
        command = [sys.executable, "-c", _LOAD_SCRIPT, str(self.core)]
        self._child = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        assert self._child.stdout is not None
        try:
            self._child.stdout.readline()
            self._child.send_signal(signal.SIGSTOP)
        except BaseException:  # ended by a signal while it starts: nobody else would end the child
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            assert self._child.stdout is not None
            self._child.stdout.close()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let it run for a while."""
        assert self._child is not None, "load: use it in a with block"
        self._child.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._child.send_signal(signal.SIGSTOP)


def resident_mib() -> float:
    """Resident memory of this process in MiB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


@dataclass
class Usage:
    """What the process used while something was measured; `measuring` adds to it.

    Attributes:
        wall_s: Seconds measured.
        processor_s: Seconds of processor time in them, of all threads.
        resident_mib: The most resident memory seen at the end of a block, in MiB.
        gpu: What the GPU said after each block: SM clock in MHz, memory clock in MHz, power in W, temperature in C.
    """

    wall_s: float = 0.0
    processor_s: float = 0.0
    resident_mib: float = 0.0
    gpu: list[tuple[float, ...]] = field(default_factory=list)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Measure the block."""
        wall, processor = time.perf_counter(), time.process_time()
        yield
        self.processor_s += time.process_time() - processor
        self.wall_s += time.perf_counter() - wall
        self.resident_mib = max(self.resident_mib, resident_mib())
        seen = gpu_readings()
        if seen is not None:
            self.gpu.append(seen)

    def to_json(self) -> dict[str, object]:
        """Processor use in percent of one core, memory, and the GPU's medians where there is one."""
        record: dict[str, object] = {
            "cpu_percent_of_one_core": 100 * self.processor_s / self.wall_s if self.wall_s else None,
            "resident_mib": self.resident_mib,
        }
        if self.gpu:
            names = ("sm_clock_mhz", "memory_clock_mhz", "power_w", "temperature_c")
            medians = np.nanmedian(np.asarray(self.gpu, np.float64), axis=0)
            record["gpu"] = {name: float(value) for name, value in zip(names, medians, strict=True)}
        return record


def gpu_readings() -> tuple[float, ...] | None:
    """SM clock in MHz, memory clock in MHz, power in W and temperature in C of the first GPU, by nvidia-smi.

    What it does not know is NaN; None without nvidia-smi or a GPU (a Jetson has none: see tegrastats there).
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = "--query-gpu=clocks.sm,clocks.mem,power.draw,temperature.gpu"
    try:
        done = subprocess.run(
            [program, query, "--format=csv,noheader,nounits", "--id=0"],
            capture_output=True,
            text=True,
            check=False,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    fields = done.stdout.strip().split(",")
    if done.returncode or len(fields) != 4:
        return None
    return tuple(_number(text) for text in fields)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # "[N/A]"
        return float("nan")
