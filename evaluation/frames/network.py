"""A bundle's float32 ONNX file as a differentiable PyTorch module, so that what is attacked is what is deployed.

Attacks need gradients, and a bundle holds no training code. So its graph is read node by node, whoever exported it;
`framegate.export.graph.operators` has the operators. Weights are constants; only pixels get a gradient. The
network of a bundle is compared with ONNX Runtime before anything is done with it.

The packages onnx2torch 1.5.15 and onnx2pytorch 0.6.0 were weighed against this: see docs/train.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from framegate.export.foreign_errors import first_line
from framegate.export.graph.graph import INPUT
from framegate.export.graph.operators.base import Attributes
from framegate.export.graph.operators.table import OPERATORS
from framegate.export.graph.pooled import FEATURES, Head, head_of, without_pooled
from framegate.export.graph.scores import activation_of
from framegate.export.graph.session import cpu_session
from framegate.models.pixels import PixelInput
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.errors import BundleError, UsageError
from framegate.runtime.preprocess import Preprocessor

_PRECISION = "fp32"
_PROBES = 2
_LARGEST_DIFFERENCE = 1e-3
"""Between this module and ONNX Runtime, as a share of the largest logit."""


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
        unknown = sorted({node.op_type for node in graph.node} - set(OPERATORS) - {"Constant"})
        if unknown:
            raise BundleError(
                f"network {path}: operator {unknown[0]} has no differentiable form here; attacks that follow a "
                "gradient need one, framegate monitor does without"
            )
        self._path = path
        self._constants: dict[str, Tensor] = {init.name: _tensor(init) for init in graph.initializer}
        self._nodes = self._folded(graph)
        self._input, self._output = graph.input[0].name, graph.output[0].name
        first = graph.input[0].type.tensor_type.shape.dim
        self._one_at_a_time = len(first) > 0 and first[0].dim_value == 1
        self.head = self._find_head(graph)
        self.taps = tuple(taps)
        self._tapped = {activation_of(graph, tap): tap for tap in taps}

    @classmethod
    def from_bundle(cls, bundle: Bundle, taps: Sequence[str] | None = None) -> Network:
        """The float32 network of a bundle.

        Args:
            bundle: The bundle.
            taps: Layers whose activations can be asked for; None takes those that the bundle names, and those that its
                monitor reads.

        Raises:
            BundleError: The bundle has none, or it cannot be read.
        """
        if _PRECISION not in bundle.models:
            found = ", ".join(sorted(bundle.models)) or "none"
            raise BundleError(f"bundle {bundle.path}: attacks need the {_PRECISION} model, it has {found}")
        if taps is None:
            read = [] if bundle.monitor is None else [tap.name for tap in bundle.monitor.taps if tap.name != FEATURES]
            taps = tuple(dict.fromkeys([*bundle.taps, *read]))
        network = cls(bundle.model_path(_PRECISION), PixelInput(bundle.preprocess), taps)
        network.check(Preprocessor(bundle.preprocess).tensor.shape[1:])
        return network

    def _folded(self, graph: onnx.GraphProto) -> list[tuple[onnx.NodeProto, Attributes]]:
        """The nodes that depend on the image; what constants alone decide is computed here, once."""
        nodes: list[tuple[onnx.NodeProto, Attributes]] = []
        for node in graph.node:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            if node.op_type == "Constant":
                self._constants[node.output[0]] = _constant(attributes)
            elif all(name in self._constants for name in node.input if name):
                self._compute(node, attributes, self._constants)
            else:
                nodes.append((node, attributes))
        return nodes

    def _find_head(self, graph: onnx.GraphProto) -> Head:
        """The layer that makes the logits."""
        try:
            return head_of(graph)
        except UsageError as error:
            raise BundleError(f"network {self._path}: has no linear layer, so no penultimate features") from error

    @torch.no_grad()
    def check(self, shape: Sequence[int]) -> None:
        """Compare this module with ONNX Runtime on random inputs.

        Args:
            shape: Of the network's input, without the batch.

        Raises:
            BundleError: It computes something else, so nothing that is said about it would be about the network.
        """
        inputs = torch.randn(_PROBES, *shape, generator=torch.Generator().manual_seed(0))
        session = cpu_session(self._path)
        expected = np.concatenate([session.run(None, {INPUT: row[None].numpy()})[0] for row in inputs])
        found = self._logits_of(inputs, {}).numpy()
        largest = max(1.0, float(np.abs(expected).max()))
        difference = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
        if not difference <= _LARGEST_DIFFERENCE * largest:
            raise BundleError(
                f"network {self._path}: its differentiable form differs from onnxruntime by {difference:.2g} (largest "
                f"logit {largest:.3g}), so attacks would not be on this network; please report it with the file"
            )

    @property
    def linear(self) -> tuple[np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.float32]]]:
        """Weight (classes, features) and bias (classes,) of the layer that makes the logits.

        Raises:
            UsageError: Its logits are no linear function of the features, or its weights are no constants.
        """
        node = next((node for node, _ in self._nodes if node.name == self.head.node), None)
        weight = None if node is None else self._constants.get(node.input[1])
        if node is None or weight is None or not self.head.linear:
            raise UsageError(
                f"network {self._path}: its logits are no linear function of its last features ({self.head.node}); "
                "scores of the last layer need that"
            )
        transposed = any(a.name == "transB" and a.i for a in node.attribute)
        weight = weight if node.op_type == "Conv" or transposed else weight.T
        bias = self._constants[node.input[2]] if len(node.input) > 2 else self._constants.get(self.head.bias)
        weight = weight.flatten(1)
        return weight.numpy(), (torch.zeros(len(weight)) if bias is None else bias.flatten()).numpy()

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, h, w) RGB or (N, 1, depth, h, w), float32 in [0, 1] -> (N, classes) logits."""
        return self._run(pixels, {})

    def of_inputs(self, inputs: Tensor) -> Tensor:
        """The network's own inputs, resized and normalised already -> (N, classes) logits."""
        return self._logits_of(inputs, {})

    def observe(self, pixels: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Logits (N, classes), penultimate features (N, F) and the activation (N, C, ...) of every tap.

        Where the last layer is a convolution over an image of features, the features are its spatial means.
        """
        found: dict[str, Tensor] = {self.head.features: pixels, **dict.fromkeys(self._tapped, pixels)}
        logits = self._run(pixels, found)
        activations = {tap: found[name] for name, tap in self._tapped.items()}
        features = found[self.head.features]
        return logits, features.flatten(2).mean(2) if features.dim() > 2 else features, activations

    def _run(self, pixels: Tensor, keep: dict[str, Tensor]) -> Tensor:
        """Run the graph; tensors whose names are in ``keep`` are put there."""
        layout = torch.channels_last_3d if pixels.dim() == 5 else torch.channels_last
        return self._logits_of(self.prepare(pixels).contiguous(memory_format=layout), keep)

    def _logits_of(self, inputs: Tensor, keep: dict[str, Tensor]) -> Tensor:
        """The same from the network's own inputs, one by one where it takes no more."""
        if not self._one_at_a_time or len(inputs) == 1:
            return self._batch(inputs, keep)
        rows, kept = [], {name: [] for name in keep}  # type: tuple[list[Tensor], dict[str, list[Tensor]]]
        for k in range(len(inputs)):
            rows.append(self._batch(inputs[k : k + 1], keep))
            for name, found in kept.items():
                found.append(keep[name])
        keep.update({name: torch.cat(found) for name, found in kept.items()})
        return torch.cat(rows)

    def _batch(self, inputs: Tensor, keep: dict[str, Tensor]) -> Tensor:
        values: dict[str, Tensor] = {self._input: inputs}
        for node, attributes in self._nodes:
            self._compute(node, attributes, values)
        for name in keep:
            keep[name] = values[name]
        return values[self._output]

    def _compute(self, node: onnx.NodeProto, attributes: Attributes, values: dict[str, Tensor]) -> None:
        """One node: its outputs join the values."""
        inputs = [values[name] if name in values else self._constants.get(name) for name in node.input]
        try:
            found = OPERATORS[node.op_type](attributes, inputs)
        except BundleError as error:
            raise BundleError(f"network {self._path}: {error} (node {node.name!r})") from error
        except (RuntimeError, IndexError, ValueError, TypeError, KeyError) as error:  # a form that nobody thought of
            raise BundleError(
                f"network {self._path}: {node.op_type} (node {node.name!r}) cannot be computed here "
                f"({first_line(error)}); attacks need a network that PyTorch can compute"
            ) from error
        values.update(zip(node.output, found if isinstance(found, tuple) else (found,), strict=False))


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


def _constant(attributes: Mapping[str, Any]) -> Tensor:
    """The value of a Constant node, in whatever attribute it lies."""
    for name, value in attributes.items():
        if name == "value":
            return _tensor(value)
        if name in ("value_float", "value_floats"):
            return torch.tensor(value, dtype=torch.float32)
        if name in ("value_int", "value_ints"):
            return torch.tensor(value, dtype=torch.int64)
    raise BundleError("a Constant holds neither a tensor nor numbers")


def _tensor(value: onnx.TensorProto) -> Tensor:
    array = np.array(numpy_helper.to_array(value))
    tensor = torch.from_numpy(array) if array.shape else torch.tensor(array.item())
    if tensor.dim() in (4, 5):
        layout = torch.channels_last if tensor.dim() == 4 else torch.channels_last_3d
        tensor = tensor.contiguous(memory_format=layout)
    return tensor
