"""The float32 file: its form, its numbers, and that half-precision storage changes neither."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from framegate.export.graph.graph import IR_VERSION, OPSET, save, store_half, to_onnx
from framegate.models.registry import architecture
from framegate.runtime.errors import ExportRefusedError

IMAGES = (np.random.default_rng(4).random((3, 3, 96, 96), np.float32) * 2 - 1).astype(np.float32)


def _run(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0]


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_form(graph: onnx.ModelProto) -> None:
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", OPSET)]
    assert 9 <= OPSET <= 20, "TensorRT 10.3 reads 9 to 20"
    assert graph.ir_version == IR_VERSION
    assert [(value.name, _shape(value)) for value in graph.graph.input] == [("image", ["batch", 3, 96, 96])]
    assert [(value.name, _shape(value)) for value in graph.graph.output] == [("logits", ["batch", 3])]
    kinds = [node.op_type for node in graph.graph.node]
    assert kinds.count("Conv") == 58
    assert not set(kinds) & {"BatchNormalization", "Pad", "Shape", "Gather", "Identity", "Constant", "Dropout"}
    assert "trunk.features.7.conv.1.0" in [node.name for node in graph.graph.node]


def test_no_trace_of_the_machine_that_exported(graph: onnx.ModelProto) -> None:
    small = onnx.ModelProto()
    small.CopyFrom(graph)
    for initializer in small.graph.initializer:
        initializer.ClearField("raw_data")
    text = str(small)
    assert "metadata_props" not in text
    assert ".py" not in text


@pytest.mark.parametrize("batch", [1, 3])
def test_computes_what_torch_computes(graph: onnx.ModelProto, deployed: nn.Module, batch: int) -> None:
    with torch.inference_mode():
        expected = deployed(torch.from_numpy(IMAGES[:batch])).numpy()
    np.testing.assert_allclose(_run(graph, IMAGES[:batch]), expected, atol=1e-4)


def test_half_storage_is_half_the_size_and_bit_equal(graph: onnx.ModelProto) -> None:
    stored = store_half(graph)
    assert stored.ByteSize() < 0.53 * graph.ByteSize()
    weights = {item.name: numpy_helper.to_array(item) for item in graph.graph.initializer}
    halves = [item for item in stored.graph.initializer if item.data_type == TensorProto.FLOAT16]
    assert len(halves) >= 40
    for item in halves:
        widened = numpy_helper.to_array(item).astype(np.float32)
        assert np.array_equal(widened, weights[item.name.removesuffix(".half")]), item.name
    np.testing.assert_allclose(_run(stored, IMAGES), _run(graph, IMAGES), rtol=1e-5, atol=1e-5)


def test_a_weight_that_half_precision_would_change_stays_float32(graph: onnx.ModelProto) -> None:
    changed = onnx.ModelProto()
    changed.CopyFrom(graph)
    weight = next(item for item in changed.graph.initializer if item.name == "classify.weight")
    value = numpy_helper.to_array(weight).copy()
    value[0, 0] = 1 / 3
    weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    kinds = {item.name: item.data_type for item in store_half(changed).graph.initializer}
    assert kinds["classify.weight"] == TensorProto.FLOAT
    assert kinds["adapt.0.weight.half"] == TensorProto.FLOAT16


def test_save_is_deterministic(graph: onnx.ModelProto, tmp_path) -> None:
    save(graph, tmp_path / "a.onnx")
    again = onnx.load(tmp_path / "a.onnx")
    save(again, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_operators_that_a_classifier_does_not_need_are_refused() -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cumsum(x.mean((2, 3)), 1)

    with pytest.raises(ExportRefusedError, match="CumSum"):
        to_onnx(Odd(), architecture("hybrid").preprocess)
