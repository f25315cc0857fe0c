"""A bundle's float32 network without gradients: what ONNX Runtime computes, with the activations of chosen layers.

For networks of which `framegate.evaluation.frames.network` knows no differentiable form. What only looks at a network
(layer means, attacks by queries) looks at this one in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from framegate.export.foreign_errors import first_line
from framegate.export.graph.graph import INPUT
from framegate.export.graph.pooled import head_of, without_pooled
from framegate.export.graph.scores import activation_of
from framegate.export.graph.session import cpu_session
from framegate.models.pixels import PixelInput
from framegate.runtime.errors import BundleError, UsageError


class ObservedNetwork(Protocol):
    """A network that can be looked into: `EngineNetwork`, or `framegate.evaluation.frames.network.Network`."""

    def __call__(self, pixels: Tensor) -> Tensor:
        """(N, ...) pixels in [0, 1] -> (N, classes) logits."""

    def observe(self, pixels: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Logits, penultimate features (N, F) and the activation (N, C, ...) of every tap."""


class EngineNetwork:
    """Pixels in [0, 1] -> logits, with the activations of chosen layers on request; nothing has a gradient.

    Args:
        path: A bundle's float32 file.
        prepare: From pixels to the network's input.
        taps: Names of layers (nodes) whose activations can be asked for.

    Attributes:
        head: The layer that makes the logits.
        taps: As given.

    Raises:
        BundleError: The file cannot be read or run, or its logits come from no linear layer.
        UsageError: A tap is not a layer of this network.
    """

    def __init__(self, path: Path, prepare: PixelInput, taps: Sequence[str] = ()) -> None:
        self._prepare, self.taps = prepare, tuple(taps)
        try:
            model = without_pooled(onnx.load(str(path)))
        except Exception as error:  # damaged bytes make the parser raise errors of many kinds
            raise BundleError(f"network {path}: not an ONNX file ({type(error).__name__})") from error
        graph = model.graph
        try:
            self.head = head_of(graph)
        except UsageError as error:
            raise BundleError(f"network {path}: has no linear layer, so no penultimate features") from error
        first = graph.input[0].type.tensor_type.shape.dim
        self._one_at_a_time = len(first) > 0 and first[0].dim_value == 1
        self._names = [graph.output[0].name, self.head.features, *(activation_of(graph, tap) for tap in taps)]
        for name in dict.fromkeys(self._names[1:]):
            graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
        try:
            self._session = cpu_session(model)
        except Exception as error:  # onnxruntime's own classes
            raise BundleError(f"network {path}: onnxruntime cannot run it ({first_line(error)})") from error

    def __call__(self, pixels: Tensor) -> Tensor:
        """(N, 3, h, w) RGB or (N, 1, depth, h, w), float32 in [0, 1] -> (N, classes) logits."""
        return self.observe(pixels)[0]

    @torch.no_grad()
    def observe(self, pixels: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Logits (N, classes), penultimate features (N, F) and the activation (N, C, ...) of every tap."""
        inputs = np.ascontiguousarray(self._prepare(pixels).numpy(), np.float32)
        step = 1 if self._one_at_a_time else len(inputs)
        rows = [self._session.run(self._names, {INPUT: inputs[k : k + step]}) for k in range(0, len(inputs), step)]
        logits, features, *found = (torch.from_numpy(np.concatenate(parts)) for parts in zip(*rows, strict=True))
        flat = features.flatten(2).mean(2) if features.dim() > 2 else features
        return logits, flat, dict(zip(self.taps, found, strict=True))
