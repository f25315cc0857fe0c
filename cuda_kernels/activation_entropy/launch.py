"""How to launch activation_entropy.cu: parameters, grid, workspace; and refusals before any launch."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from framegate.cuda_kernels.softmax_entropy.launch import ELEMENT_SIZES, Launch

__all__ = ["ActivationEntropyParameters", "Workspace", "plan_activation_entropy", "workspace_bytes"]

LARGEST_EDGES = 1024
_THREADS, _WARPS, _LARGEST_BLOCKS, _GRID_Y = 256, 8, 64, 65_535


class ActivationEntropyParameters(ctypes.Structure):
    """Mirror of activation_entropy.h."""

    _fields_ = (
        ("activations", ctypes.c_void_p),
        ("edges", ctypes.c_void_p),
        ("histogram_entropy", ctypes.c_void_p),
        ("mass_entropy", ctypes.c_void_p),
        ("counts", ctypes.c_void_p),
        ("non_finite", ctypes.c_void_p),
        ("partial_sums", ctypes.c_void_p),
        ("partial_counts", ctypes.c_void_p),
        ("tickets", ctypes.c_void_p),
        ("elements", ctypes.c_uint32),
        ("edge_count", ctypes.c_uint32),
    )


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where the parts of a workspace lie, in bytes from its start, and its total size. Zero it before its first use."""

    blocks: int
    tickets: int
    partial_sums: int
    partial_counts: int
    total: int


def workspace_bytes(dtype: str, frames: int, elements: int, edge_count: int) -> Workspace:
    """Lay out the device memory that a launch needs beside its outputs.

    Raises:
        ValueError: whatever the kernel cannot do, with what was asked and found.
    """
    if dtype not in ELEMENT_SIZES:
        raise ValueError(f"dtype: asked for one of {', '.join(ELEMENT_SIZES)}, found {dtype!r}")
    if not 1 <= frames <= _GRID_Y:
        raise ValueError(f"frames: asked for 1 to {_GRID_Y}, found {frames}")
    if not 1 <= elements < 2**31 - 16:
        raise ValueError(f"elements: asked for 1 to {2**31 - 17} a frame, found {elements}")
    if not 1 <= edge_count <= LARGEST_EDGES:
        raise ValueError(f"edges: asked for 1 to {LARGEST_EDGES}, found {edge_count}")
    windows = -(-elements * ELEMENT_SIZES[dtype] // 16)
    blocks = min(_LARGEST_BLOCKS, -(-windows // (4 * _THREADS)))
    sums = 4 * frames
    counts = sums + 8 * frames * blocks
    return Workspace(blocks, 0, sums, counts, counts + 4 * frames * blocks * (edge_count + 2))


def plan_activation_entropy(
    activations: int,
    dtype: str,
    frames: int,
    elements: int,
    edges: int,
    edge_count: int,
    workspace: int,
    histogram_entropy: int,
    mass_entropy: int,
    counts: int = 0,
    non_finite: int = 0,
) -> Launch:
    """Plan a launch over a tap [N, C, H, W].

    Args:
        activations: device address, aligned to one element; frames contiguous.
        dtype: "f16", "bf16" or "f32".
        frames: N in [1, 65535].
        elements: C * H * W.
        edges: device address of `edge_count` fp32 numbers, finite and strictly ascending (the caller checks: they
            are on the device).
        edge_count: 1 to 1024.
        workspace: device address of workspace_bytes(...).total bytes, zeroed before its first launch.
        histogram_entropy: device address of fp32 [N].
        mass_entropy: likewise.
        counts: device address of uint32 [N, edge_count + 1], or 0 for none.
        non_finite: device address of uint32 [N], or 0 for none.

    Raises:
        ValueError: whatever the kernel cannot do, with what was asked and found.
    """
    layout = workspace_bytes(dtype, frames, elements, edge_count)
    needed = {
        "activations": (activations, ELEMENT_SIZES[dtype]),
        "edges": (edges, 4),
        "workspace": (workspace, 4),
        "histogram_entropy": (histogram_entropy, 4),
        "mass_entropy": (mass_entropy, 4),
    }
    for name, (address, size) in needed.items():
        if address == 0 or address % size != 0:
            raise ValueError(f"{name}: asked for an address aligned to {size} bytes, found {address:#x}")
    for name, address in (("counts", counts), ("non_finite", non_finite)):
        if address % 4 != 0:
            raise ValueError(f"{name}: asked for 0 or an address aligned to 4 bytes, found {address:#x}")
    parameters = ActivationEntropyParameters(
        activations=activations,
        edges=edges,
        histogram_entropy=histogram_entropy,
        mass_entropy=mass_entropy,
        counts=counts or None,
        non_finite=non_finite or None,
        partial_sums=workspace + layout.partial_sums,
        partial_counts=workspace + layout.partial_counts,
        tickets=workspace + layout.tickets,
        elements=elements,
        edge_count=edge_count,
    )
    shared = 4 * (edge_count + _WARPS * (edge_count + 2))
    grid, block = (layout.blocks, frames, 1), (_THREADS, 1, 1)
    return Launch(f"activation_entropy_{dtype}", grid, block, parameters, shared)
