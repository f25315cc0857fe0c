"""``framegate train --start``: a checkpoint is trained further."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import torch

from framegate.models import datasets
from framegate.models.checkpoint import save_checkpoint
from framegate.models.command_train import _load_start
from framegate.models.held_out import hold_out
from framegate.models.labelled import LabelledImages, fingerprint
from framegate.models.registry import build
from framegate.runtime.errors import DataError, UsageError

DATA = datasets.dataset("cifar10")
WANTED = {"name": "simplecnn", "classes": 10}
IMAGES = LabelledImages("train", np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1).repeat(3, 3), np.arange(40) % 2)


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(1)
    model = build("simplecnn", 10, {})
    path = tmp_path / "first.pt"
    save_checkpoint(path, model, WANTED, DATA.labels, {})
    return path, model


def asked(path, trunk=None):
    return argparse.Namespace(start=path, trunk_weights=trunk, seed=None)


def test_the_weights_are_those_of_the_checkpoint(checkpoint):
    path, trained = checkpoint
    model = build("simplecnn", 10, {})
    _load_start(model, asked(path), WANTED, DATA, IMAGES)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, trained.state_dict()[name])


def test_another_network_or_two_beginnings_are_refused(checkpoint):
    path, _ = checkpoint
    model = build("mobilenet", 10, {})
    with pytest.raises(UsageError, match="same network, no wider, and of the same labels"):
        _load_start(model, asked(path), {"name": "mobilenet", "classes": 10}, DATA, IMAGES)
    with pytest.raises(UsageError, match="same network, no wider, and of the same labels"):
        _load_start(model, asked(path), WANTED, datasets.dataset("gtsrb"), IMAGES)
    with pytest.raises(UsageError, match="give one of them"):
        _load_start(model, asked(path, path), WANTED, DATA, IMAGES)


def test_a_narrower_network_is_widened_and_a_wider_one_refused(tmp_path):
    torch.manual_seed(1)
    narrow, path = build("resnet20", 10, {"width": 4}).eval(), tmp_path / "narrow.pt"
    save_checkpoint(path, narrow, {"name": "resnet20", "classes": 10, "width": 4}, DATA.labels, {})
    wide, x = build("resnet20", 10, {"width": 8}).eval(), torch.randn(4, 3, 32, 32)
    _load_start(wide, asked(path), {"name": "resnet20", "classes": 10, "width": 8}, DATA, IMAGES)
    torch.testing.assert_close(wide(x), narrow(x), rtol=1e-3, atol=1e-4)
    # The architecture's own width is 16 where none is written.
    model = build("resnet20", 10, {})
    _load_start(model, asked(path), {"name": "resnet20", "classes": 10}, DATA, IMAGES)
    torch.testing.assert_close(model.eval()(x), narrow(x), rtol=1e-3, atol=1e-4)
    with pytest.raises(UsageError, match="no wider"):
        _load_start(narrow, asked(path), {"name": "resnet20", "classes": 10, "width": 2}, DATA, IMAGES)


SETTINGS = {"adversarial": "none", "held_out": 0.1}
HELD = fingerprint(hold_out(IMAGES, 0.1)[1])


@pytest.mark.parametrize(
    ("notes", "known"),
    [
        ({"data": "cifar10", "held_out_sha256": HELD, "settings": SETTINGS}, HELD),
        ({"data": "cifar10", "settings": SETTINGS}, ""),
        ({"data": "gtsrb", "held_out_sha256": HELD, "settings": SETTINGS}, ""),
        ({"data": "cifar10", "held_out_sha256": HELD, "settings": {**SETTINGS, "adversarial": "pgd"}}, ""),
        ({"data": "cifar10", "held_out_sha256": HELD, "teacher": "large.pt", "settings": SETTINGS}, ""),
        ({}, ""),
    ],
)
def test_what_the_first_run_held_out_is_known_to_the_second(tmp_path, notes, known):
    path = tmp_path / "first.pt"
    save_checkpoint(path, build("simplecnn", 10, {}), WANTED, DATA.labels, notes)
    assert _load_start(build("simplecnn", 10, {}), asked(path), WANTED, DATA, IMAGES) == (notes.get("data", ""), known)


@pytest.mark.parametrize("changed", [{}, {"adversarial": "pgd"}])
def test_weights_that_another_copy_of_the_data_has_trained_are_refused(tmp_path, changed):
    """It was divided otherwise: they may have seen what calibrates here, which the second record would not say."""
    path = tmp_path / "first.pt"
    notes = {"data": "cifar10", "held_out_sha256": "b" * 64, "settings": {**SETTINGS, **changed}}
    save_checkpoint(path, build("simplecnn", 10, {}), WANTED, DATA.labels, notes)
    with pytest.raises(DataError, match="another copy of CIFAR-10"):
        _load_start(build("simplecnn", 10, {}), asked(path), WANTED, DATA, IMAGES)
