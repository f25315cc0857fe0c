"""Interval bounds as a graph: attacked inside the ball, and where only rounding is left of it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import helper, numpy_helper

from framegate.export.graph.bounds import gamma, halved, stored, with_bounds
from framegate.export.graph.fold import deployment_model
from framegate.export.graph.translate import to_onnx
from framegate.models.pixels import PixelInput, to_pixels
from framegate.models.plain_cnn import PlainCNN
from framegate.models.registry import architecture
from framegate.models.training.adversarial import pgd_pixels
from framegate.models.training.interval_bounds import bounds_of
from framegate.runtime.backends.base import infer
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.errors import UsageError
from framegate.runtime.preprocess import Preprocessor

SPEC = architecture("plaincnn").preprocess
torch.set_num_threads(1)


def network(seed: int, classes: int = 5) -> PlainCNN:
    """Random weights, normalised by random images, so that every layer does something."""
    torch.manual_seed(seed)
    model = PlainCNN(classes, width=4)
    with torch.no_grad():
        model.classify.weight.normal_(0, 0.3)
        for module in model.modules():
            if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                module.momentum = 1.0
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
        model.train()(torch.randn(64, 3, 32, 32))
    return model.eval()


@cache
def plain_graph(seed: int) -> onnx.ModelProto:
    return halved(to_onnx(deployment_model(network(seed)), SPEC))


def run(content: bytes, tensors: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": tensors})[0].astype(np.float64)


def inputs(images: np.ndarray) -> np.ndarray:
    preprocess = Preprocessor(SPEC)
    return np.concatenate([preprocess(image).copy() for image in images])


def margins(logits: np.ndarray, own: int) -> np.ndarray:
    return logits[:, [own]] - logits


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("levels", [1, 4])
def test_nothing_inside_the_ball_has_a_smaller_margin_than_the_bound(seed, levels):
    graph = plain_graph(seed)
    bounded, plain = stored(with_bounds(graph, SPEC, levels)), stored(graph)
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)
    centre = run(bounded, inputs(image[None]))[0]
    own = int(centre[:5].argmax())
    lower = centre[5:]
    # Corners of the ball at random, and PGD on the trained module towards every other label.
    corners = image.astype(int) + levels * rng.choice([-1, 1], (200, *image.shape))
    moved = [np.clip(corners, 0, 255).astype(np.uint8)]
    module, prepare = network(seed), PixelInput(SPEC)
    pixels = to_pixels(np.repeat(image[None], 5, 0))
    for steps in (1, 20):
        attacked = pgd_pixels(lambda x: module(prepare(x)), pixels, torch.full((5,), own), levels / 255, steps)
        moved.append((attacked.numpy() * 255).round().astype(np.uint8)[:, ::-1].transpose(0, 2, 3, 1))
    everything = np.concatenate(moved)
    assert np.abs(everything.astype(int) - image).max() <= levels
    found = margins(run(plain, inputs(everything)), own)
    others = np.arange(5) != own
    assert (found[:, others] >= lower[others]).all()


def test_the_bounds_are_those_that_were_trained_with():
    """As tight as in training, less what is left for rounding."""
    graph, module = plain_graph(0), network(0)
    image = np.random.default_rng(0).integers(40, 200, (32, 32, 3)).astype(np.uint8)
    centre = run(stored(with_bounds(graph, SPEC, 2)), inputs(image[None]))[0]
    own = int(centre[:5].argmax())
    with torch.no_grad():
        _, trained = bounds_of(module, PixelInput(SPEC), to_pixels(image[None]), torch.tensor([own]), 2 / 255)
    others = np.arange(5) != own
    np.testing.assert_allclose(centre[5:][others], trained[0].numpy()[others], rtol=0.03, atol=0.05)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_rounding_alone_is_covered(tmp_path, backend):
    """A ball of a billionth: only arithmetic is left, and the exact margin lies above the bound."""
    graph = plain_graph(1)
    tiny = replace(SPEC, std=tuple(each * 1e9 for each in SPEC.std))  # one level is then 1e-11
    (tmp_path / "b.onnx").write_bytes(stored(with_bounds(graph, tiny, 1)))
    (tmp_path / "p.onnx").write_bytes(stored(graph))
    image = np.random.default_rng(3).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    tensor = inputs(image[None])
    outputs = []
    for name in ("b.onnx", "p.onnx"):
        engine = load_backend(backend, tmp_path / name, 1)
        engine.bind(tensor)
        outputs.append(infer(engine)[0].astype(np.float64).copy())
    centre, plain = outputs
    own, others = int(plain.argmax()), np.arange(5) != int(plain.argmax())
    exact = _float64(graph, tensor.astype(np.float64))
    for logits in (plain, exact):
        assert (margins(logits[None], own)[0][others] >= centre[5:][others]).all()
    # And not everything was given away, although random layers enlarge every box; trained ones do so far less.
    gap = margins(exact[None], own)[0][others] - centre[5:][others]
    assert gap.max() < 0.25 * np.abs(exact).max()


def _float64(graph: onnx.ModelProto, tensor: np.ndarray) -> np.ndarray:
    """The plain network in double precision."""
    wide = onnx.ModelProto()
    wide.CopyFrom(graph)
    for each in wide.graph.initializer:
        value = numpy_helper.to_array(each)
        if value.dtype == np.float32:
            each.CopyFrom(numpy_helper.from_array(value.astype(np.float64), each.name))
    for value in (*wide.graph.input, *wide.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    return onnx.reference.ReferenceEvaluator(wide).run(None, {"image": tensor})[0][0]


def test_engines_agree_and_take_batches():
    content = stored(with_bounds(plain_graph(1), SPEC, 2))
    images = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    together = run(content, inputs(images))
    alone = np.concatenate([run(content, inputs(image[None])) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-3)


def test_the_stored_file_holds_half_precision():
    graph = plain_graph(1)
    weights = sum(numpy_helper.to_array(each).size for each in graph.graph.initializer)
    assert len(stored(with_bounds(graph, SPEC, 2))) < 2.2 * weights + 20_000


def test_gamma_is_the_bound_of_the_textbook():
    assert gamma(100) == pytest.approx(100 * 2**-24, rel=1e-4)
    assert gamma(2) == gamma(16)


@pytest.mark.parametrize("kind", ["Sigmoid", "HardSwish", "MaxPool"])
def test_an_operator_without_bounds_is_named(kind):
    graph = onnx.ModelProto()
    graph.CopyFrom(plain_graph(0))
    node = next(each for each in graph.graph.node if each.op_type == "Relu")
    node.op_type = kind
    if kind == "MaxPool":
        node.attribute.append(helper.make_attribute("kernel_shape", [1, 1]))
    with pytest.raises(UsageError, match=f"operator {kind} .* has none"):
        with_bounds(graph, SPEC, 1)


def test_a_network_that_is_no_chain_is_refused():
    graph = onnx.ModelProto()
    graph.CopyFrom(plain_graph(0))
    graph.graph.node[2].input[0] = graph.graph.node[0].output[0]  # a layer that goes round the one before it
    with pytest.raises(UsageError, match="interval bounds"):
        with_bounds(graph, SPEC, 1)
