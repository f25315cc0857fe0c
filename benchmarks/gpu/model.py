"""What machine code lets expect of a GPU that is not at hand: ``python -m framegate.benchmarks.gpu.model``.

Nothing here is measured on a GPU, and everything can be refuted by one. For every case of the kernel benchmark, on
three GPUs:

* registers a thread, from the assembler's report, and the warps that fit a multiprocessor with them;
* instructions a warp issues at least for its share of the work (`machine_code.cheapest_way`), and what of them goes to
  the slow pipes;
* four floors of the time: bytes moved at the GPU's copy bandwidth; instructions at one a cycle and scheduler;
  exponentials at 16 lanes a cycle and multiprocessor; comparisons and logic at 64. No kernel can be faster than the
  largest;
* what is expected: moving bytes and computing overlap, but not wholly. Two guesses of how well, the p-norms of 4 and of
  2.5 of the bytes' floor and the largest other one, with 0.5 and 1 us for start and end, are the ends of the range.
  They were chosen to give what a reader of the machine code had guessed case by case before.

A target is ``kept`` if the whole range keeps it, ``missed`` if none of it does, else ``open``. Needs nvcc and
cuobjdump.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from framegate.benchmarks.checkout import RESULTS
from framegate.benchmarks.gpu.kernel_cases import GRID, Case, plan
from framegate.benchmarks.gpu.machine_code import Instruction, Way, cheapest_way, disassemble
from framegate.cuda_kernels.camera_preprocess.launch import plan_preprocess
from framegate.cuda_kernels.compile.build import NO_COMPILER, build, find_source, target_path
from framegate.cuda_kernels.compile.cache import default_cache, entry_folder, write_json
from framegate.cuda_kernels.compile.compiler import CompilerError, Nvcc
from framegate.cuda_kernels.softmax_entropy.launch import DENSE_BOUNDS, ELEMENT_SIZES, Launch, plan_rows

OUT = RESULTS / "kernel-model.json"
FORMAT = "framegate-kernel-model-1"
EXPONENTIAL, WIDE = r"MUFU\.EX2", r"LDG\.E.*\.128"
_NARROW = {"f16": (r"LDG\.E\.U16", 8), "bf16": (r"LDG\.E\.U16", 8), "f32": (r"LDG\.E$|LDG\.E\.EF$", 4)}
_SLOW_COMPARISONS = (
    "FMNMX",
    "HMNMX2",
    "VHMNMX",
    "ISETP",
    "FSETP",
    "HSET2",
    "LOP3",
    "SEL",
    "FSEL",
    "SHF",
    "PRMT",
    "LEA",
)


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as its makers describe it; the copy bandwidth is 90 % of the memory's.

    Attributes:
        name: Of the product.
        architecture: 90 for sm_90.
        multiprocessors: Their number.
        gigahertz: The clock that it reaches under load.
        copy_bytes_per_us: Bytes read and written in a microsecond by a copy.
        warps: Most warps of a multiprocessor.
        blocks: Most blocks of a multiprocessor.
        shared_bytes: Shared memory of a multiprocessor.
    """

    name: str
    architecture: int
    multiprocessors: int
    gigahertz: float
    copy_bytes_per_us: float
    warps: int
    blocks: int
    shared_bytes: int

    @property
    def cycles_per_us(self) -> float:
        """Of all multiprocessors together."""
        return self.multiprocessors * self.gigahertz * 1000


GPUS = (
    Gpu("H200", 90, 132, 1.98, 4.3e6, 64, 32, 228 << 10),
    Gpu("Jetson AGX Orin 64 GB", 87, 16, 1.3, 0.184e6, 48, 16, 164 << 10),
    Gpu("GeForce RTX 5090", 120, 170, 2.41, 1.61e6, 48, 24, 100 << 10),
)
TARGETS = {("H200", GRID[0].name): GRID[0].least_bytes / (0.8 * 4.3e6), ("H200", GRID[1].name): 22.0}
"""Microseconds."""


@dataclass(frozen=True, slots=True)
class Work:
    """A warp's share of a case.

    Attributes:
        launch: Kernel, grid and block.
        needs: What a warp cannot do without, see `cheapest_way`; in one turn of its loop, if it has several.
        turns: How often the loop is gone through.
        edges: Windows at a row's ends that a warp reads element by element besides, on average.
        narrow: The opcode of such a read, and how many a window has.
    """

    launch: Launch
    needs: Mapping[str, int]
    edges: float = 0.0
    narrow: tuple[str, int] = ("", 0)
    turns: int = 1

    @property
    def warps(self) -> int:
        """Of the whole launch."""
        blocks = math.prod(self.launch.grid)
        return blocks * -(-self.launch.block[0] // 32)


def work_of(case: Case) -> Work:
    """Say what a warp does in a case."""
    launch = plan(case, 1 << 20, dict.fromkeys(case.outputs, 1 << 20))
    if case.kind == "dense":
        channels = case.shape[1]
        bound = next(b for b in DENSE_BOUNDS if b >= channels)
        load = r"LDG\.E(\.EF)?\.64" if case.dtype == "f32" else r"LDG\.E(\.EF)?$"
        return Work(launch, {load: channels, EXPONENTIAL: 2 * bound})
    classes, size = case.shape[1], ELEMENT_SIZES[case.dtype]
    per_window, windows = 16 // size, -(-classes * size // 16)
    ragged = classes * size % 16 != 0
    layout = launch.kernel.split("_")[2]
    if layout == "thread":
        loads = -(-windows_of_block(case) // launch.block[0])
        return Work(launch, {WIDE: loads, r"LDS\.U?16|LDS$": 2 * classes, EXPONENTIAL: classes})
    if layout == "block":
        turns = -(-windows // (4 * launch.block[0]))
        edges = 2 / (launch.block[0] // 32) if ragged else 0.0
        return Work(launch, {WIDE: 4, EXPONENTIAL: 4 * per_window}, edges, _NARROW[case.dtype], turns)
    vectors = -(-windows // {"lanes8": 8, "lanes16": 16, "warp": 32}[layout])
    needs = {WIDE: vectors, EXPONENTIAL: vectors * per_window}
    return Work(launch, needs, 2.0 if ragged else 0.0, _NARROW[case.dtype])


def windows_of_block(case: Case) -> int:
    """Windows of 16 bytes that a block of 128 short rows touches."""
    return -(-128 * case.shape[1] * ELEMENT_SIZES[case.dtype] // 16)


def count(code: list[Instruction], work: Work) -> Way:
    """Return what a warp issues; the second turn of a loop stands for all after the first."""
    way = cheapest_way(code, work.needs)
    if work.turns > 1:
        second = cheapest_way(code, {opcode: 2 * number for opcode, number in work.needs.items()})
        more = second.instructions - way.instructions
        opcodes = {name: n + (work.turns - 1) * (second.opcodes[name] - n) for name, n in way.opcodes.items()}
        way = Way(way.instructions + (work.turns - 1) * more, Counter(opcodes))
    if work.edges:
        opcode, reads = work.narrow
        fewer = {**work.needs, WIDE: work.needs[WIDE] - 1}
        edge = cheapest_way(code, {**fewer, opcode: reads}).instructions - cheapest_way(code, fewer).instructions
        way = Way(way.instructions + round(work.edges * edge), way.opcodes)
    return way


def warps_resident(gpu: Gpu, registers: int, shared_bytes: int, threads: int) -> int:
    """How many warps of a kernel a multiprocessor holds: registers are given out by 256 to a warp."""
    in_block = -(-threads // 32)
    by_registers = 65536 // (-(-registers * 32 // 256) * 256) // in_block
    by_shared = gpu.shared_bytes // (shared_bytes + 1024)
    return min(by_registers, by_shared, gpu.warps // in_block, gpu.blocks) * in_block


def floors_of(gpu: Gpu, warps: int, way: Way, nbytes: int) -> dict[str, float]:
    """The floors of the time in microseconds."""
    powers = sum(number for opcode, number in way.opcodes.items() if opcode.startswith("MUFU"))
    slow = sum(number for opcode, number in way.opcodes.items() if opcode.split(".")[0] in _SLOW_COMPARISONS)
    return {
        "bytes": nbytes / gpu.copy_bytes_per_us,
        "instructions": warps * way.instructions / (4 * gpu.cycles_per_us),
        "exponentials": warps * powers * 32 / 16 / gpu.cycles_per_us,
        "comparisons": warps * slow * 32 / 64 / gpu.cycles_per_us,
    }


def expected_us(floors: Mapping[str, float]) -> tuple[float, float]:
    """The range that is expected from the floors."""
    moving, computing = floors["bytes"], max(value for name, value in floors.items() if name != "bytes")

    def norm(p: float) -> float:
        return float((moving**p + computing**p) ** (1 / p))

    return norm(4) + 0.5, norm(2.5) + 1.0


def verdict(expected: tuple[float, float], target: float) -> str:
    """Whether a target is kept."""
    return "kept" if expected[1] <= target else "missed" if expected[0] > target else "open"


def row_of(
    gpu: Gpu, case: Case, kernels: Mapping[str, list[Instruction]], resources: Mapping[str, Any]
) -> dict[str, Any]:
    """One row of the table."""
    work = work_of(case)
    kernel = work.launch.kernel
    way = count(kernels[kernel], work)
    floors = floors_of(gpu, work.warps, way, case.least_bytes)
    bound = max(floors, key=lambda name: floors[name])
    alone, overlapping = waiting_us(gpu, way.instructions, 1), expected_us(floors)
    expected = max(alone[0], overlapping[0]), max(alone[1], overlapping[1])
    elements = math.prod(case.shape)
    used = resources[kernel]
    row: dict[str, Any] = {
        "case": case.name,
        "kernel": kernel,
        "registers": used.registers,
        "warps_resident": warps_resident(gpu, used.registers, used.shared_bytes, work.launch.block[0]),
        "instructions_a_warp": way.instructions,
        "instructions_an_element": round(way.instructions * work.warps * 32 / elements, 2),
        "bytes_an_element": round(case.least_bytes / elements, 2),
        "floors_us": {name: round(value, 2) for name, value in floors.items()},
        "bound": "waiting" if expected[0] == alone[0] else bound,
        "expected_us": [round(value, 1) for value in expected],
        "of_copy": [round(floors["bytes"] / value, 2) for value in reversed(expected)],
    }
    target = TARGETS.get((gpu.name, case.name))
    if target is not None:
        row |= {"target_us": round(target, 1), "target": verdict(expected, target)}
    return row


def waiting_us(gpu: Gpu, instructions: float, ways: int) -> tuple[float, float]:
    """The range that is expected of a node whose warps have nothing to do but their one share.

    A node costs 0.6 to 1.3 us beside its predecessor, a way to memory 0.5 to 0.8 us, and an instruction of a lone warp
    1.2 to 2.6 cycles: figures of other people's GPUs, guessed to hold for these.
    """
    cycles_per_us = 1000 * gpu.gigahertz
    return 0.6 + 0.5 * ways + instructions * 1.2 / cycles_per_us, 1.3 + 0.8 * ways + instructions * 2.6 / cycles_per_us


def latency_rows(
    gpu: Gpu, kernels: Mapping[str, list[Instruction]], images: Mapping[str, list[Instruction]]
) -> list[dict[str, Any]]:
    """The two nodes of a frame's graph, whose time is waiting: for launch, memory and one another's results."""
    record = plan_rows(1 << 20, "f32", 1, 1000, {"records": 1 << 20, "sequence": 1 << 20})
    frame = plan_preprocess("nv12", (1920, 1080), (224, 224), mode="bilinear")
    rows = []
    for name, code, kernel, needs, ways, target in (
        ("[1, 1000] as a node of a graph", kernels, record.kernel, {WIDE: 8, EXPONENTIAL: 32}, 1, 2.0),
        ("1080p NV12 -> 224 x 224, bilinear", images, frame.kernel, {r"LDG": 8}, 2, 5.0),
    ):
        instructions = cheapest_way(code[kernel], needs).instructions
        expected = waiting_us(gpu, instructions, ways)
        row: dict[str, Any] = {
            "case": name,
            "kernel": kernel,
            "instructions_a_warp": instructions,
            "bound": "waiting",
            "expected_us": [round(value, 1) for value in expected],
        }
        if gpu.name == "H200":
            row |= {"target_us": target, "target": verdict(expected, target)}
        rows.append(row)
    return rows


def model(gpus: tuple[Gpu, ...] = GPUS, cases: tuple[Case, ...] = GRID) -> dict[str, Any]:
    """Compile for each GPU and return the record.

    Raises:
        CompilerError: No nvcc or no cuobjdump, or one refused.
    """
    nvcc = Nvcc.find()
    if nvcc is None:
        raise CompilerError(f"the model is read from machine code: {NO_COMPILER}; install a CUDA toolkit")
    record: dict[str, Any] = {"format": FORMAT, "compiler": nvcc.identity, "measured": False, "gpus": []}
    architectures = tuple(gpu.architecture for gpu in gpus)
    sources = [find_source(name) for name in ("softmax_entropy", "camera_preprocess")]
    scores, _ = build(sources, architectures, compiled=lambda step: print(f"compiled {step}", file=sys.stderr))
    for gpu in gpus:
        kernels, images = (_code(nvcc, source, gpu.architecture) for source in sources)
        resources = {one.kernel: one for one in scores.resources if one.architecture == gpu.architecture}
        rows = []
        for case in cases:
            print(f"counting {gpu.name} {case.name}", file=sys.stderr, flush=True)
            rows.append(row_of(gpu, case, kernels, resources))
        record["gpus"].append({**asdict(gpu), "rows": rows + latency_rows(gpu, kernels, images)})
    return record


def _code(nvcc: Nvcc, source: Path, architecture: int) -> dict[str, list[Instruction]]:
    return disassemble(target_path(entry_folder(source, nvcc.identity, default_cache()), f"sm_{architecture}"))


def main(arguments: list[str] | None = None) -> int:
    """Write the record. Exit code 1 if the tools are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=OUT, help="result file (default benchmarks/results/kernel-model.json)"
    )
    options = parser.parse_args(arguments)
    try:
        record = model()
    except CompilerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    write_json(options.out, record)
    for gpu in record["gpus"]:
        print(f"{gpu['name']} (sm_{gpu['architecture']})")
        for row in gpu["rows"]:
            low, high = row["expected_us"]
            print(f"  {row['case']:<36} {low:8.1f} to {high:8.1f} us, {row['bound']:<13} {row.get('target', '')}")
    print(f"written: {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
