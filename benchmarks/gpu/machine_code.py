"""Read what nvcc made: a kernel's instructions, and how few of them a warp must issue for a piece of work.

No GPU is needed. ``cuobjdump`` disassembles; toolkits have it, and so has ``pip install nvidia-cuda-cuobjdump``.

A kernel's branches are a graph. Work is described by what it cannot do without: so many loads of the kernel's widest
kind and so many exponentials. The cheapest way through the graph that has them is the least number of instructions;
what a warp executes besides (lanes that diverge, a ragged edge) comes on top.
"""

from __future__ import annotations

import heapq
import importlib.util
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from framegate.cuda_kernels.compile.compiler import CompilerError, toolkit_root

_FUNCTION = re.compile(r"^\s*Function : (\S+)")
_INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+ )?\s*([A-Z][\w.]*)\s*([^;]*);")
_TARGET = re.compile(r"0x([0-9a-f]+)")
_BARRIER = re.compile(r"\bB(\d+)\b")
_NO_TOOL = "no cuobjdump on PATH, in the CUDA toolkit or in NVIDIA's wheels; pip install nvidia-cuda-cuobjdump"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction; `guard` is its predicate, or empty."""

    address: int
    guard: str
    opcode: str
    operands: str


@dataclass(slots=True)
class Way:
    """The cheapest way through a kernel.

    Attributes:
        instructions: How many a warp issues.
        opcodes: How often each, without its modifiers after the first.
    """

    instructions: int
    opcodes: Counter[str] = field(default_factory=Counter)


def find_cuobjdump() -> Path:
    """Return the disassembler.

    Raises:
        CompilerError: There is none.
    """
    candidates = [shutil.which("cuobjdump")]
    if root := toolkit_root():
        candidates.append(str(root / "bin" / "cuobjdump"))
    spec = importlib.util.find_spec("nvidia")
    for base in spec.submodule_search_locations or () if spec else ():
        candidates += [str(path) for path in sorted(Path(base).glob("cu*/bin/cuobjdump"))]
    for candidate in candidates:
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    raise CompilerError(_NO_TOOL)


def disassemble(cubin: Path) -> dict[str, list[Instruction]]:
    """Return the instructions of every kernel of a cubin, in the order of their addresses.

    Raises:
        CompilerError: There is no disassembler, or it refuses the file.
    """
    done = subprocess.run([str(find_cuobjdump()), "-sass", str(cubin)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompilerError(f"cuobjdump refused {cubin}: {done.stderr.strip()[:300]}")
    return parse_listing(done.stdout)


def parse_listing(text: str) -> dict[str, list[Instruction]]:
    """Read a listing of ``cuobjdump -sass``."""
    kernels: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in text.splitlines():
        if found := _FUNCTION.match(line):
            current = kernels.setdefault(found[1], [])
        elif found := _INSTRUCTION.match(line):
            current.append(Instruction(int(found[1], 16), (found[2] or "").strip(), found[3], found[4].strip()))
    return kernels


def successors(code: list[Instruction]) -> list[list[int]]:
    """Return the indices that may follow each instruction; -1 is the kernel's end.

    BSYNC goes to where its BSSY says, which is nearly always the next instruction.
    """
    place = {one.address: index for index, one in enumerate(code)}
    following: list[list[int]] = []
    meeting: dict[str, int] = {}
    for index, one in enumerate(code):
        kind = one.opcode.split(".")[0]
        target = _TARGET.search(one.operands)
        after = [index + 1] if index + 1 < len(code) else [-1]
        if kind == "BSSY" and target:
            meeting[_barrier(one)] = place.get(int(target[1], 16), -1)
        if kind == "BRA" and target:
            where = place.get(int(target[1], 16), -1)
            # BRA.DIV leaves for what lanes do one by one if a warp is not whole: never here.
            after = after if ".DIV" in one.opcode else [where] if not _conditional(one) else [*after, where]
        elif kind == "CALL" and one.guard and target:
            # The end of a loop, as sm_87 writes it: nothing returns from there.
            after = [*after, place.get(int(target[1], 16), -1)]
        elif kind in ("EXIT", "RET"):
            after = [-1] if not one.guard else [*after, -1]
        elif kind == "BSYNC" and _barrier(one) in meeting:
            after = [meeting[_barrier(one)]]
        following.append(after)
    return following


def _conditional(one: Instruction) -> bool:
    # "@!P0 BRA 0x10" and "BRA P0, 0x10" are both conditional.
    return bool(one.guard) or bool(re.match(r"!?U?P\w", one.operands))


def _barrier(one: Instruction) -> str:
    found = _BARRIER.search(one.operands)
    return found[1] if found else ""


def cheapest_way(code: list[Instruction], needs: Mapping[str, int]) -> Way:
    """Find the least number of instructions that a warp issues for given work.

    Args:
        code: Of one kernel.
        needs: Regular expression of an opcode -> how often it must be met, at least.

    Raises:
        ValueError: No way through the kernel does that much.
    """
    following = successors(code)
    patterns, enough = [re.compile(pattern) for pattern in needs], tuple(needs.values())
    gains = [tuple(bool(pattern.match(one.opcode)) for pattern in patterns) for one in code]
    begin = (0, *(0 for _ in enough))
    best: dict[tuple[int, ...], int] = {begin: 0}
    before: dict[tuple[int, ...], tuple[int, ...]] = {}
    queue = [(0, begin)]
    while queue:
        cost, state = heapq.heappop(queue)
        if cost > best[state]:
            continue
        index, done = state[0], state[1:]
        if index == -1:
            if done == enough:
                return _walked(code, before, state, cost)
            continue
        reached = tuple(min(most, had + got) for most, had, got in zip(enough, done, gains[index], strict=True))
        for where in following[index]:
            after = (where, *reached)
            if cost + 1 < best.get(after, 1 << 60):
                best[after], before[after] = cost + 1, state
                heapq.heappush(queue, (cost + 1, after))
    raise ValueError(f"no way through the kernel has {dict(needs)}")


def _walked(
    code: list[Instruction], before: Mapping[tuple[int, ...], tuple[int, ...]], state: tuple[int, ...], cost: int
) -> Way:
    way = Way(cost)
    while state in before:
        state = before[state]
        way.opcodes[".".join(code[state[0]].opcode.split(".")[:2])] += 1
    return way
