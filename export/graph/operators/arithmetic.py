"""Operators that work element by element, and those that reduce axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from onnx import TensorProto
from torch import Tensor
from torch.nn import functional as F

from framegate.export.graph.operators.base import Attributes, Operator, given, numbers, text, unsupported

_TYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.BOOL: torch.bool,
}


def _cast(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    wanted = _TYPES.get(int(attributes["to"]))
    if wanted is None:
        name = TensorProto.DataType.Name(int(attributes["to"]))
        raise unsupported(f"a network that computes in {name}; give the float32 model: a Cast to {name}")
    tensor: Tensor = inputs[0].to(wanted)
    return tensor


def _div(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    whole = not inputs[0].is_floating_point() and not inputs[1].is_floating_point()
    return torch.div(inputs[0], inputs[1], rounding_mode="trunc" if whole else None)


def _clip(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    low, high = given(inputs, 1), given(inputs, 2)
    x: Tensor = inputs[0]
    if low is None and high is None:
        return x
    least, most = (None if limit is None else limit.item() for limit in (low, high))
    if x.is_floating_point() and least is not None and most is not None and least < most:
        # One pass backwards in place of four: with clamp a third of a MobileNet's gradient was spent here.
        return F.hardtanh(x, least, most)
    return x.clamp(least, most)


def _prelu(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    x, slope = inputs
    return torch.where(x < 0, x * slope, x)


def _selu(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    alpha, gamma = (
        attributes.get("alpha", 1.67326319217681884765625),
        attributes.get("gamma", 1.05070102214813232421875),
    )
    return gamma * F.elu(inputs[0], alpha)  # type: ignore[no-any-return]


def _thresholded(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    return torch.where(inputs[0] > attributes.get("alpha", 1.0), inputs[0], torch.zeros_like(inputs[0]))


def _gelu(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    return F.gelu(inputs[0], approximate=text(attributes, "approximate", "none"))


def _mean(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    total: Tensor = reduce(torch.add, inputs)
    return total / len(inputs)


def _softmax(function: Callable[..., Tensor]) -> Operator:
    return lambda attributes, inputs: function(inputs[0], int(attributes.get("axis", -1)))


def _reduction(function: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    """An operator that reduces some axes; without axes all, or none if it is told so."""

    def run(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
        x: Tensor = inputs[0]
        axes = given(inputs, 1)
        chosen = list(attributes.get("axes", ())) if axes is None else numbers(axes)
        if not chosen:
            if attributes.get("noop_with_empty_axes", 0):
                return function(x.unsqueeze(-1), [x.dim()], False)  # each value for itself
            chosen = list(range(x.dim()))
        return function(x, [int(axis) % x.dim() for axis in chosen], bool(attributes.get("keepdims", 1)))

    return run


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _lp_normalization(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    x: Tensor = inputs[0]
    size = x.norm(p=float(attributes.get("p", 2)), dim=int(attributes.get("axis", -1)), keepdim=True)
    return torch.where(size == 0, torch.zeros_like(x), x / size)


def _where(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    return torch.where(inputs[0], inputs[1], inputs[2])


def _one(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda attributes, inputs: function(inputs[0])


def _two(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda attributes, inputs: function(inputs[0], inputs[1])


def _all(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda attributes, inputs: reduce(function, inputs)


ARITHMETIC: dict[str, Operator] = {
    "Abs": _one(torch.abs),
    "Add": _two(torch.add),
    "And": _two(torch.logical_and),
    "Cast": _cast,
    "Ceil": _one(torch.ceil),
    "Celu": lambda a, i: F.celu(i[0], a.get("alpha", 1.0)),
    "Clip": _clip,
    "Cos": _one(torch.cos),
    "Div": _div,
    "Dropout": _one(lambda x: x),
    "Elu": lambda a, i: F.elu(i[0], a.get("alpha", 1.0)),
    "Equal": _two(torch.eq),
    "Erf": _one(torch.erf),
    "Exp": _one(torch.exp),
    "Floor": _one(torch.floor),
    "Gelu": _gelu,
    "Greater": _two(torch.gt),
    "GreaterOrEqual": _two(torch.ge),
    "HardSigmoid": lambda a, i: (a.get("alpha", 0.2) * i[0] + a.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": _one(F.hardswish),
    "Identity": _one(lambda x: x),
    "LeakyRelu": lambda a, i: F.leaky_relu(i[0], a.get("alpha", 0.01)),
    "Less": _two(torch.lt),
    "LessOrEqual": _two(torch.le),
    "Log": _one(torch.log),
    "LogSoftmax": _softmax(torch.log_softmax),
    "LpNormalization": _lp_normalization,
    "Max": _all(torch.maximum),
    "Mean": _mean,
    "Min": _all(torch.minimum),
    "Mish": _one(F.mish),
    "Mul": _two(torch.mul),
    "Neg": _one(torch.neg),
    "Not": _one(torch.logical_not),
    "Or": _two(torch.logical_or),
    "PRelu": _prelu,
    "Pow": _two(torch.pow),
    "Reciprocal": _one(torch.reciprocal),
    "ReduceL1": _reduction(lambda x, axes, keep: x.abs().sum(axes, keep)),
    "ReduceL2": _reduction(lambda x, axes, keep: torch.linalg.vector_norm(x, dim=axes, keepdim=keep)),
    "ReduceLogSum": _reduction(lambda x, axes, keep: x.sum(axes, keep).log()),
    "ReduceLogSumExp": _reduction(lambda x, axes, keep: x.logsumexp(axes, keep)),
    "ReduceMax": _reduction(lambda x, axes, keep: x.amax(axes, keep)),
    "ReduceMean": _reduction(lambda x, axes, keep: x.mean(axes, keep)),
    "ReduceMin": _reduction(lambda x, axes, keep: x.amin(axes, keep)),
    "ReduceProd": _reduction(_product),
    "ReduceSum": _reduction(lambda x, axes, keep: x.sum(axes, keep)),
    "ReduceSumSquare": _reduction(lambda x, axes, keep: x.square().sum(axes, keep)),
    "Relu": _one(F.relu),
    "Round": _one(torch.round),
    "Selu": _selu,
    "Sigmoid": _one(torch.sigmoid),
    "Sign": _one(torch.sign),
    "Sin": _one(torch.sin),
    "Softmax": _softmax(torch.softmax),
    "Softplus": _one(lambda x: F.softplus(x, threshold=math.inf)),
    "Softsign": _one(F.softsign),
    "Sqrt": _one(torch.sqrt),
    "Sub": _two(torch.sub),
    "Sum": _all(torch.add),
    "Tanh": _one(torch.tanh),
    "ThresholdedRelu": _thresholded,
    "Where": _where,
}
"""Name of the ONNX operator -> what it computes. Softmax as of operator set 13: over one axis."""
