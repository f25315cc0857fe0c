"""Fine-tuning of INT8 networks: PyTorch computes the same graph, and what is learnt brings it nearer to float32."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from framegate.export.int8 import choice as int8_choice
from framegate.export.int8 import fine_tuning
from framegate.export.int8.choice import Int8Work, choose_int8
from framegate.export.int8.fine_tuning import GradedGraph, check_tunable, fine_tuned
from framegate.export.int8.quantize import check_symmetric, to_int8
from framegate.runtime.cli.main import main
from framegate.runtime.errors import UsageError
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec

SIDE = 8
SPEC = PreprocessSpec(SIDE, SIDE, "bilinear", "stretch", "rgb", (127.5,) * 3, (127.5,) * 3)
torch.set_num_threads(1)


def network(last: str = "Sigmoid") -> onnx.ModelProto:
    """Every operator that is known: convolutions with uneven borders and groups, a gate, a residual, linear layers."""
    rng = np.random.default_rng(5)
    weights = {
        "first.weight": rng.normal(0, 0.3, (8, 3, 3, 3)),
        "first.bias": rng.normal(0, 0.1, 8),
        "second.weight": rng.normal(0, 0.5, (8, 1, 3, 3)),
        "second.bias": rng.normal(0, 0.1, 8),
        "gate.weight": rng.normal(0, 0.5, (8, 8, 1, 1)),
        "gate.bias": rng.normal(0, 0.1, 8),
        "classify.weight": rng.normal(0, 1.0, (3, 8)),
        "classify.bias": np.zeros(3),
        "low": np.array(0.0),
        "high": np.array(6.0),
        "axes": np.array([2, 3], np.int64),
        "shape": np.array([1, 8], np.int64),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["image", "first.weight", "first.bias"], ["a"], "first", pads=[0, 0, 1, 1], strides=[2, 2]),
        node("Clip", ["a", "low", "high"], ["b"], "clip"),
        node("Conv", ["b", "second.weight", "second.bias"], ["c"], "second", pads=[1] * 4, group=8),
        node("Relu", ["c"], ["d"], "relu"),
        node("Add", ["b", "d"], ["e"], "add"),
        node("ReduceMean", ["e", "axes"], ["f"], "mean", keepdims=1),
        node("Conv", ["f", "gate.weight", "gate.bias"], ["g"], "gate"),
        node(last, ["g"], ["h"], "open"),
        node("Mul", ["e", "h"], ["i"], "mul"),
        node("GlobalAveragePool", ["i"], ["j"], "pool"),
        node("Reshape", ["j", "shape"], ["k"], "reshape"),
        node("Gemm", ["k", "classify.weight", "classify.bias"], ["logits"], "classify", transB=1),
        node("Flatten", ["j"], ["pooled"], "pooled"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])
            for name, size in (("logits", 3), ("pooled", 8))
        ],
        [
            numpy_helper.from_array(value if value.dtype == np.int64 else value.astype(np.float32), name)
            for name, value in weights.items()
        ],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def pictures(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3)).astype(np.uint8)


def tensors(images: np.ndarray) -> np.ndarray:
    preprocess = Preprocessor(SPEC)
    return np.concatenate([preprocess(image).copy() for image in images])


def answers(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString())
    return np.concatenate([session.run(["logits"], {"image": each[None]})[0] for each in tensors(images)])


def distance(model: onnx.ModelProto, expected: np.ndarray, images: np.ndarray) -> float:
    return float(np.mean((answers(model, images) - expected) ** 2))


def test_pytorch_computes_what_the_engine_does(quiet) -> None:
    model, images = network(), pictures(20, 1)
    found = GradedGraph(model)(torch.from_numpy(tensors(images)))
    np.testing.assert_allclose(found.detach().numpy(), answers(model, images), atol=1e-4)
    quantised = to_int8(model, images, SPEC, ["gate"], quiet)
    found = GradedGraph(quantised)(torch.from_numpy(tensors(images))).detach().numpy()
    # A value that lies on the border of two steps may fall to either side, and moves an answer by about a step.
    close = np.abs(found - answers(quantised, images)).max(1) < 1e-3
    assert close.mean() > 0.8


def test_weights_that_were_spoilt_are_learnt_again(quiet, monkeypatch) -> None:
    """Rounding spoils little in so small a network; here biases are off, which larger updates make up for."""
    monkeypatch.setattr(fine_tuning, "STEP_SIZE", 0.05)
    model, images = network(), pictures(60, 2)
    quantised = to_int8(model, images, SPEC, [], quiet)
    for item in quantised.graph.initializer:
        if item.name.endswith(".bias"):
            value = numpy_helper.to_array(item)
            item.CopyFrom(numpy_helper.from_array((value + 0.05).astype(np.float32), item.name))
    before = quantised.SerializeToString()
    seen: list[tuple[int, int]] = []
    tuned = fine_tuned(quantised, model, images, SPEC, 150, lambda text, done, total: seen.append((done, total)))
    assert quantised.SerializeToString() == before, "what was given stays as it is"
    assert seen == [(k + 1, 150) for k in range(150)]
    others = pictures(100, 3)
    expected = answers(model, others)
    assert distance(tuned, expected, others) < 0.7 * distance(quantised, expected, others)
    check_symmetric(tuned)
    onnx.checker.check_model(tuned, full_check=True)
    assert [node.name for node in tuned.graph.node] == [node.name for node in quantised.graph.node]


def test_what_is_no_nearer_is_not_taken(quiet, monkeypatch) -> None:
    model, images, held_out = network(), pictures(40, 4), pictures(60, 5)

    class Insensitive:
        layers = ("first", "second", "gate", "classify")

        def above(self, limit: float) -> list[str]:
            return []

    work = Int8Work(model, images, held_out, SPEC, quiet)
    choice = choose_int8(model, images, held_out, SPEC, Insensitive(), "minmax", quiet, 1.0, work)
    tuned = work.fine_tuned(choice, images, 2)
    assert {each.method for each in tuned.candidates} >= {"minmax", "minmax, fine-tuned in 2 steps"}
    best = min(tuned.candidates[-2:], key=lambda each: each.entropy_difference)
    assert tuned.chosen.entropy_difference == pytest.approx(best.entropy_difference)

    def spoilt(self: object, network: onnx.ModelProto, given: np.ndarray, steps: int) -> onnx.ModelProto:
        result = onnx.ModelProto.FromString(network.SerializeToString())
        for item in result.graph.initializer:
            if item.name == "classify.bias":
                item.CopyFrom(numpy_helper.from_array(np.array([9, -9, 0], np.float32), item.name))
        return result

    monkeypatch.setattr(int8_choice._Quantiser, "fine_tuned", spoilt)
    kept = work.fine_tuned(choice, images, 2)
    assert kept.model is choice.model
    assert kept.chosen == choice.chosen


@pytest.mark.parametrize(
    ("model", "spec", "steps", "message"),
    [
        (network(), SPEC, 0, "0 steps given"),
        (network(), SPEC, -3, "-3 steps given"),
        (network(), replace(SPEC, depth=2, colour="grey", mean=(0.0,), std=(255.0,)), 1, "takes volumes"),
        (network("Bernoulli"), SPEC, 1, "operator Bernoulli has no gradient here"),
    ],
    ids=["none", "negative", "volumes", "operator"],
)
def test_what_cannot_be_tuned_is_said_before_the_work(
    model: onnx.ModelProto, spec: PreprocessSpec, steps: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        check_tunable(model, spec, steps)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--no-int8"], "--tune-int8 5: it is for a classifier's INT8 network; leave it out, or --no-int8"),
        (["--kind", "detector"], "leave it out, or --kind"),
    ],
)
def test_without_an_int8_classifier_there_is_nothing_to_tune(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "x.onnx", "--data", "d", "--out", "o.bundle", "--tune-int8", "5", *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
