"""More outputs for an ONNX file: probabilities and scores from any runtime, and the activations of tapped layers.

A bundle's own files give logits only: further outputs cost time in every engine, even if they are not read.
These functions make a file with more outputs; ``framegate onnx`` writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from framegate.export.graph.graph import OPSET, OUTPUT, copy_of
from framegate.runtime.backends.tensorrt.plugin import NAME as FUNCTION
from framegate.runtime.backends.tensorrt.plugin import NAMESPACE as DOMAIN
from framegate.runtime.backends.tensorrt.plugin import VERSION
from framegate.runtime.backends.tensorrt.scores import SCORES, TEMPERATURE
from framegate.runtime.errors import UsageError

__all__ = ["DOMAIN", "FUNCTION", "SCORES", "softmax_entropy_function", "with_scores", "with_taps"]

_ACTIVATIONS = ("Relu", "Clip", "HardSwish", "Sigmoid", "LeakyRelu", "Elu", "Gelu")


def softmax_entropy_function() -> onnx.FunctionProto:
    """``framegate::SoftmaxEntropy`` of standard operators: logits (N, C) and temperature (1) -> the scores.

    The formulas are those of `framegate.cuda_kernels.softmax_entropy.reference`: with d = (x - max x) / T, e = exp d,
    Z = sum e, S = sum d e it is p = e / Z, H = log Z - S / Z, margin = (1 - e2) / Z with the second largest e2, and
    energy = -(max x + T log Z). Shapes: probabilities (N, C), the others (N, 1).

    Nothing is clamped: a maximum or minimum drops NaN in some engines, and then a fault would look like certainty. A
    logit of -inf makes the entropy NaN, which rejects, as the runtime does.
    """

    def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(kind, inputs.split(), output.split(), **attributes)

    def constant(name: str, value: object) -> onnx.NodeProto:
        tensor = numpy_helper.from_array(np.asarray(value), name)
        return helper.make_node("Constant", [], [name], value=tensor)

    nodes = [
        constant("classes", np.array([1], np.int64)),
        constant("two", np.array([2], np.int64)),
        constant("second_from", np.array([1], np.int64)),
        constant("second_to", np.array([2], np.int64)),
        constant("one", np.array([1.0], np.float32)),
        node("ReduceMax", "logits classes", "largest", keepdims=1),
        node("Sub", "logits largest", "below"),
        node("Div", "below temperature", "d"),
        node("Exp", "d", "e"),
        node("ReduceSum", "e classes", "z", keepdims=1),
        node("Div", "e z", "probabilities"),
        node("Mul", "d e", "d_e"),
        node("ReduceSum", "d_e classes", "s", keepdims=1),
        node("Log", "z", "log_z"),
        node("Div", "s z", "s_z"),
        node("Sub", "log_z s_z", "entropy"),
        node("TopK", "e two", "top top_index", axis=1),
        node("Slice", "top second_from second_to classes", "second"),
        node("Sub", "one second", "lead"),
        node("Div", "lead z", "margin"),
        node("Mul", "temperature log_z", "t_log_z"),
        node("Add", "largest t_log_z", "score"),
        node("Neg", "score", "energy"),
    ]
    return helper.make_function(
        DOMAIN, FUNCTION, ["logits", "temperature"], list(SCORES), nodes, [helper.make_opsetid("", OPSET)]
    )


def with_scores(model: onnx.ModelProto, temperature: float | None, *, plugin: bool = False) -> onnx.ModelProto:
    """A copy with probabilities, entropy (nats), margin and energy as further outputs.

    Args:
        model: A bundle's network of any precision, output ``logits``.
        temperature: Of the calibration that belongs to the engine that will run the file; None makes it an input of
            the network, float32 (1).
        plugin: The node is meant for TensorRT's plugin of the same name. Then the file holds no function, which some
            releases of the parser would prefer, and the node names the plugin's namespace.

    Raises:
        UsageError: The temperature is not above 0, or the network computes these scores already.
    """
    if temperature is not None and not temperature > 0:
        raise UsageError(f"temperature: {temperature} given, expected a number above 0")
    taken = {name for node in model.graph.node for name in node.output} & {*SCORES, TEMPERATURE}
    if taken or any(value.name == TEMPERATURE for value in model.graph.input):
        raise UsageError(
            f"the network has tensors {sorted(taken) or [TEMPERATURE]} of its own; start from the bundle's"
        )
    result = copy_of(model)
    graph = result.graph
    if temperature is None:
        graph.input.append(helper.make_tensor_value_info(TEMPERATURE, TensorProto.FLOAT, [1]))
    else:
        graph.initializer.append(numpy_helper.from_array(np.array([temperature], np.float32), TEMPERATURE))
    node = helper.make_node(FUNCTION, [OUTPUT, TEMPERATURE], list(SCORES), "scores", domain=DOMAIN)
    if plugin:
        # Up to TensorRT 10.9 the parser takes a plugin's namespace from here alone, later from the domain, too.
        node.attribute.append(helper.make_attribute("plugin_namespace", DOMAIN))
        node.attribute.append(helper.make_attribute("plugin_version", VERSION))
    graph.node.append(node)
    batch, classes = graph.output[0].type.tensor_type.shape.dim
    for name in SCORES:
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None])
        dims = value.type.tensor_type.shape.dim
        dims[0].CopyFrom(batch)
        if name == "probabilities":
            dims[1].CopyFrom(classes)
        else:
            dims[1].dim_value = 1
        graph.output.append(value)
    result.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    if not plugin:
        result.functions.append(softmax_entropy_function())
    return result


def with_taps(model: onnx.ModelProto, taps: Sequence[str]) -> onnx.ModelProto:
    """A copy with the activations of some layers as further outputs, named like the layers, always float32.

    A layer's activation is what lies behind its activation function, if one follows.

    Args:
        model: A bundle's network of any precision.
        taps: Names of nodes.

    Raises:
        UsageError: There is no such layer.
    """
    result = copy_of(model)
    graph = result.graph
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {value.name: value for value in (*inferred.value_info, *inferred.output)}
    for tap in taps:
        at = activation_of(graph, tap)
        graph.node.append(helper.make_node("Cast", [at], [tap], f"{tap}.tap", to=TensorProto.FLOAT))
        value = onnx.ValueInfoProto()
        value.CopyFrom(shapes[at])
        value.name, value.type.tensor_type.elem_type = tap, TensorProto.FLOAT
        graph.output.append(value)
    return result


def activation_of(graph: onnx.GraphProto, layer: str) -> str:
    """Name of the tensor behind a layer and its activation function, if one follows.

    Raises:
        UsageError: There is no such layer.
    """
    node = next((node for node in graph.node if node.name == layer), None)
    if node is None:
        layers = ", ".join(node.name for node in graph.node if node.op_type in ("Conv", "Gemm"))
        raise UsageError(f"tap {layer!r}: no such layer; there are {layers}")
    at = node.output[0]
    followers = [node for node in graph.node if at in node.input]
    if len(followers) == 1 and followers[0].op_type in _ACTIVATIONS:
        at = followers[0].output[0]
    return str(at)
