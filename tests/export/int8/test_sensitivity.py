"""The layers that INT8 would damage are found, and the network is left as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from framegate.export.int8.choice import FLOAT_LIMITS, layers_above
from framegate.export.int8.sensitivity_torch import logit_changes
from framegate.models.registry import architecture

PREPROCESS = architecture("hybrid").preprocess


class _Tiny(nn.Module):
    """Two paths of the image; the second has a channel whose large weights cancel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.harmless = nn.Conv2d(3, 8, 1)
        self.cancelling = nn.Conv2d(8, 8, 3, padding=1)
        self.classify = nn.Linear(8, 4)
        with torch.no_grad():
            self.cancelling.weight[:, :, 0, 0] += 60.0
            self.cancelling.weight[:, :, 0, 1] -= 60.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classify(self.cancelling(self.harmless(x)).mean((2, 3)))


@pytest.fixture
def network() -> nn.Module:
    return _Tiny().eval()


def test_the_layer_with_cancelling_weights_is_found(network: nn.Module, colours, quiet) -> None:
    images = colours(16, seed=1).images
    changes = logit_changes(network, images, PREPROCESS, quiet)
    assert set(changes) == {"harmless", "cancelling", "classify"}
    assert changes["cancelling"] > FLOAT_LIMITS[0] > changes["harmless"] > 0
    assert layers_above(changes, FLOAT_LIMITS[0]) == ["cancelling"]


def test_the_network_is_left_as_it_was(network: nn.Module, colours, quiet) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    logit_changes(network, colours(4, seed=2).images, PREPROCESS, quiet)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_progress_reaches_the_number_of_layers(network: nn.Module, colours) -> None:
    seen = []
    logit_changes(network, colours(2, seed=3).images, PREPROCESS, lambda text, done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_layer_whose_effect_is_not_a_number_is_kept(network: nn.Module, colours, quiet) -> None:
    with torch.no_grad():
        network.classify.weight[0, 0] = float("nan")
    changes = logit_changes(network, colours(2, seed=4).images, PREPROCESS, quiet)
    assert len(layers_above(changes, FLOAT_LIMITS[0])) == 3
