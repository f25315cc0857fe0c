"""Which layers lose too much in INT8: groups of layers are quantised alone, and the change of the logits is measured.

In a MobileNetV2 nearly all of the loss comes from one block: folding gives a few depthwise channels of the first
inverted residual large weights whose sums cancel, so a rounding error of one step is amplified. Such layers are small;
kept in float32 they cost neither space nor time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from framegate.export.graph.graph import INPUT, copy_of
from framegate.export.graph.session import Tensor, cpu_session, input_tensors
from framegate.export.progress import Progress
from framegate.runtime.preprocess import PreprocessSpec

IMAGES = 8
"""Images that the measure uses, at most."""
_LAYERS = ("Conv", "Gemm")
_LEVELS = 127


class LayerSensitivity:
    """What quantising layers does to the logits; every group of layers is measured once.

    Args:
        model: A network in float32, its weights stored as float32; it is left as it was.
        images: (N, h, w, 3) uint8 BGR from the training split; the first `IMAGES` are used.
        spec: How an image becomes the network's input.
        progress: Called after every group.

    Attributes:
        layers: Names of the convolutions and linear layers with constant weights, from the input to the output.
    """

    def __init__(
        self, model: onnx.ModelProto, images: npt.NDArray[np.uint8], spec: PreprocessSpec, progress: Progress
    ) -> None:
        self._model, self._progress = model, progress
        self._weights = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
        nodes = [node for node in model.graph.node if node.op_type in _LAYERS and node.input[1] in self._weights]
        self._nodes = {node.name: node for node in nodes}
        self.layers = tuple(self._nodes)
        self._images, self._spec = images[:IMAGES], spec
        self._measured: tuple[list[Tensor], Tensor, dict[str, float]] | None = None
        self._changes: dict[tuple[str, ...], float] = {}

    def change(self, layers: Sequence[str]) -> float:
        """Root mean square change of the logits, divided by their standard deviation, if just these are quantised.

        NaN if the network gives no numbers.
        """
        key = tuple(layers)
        if key not in self._changes:
            tensors, expected, largest = self._reference()
            rounded = copy_of(self._model)
            for name in key:
                node = self._nodes[name]
                _round_layer(rounded.graph, node, _rounded_weight(node, self._weights[node.input[1]]), largest[name])
            found = _logits(rounded, tensors)
            with np.errstate(invalid="ignore", divide="ignore"):
                change = np.divide(np.sqrt(np.mean(np.square(found - expected))), expected.std(ddof=1))
            self._changes[key] = float(change)
            done = len(self._changes)
            self._progress("INT8: looking for sensitive layers", done, max(done + 1, len(self.layers)))
        return self._changes[key]

    def above(self, limit: float) -> list[str]:
        """The layers that change the logits by more, or to no number, each alone: the most sensitive first.

        A group that stays within the limit as a whole is not looked into, so a network without such a layer costs one
        measurement, and one with a few of them a few times the logarithm of its depth.
        """
        found = self._search(list(self.layers), limit)
        return sorted(found, key=lambda name: -np.nan_to_num(self.change([name]), nan=np.inf))

    def _search(self, layers: list[str], limit: float) -> list[str]:
        if not layers or self.change(layers) <= limit:
            return []
        if len(layers) == 1:
            return layers
        half = len(layers) // 2
        return self._search(layers[:half], limit) + self._search(layers[half:], limit)

    def _reference(self) -> tuple[list[Tensor], Tensor, dict[str, float]]:
        """The inputs, the logits, and the largest magnitude of each layer's input."""
        if self._measured is None:
            tensors = input_tensors(self._images, self._spec)
            expected, largest = _run_and_measure(self._model, list(self._nodes.values()), tensors)
            self._measured = tensors, expected, dict(zip(self.layers, largest, strict=True))
        return self._measured


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


def _round_layer(graph: onnx.GraphProto, layer: onnx.NodeProto, weight: Tensor, largest: float) -> None:
    """Give one layer another weight, and an input that is rounded to 127 steps up to ``largest``, in place."""
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


def _rounded_weight(layer: onnx.NodeProto, weight: Tensor) -> Tensor:
    """The layer's weight in symmetric INT8 and back, one scale per output channel."""
    transposed = any(a.name == "transB" and a.i for a in layer.attribute)
    channel = 0 if layer.op_type == "Conv" or transposed else 1
    others = tuple(axis for axis in range(weight.ndim) if axis != channel)
    step = np.maximum(np.abs(weight).max(axis=others, keepdims=True), 1e-12) / _LEVELS
    rounded: Tensor = (np.clip(np.round(weight / step), -_LEVELS, _LEVELS) * step).astype(np.float32)
    return rounded
