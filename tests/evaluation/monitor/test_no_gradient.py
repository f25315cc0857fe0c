"""Networks without a gradient: they are looked into by ONNX Runtime, and attacks come from a substitute."""

from __future__ import annotations

import re
import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from framegate.evaluation.command_monitor import add_monitor
from framegate.evaluation.frames.engine_network import EngineNetwork
from framegate.evaluation.frames.network import Network
from framegate.evaluation.monitor import subject as subject_module
from framegate.evaluation.monitor import substitute as substitute_module
from framegate.evaluation.monitor import worth
from framegate.evaluation.monitor.fit import DAMAGE, Recipe
from framegate.evaluation.monitor.subject import subject_of
from framegate.evaluation.monitor.worth import Worth
from framegate.export.bundle_writer import edited, update_manifest
from framegate.export.calibration.calibrate import Promise
from framegate.export.data.splits import Splits
from framegate.models.pixels import PixelInput, to_pixels
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.errors import BundleError
from framegate.runtime.session import Session

STEP = 1 / 16
"""Of the steps in front of the network, in units of its input."""


def _stepped(model: onnx.ModelProto, quantised: bool) -> onnx.ModelProto:
    """The network behind steps that have no slope: a quantiser (not known to PyTorch here), or rounding (known)."""
    graph = model.graph
    first = graph.input[0].name
    for node in graph.node:
        for k, name in enumerate(node.input):
            if name == first:
                node.input[k] = "stepped"
    graph.initializer.append(numpy_helper.from_array(np.array(STEP, np.float32), "step"))
    if quantised:
        graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), "zero"))
        pair = [
            helper.make_node("QuantizeLinear", [first, "step", "zero"], ["whole"], "quantise"),
            helper.make_node("DequantizeLinear", ["whole", "step", "zero"], ["stepped"], "dequantise"),
        ]
    else:
        pair = [
            helper.make_node("Div", [first, "step"], ["many"], "divide"),
            helper.make_node("Round", ["many"], ["whole"], "round"),
            helper.make_node("Mul", ["whole", "step"], ["stepped"], "multiply"),
        ]
    for k, node in enumerate(pair):
        graph.node.insert(k, node)
    return model


@pytest.fixture(params=[True, False], ids=["unknown operator", "no slope"])
def stepped(request, bundle_path, tmp_path):
    path = tmp_path / "colours.bundle"
    shutil.copytree(bundle_path, path)
    with edited(Bundle.open(path)) as folder:
        onnx.save(_stepped(onnx.load(folder / "model.fp32.onnx"), request.param), folder / "model.fp32.onnx")
        update_manifest(folder)
    return path


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(substitute_module, "_EPOCHS", 3)
    monkeypatch.setattr(substitute_module, "_STEPS", 0)
    monkeypatch.setattr(worth, "FRAMES", 30)
    monkeypatch.setattr(worth, "QUERIES", 10)
    monkeypatch.setattr(worth, "STEPS", 3)


def test_the_engine_sees_what_the_differentiable_network_sees(bundle_path, colours) -> None:
    bundle = Bundle.open(bundle_path)
    taps = bundle.taps[:2]
    network = Network.from_bundle(bundle, taps)
    engine = EngineNetwork(bundle.model_path("fp32"), PixelInput(bundle.preprocess), taps)
    pixels = to_pixels(colours(5, 3, "some").images)
    logits, features, activations = engine.observe(pixels)
    with torch.no_grad():
        expected = network.observe(pixels)
    torch.testing.assert_close(logits, expected[0], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(features, expected[1], rtol=1e-3, atol=1e-3)
    assert list(activations) == list(taps)
    for tap, found in activations.items():
        torch.testing.assert_close(found, expected[2][tap], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(engine(pixels[:1]), logits[:1], rtol=1e-3, atol=1e-3)


def test_a_file_that_no_engine_runs_is_a_bundle_error(tmp_path, bundle_path) -> None:
    prepare = PixelInput(Bundle.open(bundle_path).preprocess)
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(BundleError, match="not an ONNX file"):
        EngineNetwork(tmp_path / "broken.onnx", prepare)
    model = onnx.load(bundle_path / "model.fp32.onnx")
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Unheard"
    onnx.save(model, tmp_path / "unheard.onnx")
    with pytest.raises(BundleError, match="onnxruntime cannot run it"):
        EngineNetwork(tmp_path / "unheard.onnx", prepare)


def test_a_network_with_a_gradient_needs_no_substitute(bundle_path, colours, quiet, monkeypatch) -> None:
    monkeypatch.setattr(subject_module, "imitate", None)
    found = subject_of(Bundle.open(bundle_path), (), colours(40, 5, "t"), 40, 0, quiet)
    assert isinstance(found.network, Network)
    assert (found.followed, found.why) == (None, "")


@pytest.mark.parametrize("stepped", [False], indirect=True)
def test_a_substitute_answers_like_the_network(stepped, colours, quiet, monkeypatch) -> None:
    monkeypatch.setattr(substitute_module, "_STEPS", 60)
    found = subject_of(Bundle.open(stepped), (), colours(300, 5, "t"), 300, 0, quiet)
    assert isinstance(found.network, EngineNetwork)
    assert found.why == "its gradient is zero or no number for most images"
    assert found.followed is not None
    fresh = to_pixels(colours(100, 6, "fresh").images)
    answers, imitated = found.network(fresh).argmax(1), found.followed(fresh).argmax(1)
    assert float((answers == imitated).float().mean()) > 0.7


def test_a_monitor_is_fitted_on_transferred_attacks_and_damage(
    stepped, colours, quiet, quick, monkeypatch, capsys
) -> None:
    judged: list[Worth] = []
    monkeypatch.setattr(
        Worth, "require", lambda found: judged.append(found)
    )  # these images are noise, on which every control is good
    splits = Splits(
        colours(120, 31, "t"), colours(300, 32, "c"), colours(30, 33, "e"), ("blue", "green", "red"), "user"
    )
    recipe = Recipe(images=100, attacked=20, fgsm=(8,), pgd=(8,), pgd_steps=2, layers=0)
    monitor, calibrations = add_monitor(Bundle.open(stepped), splits, recipe, Promise(0.3, 0.9), quiet)
    kinds = [
        *(f"{name} {severity}" for name, severity in DAMAGE),
        "FGSM 8/255, transferred",
        "PGD-2 8/255, transferred",
    ]
    assert sorted(monitor.fitted["attacks"]) == sorted(kinds)
    assert re.search(
        "DequantizeLinear has no differentiable form here$|gradient is zero", monitor.fitted["no_gradient"]
    )
    assert list(judged[0].monitor) == ["APGD-DLR 8/255, transferred", "Square (10 queries) 8/255"]
    assert "attacks cannot follow this network's gradient" in capsys.readouterr().err
    session = Session.open(stepped, "onnxruntime", "fp32", camera=False)
    assert set(session.infer(splits.test.images[0]).signals) == set(monitor.signals)
    assert "onnxruntime/fp32" in calibrations
