"""What certificates need of training: bounds that hold, masks that hide, networks without attention, their options."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from framegate.models.labelled import LabelledImages
from framegate.models.pixels import PixelInput
from framegate.models.plain_cnn import PlainCNN, ResNet20
from framegate.models.registry import architecture, build
from framegate.models.training import augment, loop
from framegate.models.training.adversarial import adversarial_loss
from framegate.models.training.interval_bounds import (
    bounds_of,
    carry,
    certified_accuracy,
    interval_loss,
    scheduled_radius,
)
from framegate.models.training.masked_views import FILL, hardest, masked
from framegate.models.training.settings import TrainSettings
from framegate.runtime.errors import UsageError

torch.set_num_threads(1)
PREPARE = PixelInput(architecture("plaincnn").preprocess)


def network(seed: int) -> PlainCNN:
    torch.manual_seed(seed)
    model = PlainCNN(4, width=4)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.momentum = 1.0
            nn.init.uniform_(module.weight, -1.5, 1.5)  # also a negative scale, which turns a box round
            nn.init.normal_(module.bias, 0.0, 0.3)
    model.train()(torch.randn(32, 3, 32, 32))
    return model.eval()


@pytest.mark.parametrize("seed", range(3))
def test_every_point_of_the_ball_keeps_the_bounds(seed):
    model, radius = network(seed), 3 / 255
    pixels = torch.rand(2, 3, 32, 32)
    labels = torch.tensor([0, 3])
    with torch.no_grad():
        clean, worst = bounds_of(model, PREPARE, pixels, labels, radius)
        torch.testing.assert_close(clean, model(PREPARE(pixels)))
        for _ in range(50):
            moved = (pixels + radius * torch.randint(-1, 2, pixels.shape)).clamp(0, 1)
            logits = model(PREPARE(moved))
            margins = logits.gather(1, labels[:, None]) - logits
            assert (margins >= worst - 1e-3).all()
        _, none = bounds_of(model, PREPARE, pixels, labels, 0.0)
        torch.testing.assert_close(none, clean.gather(1, labels[:, None]) - clean, rtol=1e-3, atol=1e-3)


def test_training_with_bounds_certifies_what_plain_training_does_not():
    """Two colours; a few steps, from the same weights, with and without the worst case in the loss."""
    certified = {}
    for weight in (0.0, 0.8):
        torch.manual_seed(1)
        model, rng = PlainCNN(2, width=4), np.random.default_rng(0)
        optimizer = torch.optim.Adam(model.parameters(), 5e-3)
        settings = TrainSettings(interval_bounds=8 / 255, interval_weight=weight)
        for step in range(50):
            labels = torch.from_numpy(rng.integers(0, 2, 16))
            pixels = torch.from_numpy(rng.normal(0.45, 0.05, (16, 3, 32, 32))).float()
            pixels = (pixels + 0.1 * labels[:, None, None, None]).clamp(0, 1)
            loss, _ = interval_loss(model.train(), PREPARE, pixels, labels, step / 40, settings)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        certified[weight] = certified_accuracy(model, PREPARE, pixels, labels, 4 / 255)
    assert certified[0.8] > certified[0.0]
    assert certified[0.8] >= 12


@pytest.mark.parametrize("attack", ["fgsm-rs", "n-fgsm", "pgd"])
def test_attacked_images_take_the_place_of_clean_ones_beside_the_worst_case(attack, monkeypatch, tmp_path):
    """One step: the loss is that of the images as the attack moved them, and of the ball around the clean ones."""
    seen = []

    def noted(model, prepare, pixels, labels, done, settings, moved=None):
        seen.append((pixels.clone(), moved))
        return interval_loss(model, prepare, pixels, labels, 1.0, settings, moved)

    monkeypatch.setattr(loop, "interval_loss", noted)
    images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3)).astype(np.uint8)
    split = LabelledImages("some", images, np.arange(16, dtype=np.int64) % 3)
    radius = 4 / 255
    settings = TrainSettings(epochs=2, batch=8, interval_bounds=radius, adversarial=attack, epsilon=radius, patience=1)
    spec = architecture("plaincnn").preprocess
    task = loop.Task(build("plaincnn", 3, {}), spec, split, split, lambda given, rng: given)
    trainer = loop.Trainer(task, settings, tmp_path / "state", lambda *told: None)
    history = trainer.run()
    for pixels, moved in seen:
        away = (moved - pixels).abs()
        assert radius / 2 < float(away.max()) <= (3 if attack == "n-fgsm" else 1) * radius + 1e-6
    # What is held out is to prove, so nothing is chosen by it: no early end, no best epoch.
    assert len(history) == 2
    assert not trainer.stop_reason
    assert "robust_held_out_accuracy" not in history[-1]


def test_the_loss_of_attacked_images_is_that_of_what_is_seen():
    model, labels = network(0).train(), torch.tensor([0, 3, 1, 2])
    pixels = torch.rand(4, 3, 32, 32)
    moved = (pixels + 0.02).clamp(0, 1)
    settings = TrainSettings(interval_bounds=0.02, interval_weight=0.3, adversarial="pgd", epsilon=0.02)
    loss, known = interval_loss(model, PREPARE, pixels, labels, 1.0, settings, moved)
    torch.testing.assert_close(known, model(PREPARE(moved)))
    _, worst = bounds_of(model, PREPARE, pixels, labels, scheduled_radius(0.02, 1.0, 0.55), moved)
    expected = 0.7 * nn.functional.cross_entropy(known, labels) + 0.3 * nn.functional.cross_entropy(-worst, labels)
    torch.testing.assert_close(loss, expected)


def test_the_radius_grows_and_ends_above_what_is_asked():
    assert scheduled_radius(1.0, 0.0, 0.0) > 1.0  # all of it at once
    radii = [scheduled_radius(1.0, done / 20, 0.55) for done in range(21)]
    assert radii[0] == radii[1] == 0
    assert radii == sorted(radii)
    assert radii[-1] > 1.0


def test_a_layer_without_bounds_is_named():
    with pytest.raises(UsageError, match="Sigmoid has none"):
        carry(nn.Sequential(nn.Sigmoid()), torch.zeros(1, 1), (torch.zeros(1, 1), torch.zeros(1, 1)))


def test_masks_hide_squares_in_the_given_share_of_the_views():
    images = np.full((400, 32, 32, 3), 200, np.uint8)
    views = masked(lambda given, rng: given, 0.5, 0.34)(images, np.random.default_rng(0))
    hidden = (views == FILL).all(3)
    sizes = hidden.sum((1, 2))
    assert 0.4 < (sizes > 0).mean() < 0.6
    assert (images == 200).all()  # the images themselves are not written to
    for each in hidden[sizes > 0]:
        rows, columns = np.flatnonzero(each.any(1)), np.flatnonzero(each.any(0))
        assert len(rows) == len(columns)
        assert each.sum() == len(rows) * len(columns)
        assert 4 <= len(rows) <= 11


def _bright_corner(pixels):
    """Logits of a network that knows label 0 by the upper left corner alone."""
    known = pixels[:, :, :6, :6].mean((1, 2, 3))
    return torch.stack([40 * (known - 0.7), torch.zeros_like(known)], 1)


def test_the_mask_that_costs_most_is_chosen_of_several():
    torch.manual_seed(0)
    pixels, labels = torch.full((200, 3, 32, 32), 0.9), torch.zeros(200, dtype=torch.int64)
    losses = {}
    for choices in (1, 8):
        views = hardest(_bright_corner, pixels, labels, 1.0, 0.34, choices)
        hidden = (views != pixels).all(1)
        assert torch.equal(views[:, 0][hidden], torch.full((int(hidden.sum()),), FILL / 255))
        for each in hidden:
            rows, columns = each.any(1).nonzero(), each.any(0).nonzero()
            assert len(rows) == len(columns)
            assert int(each.sum()) == len(rows) ** 2
            assert 4 <= len(rows) <= 11
        losses[choices] = float(nn.functional.cross_entropy(_bright_corner(views), labels))
    assert losses[8] > 2 * losses[1]
    assert (pixels == 0.9).all()


def test_masks_are_chosen_for_the_given_share_of_the_images():
    torch.manual_seed(0)
    pixels, labels = torch.full((400, 3, 32, 32), 0.9), torch.zeros(400, dtype=torch.int64)
    for share, low, high in ((0.0, 0, 0), (0.5, 160, 240), (1.0, 400, 400)):
        views = hardest(_bright_corner, pixels, labels, share, 0.34, 2)
        assert low <= int((views != pixels).flatten(1).any(1).sum()) <= high


def test_training_with_a_choice_of_masks_asks_the_network_without_changing_its_statistics(monkeypatch, tmp_path):
    modes = []

    def asked(logits_of, pixels, labels, share, side, choices):
        modes.append((model.training, share, side, choices))
        return pixels

    monkeypatch.setattr(loop, "hardest", asked)
    model = build("simplecnn", 3, {})
    images = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3)).astype(np.uint8)
    split = LabelledImages("some", images, np.arange(24, dtype=np.int64) % 3)
    settings = TrainSettings(epochs=1, batch=8, masked_views=0.7, mask_choices=4)
    task = loop.Task(model, architecture("simplecnn").preprocess, split, split, lambda given, rng: given)
    loop.Trainer(task, settings, tmp_path / "state", lambda *told: None).run()
    assert modes == [(False, 0.7, 0.34, 4)] * 3


def test_mild_views_shift_and_relight_only():
    images = np.random.default_rng(0).integers(60, 180, (8, 32, 32, 3)).astype(np.uint8)
    views = augment.mild(images, np.random.default_rng(1))
    assert views.shape == images.shape
    assert (views != images).any()
    turned = augment.mirrored(lambda given, rng: given.copy())(images, np.random.default_rng(2))
    same = (turned == images).all((1, 2, 3))
    assert 0 < same.sum() < 8
    assert (turned[~same] == images[~same][:, :, ::-1]).all()


@pytest.mark.parametrize(("build", "parameters"), [(PlainCNN, 345_635), (ResNet20, 276_715)])
def test_sizes(build, parameters):
    model = build(43)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(parameters, rel=0.02)
    assert model.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 43)


def test_noise_fgsm_moves_further_than_its_radius_and_stays_among_pixels():
    seen = []

    def logits_of(x):
        seen.append(x.detach())
        return x.flatten(1)[:, :3] * weight

    weight = torch.full((3,), 5.0, requires_grad=True)
    pixels, labels = torch.rand(64, 8), torch.zeros(64, dtype=torch.int64)
    loss, _ = adversarial_loss(logits_of, pixels, labels, TrainSettings(adversarial="n-fgsm", epsilon=0.05))
    loss.backward()
    assert weight.grad is not None
    moved = (seen[-1] - pixels).abs()
    assert 0.05 < float(moved.max()) <= 0.15 + 1e-6
    assert ((seen[-1] >= 0) & (seen[-1] <= 1)).all()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"masked_views": 1.5}, "masked_views"),
        ({"mask_side": 0.1}, "mask_side"),
        ({"mask_choices": 0}, "mask_choices"),
        ({"mask_choices": 4}, "needs masked_views"),
        ({"mask_choices": 4, "masked_views": 0.5, "adversarial": "pgd"}, "needs masked_views"),
        ({"mask_choices": 4, "masked_views": 0.5, "interval_bounds": 0.01}, "needs masked_views"),
        ({"mask_choices": 4, "masked_views": 0.5, "frozen_blocks": 2}, "needs masked_views"),
        ({"interval_bounds": -0.1}, "interval_bounds"),
        ({"interval_bounds": 0.01, "adversarial": "trades"}, "give one of them"),
        ({"interval_bounds": 0.01, "adversarial": "pgd", "entropy_weight": 1.0}, "entropy_weight 1; each is"),
    ],
)
def test_settings_out_of_range_are_refused(settings, says):
    with pytest.raises(UsageError, match=says):
        TrainSettings(**settings)
