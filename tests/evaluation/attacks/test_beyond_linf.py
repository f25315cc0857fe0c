"""Attacks that are no L-infinity ball: inside their budget, not without effect, refused where they mean nothing."""

from __future__ import annotations

import pytest
import torch

from framegate.evaluation.attacks.l2 import lengths, pgd_l2
from framegate.evaluation.attacks.patch import patch
from framegate.evaluation.attacks.spatial import spatial, turned
from framegate.runtime.errors import UsageError

torch.manual_seed(0)
WEIGHT = torch.randn(3, 3 * 12 * 12)


def linear(pixels):
    return pixels.flatten(1) @ WEIGHT.T


def frames(count=6):
    pixels = torch.rand(count, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    return pixels, linear(pixels).argmax(1)


def test_l2_stays_in_its_ball_and_finds_the_best_point_of_a_linear_network():
    pixels, labels = frames()
    pixels = 0.4 + 0.2 * pixels  # nothing is clipped
    labels = linear(pixels).argmax(1)
    radius = 0.05
    result = pgd_l2(linear, pixels, labels, radius, 40)
    assert (lengths(result.pixels - pixels) <= radius * (1 + 1e-4)).all()
    best = torch.stack([(WEIGHT - WEIGHT[label]).norm(dim=1) for label in labels])  # to each other label
    clean = linear(pixels) - linear(pixels).gather(1, labels[:, None])
    reach = (clean + radius * best).scatter(1, labels[:, None], -torch.inf).amax(1)
    found = (result.logits - result.logits.gather(1, labels[:, None])).scatter(1, labels[:, None], -torch.inf).amax(1)
    torch.testing.assert_close(found, reach, rtol=0.02, atol=0.02)


def test_l2_follows_gradients_whose_squares_vanish():
    """Of a network that is very sure, whose cross-entropy has a gradient of 1e-16."""
    pixels, labels = frames()
    sure = lambda x: linear(x) * 40 / gap  # noqa: E731 - every margin is 40
    gap = (linear(pixels).topk(2).values @ torch.tensor([1.0, -1.0]))[:, None]
    assert pgd_l2(sure, pixels, labels, 2.0, 20, loss="cross_entropy").misclassified.all()


def test_l2_with_a_gradient_of_nan_moves_nothing():
    """It used to give pixels of NaN, which no network reads rightly."""
    pixels, labels = frames()
    broken = lambda x: linear(x) + 0 * (x.sum() - x.sum().detach()).abs().sqrt()  # noqa: E731
    result = pgd_l2(broken, pixels, labels, 1e-4, 3)
    assert result.pixels.isfinite().all()
    assert not result.misclassified.any()


def test_a_larger_radius_is_never_weaker():
    pixels, labels = frames(20)
    fallen = [int(pgd_l2(linear, pixels, labels, radius, 20).misclassified.sum()) for radius in (0.01, 0.5, 3.0)]
    assert fallen == sorted(fallen)
    assert fallen[-1] == 20


def test_a_patch_changes_one_square_only_and_fools_a_network_that_looks_there():
    weight = torch.zeros(2, 3, 12, 12)
    weight[1, :, 4:7, 5:8] = 5.0  # bright here means class 1
    pixels = torch.full((4, 3, 12, 12), 0.1)
    logits_of = lambda x: torch.cat([torch.full((len(x), 1), 20.0), (x * weight[1]).flatten(1).sum(1, True)], 1)  # noqa: E731
    labels = torch.zeros(4, dtype=torch.int64)
    result = patch(logits_of, pixels, labels, 3, 20)
    assert result.misclassified.all()
    for frame in (result.pixels - pixels).abs().amax(1) > 0:
        rows, columns = torch.nonzero(frame.any(1))[:, 0], torch.nonzero(frame.any(0))[:, 0]
        assert rows[-1] - rows[0] < 3
        assert columns[-1] - columns[0] < 3
    assert ((result.pixels >= 0) & (result.pixels <= 1)).all()


def test_a_quarter_turn_and_a_shift_are_what_they_say():
    pixels, _ = frames(2)
    torch.testing.assert_close(turned(pixels, 90, 0, 0), torch.rot90(pixels, 1, (2, 3)), rtol=1e-4, atol=1e-4)
    moved = turned(pixels, 0, 2, 1)
    torch.testing.assert_close(moved[:, :, 1:, 2:], pixels[:, :, :-1, :-2], rtol=1e-4, atol=1e-4)


def test_the_worst_of_the_grid_counts():
    pixels, labels = frames(30)
    assert not spatial(linear, pixels, labels, 0, 0).misclassified.any()
    assert spatial(linear, pixels, labels, 20, 2).misclassified.float().mean() > 0.5


@pytest.mark.parametrize(
    "call",
    [
        lambda x, y: pgd_l2(linear, x, y, 0.0),
        lambda x, y: pgd_l2(linear, x, y, float("nan")),
        lambda x, y: patch(linear, x, y, 13),
        lambda x, y: patch(linear, x, y, 0),
        lambda x, y: spatial(linear, x, y, 200, 0),
        lambda x, y: spatial(linear, x, y, 0, 12),
    ],
)
def test_budgets_that_mean_nothing_are_refused(call):
    with pytest.raises(UsageError, match="expected"):
        call(*frames())
