"""What the kernel benchmark runs: shapes, inputs, the check against the reference, and the least bytes they move.

Nothing is timed that is not right: `check` comes first, against `reference.py` in float64, on inputs drawn anew and
into outputs filled with a poison, so that an element that was never written shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from framegate.cuda_kernels.driver.open import Driver
from framegate.cuda_kernels.kernels import Kernels
from framegate.cuda_kernels.softmax_entropy.launch import ELEMENT_SIZES, Launch, plan_dense, plan_rows
from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores

ENTROPY_TOLERANCE = 1e-5
HALF_TOLERANCE = 2.0**-10
POISON = 0xFF


@dataclass(frozen=True, slots=True)
class Case:
    """One shape.

    Attributes:
        kind: ``rows`` ([N, C]) or ``dense`` ([N, C, H, W]).
        shape: of the logits.
        dtype: ``f16``, ``bf16`` or ``f32``.
        why: why it is in the grid.
        target: what the project aims at, in words; empty if nothing but "not slower than the others".
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    why: str
    target: str = ""

    @property
    def name(self) -> str:
        """A short name for tables."""
        return f"{self.kind} {list(self.shape)} {self.dtype}"

    @property
    def input_bytes(self) -> int:
        """Bytes of the logits."""
        return int(np.prod(self.shape)) * ELEMENT_SIZES[self.dtype]

    @property
    def outputs(self) -> dict[str, int]:
        """Bytes of each output that is asked for."""
        if self.kind == "rows":
            return {"entropy": 4 * self.shape[0]}
        pixels = self.shape[0] * self.shape[2] * self.shape[3]
        return {"entropy": ELEMENT_SIZES[self.dtype] * pixels, "argmax": pixels}

    @property
    def least_bytes(self) -> int:
        """What any version must move: each input read once, each output written once."""
        return self.input_bytes + sum(self.outputs.values())


# Those with a target first: the time may run out.
GRID = (
    Case("rows", (32768, 1000), "f16", "ImageNet, many frames", ">= 80 % of copy bandwidth"),
    Case("dense", (1, 19, 1024, 2048), "f16", "Cityscapes", "<= 22 us on an H200"),
    Case("rows", (1048576, 10), "f16", "CIFAR-10: a thread a row"),
    Case("rows", (32768, 1000), "bf16", "as the first, bfloat16"),
    Case("rows", (32768, 1000), "f32", "as the first, float32"),
    Case("rows", (131072, 256), "f16", "short rows"),
    Case("rows", (262144, 100), "f16", "CIFAR-100"),
    Case("rows", (1024, 65536), "f16", "the longest rows"),
    Case("rows", (8192, 4096), "f16", "the first shape with a block a row"),
    Case("rows", (4096, 21843), "f16", "ImageNet-21k: odd rows, each misaligned"),
    Case("rows", (64, 1000), "f16", "a small batch: launch bound"),
    Case("dense", (1, 19, 1024, 2048), "f32", "as the second, float32"),
    Case("dense", (4, 21, 512, 512), "f16", "Pascal VOC, a batch"),
)


def to_device_type(values: NDArray[np.float32], dtype: str) -> NDArray[np.generic]:
    """Round to the kernel's type; bfloat16 as its bits, which NumPy has no type for."""
    if dtype == "f32":
        return values
    if dtype == "f16":
        return values.astype(np.float16)
    bits = values.view(np.uint32)
    # Round half to even, as the hardware does.
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_device_type(stored: NDArray[np.generic], dtype: str) -> NDArray[np.float64]:
    """Read what a kernel reads."""
    if dtype == "bf16":
        return (stored.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return stored.astype(np.float64)


@dataclass(slots=True)
class Prepared:
    """A case on the device: several copies of its input, more than the second-level cache holds."""

    case: Case
    logits: NDArray[np.generic]
    inputs: list[int]
    outputs: dict[str, int]
    launches: list[Launch] = field(default_factory=list)

    def calls(self, kernels: Kernels) -> list[Callable[[int], None]]:
        """Return one enqueuing function an input."""

        def call(launch: Launch) -> Callable[[int], None]:
            return lambda stream: kernels.run(launch, stream)

        return [call(launch) for launch in self.launches]


def prepare(gpu: Driver, case: Case, stream: int, seed: int, copies: int) -> Prepared:
    """Draw logits and put copies of them on the device."""
    generator = np.random.default_rng(seed)
    values = generator.standard_normal(case.shape, np.float32) * np.float32(3)
    logits = np.ascontiguousarray(to_device_type(values, case.dtype))
    inputs = [gpu.allocate(case.input_bytes) for _ in range(copies)]
    outputs = {name: gpu.allocate(nbytes) for name, nbytes in case.outputs.items()}
    for pointer in inputs:
        gpu.copy_to_device(pointer, logits, stream)
    for name, nbytes in case.outputs.items():
        gpu.copy_to_device(outputs[name], np.full(nbytes, POISON, np.uint8), stream)
    gpu.synchronize(stream)
    return Prepared(case, logits, inputs, outputs, [plan(case, pointer, outputs) for pointer in inputs])


def release(gpu: Driver, prepared: Prepared) -> None:
    """Free a case's device memory."""
    for pointer in (*prepared.inputs, *prepared.outputs.values()):
        gpu.free(pointer)


def plan(case: Case, logits: int, outputs: dict[str, int]) -> Launch:
    """Plan the launch of a case."""
    if case.kind == "rows":
        return plan_rows(logits, case.dtype, case.shape[0], case.shape[1], outputs)
    images, channels, height, width = case.shape
    return plan_dense(logits, case.dtype, images, channels, height * width, outputs)


def check(gpu: Driver, kernels: Kernels, prepared: Prepared, stream: int, sample: int = 4096) -> str:
    """Run the kernel once and compare a sample of its outputs with the reference; return what is wrong, or ''."""
    case = prepared.case
    kernels.run(prepared.launches[-1], stream)
    found = {name: np.empty(nbytes, np.uint8) for name, nbytes in case.outputs.items()}
    for name, array in found.items():
        gpu.copy_to_host(array, prepared.outputs[name], stream)
    gpu.synchronize(stream)
    if case.kind == "rows":
        rows = prepared.logits
        entropy = found["entropy"].view(np.float32).astype(np.float64)
        tolerance = np.full(len(rows), ENTROPY_TOLERANCE)
    else:
        rows = np.moveaxis(prepared.logits, 1, -1).reshape(-1, case.shape[1])
        half = case.dtype != "f32"
        entropy = found["entropy"].view(np.float16 if half else np.float32).astype(np.float64)
        tolerance = np.full(len(rows), ENTROPY_TOLERANCE) + (HALF_TOLERANCE * entropy if half else 0.0)
    # The ends always belong to the sample: that is where tails are.
    chosen = np.unique(np.concatenate([[0, len(rows) - 1], np.linspace(0, len(rows) - 1, sample).astype(int)]))
    expected = softmax_scores(from_device_type(np.ascontiguousarray(rows[chosen]), case.dtype))
    # Written so that NaN fails.
    wrong = ~(np.abs(entropy[chosen] - expected.entropy) <= tolerance[chosen])
    if wrong.any():
        first = int(np.argmax(wrong))
        return (
            f"entropy of {int(wrong.sum())} of {len(chosen)} rows is off, first at {chosen[first]}: "
            f"{entropy[chosen][first]} instead of {expected.entropy[first]}"
        )
    if "argmax" in found:
        wrong = found["argmax"][chosen] != expected.argmax
        if wrong.any():
            return f"argmax of {int(wrong.sum())} of {len(chosen)} pixels is off"
    return ""
