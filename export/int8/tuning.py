"""What can still be turned in a quantised graph: the ranges of its activations, and its float32 biases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from framegate.export.graph.graph import copy_of
from framegate.export.int8.ranges import Floats

Weights = npt.NDArray[np.float32]
LARGEST_LEVEL = 127


def activation_ranges(quantised: onnx.ModelProto) -> dict[str, float]:
    """Tensor -> magnitude that becomes 127, for every activation that a QuantizeLinear reads."""
    constants = {item.name: item for item in quantised.graph.initializer}
    return {
        tensor: float(numpy_helper.to_array(constants[scale])) * LARGEST_LEVEL
        for tensor, scale in _activation_scales(quantised).items()
    }


def with_ranges(quantised: onnx.ModelProto, ranges: Mapping[str, float]) -> onnx.ModelProto:
    """A copy in which activations have other ranges; the Quantize/DequantizeLinear pairs stay where they are."""
    result = copy_of(quantised)
    constants = {item.name: item for item in result.graph.initializer}
    for tensor, scale in _activation_scales(result).items():
        value = np.array(ranges[tensor] / LARGEST_LEVEL, np.float32)
        constants[scale].CopyFrom(numpy_helper.from_array(value, scale))
    return result


def _activation_scales(model: onnx.ModelProto) -> dict[str, str]:
    return {node.input[0]: node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}


def layers_with_bias(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Convolutions and linear layers whose weight and bias are constants that no other layer uses."""
    constants = {item.name for item in model.graph.initializer}
    used = Counter(name for node in model.graph.node for name in node.input)
    layers = []
    for node in model.graph.node:
        plain = all(a.f == 1.0 for a in node.attribute if a.name in ("alpha", "beta"))
        plain = plain and not any(a.name == "transA" and a.i for a in node.attribute)
        if node.op_type in ("Conv", "Gemm") and len(node.input) == 3 and plain:
            weight, bias = node.input[1:]
            if weight in constants and bias in constants and used[bias] == 1:
                layers.append(node)
    return layers


def with_corrected_biases(
    quantised: onnx.ModelProto, model: onnx.ModelProto, means: Mapping[str, Floats]
) -> onnx.ModelProto:
    """A copy whose biases make up for what rounding the weights does to every output channel on average.

    Rounding turns weights w into w'; the mean of an output moves by sum (w' - w) E[x] (Nagel et al. 2019,
    arXiv:1906.04721, section 4.2). Borders, where a convolution reads zeros, are taken for the inside. Biases are
    float32 in this form of INT8, so this costs nothing at run time.

    Args:
        quantised: Made from ``model``, nodes keep their names.
        model: The network in float32.
        means: Input of a layer -> (channels,) its mean on real images.
    """
    result = copy_of(quantised)
    constants = {item.name: item for item in result.graph.initializer}
    floats = {item.name: item for item in model.graph.initializer}
    nodes = {node.name: node for node in result.graph.node}
    made_by = {output: node for node in result.graph.node for output in node.output}
    for layer in layers_with_bias(model):
        dequantize = made_by.get(nodes[layer.name].input[1])
        if dequantize is None or layer.input[0] not in means:  # the layer stays in float32
            continue
        error = numpy_helper.to_array(floats[layer.input[1]]) - _dequantised(dequantize, constants)
        bias = constants[nodes[layer.name].input[2]]
        value = numpy_helper.to_array(bias) + _mean_output(layer, error, means[layer.input[0]])
        bias.CopyFrom(numpy_helper.from_array(value.astype(np.float32), bias.name))
    return result


def _dequantised(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> Weights:
    stored, scale = (numpy_helper.to_array(constants[name]) for name in node.input[:2])
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    shape = [1] * stored.ndim
    if scale.ndim:
        shape[axis] = -1
    weight: Weights = stored.astype(np.float32) * scale.reshape(shape)
    return weight


def _mean_output(layer: onnx.NodeProto, weight: Weights, mean: Floats) -> Floats:
    """(output channels,): what a layer gives for an input that has its mean everywhere."""
    attributes = {a.name: a.i for a in layer.attribute}
    if layer.op_type == "Gemm":
        output: Floats = (weight if attributes.get("transB") else weight.T) @ mean
        return output
    groups = attributes.get("group", 1)
    kernel = weight.sum(axis=tuple(range(2, weight.ndim)), dtype=np.float64)  # (outputs, inputs of a group)
    inputs = np.repeat(mean.reshape(groups, -1), weight.shape[0] // groups, axis=0)
    summed: Floats = (kernel * inputs).sum(axis=1)
    return summed
