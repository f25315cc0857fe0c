from __future__ import annotations

import pytest
import torch

from framegate.models.checkpoint import load_checkpoint, save_checkpoint
from framegate.models.registry import ARCHITECTURES, architecture, build
from framegate.runtime.errors import DataError, UsageError
from framegate.runtime.preprocess import Preprocessor


def network_input(name: str, count: int = 2) -> torch.Tensor:
    return torch.zeros(count, *Preprocessor(architecture(name).preprocess).tensor.shape[1:])


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_every_architecture_turns_its_input_into_logits_and_has_its_taps(name):
    model = build(name, 7, {}).eval()
    seen = []
    for tap in architecture(name).taps:
        model.get_submodule(tap).register_forward_hook(lambda m, i, o, tap=tap: seen.append(tap))
    with torch.inference_mode():
        assert model(network_input(name)).shape == (2, 7)
    assert tuple(seen) == architecture(name).taps  # early to late


# The layouts of the research, for ten classes (two for volumes).
@pytest.mark.parametrize(
    ("name", "parameters", "products"),
    [("simplecnn", 52_630, 2.6e6), ("mobilenet", 121_494, 12.0e6), ("vgg16", 14_986_698, 313.5e6)],
)
def test_parameters_and_multiplications(name, parameters, products):
    model = build(name, 10, {}).eval()
    assert sum(p.numel() for p in model.parameters()) == parameters
    counted = []

    def count(module, inputs, output):
        counted.append(output.numel() * module.weight[0].numel())

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(count)
    with torch.inference_mode():
        model(network_input(name, 1))
    assert sum(counted) == pytest.approx(products, rel=0.02)


@pytest.mark.parametrize("name", ["simplecnn", "mobilenet", "hybrid"])
def test_attention_can_be_left_out(name):
    def sigmoids(model):
        return sum(isinstance(m, torch.nn.Sigmoid) for m in model.modules())

    assert sigmoids(build(name, 10, {})) == 2
    assert sigmoids(build(name, 10, {"attention": False})) == 0


def test_what_cannot_be_built_is_named():
    with pytest.raises(UsageError, match="'resnet' given, expected one of simplecnn, mobilenet, hybrid"):
        build("resnet", 10, {})
    with pytest.raises(UsageError, match="option 'convolution' given, it knows attention"):
        build("simplecnn", 10, {"convolution": "grouped"})
    with pytest.raises(UsageError, match="'dense'; expected 'grouped' or 'depthwise'"):
        build("hybrid", 10, {"convolution": "dense"})
    with pytest.raises(UsageError, match="1 classes given"):
        build("simplecnn", 1, {})


def test_a_checkpoint_gives_back_every_architecture(tmp_path):
    for name in ("simplecnn", "hybrid3d"):
        model = build(name, 3, {}).eval()
        save_checkpoint(tmp_path / "m.pt", model, {"name": name, "classes": 3}, ("a", "b", "c"), {})
        loaded, record = load_checkpoint(tmp_path / "m.pt")
        saved = model.state_dict()
        assert loaded.state_dict().keys() == saved.keys()
        assert all(torch.equal(value, saved[key]) for key, value in loaded.state_dict().items())
        x = torch.rand(network_input(name).shape, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            torch.testing.assert_close(loaded(x), model(x))
        assert record["architecture"]["name"] == name


def test_a_checkpoint_of_an_unknown_architecture_is_refused(tmp_path):
    save_checkpoint(tmp_path / "m.pt", build("simplecnn", 3, {}), {"name": "resnet", "classes": 3}, ("a", "b", "c"), {})
    with pytest.raises(DataError, match="unknown to this version"):
        load_checkpoint(tmp_path / "m.pt")


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    record = {"name": "mobilenet", "classes": 3}
    save_checkpoint(tmp_path / "m.pt", build("simplecnn", 3, {}), record, ("a", "b", "c"), {})
    with pytest.raises(DataError, match="weights are not those of its architecture"):
        load_checkpoint(tmp_path / "m.pt")


@pytest.mark.parametrize(
    ("odd", "says"),
    [
        ({"labels": 7}, "labels"),
        ({"labels": ["a", "b"]}, "labels are not 3 names"),
        ({"labels": ["a", "b", 3]}, "labels"),
        ({"notes": None}, "notes"),
        ({"notes": ["teacher"]}, "notes"),
        ({"notes": {"teacher": torch.zeros(2)}}, "notes"),
        ({"state": None}, "weights"),
    ],
)
def test_a_checkpoint_that_no_training_writes_is_refused(tmp_path, odd, says):
    save_checkpoint(
        tmp_path / "m.pt", build("simplecnn", 3, {}), {"name": "simplecnn", "classes": 3}, ("a", "b", "c"), {}
    )
    record = torch.load(tmp_path / "m.pt", weights_only=True)
    torch.save({**record, **odd}, tmp_path / "odd.pt")
    with pytest.raises(DataError, match=says):
        load_checkpoint(tmp_path / "odd.pt")
    torch.save({name: value for name, value in record.items() if name not in odd}, tmp_path / "without.pt")
    with pytest.raises(DataError):
        load_checkpoint(tmp_path / "without.pt")
