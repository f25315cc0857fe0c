"""A wider network that begins by computing what a trained narrower one of the same architecture computes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_SHARES = (0.25, 0.75)
"""Between which a copy draws its part of a weight, before the parts of all copies are divided by their sum."""


@torch.no_grad()
def widen(wide: nn.Module, narrow: Mapping[str, Tensor], seed: int) -> None:
    """Give a network the weights of a narrower one, so that both compute the same (Net2WiderNet, Chen et al. 2016).

    Channel j of a wide layer is a copy of channel j modulo the narrow layer's channels (arXiv:1511.05641, section 2.2).
    What the next layer took from one channel it now takes from its copies, divided at random: so the function stays
    the same, and the copies get different gradients and grow apart.

    Args:
        wide: Convolutions, linear layers and batch normalisation only; changed in place.
        narrow: State of a network of the same architecture, no layer of which is wider.
        seed: Of the division.

    Raises:
        ValueError: The states do not belong to one architecture.
    """
    random = torch.Generator().manual_seed(seed)
    state = wide.state_dict()
    if state.keys() != narrow.keys():
        raise ValueError("the networks have other layers")
    for name, target in state.items():
        source = narrow[name]
        if source.dim() != target.dim() or any(a > b for a, b in zip(source.shape, target.shape, strict=True)):
            raise ValueError(f"{name}: {tuple(source.shape)} cannot become {tuple(target.shape)}")
        if source.dim() == 0:  # how many batches a normalisation has seen
            target.copy_(source)
            continue
        wider = source[torch.arange(len(target)) % len(source)]
        if source.dim() > 1:
            inputs = torch.arange(target.shape[1]) % source.shape[1]
            wider = wider[:, inputs] * _divided(target.shape[0], inputs, random).view(
                *target.shape[:2], *[1] * (target.dim() - 2)
            )
        target.copy_(wider)


def _divided(outputs: int, inputs: Tensor, random: torch.Generator) -> Tensor:
    """(outputs, inputs): what each copy of an input channel gets of its weight; the copies' shares sum to 1."""
    low, high = _SHARES
    shares = low + (high - low) * torch.rand((outputs, len(inputs)), generator=random)
    sums = torch.zeros((outputs, int(inputs.max()) + 1)).index_add_(1, inputs, shares)
    return shares / sums[:, inputs]
