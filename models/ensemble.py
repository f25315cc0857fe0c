"""Several networks that answer as one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class MeanLogits(nn.Module):
    """The mean of the logits of several networks, whose softmax is the normalised geometric mean of theirs.

    Where one is sure of a wrong label another one seldom is, and the geometric mean is as low as the lowest wants it.

    Args:
        networks: At least one; all take the same input and have the same labels.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, h, w) float32 -> (N, classes) logits."""
        first, *others = self.networks
        total: Tensor = first(images)
        for network in others:
            total = total + network(images)
        return total * (1 / len(self.networks)) if others else total
