"""Layers: convolutions, linear layers, pooling and normalisations, in one, two and three dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from framegate.export.graph.operators.base import Attributes, Operator, given, text, unsupported

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_BACK = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVERAGE_POOL: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
Pads = list[tuple[int, int]]
"""Per axis of the image: in front, behind."""


def padded(x: Tensor, pads: Pads, value: float) -> Tensor:
    """The tensor with more in front of and behind its last axes."""
    if not any(front or behind for front, behind in pads):
        return x
    return F.pad(x, [each for pair in reversed(pads) for each in pair], value=value)


def _pads(attributes: Attributes, sizes: Sequence[int], windows: Sequence[int], strides: Sequence[int]) -> Pads:
    """What is added around an image: said outright, or so that the output has size / stride (as TensorFlow does).

    Args:
        attributes: Of the operator.
        sizes: Of the image, per axis.
        windows: What one output sees, per axis: the kernel with its gaps.
        strides: Per axis.
    """
    mode = text(attributes, "auto_pad", "NOTSET")
    if mode == "NOTSET":
        pads = [int(each) for each in attributes.get("pads", [0] * 2 * len(sizes))]
        return list(zip(pads[: len(sizes)], pads[len(sizes) :], strict=True))
    if mode == "VALID":
        return [(0, 0)] * len(sizes)
    found = []
    for size, window, stride in zip(sizes, windows, strides, strict=True):
        total = max(0, (math.ceil(size / stride) - 1) * stride + window - size)
        less, more = total // 2, total - total // 2
        found.append((less, more) if mode == "SAME_UPPER" else (more, less))
    return found


def _windows(kernel: Sequence[int], dilations: Sequence[int]) -> list[int]:
    return [(size - 1) * gap + 1 for size, gap in zip(kernel, dilations, strict=True)]


def _conv(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    x, weight = inputs[0], inputs[1]
    axes = weight.dim() - 2
    strides = tuple(attributes.get("strides", [1] * axes))
    dilations = tuple(attributes.get("dilations", [1] * axes))
    pads = _pads(attributes, x.shape[2:], _windows(weight.shape[2:], dilations), strides)
    symmetric = all(front == behind for front, behind in pads)
    convolved: Tensor = _CONV[axes](
        x if symmetric else padded(x, pads, 0.0),
        weight,
        given(inputs, 2),
        stride=strides,
        padding=tuple(front for front, _ in pads) if symmetric else 0,
        dilation=dilations,
        groups=int(attributes.get("group", 1)),
    )
    return convolved


def _conv_transpose(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    x, weight = inputs[0], inputs[1]
    axes = weight.dim() - 2
    if text(attributes, "auto_pad", "NOTSET") != "NOTSET" or "output_shape" in attributes:
        raise unsupported("ConvTranspose with auto_pad or output_shape")
    pads = _pads(attributes, x.shape[2:], (), ())
    whole: Tensor = _CONV_BACK[axes](
        x,
        weight,
        given(inputs, 2),
        stride=tuple(attributes.get("strides", [1] * axes)),
        output_padding=0,
        dilation=tuple(attributes.get("dilations", [1] * axes)),
        groups=int(attributes.get("group", 1)),
    )
    extra = attributes.get("output_padding", [0] * axes)
    if any(extra):
        # What lies beyond the last window sees nothing but the bias.
        bias = given(inputs, 2)
        fill = whole.new_zeros(()) if bias is None else bias.view(1, -1, *[1] * axes)
        whole = padded(whole - fill, [(0, int(more)) for more in extra], 0.0) + fill
    cut = [slice(front, whole.shape[2 + k] - behind) for k, (front, behind) in enumerate(pads)]
    return whole[(slice(None), slice(None), *cut)]


def _behind(pads: Pads, sizes: Sequence[int], windows: Sequence[int], strides: Sequence[int], ceil: bool) -> Pads:
    """The pads, with what a last window needs that begins inside of the image but ends beyond it."""
    if not ceil:
        return pads
    found = []
    for (front, behind), size, window, stride in zip(pads, sizes, windows, strides, strict=True):
        steps = math.ceil((size + front + behind - window) / stride)
        if steps * stride >= size + front:
            steps -= 1  # it would begin beyond the image
        found.append((front, max(behind, steps * stride + window - size - front)))
    return found


def _pool(attributes: Attributes, x: Tensor) -> tuple[list[int], list[int], list[int], Pads, Pads]:
    """Kernel, strides, gaps, the pads as they are said, and those that are needed."""
    kernel = [int(each) for each in attributes["kernel_shape"]]
    strides = [int(each) for each in attributes.get("strides", [1] * len(kernel))]
    dilations = [int(each) for each in attributes.get("dilations", [1] * len(kernel))]
    sizes, windows = list(x.shape[2:]), _windows(kernel, dilations)
    pads = _pads(attributes, sizes, windows, strides)
    return kernel, strides, dilations, pads, _behind(pads, sizes, windows, strides, bool(attributes.get("ceil_mode")))


def _max_pool(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    kernel, strides, dilations, _, pads = _pool(attributes, inputs[0])
    x = padded(inputs[0], pads, -torch.inf)
    pooled: Tensor = _MAX_POOL[len(kernel)](x, tuple(kernel), tuple(strides), dilation=tuple(dilations))
    return pooled


def _average_pool(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    x: Tensor = inputs[0]
    kernel, strides, dilations, said, pads = _pool(attributes, x)
    if any(gap != 1 for gap in dilations):
        raise unsupported("AveragePool with dilations")
    pool = _AVERAGE_POOL[len(kernel)]
    means = pool(padded(x, pads, 0.0), tuple(kernel), tuple(strides))
    if not any(front or behind for front, behind in pads):
        return means
    # Share of each window that counts: the image, and the pads that were said if they are to be counted.
    ones = x.new_ones(1, 1, *x.shape[2:])
    if attributes.get("count_include_pad", 0):
        ones = padded(ones, said, 1.0)
        pads = [(0, needed[1] - each[1]) for needed, each in zip(pads, said, strict=True)]
    return means / pool(padded(ones, pads, 0.0), tuple(kernel), tuple(strides))


def _gemm(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    a = inputs[0].T if attributes.get("transA", 0) else inputs[0]
    b = inputs[1].T if attributes.get("transB", 0) else inputs[1]
    result: Tensor = attributes.get("alpha", 1.0) * (a @ b)
    bias = given(inputs, 2)
    return result if bias is None else result + attributes.get("beta", 1.0) * bias


def _batch_norm(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    if attributes.get("training_mode", 0):
        raise unsupported("BatchNormalization in training mode")
    x, scale, bias, mean, variance = inputs[:5]
    return F.batch_norm(x, mean, variance, scale, bias, eps=float(attributes.get("epsilon", 1e-5)))


def _instance_norm(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    x, scale, bias = inputs
    return F.instance_norm(x, weight=scale, bias=bias, eps=float(attributes.get("epsilon", 1e-5)))


def _layer_norm(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    x: Tensor = inputs[0]
    axes = list(range(int(attributes.get("axis", -1)) % x.dim(), x.dim()))
    centred = x - x.mean(axes, keepdim=True)
    variance = centred.square().mean(axes, keepdim=True)
    normalised: Tensor = centred / (variance + float(attributes.get("epsilon", 1e-5))).sqrt() * inputs[1]
    bias = given(inputs, 2)
    return normalised if bias is None else normalised + bias


def _local_response(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    x: Tensor = inputs[0]
    size = int(attributes["size"])
    if size % 2 == 0:
        raise unsupported(f"LRN over {size} channels, which ONNX Runtime and the standard centre differently,")
    squares = padded(x.square().transpose(1, -1), [(size // 2, size // 2)], 0.0)
    sums = squares.unfold(-1, size, 1).sum(-1).transpose(1, -1)
    alpha, beta, bias = attributes.get("alpha", 1e-4), attributes.get("beta", 0.75), attributes.get("bias", 1.0)
    divided: Tensor = x / (bias + alpha / size * sums) ** beta
    return divided


def _einsum(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    return torch.einsum(text(attributes, "equation", ""), *inputs)


LAYERS: dict[str, Operator] = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda a, i: i[0].mean(list(range(2, i[0].dim())), keepdim=True),
    "GlobalMaxPool": lambda a, i: i[0].amax(list(range(2, i[0].dim())), keepdim=True),
    "InstanceNormalization": _instance_norm,
    "LRN": _local_response,
    "LayerNormalization": _layer_norm,
    "MatMul": lambda a, i: i[0] @ i[1],
    "MaxPool": _max_pool,
}
"""Name of the ONNX operator -> what it computes."""
