from __future__ import annotations

import math

import pytest
import torch

from framegate.models.training.adversarial import RobustWatch, adversarial_loss, entropy_loss, pgd_pixels
from framegate.models.training.settings import TrainSettings
from framegate.runtime.errors import UsageError

WEIGHT = torch.tensor([[1.0, -1.0, 0.5, 0.0], [-1.0, 1.0, -0.5, 0.2]])


def linear(pixels):
    return pixels.flatten(1) @ WEIGHT.T


def test_pgd_finds_the_worst_corner_of_a_linear_model():
    pixels = torch.full((5, 4), 0.5)
    labels = torch.zeros(5, dtype=torch.long)
    moved = pgd_pixels(linear, pixels, labels, epsilon=0.1, steps=10)
    # Class 0 suffers most where the weight difference (2, -2, 1, -0.2) is worked against.
    expected = 0.5 - 0.1 * torch.sign(WEIGHT[0] - WEIGHT[1])
    torch.testing.assert_close(moved, expected.expand(5, 4))


def test_pgd_stays_in_the_ball_and_among_pixels():
    pixels = torch.tensor([[0.0, 1.0, 0.02, 0.99]])
    moved = pgd_pixels(linear, pixels, torch.tensor([1]), epsilon=0.05, steps=3)
    assert ((moved >= 0) & (moved <= 1)).all()
    assert ((moved - pixels).abs() <= 0.05 + 1e-6).all()


@pytest.mark.parametrize("kind", ["fgsm-rs", "n-fgsm", "pgd", "trades"])
def test_the_robust_loss_is_larger_than_the_clean_one_and_has_a_gradient(kind):
    torch.manual_seed(0)
    weight = WEIGHT.clone().requires_grad_(True)
    pixels = torch.rand(64, 4)
    labels = linear(pixels).argmax(1)
    loss, logits = adversarial_loss(
        lambda x: 20 * x.flatten(1) @ weight.T, pixels, labels, TrainSettings(adversarial=kind, epsilon=0.1)
    )
    clean = torch.nn.functional.cross_entropy(20 * pixels @ weight.T, labels)
    assert loss > clean
    assert logits.shape == (64, 2)
    loss.backward()
    assert weight.grad is not None
    assert torch.isfinite(weight.grad).all()


def test_watch_keeps_the_best_and_stops_when_nothing_gets_better():
    watch = RobustWatch(patience=2)
    assert watch.update(1, 0.30)
    assert watch.update(2, 0.35)
    assert not watch.update(3, 0.34)
    assert watch.reason == ""
    assert not watch.update(4, 0.33)
    assert "epoch 2 are kept" in watch.reason


@pytest.mark.parametrize("collapsed", [0.05, float("nan")])
def test_watch_names_catastrophic_overfitting(collapsed):
    watch = RobustWatch(patience=10)
    assert watch.update(1, 0.40)
    assert not watch.update(2, collapsed)
    assert "catastrophic overfitting" in watch.reason


@pytest.mark.parametrize("epsilon", [0.0, -0.1, 1.5, 8.0, float("nan")])
def test_epsilon_out_of_range_is_refused(epsilon):
    with pytest.raises(UsageError, match=r"expected a pixel distance in \(0, 1\]"):
        TrainSettings(adversarial="pgd", epsilon=epsilon)


def test_frozen_blocks_do_not_go_with_adversarial_training():
    with pytest.raises(UsageError, match="no block may be frozen"):
        TrainSettings(adversarial="pgd", frozen_blocks=3)


def test_only_wrong_answers_are_asked_for_entropy():
    labels = torch.tensor([0, 1, 2, 0])
    sure, even = torch.tensor([9.0, 0.0, 0.0]), torch.tensor([0.2, 0.1, 0.0])
    entropy = -(sure.softmax(0) * sure.log_softmax(0)).sum()
    assert entropy_loss(sure.expand(4, 3), torch.zeros(4, dtype=torch.long)) == 0
    found = entropy_loss(torch.stack([sure, sure, even, sure]), labels)
    gaps = math.log(3) - entropy, math.log(3) + (even.softmax(0) * even.log_softmax(0)).sum()
    torch.testing.assert_close(found, (gaps[0] + gaps[1]) / 4)
    logits = torch.tensor([[3.0, 0.0, -1.0]], requires_grad=True)
    entropy_loss(logits, torch.tensor([1])).backward()
    assert logits.grad[0, 0] > 0  # descending makes the wrong answer less sure


def test_an_entropy_weight_without_an_attack_is_refused():
    TrainSettings(adversarial="fgsm-rs", entropy_weight=0.5)
    with pytest.raises(UsageError, match=r"entropy_weight: 0\.5 given without adversarial training"):
        TrainSettings(entropy_weight=0.5)
    with pytest.raises(UsageError, match="entropy_weight: -1"):
        TrainSettings(adversarial="fgsm-rs", entropy_weight=-1)
