"""A small dense network: an encoder of separable convolutions and two ways back up, some 30,000 weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framegate.models.layers import separable


class DenseNet(nn.Module):
    """(N, 3, H, W) float, pixel / 127.5 - 1 in RGB order -> (N, classes, H / 2, W / 2) logits.

    Args:
        classes: Number of labels of a pixel.
        width: Channels of the first convolution; H and W are multiples of 16.
    """

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.quarter = nn.Sequential(separable(width, 2 * width, 2), separable(2 * width, 2 * width, 1))
        self.eighth = nn.Sequential(separable(2 * width, 3 * width, 2), separable(3 * width, 3 * width, 1))
        self.sixteenth = nn.Sequential(
            separable(3 * width, 4 * width, 2), separable(4 * width, 4 * width, 1), separable(4 * width, 4 * width, 1)
        )
        self.from_deep = separable(7 * width, 2 * width, 1)
        self.from_middle = separable(4 * width, width, 1)
        self.from_stem = separable(2 * width, width, 1)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        half = self.stem(x)
        quarter = self.quarter(half)
        eighth = self.eighth(quarter)
        deep = self.sixteenth(eighth)
        up = self.from_deep(torch.cat([_twice(deep), eighth], 1))
        up = self.from_middle(torch.cat([_twice(up), quarter], 1))
        up = self.from_stem(torch.cat([_twice(up), half], 1))
        logits: Tensor = self.classify(up)
        return logits


def _twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
