"""Which layers of a foreign network lose too much in INT8: the measure of `sensitivity`, on a graph.

One graph serves for all layers: the input of every layer is divided by a step, rounded and multiplied again, and the
steps are inputs of the graph, as are the weights. A step of next to nothing leaves the values alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from framegate.export.data.outputs import Progress
from framegate.export.graph.graph import INPUT
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec

Floats = npt.NDArray[np.float32]

IMAGES = 16
"""Images that the measure uses, at most."""
_LAYERS = ("Conv", "Gemm")
_LEVELS = 127
_NO_STEP = np.array(1e-30, np.float32)


def logit_changes(
    model: onnx.ModelProto, images: npt.NDArray[np.uint8], spec: PreprocessSpec, progress: Progress
) -> dict[str, float]:
    """What quantising each layer alone does to the logits: root mean square change by their standard deviation.

    Args:
        model: A prepared network in float32.
        images: (N, h, w, 3) uint8 BGR from the training split.
        spec: How an image becomes the network's input.
        progress: Called after every layer.
    """
    weights = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in _LAYERS and node.input[1] in weights]
    if not layers:
        return {}
    session, steps = _session(model, layers)
    preprocess = Preprocessor(spec)
    tensors = [preprocess(image).copy() for image in images[:IMAGES]]
    off = dict.fromkeys(steps, _NO_STEP)
    outputs = [output.name for output in session.get_outputs()]
    runs = [session.run(outputs, {INPUT: tensor, **off}) for tensor in tensors]
    expected = np.concatenate([run[0] for run in runs])
    spread = float(expected.std()) or 1.0
    changes = {}
    for k, layer in enumerate(layers):
        largest = max(float(run[k + 1]) for run in runs)
        feed = {
            **off,
            steps[k]: np.array(max(largest, 1e-12) / _LEVELS, np.float32),
            layer.input[1]: _rounded(layer, weights),
        }
        found = np.concatenate([session.run(outputs[:1], {INPUT: tensor, **feed})[0] for tensor in tensors])
        changes[layer.name] = float(np.sqrt(np.mean(np.square(found - expected)))) / spread
        progress("INT8 sensitivity of each layer", k + 1, len(layers))
    return changes


def _rounded(layer: onnx.NodeProto, weights: dict[str, Floats]) -> Floats:
    """The layer's weight in symmetric INT8 and back, one scale per output channel."""
    weight = weights[layer.input[1]]
    transposed = any(a.name == "transB" and a.i for a in layer.attribute)
    channel = 0 if layer.op_type == "Conv" or transposed else 1
    others = tuple(axis for axis in range(weight.ndim) if axis != channel)
    step = np.maximum(np.abs(weight).max(axis=others, keepdims=True), 1e-12) / _LEVELS
    rounded: Floats = (np.clip(np.round(weight / step), -_LEVELS, _LEVELS) * step).astype(np.float32)
    return rounded


def _session(model: onnx.ModelProto, layers: list[onnx.NodeProto]) -> tuple[ort.InferenceSession, list[str]]:
    """The graph with rounding in front of every layer; further outputs: the largest magnitude of each layer's input."""
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    ours = {layer.name for layer in layers}
    nodes, steps = [], []
    for node in graph.graph.node:
        if node.name in ours:
            at = node.input[0]
            step, units, whole, rounded, magnitude, largest = (
                f"{node.name}.int8.{part}" for part in ("step", "units", "whole", "rounded", "magnitude", "largest")
            )
            nodes += [
                helper.make_node("Abs", [at], [magnitude]),
                helper.make_node("ReduceMax", [magnitude], [largest], keepdims=0),
                helper.make_node("Div", [at, step], [units]),
                helper.make_node("Round", [units], [whole]),
                helper.make_node("Mul", [whole, step], [rounded]),
            ]
            node.input[0] = rounded
            steps.append(step)
            graph.graph.input.append(helper.make_tensor_value_info(step, TensorProto.FLOAT, []))
            graph.graph.output.append(helper.make_tensor_value_info(largest, TensorProto.FLOAT, []))
        nodes.append(node)
    for item in graph.graph.initializer:  # an initializer that is an input too can be replaced in every run
        if item.name in {layer.input[1] for layer in layers}:
            graph.graph.input.append(helper.make_tensor_value_info(item.name, item.data_type, list(item.dims)))
    copied = [onnx.NodeProto() for _ in nodes]
    for target, node in zip(copied, nodes, strict=True):
        target.CopyFrom(node)
    del graph.graph.node[:]
    graph.graph.node.extend(copied)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"]), steps
