"""Adds the output that a monitor reads: the spatial means of some layers' activations, side by side.

In an INT8 file the quantised activation is what the next layer sees and what is averaged, so that engines keep their
fused integer layers: averaging the float32 tensor in front of the quantiser would make them compute it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from framegate.export.graph.graph import copy_of
from framegate.export.graph.scores import activation_of
from framegate.export.graph.session import cpu_session
from framegate.runtime.errors import UsageError
from framegate.runtime.monitor import POOLED, Tap

FEATURES = "features"
"""The input of the layer that makes the logits, which costs nothing to read."""
_LINEAR = ("Gemm", "MatMul", "Conv")
_STILL_LINEAR = ("QuantizeLinear", "DequantizeLinear", "Add", "Cast", "Identity", "Dropout", "Flatten", "Reshape",
                 "Squeeze", "Unsqueeze", "Transpose", "GlobalAveragePool", "AveragePool", "ReduceMean")  # fmt: skip
"""What may stand between that layer and the logits, and leaves them a linear function of its input."""
_NOT_LINEAR = ("Relu", "Clip", "GlobalMaxPool", "BatchNormalization", "Mul", "Div", "Sub")
"""What may stand there, too."""


@dataclass(frozen=True)
class Head:
    """The end of a network.

    Attributes:
        node: Name of the layer that makes the logits: linear, or a convolution.
        features: Name of the tensor that it reads.
        linear: Whether the logits are a linear function of the spatial means of the features.
        bias: Name of what is added behind it; empty if nothing is.
    """

    node: str
    features: str
    linear: bool
    bias: str


def head_of(graph: onnx.GraphProto) -> Head:
    """The layer that makes the logits.

    Raises:
        UsageError: There is none where it is looked for: between it and the logits only the shape is changed, means are
            taken, or values are added or clipped.
    """
    made_by = {name: node for node in graph.node for name in node.output}
    constants = {item.name for item in graph.initializer}
    node, linear, bias = made_by.get(graph.output[0].name), True, ""
    while node is not None and node.op_type not in _LINEAR:
        if node.op_type not in _STILL_LINEAR + _NOT_LINEAR:
            node = None
            break
        before = [made_by[name] for name in node.input if name in made_by]
        linear = linear and node.op_type in _STILL_LINEAR and len(before) == 1
        if node.op_type == "Add":
            bias = next((name for name in node.input if name in constants), bias)
        node = before[0] if before else None
    if node is None:
        raise UsageError("monitor: the network's logits do not come from a linear layer; a monitor needs its input")
    if node.op_type == "Conv":
        kernel = next((list(a.ints) for a in node.attribute if a.name == "kernel_shape"), None)
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        linear = linear and kernel is not None and set(kernel) == {1} and groups == 1
    return Head(node.name, str(node.input[0]), linear, bias)


def penultimate(graph: onnx.GraphProto) -> str:
    """Name of the tensor that the layer of the logits reads.

    Raises:
        UsageError: The logits do not come from a linear layer.
    """
    return head_of(graph).features


def with_pooled(model: onnx.ModelProto, taps: Sequence[str]) -> tuple[onnx.ModelProto, tuple[Tap, ...]]:
    """A copy with the output ``pooled`` (N, F) float32.

    Args:
        model: A bundle's network, fp32 or int8, without such an output or with an older one, which is replaced.
        taps: Names of layers, and `FEATURES`; at least one.

    Returns:
        The network, and what its output consists of.

    Raises:
        UsageError: There is no such layer.
    """
    result = without_pooled(model)
    graph = result.graph
    places = [penultimate(graph) if tap == FEATURES else _behind_quantiser(graph, activation_of(graph, tap))
              for tap in taps]  # fmt: skip
    shapes = _shapes(result, places)
    parts, found = [], []
    for k, (tap, at) in enumerate(zip(taps, places, strict=True)):
        shape = shapes[at]
        if len(shape) == 3:
            raise UsageError(
                f"monitor: layer {tap!r} gives {shape} for an image; expected channels, or an image of them"
            )
        if len(shape) > 2:
            graph.node.append(helper.make_node("GlobalAveragePool", [at], [f"{POOLED}.{k}.mean"], f"{POOLED}.{k}.mean"))
            at = f"{POOLED}.{k}.mean"
        graph.node.append(helper.make_node("Flatten", [at], [f"{POOLED}.{k}"], f"{POOLED}.{k}", axis=1))
        parts.append(f"{POOLED}.{k}")
        found.append(Tap(tap, shape[1]))
    graph.node.append(helper.make_node("Concat", parts, [POOLED], POOLED, axis=1))
    value = helper.make_tensor_value_info(POOLED, TensorProto.FLOAT, [None, sum(tap.channels for tap in found)])
    value.type.tensor_type.shape.dim[0].CopyFrom(graph.output[0].type.tensor_type.shape.dim[0])
    graph.output.append(value)
    return result, tuple(found)


def _shapes(model: onnx.ModelProto, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Shapes of some tensors for one image: measured, because a graph that computes its shapes does not state them."""
    graph = copy_of(model)
    known = {value.name for value in graph.graph.output}
    for name in set(names) - known:
        graph.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    image = graph.graph.input[0]
    size = [1, *(dim.dim_value for dim in image.type.tensor_type.shape.dim[1:])]
    wanted = list(dict.fromkeys(names))
    values = cpu_session(graph).run(wanted, {image.name: np.zeros(size, np.float32)})
    return {name: tuple(value.shape) for name, value in zip(wanted, values, strict=True)}


def without_pooled(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the logits alone."""
    result = copy_of(model)
    graph = result.graph
    for node in [node for node in graph.node if node.name.split(".")[0] == POOLED]:
        graph.node.remove(node)
    for value in [value for value in graph.output if value.name == POOLED]:
        graph.output.remove(value)
    return result


def _behind_quantiser(graph: onnx.GraphProto, name: str) -> str:
    """The dequantised form of a tensor if only a quantiser reads it, else the tensor."""
    readers = [node for node in graph.node if name in node.input]
    if len(readers) == 1 and readers[0].op_type == "QuantizeLinear":
        behind = [node for node in graph.node if readers[0].output[0] in node.input]
        if behind and behind[0].op_type == "DequantizeLinear":
            return str(behind[0].output[0])
    return name
