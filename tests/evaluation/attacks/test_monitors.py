from __future__ import annotations

import numpy as np
import pytest
import torch

from framegate.evaluation.attacks.monitors import one_sided, softmax_entropy, two_sided
from framegate.evaluation.frames.network import Network
from framegate.evaluation.suite.observe import Observer
from framegate.models.pixels import to_pixels
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.errors import UsageError


@pytest.fixture(scope="module")
def network(bundle_path):
    return Network.from_bundle(Bundle.open(bundle_path))


@pytest.fixture(scope="module")
def calibration(network, colours, quiet):
    split = colours(200, 7, "calibration")
    return Observer(network, 1, quiet).images("calibration", split.images, split.labels)


def test_entropy_is_that_of_the_distribution():
    torch.testing.assert_close(
        softmax_entropy(torch.zeros(1, 4), 1.0), torch.tensor([np.log(4.0)], dtype=torch.float32)
    )
    assert float(softmax_entropy(torch.tensor([[50.0, 0.0]]), 1.0)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda n, c: one_sided(n, c, "entropy", 1.3),
        lambda n, c: one_sided(n, c, "total_variation", 1.0),
        lambda n, c: two_sided(n, c, ["entropy"], 1.3),
        lambda n, c: two_sided(n, c, ["entropy", "stem.0:high_frequency_ratio"], 1.0),
    ],
)
def test_95_percent_of_the_calibration_frames_pass_and_there_is_a_gradient(network, calibration, colours, make):
    monitor = make(network, calibration)
    pixels = to_pixels(colours(200, 7, "calibration").images)
    accepted = monitor.scores(pixels) <= monitor.threshold
    assert accepted.mean() == pytest.approx(0.95, abs=0.02)
    some = pixels[:4].clone().requires_grad_(True)
    monitor.observe(some)[1].sum().backward()
    assert (some.grad.flatten(1).abs().sum(1) > 0).all()


def test_a_two_sided_monitor_rejects_both_ends(network, calibration):
    monitor = two_sided(network, calibration, ["total_variation"], 1.0)
    flat, loud = torch.full((1, 3, 32, 32), 0.5), torch.rand(1, 3, 32, 32).round()
    assert (monitor.scores(torch.cat([flat, loud])) > monitor.threshold).all()
    one = one_sided(network, calibration, "total_variation", 1.0)
    assert (one.scores(torch.cat([flat, loud])) > one.threshold).tolist() == [False, True]


def test_an_unknown_signal_is_named(network, calibration):
    with pytest.raises(UsageError, match=r"'stem\.0:nothing' given"):
        one_sided(network, calibration, "stem.0:nothing", 1.0)
