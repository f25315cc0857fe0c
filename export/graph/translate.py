"""A PyTorch network as an ONNX graph: pinned operator set, dynamic batch, no leftovers of the exporter."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import torch
from torch import nn

from framegate.export.graph.graph import INPUT, IR_VERSION, OPSET, OUTPUT, strip
from framegate.runtime.errors import ExportRefusedError
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec

_CLEAN = {"Conv", "Gemm", "MatMul", "Add", "Mul", "Clip", "Relu", "Sigmoid", "ReduceMean", "GlobalAveragePool",
          "MaxPool", "Reshape", "Flatten"}  # fmt: skip
"""What an image classifier needs. Anything else is a leftover of the export (Shape, Gather, Identity, Pad, ...)."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes about itself off the terminal; its errors are exceptions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def to_onnx(network: nn.Module, spec: PreprocessSpec) -> onnx.ModelProto:
    """Translate a deployment model; input ``image`` (batch, ...) float32, output ``logits`` (batch, classes).

    Args:
        network: Folded, in evaluation mode.
        spec: How an image becomes the network's input; it fixes the shape.

    Raises:
        ExportRefusedError: The graph has operators that a folded classifier does not need.
    """
    # Two images: the exporter takes a batch of one for a constant.
    example = torch.zeros(2, *Preprocessor(spec).tensor.shape[1:])
    with _quiet():
        program = torch.onnx.export(
            network.eval(),
            (example,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    if program is None:
        raise ExportRefusedError("the PyTorch exporter returned nothing; this PyTorch version is not supported")
    model = program.model_proto
    strip(model)
    model.ir_version = IR_VERSION
    _name_nodes(model.graph)
    not_needed = {node.op_type for node in model.graph.node} - _CLEAN
    if not_needed:
        raise ExportRefusedError(
            f"the exported graph contains {', '.join(sorted(not_needed))}; expected only {', '.join(sorted(_CLEAN))}. "
            "Fold the batch normalisation first, and keep shape arithmetic out of the forward pass"
        )
    onnx.checker.check_model(model, full_check=True)
    return model


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Name every layer after its weight, and the other nodes after what they do."""
    for number, node in enumerate(graph.node):
        weight = node.input[1] if node.op_type in ("Conv", "Gemm") else ""
        node.name = weight.removesuffix(".weight") if weight.endswith(".weight") else f"{node.op_type}_{number}"
