from __future__ import annotations

import functools

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from traced_once import traced_once

from framegate.evaluation.frames.network import Network
from framegate.export.graph.fold import deployment_model
from framegate.export.graph.graph import save, store_half
from framegate.export.graph.translate import to_onnx
from framegate.models.pixels import PixelInput
from framegate.models.registry import ARCHITECTURES, architecture, build
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.errors import BundleError, UsageError


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports a network by its name, once: the file and the deployed module."""
    folder = tmp_path_factory.mktemp("networks")

    def exported_once(name):
        # The exporter makes one layer of plaincnn's linear layer and the batch normalisation behind it, so other
        # weights cannot be filled in.
        return export(
            name, folder, to_onnx if name == "plaincnn" else traced_once(tmp_path_factory, f"{name} of 3 classes")
        )

    return functools.cache(exported_once)


def export(name, folder, translate):
    """A network with batch statistics unlike zero and one, as a file; the deployed module beside it."""
    torch.manual_seed(1)
    model = build(name, 3, {}).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
            module.running_mean.normal_(0.0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    deployed = deployment_model(model)
    path = folder / f"{name}.onnx"
    save(store_half(translate(deployed, architecture(name).preprocess)), path)
    return path, deployed


def some_pixels(name, count=2):
    spec = architecture(name).preprocess
    shape = (count, 1, spec.depth, 28, 28) if spec.depth > 1 else (count, 3, 32, 32)
    return torch.rand(shape, generator=torch.Generator().manual_seed(2))


SAME_OPERATORS = ("mobilenet", "plaincnn", "resnet20", "vgg16")
"""Of layers that simplecnn and hybrid have, too."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.long) if n in SAME_OPERATORS else n for n in ARCHITECTURES],
)
def test_it_computes_what_the_engine_computes(name, exported):
    path, deployed = exported(name)
    chosen = architecture(name)
    network = Network(path, PixelInput(chosen.preprocess), chosen.taps)
    pixels = some_pixels(name)
    with torch.no_grad():
        logits, features, activations = network.observe(pixels)
        prepared = network.prepare(pixels)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"image": prepared.numpy()})[0]
    np.testing.assert_allclose(logits.numpy(), expected, atol=2e-4 * np.abs(expected).max())
    weight, bias = network.linear
    np.testing.assert_allclose(features.numpy() @ weight.T + bias, expected, atol=2e-4 * np.abs(expected).max())
    # Taps: the module's output behind its activation function, which clips at 0 and in the trunk at 6.
    seen = {}
    for tap in chosen.taps:
        deployed.get_submodule(tap).register_forward_hook(lambda m, i, o, tap=tap: seen.update({tap: o.detach()}))
    with torch.no_grad():
        deployed(prepared)
    for tap in chosen.taps:
        top = 6.0 if tap.startswith("trunk") else torch.inf
        torch.testing.assert_close(activations[tap], seen[tap].clamp(0, top), atol=1e-3, rtol=1e-3)


def test_the_gradient_is_the_slope(exported):
    path, _ = exported("simplecnn")
    network = Network(path, PixelInput(architecture("simplecnn").preprocess))
    pixels = some_pixels("simplecnn", 1).requires_grad_(True)
    network(pixels)[0, 0].backward()
    direction = pixels.grad / pixels.grad.norm()
    with torch.no_grad():
        up, down = network(pixels + 1e-3 * direction)[0, 0], network(pixels - 1e-3 * direction)[0, 0]
    assert float(up - down) / 2e-3 == pytest.approx(float(pixels.grad.norm()), rel=0.02)


def test_what_cannot_be_read_is_named(tmp_path, bundle_path):
    prepare = PixelInput(architecture("simplecnn").preprocess)
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(BundleError, match="not an ONNX file"):
        Network(tmp_path / "text.onnx", prepare)
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
    for operator, message in (("Tan", "operator Tan has no differentiable form"), ("Relu", "has no linear layer")):
        node = helper.make_node(operator, ["x"], ["y"])
        out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])
        onnx.save(helper.make_model(helper.make_graph([node], "g", [value], [out])), tmp_path / "odd.onnx")
        with pytest.raises(BundleError, match=message):
            Network(tmp_path / "odd.onnx", prepare)
    with pytest.raises(UsageError, match=r"tap 'nowhere': no such layer; there are stem\.0"):
        Network(Bundle.open(bundle_path).model_path("fp32"), prepare, ["nowhere"])


def test_a_bundle_without_a_float_model_cannot_be_attacked(bundle_path):
    bundle = Bundle.open(bundle_path)
    object.__setattr__(bundle, "models", {"int8": "model.fp32.onnx"})
    with pytest.raises(BundleError, match="attacks need the fp32 model, it has int8"):
        Network.from_bundle(bundle)
