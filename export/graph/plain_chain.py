"""A plain network (convolutions, linear layers, ReLU between them) from its ONNX file, as PyTorch's layers.

Whoever bounds such a network must know all of it: what is no link of the chain is refused, not passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from framegate.export.foreign_errors import first_line
from framegate.runtime.errors import UsageError

Weights = Mapping[str, npt.NDArray[np.generic]]


def plain_chain(path: Path) -> tuple[nn.Sequential, nn.Linear]:
    """The layers of a plain network, and the last one.

    Args:
        path: A chain of Conv, Relu, Flatten or Reshape, and Gemm that ends in Gemm, with ReLU behind all but the last.

    Raises:
        UsageError: The file holds something else; what has no place in a plain chain is named.
    """
    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # protobuf's own classes
        raise UsageError(f"network {path.name}: not readable as ONNX ({first_line(error)})") from error
    weights: dict[str, npt.NDArray[np.generic]] = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    layers: list[nn.Module] = []
    flowing = graph.input[0].name if graph.input else ""
    try:
        for node in graph.node:
            # Weights that are stored as float16 are widened by a node of their own.
            if node.op_type == "Cast" and node.input[0] in weights:
                weights[node.output[0]] = weights[node.input[0]].astype(np.float32)
                continue
            if node.input[0] != flowing or len(node.output) != 1:
                raise UsageError(f"{node.name or node.op_type} is not part of a plain chain of layers")
            layers += _layer(node, weights, layers)
            flowing = node.output[0]
        if flowing != graph.output[0].name or not layers or not isinstance(layers[-1], nn.Linear):
            raise UsageError(f"it ends in {graph.node[-1].op_type if graph.node else 'nothing'}, expected Gemm")
    except UsageError as error:
        raise UsageError(
            f"{path.name}: bounds of margins are known for a plain chain of Conv, Relu, Gemm, Flatten and "
            f"Reshape alone: {error}"
        ) from error
    return nn.Sequential(*layers[:-1]).eval().requires_grad_(False), layers[-1].requires_grad_(False)


def _layer(node: onnx.NodeProto, weights: Weights, before: list[nn.Module]) -> list[nn.Module]:
    """A node as a layer, for what lies before it."""
    open_sum = bool(before) and isinstance(before[-1], (nn.Conv2d, nn.Linear))
    if node.op_type == "Relu":
        if not open_sum:
            raise UsageError(f"{node.name or 'Relu'} does not follow a layer with weights")
        return [nn.ReLU()]
    if open_sum:
        raise UsageError(f"no Relu between {node.name or node.op_type} and the layer before it")
    settings = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    if node.op_type == "Flatten" and settings.get("axis", 1) == 1:
        return [nn.Flatten()]
    if node.op_type == "Reshape" and node.input[1] in weights:
        shape = weights[node.input[1]]
        if shape.size != 2 or -1 not in shape:
            raise UsageError(f"{node.name or 'Reshape'} does not flatten what one image gives")
        return [nn.Flatten()]
    if node.op_type not in ("Conv", "Gemm"):
        raise UsageError(f"operator {node.op_type} ({node.name}) has none here")
    if any(name not in weights for name in node.input[1:]):
        raise UsageError(f"{node.name or node.op_type} has weights that are computed")
    weight = torch.tensor(weights[node.input[1]].astype(np.float32))
    layer: nn.Conv2d | nn.Linear
    if node.op_type == "Conv":
        layer = _convolution(node.name, weight, settings)
    else:
        layer, weight = _linear(node.name, weight, settings, before)
    bias = torch.zeros(len(weight))
    if len(node.input) > 2:
        bias = torch.tensor(weights[node.input[2]].astype(np.float32)).reshape(-1)
    if bias.shape != (len(weight),):
        raise UsageError(f"{node.name or node.op_type} has {bias.numel()} addends for {len(weight)} outputs")
    layer.load_state_dict({"weight": weight, "bias": bias})
    return [layer]


def _convolution(name: str, weight: torch.Tensor, settings: Mapping[str, object]) -> nn.Conv2d:
    rows, columns = weight.shape[2:] if weight.dim() == 4 else (0, 0)
    pads = settings.get("pads") or [0, 0, 0, 0]
    strides, dilations = settings.get("strides") or [1, 1], settings.get("dilations") or [1, 1]
    assert isinstance(pads, list)
    assert isinstance(strides, list)
    plain = (
        settings.get("group", 1) == 1
        and settings.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
        and dilations == [1, 1]
        and len(pads) == 4
        and pads[:2] == pads[2:]
        and len(strides) == 2
    )
    if not (plain and rows):
        raise UsageError(f"{name or 'Conv'} has groups, dilations, or borders of several widths")
    return nn.Conv2d(weight.shape[1], weight.shape[0], (rows, columns), (strides[0], strides[1]), (pads[0], pads[1]))


def _linear(
    name: str, weight: torch.Tensor, settings: Mapping[str, object], before: list[nn.Module]
) -> tuple[nn.Linear, torch.Tensor]:
    if settings.get("alpha", 1.0) != 1.0 or settings.get("beta", 1.0) != 1.0 or settings.get("transA", 0):
        raise UsageError(f"{name or 'Gemm'} has factors")
    if any(isinstance(each, nn.Conv2d) for each in before) and not any(isinstance(each, nn.Flatten) for each in before):
        raise UsageError(f"{name or 'Gemm'} follows a convolution that nothing flattens")
    weight = weight if settings.get("transB", 0) else weight.T.contiguous()
    return nn.Linear(weight.shape[1], weight.shape[0]), weight
