"""The network as an ONNX file: pinned operator set, dynamic batch, no leftovers, weights stored in half precision."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from framegate.runtime.errors import ExportRefusedError
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec

OPSET = 18
"""TensorRT 10.3 reads operator sets 9 to 20; 18 is the lowest that the PyTorch exporter writes without conversion."""
IR_VERSION = 8
"""The file format that belongs to operator set 18."""
INPUT, OUTPUT = "image", "logits"
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


def to_onnx(model: nn.Module, spec: PreprocessSpec) -> onnx.ModelProto:
    """Translate a deployment model; input ``image`` (batch, ...) float32, output ``logits`` (batch, classes).

    Args:
        model: Folded, in evaluation mode.
        spec: How an image becomes the network's input; it fixes the shape.

    Raises:
        ExportRefusedError: The graph has operators that a folded classifier does not need.
    """
    # Two images: the exporter takes a batch of one for a constant.
    example = torch.zeros(2, *Preprocessor(spec).tensor.shape[1:])
    with _quiet():
        program = torch.onnx.export(
            model.eval(),
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
    graph = _tidy(program.model_proto)
    strange = {node.op_type for node in graph.graph.node} - _CLEAN
    if strange:
        raise ExportRefusedError(
            f"the exported graph contains {', '.join(sorted(strange))}; expected only {', '.join(sorted(_CLEAN))}. "
            "Fold the batch normalisation first, and keep shape arithmetic out of the forward pass"
        )
    onnx.checker.check_model(graph, full_check=True)
    return graph


def _tidy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what only the exporter needs (source lines of this machine among it) and name nodes after their weights."""
    graph = model.graph
    for holder in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del holder.metadata_props[:]
        holder.doc_string = ""
    del graph.value_info[:]
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version, graph.name = "framegate", "", "classifier"
    for number, node in enumerate(graph.node):
        weight = node.input[1] if node.op_type in ("Conv", "Gemm") else ""
        node.name = weight.removesuffix(".weight") if weight.endswith(".weight") else f"{node.op_type}_{number}"
    return model


def store_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose weights are stored as float16 behind a Cast to float32, where that loses nothing.

    Engines fold the Cast when they load the file, so they compute with the very same float32 values.
    """
    stored = onnx.ModelProto()
    stored.CopyFrom(model)
    graph = stored.graph
    casts = []
    for initializer in graph.initializer:
        if initializer.data_type != TensorProto.FLOAT or len(initializer.dims) < 2:
            continue
        value = numpy_helper.to_array(initializer)
        with np.errstate(over="ignore"):
            half = value.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), value):
            continue
        name = initializer.name
        initializer.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [f"{name}.half"], [name], f"{name}.widen", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(stored, full_check=True)
    return stored


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write the file."""
    path.write_bytes(model.SerializeToString(deterministic=True))
