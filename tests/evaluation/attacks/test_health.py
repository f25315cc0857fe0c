from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from framegate.evaluation.attacks import linf, problem
from framegate.evaluation.attacks.health import AttackHealth, check_attack_health
from framegate.evaluation.attacks.health_checks import (
    HealthCheck,
    check_clean,
    check_constant_class,
    check_gradients,
    check_inside_ball,
    check_never_weaker,
    check_unbounded,
    check_white_box,
)
from framegate.evaluation.attacks.linf import LinfSettings, fgsm, pgd, uniform_noise
from framegate.evaluation.attacks.problem import AttackResult, project
from framegate.runtime.errors import UsageError

EPSILON = 0.06
SETTINGS = LinfSettings("PGD-10", EPSILON, 10)


def draw(size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy stripes of four kinds, (size, 1, 8, 8)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (size,), generator=generator)
    rows, columns = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    waves = torch.stack([rows % 2, columns % 2, (rows + columns) % 2, (rows // 2) % 2]).float()
    noise = 0.1 * torch.randn(size, 1, 8, 8, generator=generator)
    return (0.5 + 0.2 * (waves[labels, None] - 0.5) + noise).clamp(0, 1), labels


def train(scale: float = 1.0) -> nn.Module:
    """A small network on the stripes, its pixels multiplied by ``scale`` first."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128, 4),
        )
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for step in range(40):
        images, labels = draw(64, 100 + step)
        loss = nn.functional.cross_entropy(network(images * scale), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return train()


@pytest.fixture(scope="module")
def frames() -> tuple[Tensor, Tensor]:
    return draw(80, 7)


def test_a_healthy_attack_on_an_honest_network_passes(network, frames):
    results = [
        pgd(network, *frames, EPSILON, 10),
        fgsm(network, *frames, EPSILON),
        uniform_noise(network, *frames, EPSILON),
    ]
    seen: list[tuple[str, int, int]] = []
    health = check_attack_health(
        network, *frames, SETTINGS, results=results, queries=50, progress=lambda *call: seen.append(call)
    )
    assert health.passed, str(health)
    assert health.failed == ()
    assert health.frames == 64
    names = [check.name for check in health.checks]
    assert len(names) == len(set(names)) == 10 + 2 * len(results)
    assert seen[-1] == ("attack health", 9, 9)
    assert seen[0][1] == 1


def test_quantised_input_hides_the_gradient_and_fails(network, frames):
    def masked(pixels: Tensor) -> Tensor:
        return network((pixels * 10).round() / 10)

    health = check_attack_health(masked, *frames, SETTINGS, queries=200)
    assert not health.passed
    assert "gradients" in health.failed
    assert "epsilon 0.5 fools every frame" in health.failed
    assert "as strong as Square with 200 queries" in health.failed


def test_a_huge_temperature_hides_the_gradient_of_the_cross_entropy_but_not_of_the_margin(network, frames):
    def masked(pixels: Tensor) -> Tensor:
        return 1e4 * network(pixels)

    assert "gradients" in check_attack_health(masked, *frames, SETTINGS, queries=20).failed
    health = check_attack_health(masked, *frames, replace(SETTINGS, loss="margin"), queries=20)
    assert health.passed, str(health)


def test_a_gradient_that_points_the_wrong_way_fails_against_black_box_and_noise(network, frames):
    def masked(pixels: Tensor) -> Tensor:
        # The value is the network's, the gradient its opposite.
        return network(2 * pixels.detach() - pixels)

    health = check_attack_health(masked, *frames, SETTINGS, queries=100)
    assert "gradients" not in health.failed
    assert "as strong as Square with 100 queries" in health.failed
    assert "epsilon 0.5 fools every frame" in health.failed


@pytest.mark.parametrize("keep", ["best", "first", "last"])
def test_an_attack_that_uses_half_of_its_ball_fails(network, frames, monkeypatch, keep):
    """It is stronger than noise and inside the ball, and grows with all that it is given."""
    for module in (linf, problem):
        monkeypatch.setattr(module, "project", lambda pixels, clean, epsilon: project(pixels, clean, epsilon / 2))
    settings = replace(SETTINGS, keep=keep)
    assert "uses the whole ball" in check_attack_health(network, *frames, settings, queries=5).failed
    monkeypatch.undo()
    assert "uses the whole ball" not in check_attack_health(network, *frames, settings, queries=5).failed


def test_steps_that_cannot_reach_the_edge_of_the_ball_fail(network, frames):
    short = replace(SETTINGS, step_size=EPSILON / 20, random_start=False)
    assert "uses the whole ball" in check_attack_health(network, *frames, short, queries=5).failed


def test_a_random_network_is_flagged(network, frames):
    noisy = nn.Sequential(nn.Dropout(0.3), network).train()
    with torch.random.fork_rng():
        health = check_attack_health(noisy, *frames, SETTINGS, frames=16, queries=5)
    assert "deterministic" in health.failed


def test_batch_statistics_left_in_training_are_flagged(network, frames):
    coupled = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(64, 4)).train()
    health = check_attack_health(coupled, *frames, SETTINGS, frames=16, queries=5)
    assert "deterministic" in health.failed


def test_images_of_0_to_255_clipped_to_0_to_1_give_one_constant_class(frames):
    """What the research did: a network for 0-255 attacked with clipping to [0, 1], so every image is nearly black."""
    pixels, labels = frames
    network = train(1.0)

    def for_bytes(images: Tensor) -> Tensor:
        return network(images / 255)

    clean = for_bytes(255 * pixels).detach()
    black = (255 * pixels + 0.03).clamp(0, 1)
    logits = for_bytes(black).detach()
    result = AttackResult("FGSM", 0.03, black, logits, logits.argmax(1) != labels)
    check = check_constant_class(result, clean, labels)
    assert not check.passed
    assert "100.0% of the attacked frames" in check.detail
    # The same network with the right range is fine.
    honest = fgsm(network, pixels, labels, EPSILON)
    assert check_constant_class(honest, network(pixels).detach(), labels).passed


def test_a_network_that_says_one_class_before_any_attack_is_flagged(frames):
    _, labels = frames
    constant = torch.zeros(80, 4)
    constant[:, 2] = 1
    check = check_clean(constant, labels)
    assert not check.passed
    assert "pixel range" in check.detail
    assert check_clean(constant, torch.full((80,), 2)).passed, "unless the labels are of that class"
    assert not check_clean(constant, torch.full((80,), 1)).passed, "nothing right, nothing to attack"


def predictions(classes: Tensor, labels: Tensor, count: int) -> AttackResult:
    logits = nn.functional.one_hot(classes, count).float()
    return AttackResult("made up", 0.1, torch.zeros(len(labels), 1), logits, classes != labels)


def test_a_perfect_attack_on_two_unequal_classes_is_not_a_constant_class():
    labels = (torch.arange(100) < 10).long()
    clean = nn.functional.one_hot(labels, 2).float()
    assert check_constant_class(predictions(1 - labels, labels, 2), clean, labels).passed
    assert not check_constant_class(predictions(torch.ones(100).long(), labels, 2), clean, labels).passed


def test_a_class_that_attracts_every_other_frame_but_loses_its_own_is_no_constant():
    labels = torch.arange(100) % 10
    clean = nn.functional.one_hot(labels, 10).float()
    drawn = torch.where(labels == 3, 4, 3)
    assert check_constant_class(predictions(drawn, labels, 10), clean, labels).passed


def test_pixels_outside_ball_or_box_and_false_claims_are_flagged(network, frames):
    pixels, labels = frames
    good = pgd(network, pixels, labels, EPSILON, 5)
    assert check_inside_ball(network, good, pixels, labels).passed
    far, nan = good.pixels.clone(), good.pixels.clone()
    far[3, 0, 2, 2] = (pixels[3, 0, 2, 2] + 0.1) if pixels[3, 0, 2, 2] < 0.5 else (pixels[3, 0, 2, 2] - 0.1)
    nan[3, 0, 2, 2] = torch.nan
    for bad in (
        replace(good, pixels=far),
        replace(good, pixels=nan),
        replace(good, pixels=good.pixels - 0.5, epsilon=0.9),
        replace(good, misclassified=~good.misclassified),
    ):
        assert not check_inside_ball(network, bad, pixels, labels).passed


def flags(size: int, count: int) -> Tensor:
    return torch.arange(size) < count


def test_comparisons_allow_one_frame_and_the_tolerance():
    def rises(to: int, tolerance: float = 0.01) -> bool:
        right = {"a": flags(200, 50), "b": flags(200, to)}
        return check_never_weaker("steps", right, tolerance).passed

    assert rises(10)
    assert rises(52)
    assert not rises(53)
    assert rises(60, 0.05)
    assert check_white_box("ours", flags(200, 52), "theirs", flags(200, 50), 0.01).passed
    assert not check_white_box("ours", flags(200, 53), "theirs", flags(200, 50), 0.01).passed
    assert check_unbounded(flags(100, 5), flags(100, 100)).passed
    assert not check_unbounded(flags(100, 6), flags(100, 100)).passed
    assert check_unbounded(flags(100, 6), ~flags(100, 6)).passed


def test_a_gradient_of_nan_is_flagged(frames):
    pixels, labels = frames

    def broken(some: Tensor) -> Tensor:
        flat = some.flatten(1)[:, :4]
        return flat + (flat.detach() - flat).clamp(min=0).sqrt()

    assert not check_gradients(broken, pixels, labels, "cross_entropy").passed


def test_the_record_prints_one_line_a_check():
    health = AttackHealth((HealthCheck("one", True, "1 of 2"), HealthCheck("two", False, "2 of 2")), 2)
    assert str(health).splitlines() == ["passed  one: 1 of 2", "FAILED  two: 2 of 2"]
    assert health.failed == ("two",)
    assert not health.passed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits_of": lambda pixels: pixels.flatten(1)[:, :4].softmax(1)}, "logits needed"),
        ({"frames": 0}, "0 frames"),
        ({"tolerance": 1.0}, "tolerance 1"),
        ({"settings": replace(SETTINGS, epsilon=1.1)}, "epsilon is 1.1"),
        (
            {"settings": replace(SETTINGS, loss="dlr"), "logits_of": lambda p: 3 * p.flatten(1)[:, :2]},
            "at least 3 classes",
        ),
        (
            {"results": [AttackResult("PGD", 0.1, torch.zeros(2, 1, 8, 8), torch.zeros(2, 4), torch.zeros(2).bool())]},
            "same frames",
        ),
    ],
)
def test_bad_input_is_refused_in_one_line(change, message):
    arguments = {
        "logits_of": lambda pixels: pixels.flatten(1)[:, :4],
        "pixels": torch.full((3, 1, 8, 8), 0.5),
        "labels": torch.tensor([0, 1, 0]),
        "settings": SETTINGS,
    }
    with pytest.raises(UsageError) as error:
        check_attack_health(**{**arguments, **change})
    assert message in str(error.value)
    assert "\n" not in str(error.value)
