"""A bundle's float32 ONNX file as a differentiable PyTorch module, so that what is attacked is what is deployed.

Attacks need gradients, and a bundle holds no training code. Its graph is small (convolutions, linear layers,
activations, pooling), so it is read node by node. Weights are constants; only pixels get a gradient.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from framegate.export.graph.pooled import without_pooled
from framegate.models.pixels import PixelInput
from framegate.runtime.bundle import Bundle
from framegate.runtime.errors import BundleError, UsageError

_PRECISION = "fp32"
_ACTIVATIONS = ("Relu", "Clip")

Attributes = Mapping[str, Any]
Operator = Callable[[Attributes, Sequence[Any]], Tensor]


def _padded(x: Tensor, attributes: Attributes, value: float) -> Tensor:
    """Apply an ONNX ``pads`` attribute: all begins, then all ends, outermost axis first."""
    pads = [int(p) for p in attributes.get("pads", ())]
    if not any(pads):
        return x
    half = len(pads) // 2
    return F.pad(x, [p for k in reversed(range(half)) for p in (pads[k], pads[k + half])], value=value)


def _conv(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    x, weight = inputs[0], inputs[1]
    bias = inputs[2] if len(inputs) > 2 else None
    function = F.conv3d if weight.dim() == 5 else F.conv2d
    axes = weight.dim() - 2
    pads = [int(p) for p in attributes.get("pads", [0] * 2 * axes)]
    symmetric = pads[:axes] == pads[axes:]
    return function(
        x if symmetric else _padded(x, attributes, 0.0),
        weight,
        bias,
        stride=tuple(attributes.get("strides", [1] * axes)),
        padding=tuple(pads[:axes]) if symmetric else 0,
        dilation=tuple(attributes.get("dilations", [1] * axes)),
        groups=int(attributes.get("group", 1)),
    )


def _max_pool(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    kernel = tuple(attributes["kernel_shape"])
    function = F.max_pool3d if len(kernel) == 3 else F.max_pool2d
    x = _padded(inputs[0], attributes, -torch.inf)
    pooled: Tensor = function(x, kernel, tuple(attributes.get("strides", [1] * len(kernel))))
    return pooled


def _gemm(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    a = inputs[0].T if attributes.get("transA", 0) else inputs[0]
    b = inputs[1].T if attributes.get("transB", 0) else inputs[1]
    result: Tensor = attributes.get("alpha", 1.0) * (a @ b)
    return result + attributes.get("beta", 1.0) * inputs[2] if len(inputs) > 2 else result


def _clip(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    low = float(inputs[1]) if len(inputs) > 1 and inputs[1] is not None else None
    high = float(inputs[2]) if len(inputs) > 2 and inputs[2] is not None else None
    clipped: Tensor = inputs[0].clamp(low, high)
    return clipped


def _reduce_mean(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    axes = inputs[1].tolist() if len(inputs) > 1 else attributes.get("axes")
    dims = list(range(inputs[0].dim())) if axes is None else [int(a) for a in axes]
    mean: Tensor = inputs[0].mean(dims, keepdim=bool(attributes.get("keepdims", 1)))
    return mean


def _reshape(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    shape = [int(v) for v in inputs[1].tolist()]
    return inputs[0].reshape([inputs[0].shape[k] if v == 0 else v for k, v in enumerate(shape)])  # type: ignore[no-any-return]


def _batch_norm(attributes: Attributes, inputs: Sequence[Any]) -> Tensor:
    x, scale, bias, mean, variance = inputs[:5]
    return F.batch_norm(x, mean, variance, scale, bias, eps=float(attributes.get("epsilon", 1e-5)))


_OPERATORS: dict[str, Operator] = {
    "Add": lambda a, i: i[0] + i[1],
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Conv": _conv,
    "Div": lambda a, i: i[0] / i[1],
    "Flatten": lambda a, i: i[0].flatten(int(a.get("axis", 1))),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda a, i: i[0].mean(list(range(2, i[0].dim())), keepdim=True),
    "HardSigmoid": lambda a, i: (a.get("alpha", 0.2) * i[0] + a.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda a, i: F.hardswish(i[0]),
    "Identity": lambda a, i: i[0],
    "MatMul": lambda a, i: i[0] @ i[1],
    "MaxPool": _max_pool,
    "Mul": lambda a, i: i[0] * i[1],
    "ReduceMean": _reduce_mean,
    "Relu": lambda a, i: F.relu(i[0]),
    "Reshape": _reshape,
    "Sigmoid": lambda a, i: torch.sigmoid(i[0]),
    "Softmax": lambda a, i: i[0].softmax(int(a.get("axis", -1))),
    "Sub": lambda a, i: i[0] - i[1],
}


class Network(nn.Module):
    """Pixels in [0, 1] -> logits, with the activations of chosen layers on request.

    Args:
        path: An ONNX file with one input and one output, all its numbers float32 (or stored as float16).
        prepare: From pixels to the network's input.
        taps: Names of layers (nodes) whose activations can be asked for.

    Raises:
        BundleError: The file cannot be read, or holds an operator that has no differentiable form here.
        UsageError: A tap is not a layer of this network.
    """

    def __init__(self, path: Path, prepare: PixelInput, taps: Sequence[str] = ()) -> None:
        super().__init__()
        self.prepare = prepare
        try:
            # Only what leads to the logits: a monitor's own output is computed by the runtime.
            graph = without_pooled(onnx.load(str(path))).graph
        except Exception as error:  # damaged bytes make the parser raise errors of many kinds
            raise BundleError(f"network {path}: not an ONNX file ({type(error).__name__})") from error
        unknown = sorted({node.op_type for node in graph.node} - set(_OPERATORS) - {"Cast", "Constant"})
        if unknown:
            raise BundleError(
                f"network {path}: operator {unknown[0]} has no differentiable form here; attacks know "
                f"{', '.join(sorted(_OPERATORS))}"
            )
        self._constants = {init.name: _tensor(init) for init in graph.initializer}
        self._nodes = []
        for node in graph.node:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant":
                self._constants[node.output[0]] = _tensor(attributes["value"])
            elif node.op_type == "Cast" and node.input[0] in self._constants:
                self._constants[node.output[0]] = self._constants[node.input[0]].float()
            elif node.op_type == "Cast":
                raise BundleError(f"network {path}: casts an activation; give the float32 model")
            else:
                self._nodes.append((node, attributes))
        self._input, self._output = graph.input[0].name, graph.output[0].name
        self._penultimate = self._find_penultimate(path)
        self.taps = tuple(taps)
        self._tapped = {self._find_tap(path, tap): tap for tap in taps}

    @classmethod
    def from_bundle(cls, bundle: Bundle) -> Network:
        """The float32 network of a bundle.

        Raises:
            BundleError: The bundle has none, or it cannot be read.
        """
        if _PRECISION not in bundle.models:
            found = ", ".join(sorted(bundle.models)) or "none"
            raise BundleError(f"bundle {bundle.path}: attacks need the {_PRECISION} model, it has {found}")
        return cls(bundle.model_path(_PRECISION), PixelInput(bundle.preprocess), bundle.taps)

    def _find_penultimate(self, path: Path) -> str:
        """The input of the layer that makes the logits."""
        for node, _ in reversed(self._nodes):
            if node.op_type in ("Gemm", "MatMul"):
                return str(node.input[0])
        raise BundleError(f"network {path}: has no linear layer, so no penultimate features")

    def _find_tap(self, path: Path, tap: str) -> str:
        """A layer's output, behind its activation function if one follows."""
        for node, _ in self._nodes:
            if node.name == tap:
                followers = [n for n, _ in self._nodes if node.output[0] in n.input]
                if len(followers) == 1 and followers[0].op_type in _ACTIVATIONS:
                    return str(followers[0].output[0])
                return str(node.output[0])
        names = ", ".join(n.name for n, _ in self._nodes if n.op_type in ("Conv", "Gemm"))
        raise UsageError(f"network {path}: tap {tap!r} given, its layers are {names}")

    @property
    def linear(self) -> tuple[np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.float32]]]:
        """Weight (classes, features) and bias (classes,) of the last linear layer."""
        for node, attributes in reversed(self._nodes):
            if node.op_type in ("Gemm", "MatMul"):
                weight = self._constants[node.input[1]]
                weight = weight if attributes.get("transB", 0) else weight.T
                bias = self._constants[node.input[2]] if len(node.input) > 2 else torch.zeros(len(weight))
                return weight.numpy(), bias.numpy()
        raise AssertionError("checked when the network was read")

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, h, w) RGB or (N, 1, depth, h, w), float32 in [0, 1] -> (N, classes) logits."""
        return self._run(pixels, {})

    def observe(self, pixels: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Logits (N, classes), penultimate features (N, F) and the activation (N, C, ...) of every tap."""
        found: dict[str, Tensor] = {self._penultimate: pixels, **dict.fromkeys(self._tapped, pixels)}
        logits = self._run(pixels, found)
        activations = {tap: found[name] for name, tap in self._tapped.items()}
        return logits, found[self._penultimate].flatten(1), activations

    def _run(self, pixels: Tensor, keep: dict[str, Tensor]) -> Tensor:
        """Run the graph; tensors whose names are in ``keep`` are put there."""
        layout = torch.channels_last_3d if pixels.dim() == 5 else torch.channels_last
        values: dict[str, Tensor] = {self._input: self.prepare(pixels).contiguous(memory_format=layout)}
        for node, attributes in self._nodes:
            inputs = [values[n] if n in values else self._constants.get(n) for n in node.input]
            values[node.output[0]] = _OPERATORS[node.op_type](attributes, inputs)
        for name in keep:
            keep[name] = values[name]
        return values[self._output]


def network_sha256(path: Path) -> str:
    """SHA-256 of what a network computes: its layers and weights, without a monitor's output or any metadata.

    Args:
        path: An ONNX file.
    """
    graph = without_pooled(onnx.load(str(path))).graph
    digest = hashlib.sha256()
    for node in graph.node:
        attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
        digest.update(repr((node.op_type, list(node.input), list(node.output), attributes)).encode())
    for weight in sorted(graph.initializer, key=lambda each: str(each.name)):
        array = numpy_helper.to_array(weight)
        digest.update(repr((weight.name, str(array.dtype), array.shape)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _tensor(value: onnx.TensorProto) -> Tensor:
    array = np.array(numpy_helper.to_array(value))
    tensor = torch.from_numpy(array) if array.shape else torch.tensor(array.item())
    if tensor.dim() in (4, 5):
        layout = torch.channels_last if tensor.dim() == 4 else torch.channels_last_3d
        tensor = tensor.contiguous(memory_format=layout)
    return tensor
