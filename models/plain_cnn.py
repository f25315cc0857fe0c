"""Plain networks: the certificate's branch, whose bounds are cheap and tight, and ResNet-20 for robust training.

Neither has squeeze-and-excitation: a product of two intervals is wide, so it loosens every bound behind it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framegate.models.layers import convolution

_SIDE = 32
_HIDDEN = 128


class PlainCNN(nn.Module):
    """(N, 3, 32, 32) float, normalised -> (N, classes) logits.

    Three convolutions and two linear layers with ReLU between them (a layout like the small network of Gowal et al.
    2018, arXiv:1810.12715), batch normalisation behind all but the last. It is a plain chain, so interval bounds need
    one pass for the centre and one for the radius. With ``width`` 24 and 43 classes 0.35 M parameters, 4.8 M
    multiplications.

    Args:
        classes: Number of labels.
        width: Channels of the first convolution, the others have twice as many; at least 1.
    """

    def __init__(self, classes: int, width: int = 24) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width {width} given, expected at least 1")
        side = ((_SIDE // 2 - 3) + 1) // 2
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 4, 1, 0, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, 2, 1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * side * side, _HIDDEN, bias=False),
            nn.BatchNorm1d(_HIDDEN),
            nn.ReLU(),
        )
        self.classify = nn.Linear(_HIDDEN, classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                # Keeps the width of an interval through a layer (Shi et al. 2021, arXiv:2103.17268, section 3.2).
                fan_in = module.weight[0].numel()
                nn.init.normal_(module.weight, 0.0, math.sqrt(2 * math.pi) / fan_in)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> (N, classes) logits."""
        logits: Tensor = self.classify(self.layers(x))
        return logits


class _Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the shortcut is a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(*convolution(inputs, outputs, 3, stride))
        self.second = nn.Sequential(*convolution(outputs, outputs, 3)[:2])
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(*convolution(inputs, outputs, 1, stride)[:2])

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, h, w) -> (N, outputs, h / stride, w / stride)."""
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


class ResNet20(nn.Module):
    """(N, 3, 32, 32) float, normalised -> (N, classes) logits.

    The network for CIFAR-10 of He et al. 2016 (arXiv:1512.03385, section 4.2) with n = 3. With ``width`` 16, as there,
    0.27 M parameters and 41 M multiplications; both grow with the square of the width.

    Args:
        classes: Number of labels.
        width: Channels of the first third of the network; the others have two and four times as many; at least 1.
    """

    def __init__(self, classes: int, width: int = 16) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width {width} given, expected at least 1")
        self.stem = nn.Sequential(*convolution(3, width, 3))
        blocks: list[nn.Module] = []
        channels = width
        for outputs in (width, 2 * width, 4 * width):
            for _ in range(3):
                blocks.append(_Residual(channels, outputs, 1 if outputs == channels else 2))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> (N, classes) logits."""
        logits: Tensor = self.classify(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))
        return logits
