"""What every graph of a bundle has in common: operator set, names of input and output, weights stored as float16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 18
"""TensorRT 10.3 reads operator sets 9 to 20; 18 is the lowest that the PyTorch exporter writes without conversion."""
IR_VERSION = 8
"""The file format that belongs to operator set 18."""
INPUT, OUTPUT = "image", "logits"


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that can be changed."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def strip(model: onnx.ModelProto) -> None:
    """Drop what only the tool needs that wrote the graph (source lines of its machine among it), in place."""
    graph = model.graph
    for holder in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del holder.metadata_props[:]
        holder.doc_string = ""
    del graph.value_info[:]
    model.producer_name, model.producer_version, graph.name = "framegate", "", "classifier"


def store_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose weights are stored as float16 behind a Cast to float32, where that loses nothing.

    Engines fold the Cast when they load the file, so they compute with the very same float32 values.
    """
    copy = copy_of(model)
    graph = copy.graph
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
    onnx.checker.check_model(copy, full_check=True)
    return copy


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose convolutions and linear layers have weights that float16 holds exactly, for a file of half the size.

    It is another network, by a little: what is proved must be proved of this one.
    """
    copy = copy_of(model)
    for initializer in copy.graph.initializer:
        value = numpy_helper.to_array(initializer)
        if value.dtype == np.float32 and value.ndim >= 2:
            rounded = value.astype(np.float16).astype(np.float32)
            initializer.CopyFrom(numpy_helper.from_array(rounded, initializer.name))
    return copy


def stored(model: onnx.ModelProto) -> bytes:
    """The content of its file: weights as float16 where that loses nothing."""
    content: bytes = store_half(model).SerializeToString(deterministic=True)
    return content


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write the file."""
    path.write_bytes(model.SerializeToString(deterministic=True))
