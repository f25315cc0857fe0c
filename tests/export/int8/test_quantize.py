"""The INT8 file: the symmetric form, its size, and that two engines run it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from framegate.export.graph.graph import save
from framegate.export.int8.quantize import check_symmetric, to_int8
from framegate.models.predict import to_tensor
from framegate.models.registry import architecture
from framegate.runtime.backends.base import infer
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.errors import ExportRefusedError, UsageError

PAIRS = ("QuantizeLinear", "DequantizeLinear")

PREPROCESS = architecture("hybrid").preprocess


def test_symmetric_form(int8_graph: onnx.ModelProto) -> None:
    constants = {item.name: item for item in int8_graph.graph.initializer}
    pairs = [node for node in int8_graph.graph.node if node.op_type in PAIRS]
    assert len(pairs) > 100
    for node in pairs:
        zero = constants[node.input[2]]
        assert zero.data_type == TensorProto.INT8, node.name
        assert not numpy_helper.to_array(zero).any(), node.name
        assert node.input[0] not in constants or constants[node.input[0]].data_type == TensorProto.INT8, node.name
    assert all(item.data_type != TensorProto.INT32 for item in int8_graph.graph.initializer)
    assert [(entry.domain, entry.version) for entry in int8_graph.opset_import] == [("", 18)]


def test_weights_are_int8_with_one_scale_per_channel(int8_graph: onnx.ModelProto, graph: onnx.ModelProto) -> None:
    constants = {item.name: item for item in int8_graph.graph.initializer}
    made_by = {output: node for node in int8_graph.graph.node for output in node.output}
    layers = [node for node in int8_graph.graph.node if node.op_type in ("Conv", "Gemm")]
    layers = [layer for layer in layers if layer.name != "trunk.features.1.conv.1"]
    assert len(layers) == 58
    for layer in layers:
        dequantize = made_by[layer.input[1]]
        weight, scale = constants[dequantize.input[0]], constants[dequantize.input[1]]
        assert weight.data_type == TensorProto.INT8, layer.name
        assert list(scale.dims) == [weight.dims[0]], layer.name
        assert numpy_helper.to_array(weight).min() >= -127, layer.name
    assert int8_graph.ByteSize() < 0.3 * graph.ByteSize()


def test_a_layer_kept_in_float_stays_untouched(int8_graph: onnx.ModelProto, graph: onnx.ModelProto) -> None:
    name = "trunk.features.1.conv.1"
    weights = []
    for model in (int8_graph, graph):
        layer = next(node for node in model.graph.node if node.name == name)
        weights.append(next(item for item in model.graph.initializer if item.name == layer.input[1]))
    assert weights[0].data_type == TensorProto.FLOAT
    assert np.array_equal(numpy_helper.to_array(weights[0]), numpy_helper.to_array(weights[1]))


def test_no_pair_stands_between_a_convolution_and_its_activation(int8_graph: onnx.ModelProto) -> None:
    made_by = {output: node.op_type for node in int8_graph.graph.node for output in node.output}
    activations = [node for node in int8_graph.graph.node if node.op_type in ("Clip", "Relu")]
    assert len(activations) == 39
    assert {made_by[node.input[0]] for node in activations} == {"Conv"}


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_runs_and_decides_as_the_network_does(
    backend: str, int8_graph: onnx.ModelProto, classifier, colours, tmp_path
) -> None:
    save(int8_graph, tmp_path / "int8.onnx")
    split = colours(20, seed=5)
    tensors = to_tensor(split.images, PREPROCESS)
    with torch.inference_mode():
        expected = classifier(tensors).numpy()
    engine = load_backend(backend, tmp_path / "int8.onnx")
    batch = np.ascontiguousarray(tensors.numpy())
    engine.bind(batch)
    found = infer(engine)
    assert (found.argmax(1) == expected.argmax(1)).mean() >= 0.9
    assert 1e-4 < np.abs(found - expected).max() < 0.5 * np.abs(expected).max()


def _broken(model: onnx.ModelProto, how: str) -> onnx.ModelProto:
    broken = onnx.ModelProto()
    broken.CopyFrom(model)
    node = next(node for node in broken.graph.node if node.op_type == "DequantizeLinear")
    constants = {item.name: item for item in broken.graph.initializer}
    zero, scale = constants[node.input[2]], constants[node.input[1]]
    shape = tuple(zero.dims)
    if how == "unsigned":
        zero.CopyFrom(numpy_helper.from_array(np.zeros(shape, np.uint8), zero.name))
    elif how == "shifted":
        zero.CopyFrom(numpy_helper.from_array(np.full(shape, 3, np.int8), zero.name))
    elif how == "no zero point":
        del node.input[2]
    elif how == "scale":
        scale.CopyFrom(numpy_helper.from_array(np.zeros(tuple(scale.dims), np.float32), scale.name))
    elif how == "int32":
        weight = next(c for c in constants.values() if c.data_type == TensorProto.INT8 and len(c.dims) == 4)
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.int32), weight.name))
    return broken


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("unsigned", "UINT8"),
        ("shifted", "zero points"),
        ("no zero point", "constant zero point"),
        ("scale", "scale"),
        ("int32", "INT32"),
    ],
)
def test_any_other_form_is_refused(int8_graph: onnx.ModelProto, how: str, message: str) -> None:
    check_symmetric(int8_graph)
    with pytest.raises(ExportRefusedError, match=message):
        check_symmetric(_broken(int8_graph, how))


def test_a_graph_without_quantisation_is_refused(graph: onnx.ModelProto) -> None:
    with pytest.raises(ExportRefusedError, match="nothing was quantised"):
        check_symmetric(graph)


def test_no_images_is_an_error_not_a_guess(graph: onnx.ModelProto, quiet) -> None:
    with pytest.raises(UsageError, match="no images"):
        to_int8(graph, np.zeros((0, 32, 32, 3), np.uint8), PREPROCESS, [], quiet)


def test_a_layer_that_does_not_exist_is_an_error(graph: onnx.ModelProto, colours, quiet) -> None:
    with pytest.raises(UsageError, match="no such node"):
        to_int8(graph, colours(2, seed=6).images, PREPROCESS, ["trunk.features.99"], quiet)
