"""A wider network begins by computing what the narrower one computes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from framegate.models.plain_cnn import PlainCNN, ResNet20
from framegate.models.widening import widen

NETWORKS: tuple[Callable[..., nn.Module], ...] = (PlainCNN, ResNet20)


def trained(build: Callable[..., nn.Module], width: int, seed: int = 0) -> nn.Module:
    """A network whose normalisation has seen something, so that its statistics are no zeros and ones."""
    torch.manual_seed(seed)
    model = build(4, width=width)
    model(2 * torch.randn(8, 3, 32, 32) + 1)
    return model.eval()


@pytest.mark.parametrize("build", NETWORKS)
@pytest.mark.parametrize("width", [4, 6, 8])
def test_it_computes_the_same(build: Callable[..., nn.Module], width: int) -> None:
    narrow, wide = trained(build, 4), trained(build, width, 1)
    x = torch.randn(8, 3, 32, 32)
    before = wide(x)
    widen(wide, narrow.state_dict(), 0)
    assert torch.allclose(wide(x), narrow(x), rtol=1e-3, atol=1e-5)
    assert not torch.allclose(before, narrow(x), rtol=1e-3, atol=1e-5)


def test_copies_of_a_channel_get_gradients_of_their_own() -> None:
    narrow, wide = trained(ResNet20, 4), trained(ResNet20, 8)
    widen(wide, narrow.state_dict(), 0)
    wide(torch.randn(8, 3, 32, 32)).pow(2).mean().backward()
    gradient = wide.get_parameter("blocks.0.first.0.weight").grad
    assert gradient is not None
    assert not torch.allclose(gradient[:4], gradient[4:], rtol=0.05)


def test_what_is_not_narrower_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot become"):
        widen(PlainCNN(4, width=4), PlainCNN(4, width=6).state_dict(), 0)
    with pytest.raises(ValueError, match="other layers"):
        widen(PlainCNN(4, width=4), ResNet20(4, width=4).state_dict(), 0)
