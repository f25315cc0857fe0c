"""What a network learns from: a checkpoint, or a bundle."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from framegate.models.checkpoint import save_checkpoint
from framegate.models.labelled import LabelledImages
from framegate.models.registry import architecture, build
from framegate.models.teacher import teacher_logits
from framegate.runtime import Bundle, Session
from framegate.runtime.errors import BundleError, DataError


@pytest.fixture
def train():
    rng = np.random.default_rng(0)
    return LabelledImages("train", rng.integers(0, 256, (5, 32, 32, 3), np.uint8), np.zeros(5, np.int64))


def data_of(labels):
    return SimpleNamespace(labels=tuple(labels), name="things", title="Things")


def test_a_bundle_answers_as_its_own_engine_does(tiny_bundle, train):
    labels = Bundle.open(tiny_bundle).labels
    found = teacher_logits(tiny_bundle, data_of(labels), train, train, "cpu")
    assert found.dtype == torch.float32
    assert found.shape == (5, len(labels))
    session = Session.open(tiny_bundle, "onnxruntime", "fp32", 1)
    for image, answer in zip(train.images, found.numpy(), strict=True):
        said = session.infer(image)
        assert said.candidate == labels[answer.argmax()]


def test_a_checkpoint_answers_as_its_network_does(train, tmp_path):
    model = build("simplecnn", 4, {}).eval()
    save_checkpoint(tmp_path / "t.pt", model, {"name": "simplecnn", "classes": 4}, tuple("abcd"), {"data": "things"})
    found = teacher_logits(tmp_path / "t.pt", data_of("abcd"), train, train, "cpu")
    spec = architecture("simplecnn").preprocess
    image = (train.images[0][..., ::-1].astype(np.float32) - spec.mean) / spec.std
    with torch.inference_mode():
        expected = model(torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32)))
    torch.testing.assert_close(found[:1], expected, rtol=1e-2, atol=1e-2)  # weights are kept in float16


def test_other_labels_and_other_folders_are_refused(tiny_bundle, train, tmp_path):
    with pytest.raises(DataError, match=r"teacher .*: trained on other data with \d+ labels, things has 2 of its own"):
        teacher_logits(tiny_bundle, data_of("ab"), train, train, "cpu")
    with pytest.raises(BundleError):
        teacher_logits(tmp_path, data_of("ab"), train, train, "cpu")


def test_a_teacher_that_another_copy_of_the_data_has_taught_is_refused(tmp_path):
    """It may have seen what calibrates in this one, and hands it on."""
    train = LabelledImages("train", np.zeros((40, 32, 32, 3), np.uint8), np.arange(40) % 4)
    notes = {"data": data_of("abcd").name, "settings": {"held_out": 0.1}, "held_out_sha256": "b" * 64}
    model = build("simplecnn", 4, {})
    save_checkpoint(tmp_path / "t.pt", model, {"name": "simplecnn", "classes": 4}, tuple("abcd"), notes)
    with pytest.raises(DataError, match="another copy"):
        teacher_logits(tmp_path / "t.pt", data_of("abcd"), train, train, "cpu")
