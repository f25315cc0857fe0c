"""What a user would run instead of the kernel: PyTorch eager, torch.compile, and a straightforward Triton version.

Each takes logits and gives the entropy (and for dense logits the argmax), in the same types as the kernel, and is
checked as the kernel is. Timed with the same events, as a graph over the same number of separate inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framegate.benchmarks.gpu.device import percentiles
from framegate.benchmarks.gpu.kernel_cases import Case, from_device_type
from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]
try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None  # type: ignore[assignment]

TOLERANCE = 2e-3


def versions() -> dict[str, str | None]:
    """Return which PyTorch and Triton were compared with."""
    return {
        "torch": None if torch is None else torch.__version__,
        "triton": None if triton is None else triton.__version__,
    }


def _rows_eager(logits: Any) -> Any:
    log_p = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
    return (-(log_p.exp() * log_p).sum(-1),)


def _dense_eager(logits: Any) -> Any:
    log_p = torch.log_softmax(logits, dim=1, dtype=torch.float32)
    small = torch.float32 if logits.dtype == torch.float32 else torch.float16
    return (-(log_p.exp() * log_p).sum(1)).to(small), logits.argmax(1).to(torch.uint8)


if triton is not None:

    @triton.jit
    def _rows_kernel(logits, entropy, classes, block: tl.constexpr):  # type: ignore[no-untyped-def]
        row = tl.program_id(0).to(tl.int64)
        at = tl.arange(0, block)
        x = tl.load(logits + row * classes + at, mask=at < classes, other=-float("inf")).to(tl.float32)
        d = x - tl.max(x, 0)
        e = tl.exp(d)
        z = tl.sum(e, 0)
        s = tl.sum(tl.where(e > 0, d * e, 0.0), 0)
        tl.store(entropy + row, tl.log(z) - s / z)

    @triton.jit
    def _dense_kernel(  # type: ignore[no-untyped-def]
        logits,
        entropy,
        argmax,
        channels,
        pixels,
        padded: tl.constexpr,
        block: tl.constexpr,
    ):
        image = tl.program_id(1).to(tl.int64)
        at = tl.program_id(0) * block + tl.arange(0, block)
        channel = tl.arange(0, padded)
        mask = (channel[:, None] < channels) & (at[None, :] < pixels)
        address = logits + (image * channels + channel[:, None]) * pixels + at[None, :]
        x = tl.load(address, mask=mask, other=-float("inf")).to(tl.float32)
        best = tl.argmax(x, 0)
        d = x - tl.max(x, 0)[None, :]
        e = tl.exp(d)
        z = tl.sum(e, 0)
        s = tl.sum(tl.where(e > 0, d * e, 0.0), 0)
        out = image * pixels + at
        tl.store(entropy + out, (tl.log(z) - s / z).to(entropy.dtype.element_ty), mask=at < pixels)
        tl.store(argmax + out, best.to(tl.uint8), mask=at < pixels)


def _rows_triton(logits: Any) -> Any:
    rows, classes = logits.shape
    entropy = torch.empty(rows, dtype=torch.float32, device=logits.device)
    block = triton.next_power_of_2(classes)
    _rows_kernel[(rows,)](logits, entropy, classes, block=block, num_warps=min(16, max(1, block // 512)))
    return (entropy,)


def _dense_triton(logits: Any) -> Any:
    images, channels, height, width = logits.shape
    pixels = height * width
    small = torch.float32 if logits.dtype == torch.float32 else torch.float16
    entropy = torch.empty((images, height, width), dtype=small, device=logits.device)
    argmax = torch.empty((images, height, width), dtype=torch.uint8, device=logits.device)
    grid = (triton.cdiv(pixels, 256), images)
    padded = triton.next_power_of_2(channels)
    _dense_kernel[grid](logits, entropy, argmax, channels, pixels, padded=padded, block=256, num_warps=4)
    return entropy, argmax


def rivals(kind: str) -> dict[str, Callable[[Any], Any]]:
    """Return what is installed, by name."""
    if torch is None or not torch.cuda.is_available():
        return {}
    eager = _rows_eager if kind == "rows" else _dense_eager
    # After eight shapes of one function torch.compile gives up and runs it eagerly, without a word.
    torch._dynamo.reset()
    # Static shapes: the fairest for torch.compile, which then specialises for each.
    found: dict[str, Callable[[Any], Any]] = {
        "torch eager": eager,
        "torch.compile": torch.compile(eager, dynamic=False),
    }
    if triton is not None:
        found["triton"] = _rows_triton if kind == "rows" else _dense_triton
    return found


def measure(
    case: Case, logits: NDArray[np.generic], function: Callable[[Any], Any], copies: int, repeats: int
) -> dict[str, Any]:
    """Check one rival on a case and time it; a rival that is wrong is reported as such, and not timed."""
    kinds = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
    host = torch.from_numpy(logits)
    if case.dtype == "bf16":
        host = host.view(torch.bfloat16)
    inputs = [host.to("cuda", kinds[case.dtype], copy=True) for _ in range(copies)]
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):  # compiles, and warms up the allocator
            results = function(inputs[0])
    stream.synchronize()
    problem = _wrong(case, logits, results[0].float().cpu().numpy())
    if problem:
        return {"wrong": problem}
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        kept = [function(one) for one in inputs]
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    times = []
    with torch.cuda.stream(stream):
        for turn in range(5 + repeats):
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            if turn >= 5:
                times.append(start.elapsed_time(end) * 1000 / copies)
    del graph, kept, inputs
    torch.cuda.empty_cache()
    return {"us": percentiles(times)}


def _wrong(case: Case, logits: NDArray[np.generic], entropy: NDArray[np.float32]) -> str:
    rows = logits if case.kind == "rows" else np.moveaxis(logits, 1, -1).reshape(-1, case.shape[1])
    flat = entropy.reshape(-1).astype(np.float64)
    chosen = np.linspace(0, len(rows) - 1, 256).astype(int)
    expected = softmax_scores(from_device_type(np.ascontiguousarray(rows[chosen]), case.dtype)).entropy
    largest = float(np.max(np.abs(flat[chosen] - expected)))
    # Wide: half precision is the user's choice here. Written so that NaN fails.
    return "" if largest <= TOLERANCE * (1 + float(expected.max())) else f"entropy off by up to {largest:.3g}"
