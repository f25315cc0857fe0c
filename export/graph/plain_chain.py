"""The plain network inside the file of an L-infinity certificate, as a chain of PyTorch's layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from framegate.runtime.errors import BundleError


def plain_chain(path: Path) -> tuple[nn.Sequential, nn.Linear]:
    """The plain network inside a certificate's file: its layers, and the last one.

    Args:
        path: A plain chain of Conv, Relu, Flatten or Reshape, and Gemm, with bounds or without.

    Raises:
        BundleError: There is none in it.
    """
    graph = onnx.load(str(path)).graph
    weights = {each.name: numpy_helper.to_array(each).astype(np.float32) for each in graph.initializer}
    # float16 weights are cast by a node; the bounds' own layers read |W|, which is computed and no constant.
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    layers: list[nn.Module] = []
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm") or node.input[1] not in weights:
            continue
        weight = torch.tensor(weights[node.input[1]])
        settings = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        layer: nn.Module
        if node.op_type == "Conv":
            pads = settings.get("pads", [0, 0, 0, 0])
            down, across = settings.get("strides", [1, 1])
            size = weight.shape[2], weight.shape[3]
            layer = nn.Conv2d(weight.shape[1], weight.shape[0], size, (down, across), (pads[0], pads[1]))
        else:
            weight = weight if settings.get("transB", 0) else weight.T
            layers += [nn.Flatten()] if isinstance(layers[-2] if layers else None, nn.Conv2d) else []
            layer = nn.Linear(weight.shape[1], weight.shape[0])
        bias = torch.tensor(weights[node.input[2]]).reshape(-1) if len(node.input) > 2 else torch.zeros(len(weight))
        layer.load_state_dict({"weight": weight, "bias": bias})
        layers += [layer, nn.ReLU()]
    if len(layers) < 2 or not isinstance(layers[-2], nn.Linear):
        raise BundleError(f"network {path}: no plain chain of layers that ends in a linear one")
    last = layers[-2]
    return nn.Sequential(*layers[:-2]).eval().requires_grad_(False), last.requires_grad_(False)
