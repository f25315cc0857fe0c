"""Operators that move values without computing with them, and those that compute with shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional as F

from framegate.export.graph.operators.base import Attributes, Operator, given, numbers, text, unsupported


def _reshape(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    x: Tensor = inputs[0]
    shape = numbers(inputs[1])
    if not attributes.get("allowzero", 0):
        shape = [x.shape[k] if size == 0 else size for k, size in enumerate(shape)]
    return x.reshape(shape)


def _flatten(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    x: Tensor = inputs[0]
    axis = int(attributes.get("axis", 1))
    axis = axis + x.dim() if axis < 0 else axis
    rows = int(np.prod(x.shape[:axis], dtype=np.int64))
    return x.reshape(rows, -1)


def _axes(attributes: Attributes, inputs: Sequence[Any]) -> list[int]:
    """An input since operator set 13, an attribute before; empty if neither is given."""
    axes = given(inputs, 1)
    return [int(axis) for axis in attributes.get("axes", ())] if axes is None else numbers(axes)


def _squeeze(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    x: Tensor = inputs[0]
    axes = _axes(attributes, inputs) or [axis for axis, size in enumerate(x.shape) if size == 1]
    return x.squeeze([axis % x.dim() for axis in axes])


def _unsqueeze(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    x: Tensor = inputs[0]
    axes = _axes(attributes, inputs)
    for axis in sorted(axis % (x.dim() + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _transpose(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    x: Tensor = inputs[0]
    return x.permute([int(axis) for axis in attributes.get("perm", reversed(range(x.dim())))])


def _slice(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    x: Tensor = inputs[0]
    starts, ends = numbers(inputs[1]), numbers(inputs[2])
    axes, steps = given(inputs, 3), given(inputs, 4)
    chosen = list(range(len(starts))) if axes is None else numbers(axes)
    strides = [1] * len(starts) if steps is None else numbers(steps)
    for axis, start, end, step in zip(chosen, starts, ends, strides, strict=True):
        size = x.shape[axis]
        if step > 0:
            index = (slice(None),) * (axis % x.dim())
            x = x[(*index, slice(start, end, step))]
        else:
            # Tensors have no negative steps. An end far below zero means: to the first value.
            where = range(size)[slice(start, None if end < -size else end, step)]
            x = x.index_select(axis, torch.tensor(list(where), dtype=torch.int64))
    return x


def _split(attributes: Attributes, inputs: Sequence[Any]) -> tuple[Tensor, ...]:
    x: Tensor = inputs[0]
    axis, sizes = int(attributes.get("axis", 0)), given(inputs, 1)
    if sizes is not None:
        return tuple(x.split(numbers(sizes), axis))  # type: ignore[no-untyped-call]
    parts = attributes.get("num_outputs")
    if parts is None:
        raise unsupported("Split without sizes and without a number of outputs")
    return tuple(x.split(-(-x.shape[axis] // int(parts)), axis))  # type: ignore[no-untyped-call]


def _gather(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    x, index = inputs
    axis = int(attributes.get("axis", 0)) % x.dim()
    size = x.shape[axis]
    index = torch.where(index < 0, index + size, index).to(torch.int64)
    found = x.index_select(axis, index.reshape(-1))
    return found.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])  # type: ignore[no-any-return]


def _gather_elements(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    x, index = inputs
    axis = int(attributes.get("axis", 0))
    return torch.gather(x, axis, torch.where(index < 0, index + x.shape[axis], index).to(torch.int64))


def _expand(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    shape = np.broadcast_shapes(tuple(inputs[0].shape), tuple(numbers(inputs[1])))
    expanded: Tensor = inputs[0].expand(shape)
    return expanded


def _pad(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    x: Tensor = inputs[0]
    pads, axes, filled = numbers(inputs[1]), given(inputs, 3), given(inputs, 2)
    chosen = list(range(x.dim())) if axes is None else [axis % x.dim() for axis in numbers(axes)]
    mode = text(attributes, "mode", "constant")
    if mode == "constant":
        sides = [(0, 0)] * x.dim()
        for k, axis in enumerate(chosen):
            sides[axis] = (pads[k], pads[k + len(chosen)])
        value = 0.0 if filled is None else float(filled.reshape(-1)[0])
        return F.pad(x, [each for pair in reversed(sides) for each in pair], value=value)
    if mode not in ("reflect", "edge", "wrap"):
        raise unsupported(f"Pad with mode {mode}")
    for k, axis in enumerate(chosen):
        size = x.shape[axis]
        places = np.arange(-pads[k], size + pads[k + len(chosen)])
        if mode == "edge":
            places = places.clip(0, size - 1)
        elif mode == "wrap":
            places %= size
        else:
            places = size - 1 - np.abs(size - 1 - np.abs(places) % max(1, 2 * (size - 1)))
        x = x.index_select(axis, torch.from_numpy(places.astype(np.int64)))
    return x


def _depth_to_space(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    x: Tensor = inputs[0]
    block = int(attributes["blocksize"])
    if text(attributes, "mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    n, c, h, w = x.shape
    parts = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, c // block**2, h * block, w * block)


def _space_to_depth(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    x: Tensor = inputs[0]
    block = int(attributes["blocksize"])
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(n, c * block**2, h // block, w // block)


def _shape(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    shape = list(inputs[0].shape)
    return torch.tensor(shape[slice(attributes.get("start", 0), attributes.get("end"))], dtype=torch.int64)


def _constant_of_shape(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    value = attributes.get("value")
    filled = np.zeros(1, np.float32) if value is None else numpy_helper.to_array(value)
    return torch.from_numpy(np.full(numbers(inputs[0]), filled.reshape(-1)[0], filled.dtype))


def _range(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    start, end, step = (each.reshape(-1)[0] for each in inputs)
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


SHAPES: dict[str, Operator] = {
    "Concat": lambda a, i: torch.cat(list(i), int(a["axis"])),
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": lambda a, i: torch.tensor(i[0].numel(), dtype=torch.int64),
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": lambda a, i: i[0].repeat(numbers(i[1])),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""Name of the ONNX operator -> what it computes."""
