"""A plain network as PyTorch's layers: the same answers as the engine's, and what is no link of a chain is named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from certified_bundles import SPEC, deep_network, random_network
from onnx import helper, numpy_helper

from framegate.export.graph.graph import halved, stored
from framegate.export.graph.plain_chain import plain_chain
from framegate.runtime.backends.base import infer
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.errors import UsageError
from framegate.runtime.preprocess import Preprocessor

torch.set_num_threads(1)
MAKERS = pytest.mark.parametrize("make", [random_network, deep_network])


@MAKERS
@pytest.mark.parametrize("as_half", [False, True])
def test_the_layers_answer_like_the_engine(make, as_half, tmp_path):
    path = make(tmp_path / "plain.onnx", 3)
    if as_half:
        path.write_bytes(stored(halved(onnx.load(path))))
        assert any(node.op_type == "Cast" for node in onnx.load(path).graph.node)
    layers, last = plain_chain(path)
    images = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
    preprocess = Preprocessor(SPEC)
    engine = load_backend("onnxruntime", path, 1)
    engine.bind(preprocess.tensor)
    for image in images:
        mine = last(layers(torch.from_numpy(preprocess(image).copy())))
        np.testing.assert_allclose(mine.numpy(), infer(engine), rtol=1e-4, atol=1e-5)


def changed(path, change):
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, path)
    return path


def set_attribute(node, name, value):
    for each in [each for each in node.attribute if each.name == name]:
        node.attribute.remove(each)
    node.attribute.append(helper.make_attribute(name, value))


def another_operator(kind):
    def change(graph):
        node = next(each for each in graph.node if each.op_type == "Relu")
        node.op_type = kind
        if kind == "MaxPool":
            node.attribute.append(helper.make_attribute("kernel_shape", [1, 1]))

    return change


def of_kind(kind, change):
    return lambda graph: change(next(each for each in graph.node if each.op_type == kind))


def without_relu(graph):
    node = next(each for each in graph.node if each.op_type == "Relu")
    after = next(each for each in graph.node if node.output[0] in each.input)
    after.input[0] = node.input[0]
    graph.node.remove(node)


def beside_the_chain(graph):
    """A layer that reads what was before the one in front of it."""
    graph.node[2].input[0] = graph.node[0].output[0]


def computed_weights(graph):
    gemm = next(each for each in graph.node if each.op_type == "Gemm")
    graph.node.insert(0, helper.make_node("Abs", [gemm.input[1]], ["size"], "size"))
    gemm.input[1] = "size"


def ends_in_relu(graph):
    graph.node.append(helper.make_node("Relu", ["logits"], ["more"], "end"))
    graph.output[0].name = "more"


def shortcut(graph):
    graph.node.insert(2, helper.make_node("Add", ["y", "y"], ["twice"], "twice"))
    graph.node[3].input[0] = "twice"


def batch_mixed(graph):
    flatten = next(each for each in graph.node if each.op_type == "Flatten")
    flatten.op_type = "Reshape"
    flatten.input.append("shape")
    graph.initializer.append(numpy_helper.from_array(np.array([1, 1, -1]), "shape"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (another_operator("Sigmoid"), "no Relu between Sigmoid"),
        (another_operator("MaxPool"), "no Relu between"),
        (without_relu, "no Relu between"),
        (beside_the_chain, "is not part of a plain chain"),
        (computed_weights, "is not part of a plain chain"),
        (ends_in_relu, "it ends in Relu, expected Gemm"),
        (batch_mixed, "does not flatten"),
        (of_kind("Conv", lambda node: set_attribute(node, "dilations", [2, 2])), "groups, dilations"),
        (of_kind("Conv", lambda node: set_attribute(node, "group", 3)), "groups, dilations"),
        (of_kind("Conv", lambda node: set_attribute(node, "pads", [0, 1, 2, 1])), "borders of several widths"),
        (of_kind("Conv", lambda node: set_attribute(node, "auto_pad", "SAME_UPPER")), "borders of several widths"),
        (of_kind("Gemm", lambda node: set_attribute(node, "alpha", 2.0)), "has factors"),
        (of_kind("Gemm", lambda node: set_attribute(node, "transA", 1)), "has factors"),
        (of_kind("Flatten", lambda node: set_attribute(node, "axis", 2)), "operator Flatten"),
        (shortcut, "operator Add"),
    ],
)
def test_fault_what_is_no_link_of_a_plain_chain_is_refused(change, says, tmp_path):
    """A chain of its layers alone would be another network, and what is proved of it would say nothing."""
    path = changed(random_network(tmp_path / "plain.onnx", 1), change)
    with pytest.raises(UsageError, match=says):
        plain_chain(path)


def test_fault_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "none.onnx").write_bytes(b"\xff\x00 no network")
    with pytest.raises(UsageError, match="not readable as ONNX"):
        plain_chain(tmp_path / "none.onnx")


def test_the_stored_file_holds_half_precision(tmp_path):
    graph = halved(onnx.load(random_network(tmp_path / "plain.onnx", 1)))
    weights = sum(numpy_helper.to_array(each).size for each in graph.graph.initializer)
    assert len(stored(graph)) < 2.2 * weights + 2_000
