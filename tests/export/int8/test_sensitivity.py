"""The layers that INT8 would damage are found, and the network is left as it was."""

from __future__ import annotations

import copy

import onnx
import pytest
import torch
from torch import nn

from framegate.export.graph.translate import to_onnx
from framegate.export.int8.choice import FLOAT_LIMITS
from framegate.export.int8.sensitivity import LayerSensitivity
from framegate.models.predict import to_tensor
from framegate.models.registry import architecture

PREPROCESS = architecture("hybrid").preprocess


class _Tiny(nn.Module):
    """Two paths of the image; the second has a channel whose large weights cancel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.harmless = nn.Conv2d(3, 8, 1)
        self.cancelling = nn.Conv2d(8, 8, 3, padding=1)
        self.classify = nn.Linear(8, 4)
        with torch.no_grad():
            self.cancelling.weight[:, :, 0, 0] += 60.0
            self.cancelling.weight[:, :, 0, 1] -= 60.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(self.cancelling(self.harmless(x)).mean((2, 3)))


@pytest.fixture
def network() -> nn.Module:
    return _Tiny().eval()


@pytest.fixture(scope="module")
def exported() -> bytes:
    return to_onnx(_Tiny().eval(), PREPROCESS).SerializeToString()


@pytest.fixture
def tiny(exported: bytes) -> onnx.ModelProto:
    """The network's graph, a copy for every test."""
    return onnx.load_from_string(exported)


def test_the_layer_with_cancelling_weights_is_found(tiny: onnx.ModelProto, colours, quiet) -> None:
    images = colours(16, seed=1).images
    sensitivity = LayerSensitivity(tiny, images, PREPROCESS, quiet)
    assert sensitivity.layers == ("harmless", "cancelling", "classify")
    assert sensitivity.change(["cancelling"]) > FLOAT_LIMITS[0] > sensitivity.change(["harmless"]) > 0
    assert sensitivity.above(FLOAT_LIMITS[0]) == ["cancelling"]


@torch.inference_mode()
def test_it_measures_what_rounding_one_layer_does(network: nn.Module, tiny: onnx.ModelProto, colours, quiet) -> None:
    """The same in PyTorch, layer by layer: weights in 127 steps per output channel, inputs in 127 steps in all."""

    def rounded(x: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
        step = largest / 127
        return torch.clamp(torch.round(x / step), -127, 127) * step

    images = colours(8, seed=5).images
    sensitivity = LayerSensitivity(tiny, images, PREPROCESS, quiet)
    found = {name: sensitivity.change([name]) for name in sensitivity.layers}
    tensors = to_tensor(images, PREPROCESS)
    expected = network(tensors)
    for name in found:
        changed = copy.deepcopy(network)
        layer = changed.get_submodule(name)
        weight = layer.weight.data
        layer.weight.data = rounded(weight, weight.flatten(1).abs().amax(1).view(-1, *[1] * (weight.dim() - 1)))
        layer.register_forward_pre_hook(lambda module, inputs: (rounded(inputs[0], inputs[0].abs().max()),))
        change = (changed(tensors) - expected).square().mean().sqrt() / expected.std()
        assert found[name] == pytest.approx(float(change), rel=0.02), name


def test_the_graph_is_left_as_it_was(tiny: onnx.ModelProto, colours, quiet) -> None:
    before = tiny.SerializeToString(deterministic=True)
    LayerSensitivity(tiny, colours(4, seed=2).images, PREPROCESS, quiet).above(0.0)
    assert tiny.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(("bad", "at_most"), [((), 1), ((11,), 11), ((0, 31), 20)])
def test_good_groups_are_not_looked_into(bad: tuple[int, ...], at_most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 32 layers, each asked for alone would be 32 measurements."""
    sensitivity = LayerSensitivity.__new__(LayerSensitivity)
    sensitivity.layers = tuple(f"layer{k}" for k in range(32))
    asked = {}

    def change(layers: list[str]) -> float:
        effect = sum(1.0 + k for k in bad if f"layer{k}" in layers)
        return asked.setdefault(tuple(layers), effect)

    monkeypatch.setattr(sensitivity, "change", change)
    assert sensitivity.above(0.5) == [f"layer{k}" for k in sorted(bad, reverse=True)]
    assert len(asked) <= at_most


def test_a_group_is_measured_once(tiny: onnx.ModelProto, colours) -> None:
    seen = []
    sensitivity = LayerSensitivity(tiny, colours(2, seed=3).images, PREPROCESS, lambda *step: seen.append(step))
    found = sensitivity.above(0.0)
    assert sorted(found) == sorted(sensitivity.layers)
    assert len(seen) == 5  # all, the first, the other two, each of them
    assert all(done <= total for _, done, total in seen)
    assert sensitivity.above(0.0) == found
    assert len(seen) == 5


def test_a_layer_whose_effect_is_not_a_number_is_kept(tiny: onnx.ModelProto, colours, quiet) -> None:
    weight = next(each for each in tiny.graph.initializer if each.name == "classify.weight")
    weights = onnx.numpy_helper.to_array(weight).copy()
    weights[0, 0] = float("nan")
    weight.CopyFrom(onnx.numpy_helper.from_array(weights, weight.name))
    sensitivity = LayerSensitivity(tiny, colours(2, seed=4).images, PREPROCESS, quiet)
    assert len(sensitivity.above(FLOAT_LIMITS[0])) == 3


def test_a_graph_without_layers_has_no_changes(colours, quiet) -> None:
    nodes = [onnx.helper.make_node("GlobalAveragePool", ["image"], ["logits"], "mean")]
    shapes = [("image", ["batch", 3, 96, 96]), ("logits", ["batch", 3, 1, 1])]
    image, logits = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes)
    graph = onnx.helper.make_graph(nodes, "g", [image], [logits])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    assert LayerSensitivity(model, colours(2, seed=6).images, PREPROCESS, quiet).above(0.0) == []
