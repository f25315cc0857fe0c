"""Interval bounds of a plain network as an ONNX graph: the lowest margins of its label in an L-infinity ball.

A box is carried through the network as a centre m and a radius r. A layer W takes them to W m + b and |W| r, ReLU is
applied to both ends (Gowal et al. 2018, arXiv:1810.12715). Every radius is enlarged by more than float32 arithmetic can
be off, in any order of summation, both here and in the plain network, so the box holds what any engine computes for
any input of the ball. The proof is in docs/certificates.md ("Rounding"); the names are those used there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from framegate.export.graph.graph import INPUT, IR_VERSION, OPSET, OUTPUT, store_half
from framegate.runtime.errors import UsageError
from framegate.runtime.preprocess import PreprocessSpec

_UNIT = 2.0**-24
"""Half the distance from 1 to the next float32: the largest relative error of one operation."""
_TINY = 1e-30
"""More than an engine loses that takes the smallest numbers for zero."""
_LEAST = 16
"""Terms counted at least, so that the errors of ReLU's two ends are covered, too."""

Weights = npt.NDArray[np.float32]


def gamma(terms: int) -> float:
    """Relative error of a sum of products, in any order (Higham 2002, Accuracy and Stability, lemma 3.1).

    Args:
        terms: Products and addends.
    """
    count = max(terms, _LEAST)
    return count * _UNIT / (1 - count * _UNIT)


class _Builder:
    """Collects nodes and constants of the new graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._count = 0

    def constant(self, value: npt.NDArray[np.generic], name: str = "") -> str:
        self._count += 1
        label = name or f"c{self._count}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), label))
        return label

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        self._count += 1
        label = f"{kind.lower()}{self._count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [label], label, **attributes))
        return label

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def enlarged(self, centre: str, radius: str, error: float) -> str:
        """(1 + 3 gamma) r + 3 gamma |m|."""
        grown = self.add("Mul", [radius, self.scalar(1 + 3 * error)])
        return self.add("Add", [grown, self.add("Mul", [self.add("Abs", [centre]), self.scalar(3 * error)])])


def with_bounds(plain: onnx.ModelProto, spec: PreprocessSpec, levels: int) -> onnx.ModelProto:
    """A graph that computes a plain network's label and its worst margins.

    Args:
        plain: Input ``image``, output ``logits``: a chain of Conv, Relu, Gemm, Flatten and Reshape that ends in Gemm.
        spec: How an image becomes its input.
        levels: Radius of the ball in whole levels of 255, at least 1.

    Returns:
        Input ``image`` (batch, ...), output ``logits`` (batch, 2 classes): the logits at the centre of the box, then
        for each label a lower bound of (largest of them) - (its logit) over the ball; for the largest itself a number
        without meaning.

    Raises:
        UsageError: An operator has no bound here, which is named.
    """
    graph = plain.graph
    values = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    build = _Builder()
    centre, radius = INPUT, _first_radius(build, spec, levels)
    *layers, last = graph.node
    flowing = INPUT
    for node in layers:
        if node.input[0] != flowing or len(node.output) != 1:
            raise UsageError(f"interval bounds: {node.name or node.op_type} is not part of a plain chain of layers")
        centre, radius = _carried(build, node, values, centre, radius)
        flowing = node.output[0]
    if last.op_type != "Gemm" or last.input[0] != flowing or last.output[0] != graph.output[0].name:
        raise UsageError(
            f"interval bounds: the network ends in {last.op_type}; only one that ends in Gemm has them here"
        )
    weight, bias = _gemm(last, values)
    output = _margins(build, weight, bias, centre, radius)
    build.nodes.append(helper.make_node("Identity", [output], [OUTPUT], OUTPUT))
    shape = ["batch", *(each.dim_value for each in graph.input[0].type.tensor_type.shape.dim[1:])]
    made = helper.make_model(
        helper.make_graph(
            build.nodes,
            "classifier",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", 2 * len(bias)])],
            build.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="framegate",
    )
    onnx.checker.check_model(made, full_check=True)
    return made


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose convolutions and linear layers have weights that float16 holds exactly.

    It is another network, by a little. What is certified is this one, because its bounds are made from it.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for initializer in copy.graph.initializer:
        value = numpy_helper.to_array(initializer)
        if value.dtype == np.float32 and value.ndim >= 2:
            rounded = value.astype(np.float16).astype(np.float32)
            initializer.CopyFrom(numpy_helper.from_array(rounded, initializer.name))
    return copy


def stored(model: onnx.ModelProto) -> bytes:
    """The file: weights as float16 where that loses nothing."""
    content: bytes = store_half(model).SerializeToString(deterministic=True)
    return content


def _first_radius(build: _Builder, spec: PreprocessSpec, levels: int) -> str:
    """The ball around the input after normalisation, with the rounding of its table of levels."""
    step = np.array([levels / each for each in spec.std], np.float64).reshape(1, -1, 1, 1)
    step = (step * (1 + 4 * _UNIT)).astype(np.float32)
    step = np.nextafter(step, np.float32(np.inf))
    moved = build.add("Mul", [build.add("Abs", [INPUT]), build.scalar(8 * _UNIT)])
    return build.add("Add", [moved, build.constant(step)])


def _gemm(node: onnx.NodeProto, values: dict[str, npt.NDArray[np.generic]]) -> tuple[Weights, Weights]:
    """Weights (outputs, inputs) and bias of a linear layer."""
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    plain = (
        attributes.get("alpha", 1.0) == 1.0 and attributes.get("beta", 1.0) == 1.0 and not attributes.get("transA", 0)
    )
    if not plain or node.input[1] not in values or (len(node.input) > 2 and node.input[2] not in values):
        raise UsageError(f"interval bounds: {node.name} is a Gemm with factors or without constant weights")
    weight = values[node.input[1]].astype(np.float32)
    weight = weight if attributes.get("transB", 0) else np.ascontiguousarray(weight.T)
    bias = values[node.input[2]].astype(np.float32) if len(node.input) > 2 else np.zeros(len(weight), np.float32)
    return weight, bias.reshape(-1)


def _carried(
    build: _Builder, node: onnx.NodeProto, values: dict[str, npt.NDArray[np.generic]], centre: str, radius: str
) -> tuple[str, str]:
    """One layer, for centre and radius."""
    kind = node.op_type
    if kind == "Relu":
        low = build.add("Relu", [build.add("Sub", [centre, radius])])
        high = build.add("Relu", [build.add("Add", [centre, radius])])
        half = build.scalar(0.5)
        middle = build.add("Mul", [build.add("Add", [high, low]), half])
        return middle, build.add("Mul", [build.add("Sub", [high, low]), half])
    if kind in ("Flatten", "Reshape"):
        shape = [build.constant(values[name], f"{node.name}.{name}") for name in node.input[1:]]
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        taken = [build.add(kind, [each, *shape], **attributes) for each in (centre, radius)]
        return taken[0], taken[1]
    if kind == "Conv" and all(name in values for name in node.input[1:]):
        weight = values[node.input[1]].astype(np.float32)
        bias = values[node.input[2]].astype(np.float32) if len(node.input) > 2 else np.zeros(len(weight), np.float32)
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        return _linear(build, "Conv", weight, bias, centre, radius, attributes)
    if kind == "Gemm":
        weight, bias = _gemm(node, values)
        return _linear(build, "Gemm", weight, bias, centre, radius, {"transB": 1})
    raise UsageError(
        f"interval bounds: operator {kind} ({node.name}) has none here; known are Conv, Relu, Gemm, Flatten and Reshape"
    )


def _linear(
    build: _Builder,
    kind: str,
    weight: Weights,
    bias: Weights,
    centre: str,
    radius: str,
    attributes: dict[str, object],
) -> tuple[str, str]:
    """A convolution or linear layer: W m + b, and |W| ((1 + 3 gamma) r + 3 gamma |m|) + 3 gamma |b|."""
    error = gamma(weight[0].size + 1)
    name = build.constant(weight)
    moved = build.add(kind, [centre, name, build.constant(bias)], **attributes)
    extra = (3 * error * np.abs(bias.astype(np.float64)) + _TINY).astype(np.float32)
    extra = np.nextafter(extra, np.float32(np.inf))
    size = build.add("Abs", [name])
    grown = build.add(kind, [build.enlarged(centre, radius, error), size, build.constant(extra)], **attributes)
    return moved, grown


def _margins(build: _Builder, weight: Weights, bias: Weights, centre: str, radius: str) -> str:
    """The last layer, for differences of two logits at once, which is tighter than for each."""
    error = gamma(weight.shape[1] + 1)
    name, addends = build.constant(weight), build.constant(bias)
    logits = build.add("Gemm", [centre, name, addends], transB=1)
    own = build.add("ArgMax", [logits], axis=1, keepdims=0)
    after, last = build.constant(np.array([1], np.int64)), build.constant(np.array([2], np.int64))
    rows = build.add("Unsqueeze", [build.add("Gather", [name, own], axis=0), after])
    difference = build.add("Sub", [rows, name])
    product = build.add("MatMul", [difference, build.add("Unsqueeze", [centre, last])])
    grown = build.add("Unsqueeze", [build.enlarged(centre, radius, error), last])
    spread = build.add("MatMul", [build.add("Abs", [difference]), grown])
    inner = build.add("Squeeze", [build.add("Sub", [product, spread]), last])
    offset = build.add("Sub", [build.add("Unsqueeze", [build.add("Gather", [addends, own], axis=0), after]), addends])
    # Rounding: at most gamma (|W| (|m| + r) + |b|) of each of the two logits, and less than that of the last sums.
    reach = build.add("Add", [build.add("Abs", [centre]), radius])
    sizes = build.constant(np.abs(bias))
    noise = build.add("Gemm", [reach, build.add("Abs", [name]), sizes], transB=1)
    most = build.add("ReduceMax", [noise, after], keepdims=1)
    slack = build.add("Add", [build.add("Mul", [most, build.scalar(4 * error)]), build.scalar(_TINY)])
    lower = build.add("Sub", [build.add("Add", [inner, offset]), slack])
    return build.add("Concat", [logits, lower], axis=1)
