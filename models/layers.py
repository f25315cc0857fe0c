"""Building blocks that several architectures share."""

from __future__ import annotations

from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """Scales every channel by a gate in (0, 1) computed from all channel means (Hu et al. 2018, arXiv:1709.01507).

    Args:
        channels: Channels of the input.
        reduction: The bottleneck has ``channels // reduction`` units.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        # 1x1 convolutions instead of linear layers: no reshape in the exported graph.
        self.squeeze = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, channels // reduction, 1)
        self.expand = nn.Conv2d(channels // reduction, channels, 1)
        self.relu = nn.ReLU(inplace=True)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) -> the same shape."""
        gate: Tensor = self.gate(self.expand(self.relu(self.reduce(self.squeeze(x)))))
        return x * gate


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution without bias, batch normalisation, ReLU; padded so that stride 1 keeps the size."""
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    ]


def separable(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Depthwise separable block of MobileNet (Howard et al. 2017, arXiv:1704.04861): 3x3 per channel, then 1x1."""
    return nn.Sequential(*convolution(inputs, inputs, 3, stride, groups=inputs), *convolution(inputs, outputs, 1))
