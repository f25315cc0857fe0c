"""INT8 networks give the numbers of their own file, on every processor."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from framegate.runtime.backends import int8
from framegate.runtime.backends.base import infer
from framegate.runtime.backends.choice import default_precision, load_backend
from framegate.runtime.backends.int8 import adds_int8_exactly

CLASSES, CHANNELS, SIDE = 4, 64, 8


@pytest.fixture
def flags(monkeypatch, tmp_path):
    """Let the processor have these flags, and be of this kind."""

    def let(text, machine="x86_64"):
        path = tmp_path / "cpuinfo"
        if text is not None:
            path.write_text(text)
        monkeypatch.setattr(int8, "_CPUINFO", path)
        monkeypatch.setattr(int8.platform, "machine", lambda: machine)
        adds_int8_exactly.cache_clear()

    yield let
    monkeypatch.undo()
    adds_int8_exactly.cache_clear()


@pytest.mark.parametrize(
    ("text", "machine", "exact"),
    [
        ("flags\t\t: fpu sse avx avx2\n", "x86_64", False),
        ("flags\t\t: fpu avx2 avx_vnni\n", "x86_64", True),
        ("model name: x\nflags\t\t: fpu avx512_vnni amx_int8\n", "x86_64", True),
        ("model name: a processor called avx_vnni\nflags: avx2\n", "x86_64", False),
        ("", "x86_64", False),
        (None, "x86_64", False),
        (None, "aarch64", True),
    ],
)
def test_what_the_processor_says_decides_the_default_precision(flags, text, machine, exact):
    flags(text, machine)
    assert adds_int8_exactly() is exact
    assert default_precision("openvino", ("fp32", "int8")) == ("int8" if exact else "fp32")
    assert default_precision("onnxruntime", ("fp32", "int8")) == "fp32"


def extreme_network(path):
    """A quantised convolution whose every product is as large as INT8 allows: pairs of them overflow 16 bits."""
    rng = np.random.default_rng(0)
    weight = rng.choice(np.array([-127, 127], np.int8), (CLASSES, CHANNELS, 3, 3), p=[0.1, 0.9])
    scale, zero = np.float32(1 / 127), np.int8(0)
    initializers = [numpy_helper.from_array(value, name) for name, value in (("w", weight), ("s", scale), ("z", zero))]
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["x"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["k"]),
        helper.make_node("Conv", ["x", "k"], ["map"]),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "extreme",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", CHANNELS, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])],
        initializers,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return (weight.astype(np.float64) / 127).sum(axis=(1, 2, 3))  # of an image of ones


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_the_largest_sums_do_not_overflow(tmp_path, backend):
    expected = extreme_network(tmp_path / "extreme.onnx")
    engine = load_backend(backend, tmp_path / "extreme.onnx", 1)
    engine.bind(np.ones((1, CHANNELS, SIDE, SIDE), np.float32))
    np.testing.assert_allclose(infer(engine)[0], expected, rtol=5e-3)  # sums that overflow are off by far more
