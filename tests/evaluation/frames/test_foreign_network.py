"""Networks as other people's tools write them, made differentiable: heads, fixed batches, computed shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from framegate.evaluation.frames import network as network_module
from framegate.evaluation.frames.network import Network
from framegate.export.graph.pooled import FEATURES, head_of, with_pooled
from framegate.models.pixels import PixelInput
from framegate.runtime.errors import BundleError, UsageError
from framegate.runtime.preprocess import PreprocessSpec

SIDE, CLASSES = 8, 4
SPEC = PreprocessSpec(SIDE, SIDE, "bilinear", "stretch", "rgb", (0.0,) * 3, (255.0,) * 3)


def _file(folder: Path, head: list[onnx.NodeProto], batch: int | str = "n", **more: np.ndarray) -> Path:
    """Pad, unsymmetric convolution, HardSwish, average pooling with a ceiling; then a head that reads ``pool``."""
    rng = np.random.default_rng(4)
    constants = {
        "pads": np.array([0, 0, 1, 0, 0, 0, 1, 2], np.int64),
        "conv.weight": rng.normal(0, 0.4, (6, 3, 3, 3)).astype(np.float32),
        "conv.bias": rng.normal(0, 0.1, 6).astype(np.float32),
        "fc.weight": rng.normal(0, 1, (CLASSES, 6)).astype(np.float32),
        "fc.bias": rng.normal(0, 1, CLASSES).astype(np.float32),
        **more,
    }
    nodes = [
        helper.make_node("Pad", ["image", "pads"], ["padded"], "pad"),
        helper.make_node("Conv", ["padded", "conv.weight", "conv.bias"], ["c"], "conv", strides=[2, 2]),
        helper.make_node("HardSwish", ["c"], ["h"], "swish"),
        helper.make_node("AveragePool", ["h"], ["pool"], "pool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        *head,
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    path = folder / "foreign.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


GEMM = [
    helper.make_node("GlobalAveragePool", ["pool"], ["mean"], "mean"),
    helper.make_node("Flatten", ["mean"], ["flat"], "flat"),
    helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["logits"], "fc", transB=1),
]
MATMUL = [
    helper.make_node("ReduceMean", ["pool"], ["flat"], "mean", keepdims=0),
    helper.make_node("MatMul", ["flat", "turned"], ["row"], "fc"),
    helper.make_node("Add", ["fc.bias", "row"], ["logits"], "bias"),
]
SHAPED = [  # as tf2onnx and older PyTorch write a view(batch, -1)
    helper.make_node("GlobalAveragePool", ["pool"], ["mean"], "mean"),
    helper.make_node("Shape", ["mean"], ["shape"], "shape"),
    helper.make_node("Gather", ["shape", "zero"], ["batch"], "batch"),
    helper.make_node("Unsqueeze", ["batch", "zeros"], ["rows"], "rows"),
    helper.make_node("Concat", ["rows", "rest"], ["target"], "target", axis=0),
    helper.make_node("Reshape", ["mean", "target"], ["flat"], "flat"),
    helper.make_node("Gemm", ["flat", "fc.weight", "fc.bias"], ["logits"], "fc", transB=1),
]
CONV = [
    helper.make_node("Conv", ["pool", "fc.kernel", "fc.bias"], ["map"], "fc", kernel_shape=[1, 1]),
    helper.make_node("GlobalAveragePool", ["map"], ["mean"], "mean"),
    helper.make_node("Flatten", ["mean"], ["logits"], "flat"),
]
CLIPPED = [*CONV[:1], helper.make_node("Relu", ["map"], ["r"], "relu"),
           helper.make_node("GlobalAveragePool", ["r"], ["mean"], "mean"), CONV[2]]  # fmt: skip


def _constants() -> dict[str, np.ndarray]:
    weight = np.random.default_rng(4).normal(0, 1, (CLASSES, 6)).astype(np.float32)
    return {
        "turned": np.ascontiguousarray(weight.T),
        "fc.kernel": weight.reshape(CLASSES, 6, 1, 1),
        "zero": np.array(0, np.int64),
        "zeros": np.array([0], np.int64),
        "rest": np.array([-1], np.int64),
    }


def _needed(head: list[onnx.NodeProto]) -> dict[str, np.ndarray]:
    read = {name for node in head for name in node.input}
    found = {name: value for name, value in _constants().items() if name in read}
    if "axes" not in found and any(node.op_type == "ReduceMean" for node in head):
        found["axes"] = np.array([2, 3], np.int64)
    return found


HEADS = {"gemm": GEMM, "matmul": MATMUL, "shaped": SHAPED, "conv": CONV, "clipped": CLIPPED}


def _network(folder: Path, name: str, batch: int | str = "n") -> Network:
    head = [onnx.NodeProto.FromString(node.SerializeToString()) for node in HEADS[name]]
    for node in head:
        if node.op_type == "ReduceMean":
            node.input.append("axes")
    return Network(_file(folder, head, batch, **_needed(head)), PixelInput(SPEC), ["conv"])


PIXELS = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", list(HEADS))
def test_any_head_is_computed_and_observed(name: str, tmp_path: Path) -> None:
    network = _network(tmp_path, name)
    network.check((3, SIDE, SIDE))
    with torch.no_grad():
        logits, features, activations = network.observe(PIXELS)
    assert features.shape == (3, 6)
    assert activations["conv"].shape[:2] == (3, 6)
    assert network.head.node == "fc"
    if name == "clipped":
        with pytest.raises(UsageError, match="no linear function of its last features"):
            _ = network.linear
    else:
        weight, bias = network.linear
        np.testing.assert_allclose(features.numpy() @ weight.T + bias, logits.numpy(), atol=1e-4)


@pytest.mark.parametrize("name", list(HEADS))
def test_a_monitor_reads_what_is_observed(name: str, tmp_path: Path) -> None:
    """The second output of the network in ONNX Runtime is the spatial mean of what PyTorch sees."""
    network = _network(tmp_path, name)
    model, taps = with_pooled(onnx.load(tmp_path / "foreign.onnx"), ["conv", FEATURES])
    assert [tap.channels for tap in taps] == [6, 6]
    session = network_module.cpu_session(model)
    _, pooled = session.run(None, {"image": PIXELS.numpy()})
    with torch.no_grad():
        _, features, activations = network.observe(PIXELS)
    expected = np.concatenate([activations["conv"].flatten(2).mean(2).numpy(), features.numpy()], axis=1)
    np.testing.assert_allclose(pooled, expected, atol=1e-4)


def test_a_network_for_one_image_is_given_one_at_a_time(tmp_path: Path) -> None:
    many, one = _network(tmp_path, "gemm"), _network(tmp_path, "gemm", batch=1)
    one.check((3, SIDE, SIDE))
    pixels = PIXELS.clone().requires_grad_(True)
    with torch.no_grad():
        expected = many.observe(PIXELS)
    found = one.observe(pixels)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])
    torch.testing.assert_close(found[2]["conv"], expected[2]["conv"])
    found[0].sum().backward()
    assert float(pixels.grad.abs().min(dim=0).values.max()) > 0


def test_a_form_that_differs_from_onnx_runtime_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(network_module.OPERATORS, "HardSwish", lambda attributes, inputs: inputs[0].relu())
    network = _network(tmp_path, "gemm")
    with pytest.raises(BundleError, match="differs from onnxruntime by"):
        network.check((3, SIDE, SIDE))
    monkeypatch.setitem(network_module.OPERATORS, "HardSwish", lambda attributes, inputs: inputs[0] * torch.nan)
    with pytest.raises(BundleError, match="differs from onnxruntime by nan"):
        _network(tmp_path, "gemm").check((3, SIDE, SIDE))


def test_a_node_that_cannot_be_computed_is_named(tmp_path: Path) -> None:
    head = [helper.make_node("Reshape", ["pool", "bad"], ["flat"], "odd"), GEMM[-1]]
    more = {"bad": np.array([5, 6], np.int64)}
    with pytest.raises(BundleError, match="has no linear layer"):
        Network(_file(tmp_path, [helper.make_node("Exp", ["pool"], ["logits"], "e")]), PixelInput(SPEC))
    network = Network(_file(tmp_path, head, **more), PixelInput(SPEC))
    with pytest.raises(BundleError, match=r"Reshape \(node 'odd'\) cannot be computed here"):
        network(PIXELS)


def test_the_head_is_not_looked_for_behind_what_is_no_head() -> None:
    nodes = [helper.make_node("Gemm", ["x", "w"], ["a"], "fc"), helper.make_node("Softmax", ["a"], ["y"], "s")]
    graph = helper.make_graph(nodes, "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])])
    with pytest.raises(UsageError, match="do not come from a linear layer"):
        head_of(graph)
