from __future__ import annotations

import hashlib
import json
import lzma

import numpy as np
import pytest
import torch
from repository import ROOT

from framegate.models.checkpoint import checkpoint_content, load_checkpoint, save_checkpoint
from framegate.models.hybrid import HybridClassifier
from framegate.models.layers import SqueezeExcitation
from framegate.models.mobilenet_v2 import FEATURE_BLOCKS, MobileNetV2Trunk
from framegate.models.predict import to_tensor
from framegate.models.registry import architecture
from framegate.runtime.errors import DataError
from framegate.runtime.preprocess import Preprocessor


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return HybridClassifier(10).eval()


# 81,920 + 128 for the adaptation, 18,432 or 576 + 128 + 8,192 for the convolution, 256, gates, and the classifier.
@pytest.mark.parametrize(("convolution", "head"), [("grouped", 107_362), ("depthwise", 97_826)])
def test_shapes_and_parameter_count(convolution, head):
    network = HybridClassifier(10, convolution).eval()
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 96, 96)).shape == (2, 10)
    trunk = sum(p.numel() for p in network.trunk.parameters())
    assert trunk == 2_223_872  # MobileNetV2 1.0 without its classifier, as published
    assert sum(p.numel() for p in network.parameters()) - trunk == head


def test_unknown_head_is_refused():
    with pytest.raises(ValueError, match="'dense'; expected 'grouped' or 'depthwise'"):
        HybridClassifier(10, "dense")


def test_keras_and_torchvision_conventions_differ_as_documented():
    keras, torchvision = MobileNetV2Trunk(keras=True).eval(), MobileNetV2Trunk(keras=False).eval()
    torchvision.load_state_dict(keras.state_dict())  # same parameters, same names
    stem = keras.features[0][0]
    image = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        padded = torch.nn.functional.conv2d(torch.nn.functional.pad(image, (0, 1, 0, 1)), stem.weight, stride=2)
        torch.testing.assert_close(stem(image), padded)
        assert keras(image).shape == torchvision(image).shape == (1, 1280, 3, 3)
        assert not torch.allclose(keras(image), torchvision(image))
    assert keras.features[0][1].eps == 1e-3
    assert torchvision.features[0][1].eps == 1e-5


def test_squeeze_excitation_scales_channels_by_a_gate():
    block = SqueezeExcitation(16)
    x = torch.randn(2, 16, 3, 3)
    ratio = block(x) / x
    assert ((ratio > 0) & (ratio < 1)).all()
    torch.testing.assert_close(ratio, ratio[:, :, :1, :1].expand_as(ratio))


def test_stages_share_the_parameters(model):
    frozen, tuned = model.stages(14)
    assert len(frozen) + len(tuned) == FEATURE_BLOCKS
    with torch.inference_mode():
        x = torch.randn(1, 3, 96, 96)
        torch.testing.assert_close(model.head(tuned(frozen(x))), model(x))
    assert next(tuned.parameters()) is next(model.trunk.features[14].parameters())


def test_training_input_is_the_runtime_input():
    image = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    spec = architecture("hybrid").preprocess
    np.testing.assert_array_equal(to_tensor(image, spec)[1].numpy(), Preprocessor(spec)(image[1])[0])


def test_a_checkpoint_gives_back_exactly_the_model_that_was_saved(model, tmp_path):
    architecture = {"name": "hybrid", "classes": 10, "convolution": "grouped", "keras_trunk": True}
    path = tmp_path / "sub" / "model.pt"
    save_checkpoint(path, model, architecture, tuple("abcdefghij"), {"data": "none"})
    loaded, record = load_checkpoint(path)
    saved = model.state_dict()
    assert loaded.state_dict().keys() == saved.keys()
    assert all(torch.equal(value, saved[key]) for key, value in loaded.state_dict().items())
    x = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(x), model(x))
    assert record["labels"] == list("abcdefghij")
    assert path.stat().st_size < 5.5e6  # float16 weights: half of 2.3 M x 4 bytes
    assert list(path.parent.iterdir()) == [path]


def test_unusable_checkpoints(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load_checkpoint(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(DataError, match="cannot be read"):
        load_checkpoint(tmp_path / "text.pt")
    torch.save({"other": 1}, tmp_path / "other.pt")
    with pytest.raises(DataError, match="not a framegate-checkpoint-1"):
        load_checkpoint(tmp_path / "other.pt")
    (tmp_path / "cut.pt.xz").write_bytes(lzma.compress(b"anything")[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        load_checkpoint(tmp_path / "cut.pt.xz")


@pytest.mark.parametrize("path", sorted((ROOT / "models" / "checkpoints").glob("*.xz")), ids=lambda path: path.name)
def test_a_shipped_checkpoint_is_the_one_that_its_bundle_names(path):
    """Compressing it changed nothing: its bundle's manifest holds the hash of what was saved."""
    name = path.name.removesuffix(".pt.xz")
    origin = json.loads((ROOT / "models" / "bundles" / f"{name}.bundle" / "manifest.json").read_text())["origin"]
    found = hashlib.sha256(checkpoint_content(path)).hexdigest()
    assert (origin["checkpoint"], origin["checkpoint_sha256"]) == (f"{name}.pt", found)
    assert len(load_checkpoint(path)[1]["labels"]) == origin["architecture"]["classes"]


def test_a_checkpoint_whose_weights_contradict_its_architecture(model, tmp_path):
    architecture = {"name": "hybrid", "classes": 7, "convolution": "grouped", "keras_trunk": True}
    save_checkpoint(tmp_path / "m.pt", model, architecture, tuple("abcdefg"), {})
    with pytest.raises(DataError, match="weights are not those of its architecture"):
        load_checkpoint(tmp_path / "m.pt")


def test_unusable_trunk_weights(tmp_path):
    trunk = MobileNetV2Trunk()
    with pytest.raises(DataError, match="no such file"):
        trunk.load_weights(str(tmp_path / "none.pth"))
    torch.save({"features.0.0.weight": torch.zeros(1)}, tmp_path / "wrong.pth")
    with pytest.raises(DataError, match="not a MobileNetV2"):
        trunk.load_weights(str(tmp_path / "wrong.pth"))
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(DataError, match="not a MobileNetV2"):
        trunk.load_weights(str(tmp_path / "text.pth"))
