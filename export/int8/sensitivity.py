"""Which layers lose too much in INT8: every layer is quantised alone, and the change of the logits is measured.

In a MobileNetV2 nearly all of the loss comes from one block: folding gives a few depthwise channels of the first
inverted residual large weights whose sums cancel, so a rounding error of one step is amplified. Such layers are small;
kept in float32 they cost neither space nor time.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from framegate.export.graph.graph import INPUT, copy_of
from framegate.export.graph.session import Tensor, cpu_session, input_tensors
from framegate.export.progress import Progress
from framegate.runtime.preprocess import PreprocessSpec

IMAGES = 32
"""Images that the measure uses, at most."""
_LAYERS = ("Conv", "Gemm")
_LEVELS = 127


def logit_changes(
    model: onnx.ModelProto, images: npt.NDArray[np.uint8], spec: PreprocessSpec, progress: Progress
) -> dict[str, float]:
    """What quantising each layer alone does to the logits.

    Args:
        model: A network in float32, its weights stored as float32; it is left as it was.
        images: (N, h, w, 3) uint8 BGR from the training split; the first `IMAGES` are used.
        spec: How an image becomes the network's input.
        progress: Called after every layer.

    Returns:
        Name of the layer -> root mean square change divided by the standard deviation of the logits; NaN if the
        network gives no numbers.
    """
    weights = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in _LAYERS and node.input[1] in weights]
    tensors = input_tensors(images[:IMAGES], spec)
    if not layers or not tensors:
        return {}
    expected, largest = _run_and_measure(model, layers, tensors)
    spread = float(expected.std(ddof=1))
    changes = {}
    for done, layer in enumerate(layers):
        rounded = _with_rounding(model, layer, _rounded_weight(layer, weights[layer.input[1]]), largest[done])
        found = _logits(rounded, tensors)
        with np.errstate(invalid="ignore", divide="ignore"):
            changes[layer.name] = float(np.divide(np.sqrt(np.mean(np.square(found - expected))), spread))
        progress("INT8 sensitivity of each layer", done + 1, len(layers))
    return changes


def _logits(model: onnx.ModelProto, tensors: list[Tensor]) -> Tensor:
    session = cpu_session(model)
    return np.concatenate([session.run(None, {INPUT: tensor})[0] for tensor in tensors])


def _run_and_measure(
    model: onnx.ModelProto, layers: list[onnx.NodeProto], tensors: list[Tensor]
) -> tuple[Tensor, list[float]]:
    """The logits, and the largest magnitude of each layer's input."""
    measured = copy_of(model)
    for k, layer in enumerate(layers):
        magnitude, largest = f"magnitude.{k}", f"largest.{k}"
        measured.graph.node.append(helper.make_node("Abs", [layer.input[0]], [magnitude]))
        measured.graph.node.append(helper.make_node("ReduceMax", [magnitude], [largest], keepdims=0))
        measured.graph.output.append(helper.make_tensor_value_info(largest, TensorProto.FLOAT, []))
    session = cpu_session(measured)
    runs = [session.run(None, {INPUT: tensor}) for tensor in tensors]
    inputs = [max(float(run[k + 1]) for run in runs) for k in range(len(layers))]
    return np.concatenate([run[0] for run in runs]), inputs


def _with_rounding(model: onnx.ModelProto, layer: onnx.NodeProto, weight: Tensor, largest: float) -> onnx.ModelProto:
    """A copy in which one layer has another weight and an input that is rounded to 127 steps up to ``largest``."""
    result = copy_of(model)
    graph = result.graph
    at = next(k for k, node in enumerate(graph.node) if node.name == layer.name)
    step, units, whole, rounded, changed = (
        f"{layer.name}.int8.{part}" for part in ("step", "units", "whole", "rounded", "weight")
    )
    graph.initializer.append(numpy_helper.from_array(np.array(max(largest, 1e-12) / _LEVELS, np.float32), step))
    graph.initializer.append(numpy_helper.from_array(weight, changed))
    for k, node in enumerate(
        (
            helper.make_node("Div", [layer.input[0], step], [units]),
            helper.make_node("Round", [units], [whole]),
            helper.make_node("Mul", [whole, step], [rounded]),
        )
    ):
        graph.node.insert(at + k, node)
    graph.node[at + 3].input[0], graph.node[at + 3].input[1] = rounded, changed
    return result


def _rounded_weight(layer: onnx.NodeProto, weight: Tensor) -> Tensor:
    """The layer's weight in symmetric INT8 and back, one scale per output channel."""
    transposed = any(a.name == "transB" and a.i for a in layer.attribute)
    channel = 0 if layer.op_type == "Conv" or transposed else 1
    others = tuple(axis for axis in range(weight.ndim) if axis != channel)
    step = np.maximum(np.abs(weight).max(axis=others, keepdims=True), 1e-12) / _LEVELS
    rounded: Tensor = (np.clip(np.round(weight / step), -_LEVELS, _LEVELS) * step).astype(np.float32)
    return rounded
