"""Resize: along each axis a matrix of weights, which is linear and so has its gradient by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from framegate.export.graph.operators.base import Attributes, Operator, given, numbers, text, unsupported

Floats = npt.NDArray[np.float64]


def _places(mode: str, ratio: float, size: int, output: int) -> Floats:
    """Where each output lies in the input, in pixels from the middle of the first (ONNX, Resize)."""
    # In float32, as ONNX Runtime does: it decides which pixel is the nearest where two are equally near.
    scale, x = np.float32(ratio), np.arange(output, dtype=np.float32)
    if mode == "half_pixel":
        return _double((x + np.float32(0.5)) / scale - np.float32(0.5))
    if mode == "pytorch_half_pixel":
        return _places("half_pixel", ratio, size, output) if output > 1 else np.zeros(1)
    if mode == "asymmetric":
        return _double(x / scale)
    if mode == "align_corners":
        return _double(x * (size - 1) / (output - 1)) if output > 1 else np.zeros(1)
    raise unsupported(f"Resize with coordinate_transformation_mode {mode}")


def _double(values: npt.NDArray[np.floating[Any]]) -> Floats:
    return values.astype(np.float64)


def _nearest(places: Floats, rule: str) -> Floats:
    rules: dict[str, Callable[[Floats], Floats]] = {
        "round_prefer_floor": lambda x: np.ceil(x - 0.5),
        "round_prefer_ceil": lambda x: np.floor(x + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    if rule not in rules:
        raise unsupported(f"Resize with nearest_mode {rule}")
    return np.asarray(rules[rule](places))


def _weights(kind: str, distance: Floats, a: float) -> Floats:
    """What a pixel at this distance counts for."""
    d = np.abs(distance)
    if kind == "linear":
        return np.clip(1.0 - d, 0.0, None)
    near = ((a + 2) * d - (a + 3)) * d * d + 1  # Keys 1981
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _matrix(attributes: Attributes, scale: float, size: int, output: int) -> Floats:
    """(output, size) weights."""
    kind = text(attributes, "mode", "nearest")
    places = _places(text(attributes, "coordinate_transformation_mode", "half_pixel"), scale, size, output)
    matrix = np.zeros((output, size))
    rows = np.arange(output)
    if kind == "nearest":
        chosen = _nearest(places, text(attributes, "nearest_mode", "round_prefer_floor"))
        matrix[rows, chosen.clip(0, size - 1).astype(np.int64)] = 1.0
        return matrix
    if kind not in ("linear", "cubic"):
        raise unsupported(f"Resize with mode {kind}")
    reach = 1 if kind == "linear" else 2
    below = np.floor(places).astype(np.int64)
    for step in range(1 - reach, reach + 1):
        column = below + step
        weight = _weights(kind, places - column, float(attributes.get("cubic_coeff_a", -0.75)))
        np.add.at(matrix, (rows, column.clip(0, size - 1)), weight)  # beyond the border its last pixel repeats
    return matrix


def _resize(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    x: Tensor = inputs[0]
    for name in ("antialias", "exclude_outside"):
        if attributes.get(name, 0):
            raise unsupported(f"Resize with {name}")
    if text(attributes, "keep_aspect_ratio_policy", "stretch") != "stretch":
        raise unsupported("Resize that keeps the aspect ratio")
    scales, sizes = given(inputs, 2), given(inputs, 3)
    axes = [int(axis) % x.dim() for axis in attributes.get("axes", range(x.dim()))]
    for k, axis in enumerate(axes):
        size = x.shape[axis]
        if sizes is not None and sizes.numel():
            output = numbers(sizes)[k]
            scale = output / size
        else:
            assert scales is not None
            scale = float(scales.reshape(-1)[k])
            output = int(np.floor(size * scale))
        if output != size or scale != 1.0:
            matrix = torch.from_numpy(_matrix(attributes, scale, size, output)).to(x.dtype)
            x = torch.tensordot(x, matrix, dims=([axis], [1])).movedim(-1, axis)
    return x


RESIZE: dict[str, Operator] = {"Resize": _resize}
"""Name of the ONNX operator -> what it computes."""
