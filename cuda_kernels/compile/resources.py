"""Registers, shared memory, stack and spills of each kernel, read from the assembler's report.

ptxas prints, with -v, three lines a kernel; a function that was not inlined gets the second line only:

    ptxas info    : Compiling entry function 'softmax_rows' for 'sm_90'
    ptxas info    : Function properties for softmax_rows
        0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
    ptxas info    : Used 32 registers, used 1 barriers, 16 bytes smem, 400 bytes cmem[0]

A spill means that a kernel ran out of registers and keeps values in local memory, which is device memory. It costs
several times the kernel's run time, and it may appear when the compiler changes, without any message. So the build
fails on it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

_ENTRY = re.compile(r"Compiling entry function '([^']+)' for 'sm_(\d+)a?'")
_PROPERTIES = re.compile(r"Function properties for (\S+)")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+)(?:\+(\d+))? bytes smem")


@dataclass(frozen=True, slots=True)
class Resources:
    """One kernel on one architecture.

    Attributes:
        kernel: its name, demangled if the tools for that are there.
        architecture: 90 for sm_90.
        registers: registers per thread.
        shared_bytes: static shared memory per block; what a launch asks for on top is not in here.
        stack_bytes: local memory per thread for arrays that are indexed at run time.
        spill_bytes: spill stores plus spill loads per thread.
    """

    kernel: str
    architecture: int
    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_bytes: int


def parse_report(log: str) -> list[Resources]:
    """Read the report of one ptxas run.

    Returns:
        One entry for each kernel, in the report's order. What a called function spills counts for the kernel that is
        being compiled.
    """
    kernels: list[dict[str, int | str]] = []
    for line in log.splitlines():
        if entry := _ENTRY.search(line):
            kernels.append({"kernel": entry[1], "architecture": int(entry[2])})
        elif not kernels or _PROPERTIES.search(line):
            continue
        elif stack := _STACK.search(line):
            for field, number in (("stack_bytes", int(stack[1])), ("spill_bytes", int(stack[2]) + int(stack[3]))):
                kernels[-1][field] = int(kernels[-1].get(field, 0)) + number
        elif used := _USED.search(line):
            shared = _SHARED.search(line)
            kernels[-1]["registers"] = int(used[1])
            kernels[-1]["shared_bytes"] = int(shared[1]) + int(shared[2] or 0) if shared else 0
    names = _demangled([str(kernel["kernel"]) for kernel in kernels])
    return [
        Resources(
            name,
            int(kernel["architecture"]),
            # A missing line must not look like "no spills": the caller sees -1 and fails.
            *(int(kernel.get(field, -1)) for field in ("registers", "shared_bytes", "stack_bytes", "spill_bytes")),
        )
        for name, kernel in zip(names, kernels, strict=True)
    ]


def spilling(resources: Iterable[Resources]) -> list[Resources]:
    """Return the kernels that spill, and those for which the report has no number."""
    return [kernel for kernel in resources if kernel.spill_bytes != 0]


def resource_table(resources: Iterable[Resources], title: str = "CUDA kernels: registers per thread") -> Table:
    """Lay the kernels out, one row a kernel, one column of registers an architecture; spilling kernels in red.

    Shared memory, stack and spills are the largest of any architecture. They differ little: those are properties of
    the source, except for spills, which are to be 0.
    """
    rows: dict[str, dict[int, Resources]] = {}
    for kernel in resources:
        rows.setdefault(kernel.kernel, {})[kernel.architecture] = kernel
    architectures = sorted({architecture for row in rows.values() for architecture in row})
    from rich.table import Table  # takes 25 ms, and whoever only asks where the cache is needs none

    table = Table(title=title)
    table.add_column("kernel", overflow="fold")
    for column in (*(f"sm_{architecture}" for architecture in architectures), "shared B", "stack B", "spills B"):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        registers = [str(row[a].registers) if a in row else "-" for a in architectures]
        most = [
            str(max(getattr(kernel, field) for kernel in row.values()))
            for field in ("shared_bytes", "stack_bytes", "spill_bytes")
        ]
        table.add_row(name, *registers, *most, style="red" if spilling(row.values()) else None)
    return table


def _demangled(names: list[str]) -> list[str]:
    tool = shutil.which("c++filt")
    if not names or tool is None:
        return names
    done = subprocess.run([tool], input="\n".join(names) + "\n", capture_output=True, text=True, check=False)
    plain = done.stdout.splitlines()
    return plain if done.returncode == 0 and len(plain) == len(names) else names
