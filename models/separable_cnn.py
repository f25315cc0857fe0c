"""The two small networks of the research: SimpleCNN and its MobileNet baseline, for 32x32 images.

Both are a 3x3 convolution to 32 channels, a chain of depthwise separable blocks with squeeze-and-excitation behind the
first two, global average pooling and a linear layer. They differ in their blocks: SimpleCNN (52,630 parameters, 2.6 M
multiplications for 10 classes) halves the image in each of three, MobileNet (121,494 and 12.0 M) has four and keeps
more resolution.
"""

from __future__ import annotations

from torch import Tensor, nn

from framegate.models.layers import SqueezeExcitation, convolution, separable

_STEM = 32
_REDUCTION = 16


class SeparableCNN(nn.Module):
    """(N, 3, h, w) float, normalised -> (N, classes) logits.

    Args:
        classes: Number of labels.
        blocks: (output channels, stride) of each depthwise separable block.
        attention: Put squeeze-and-excitation behind the first two blocks.
    """

    def __init__(self, classes: int, blocks: tuple[tuple[int, int], ...], attention: bool = True) -> None:
        super().__init__()
        self.stem = nn.Sequential(*convolution(3, _STEM, 3))
        stages: list[nn.Module] = []
        channels = _STEM
        for k, (outputs, stride) in enumerate(blocks):
            stages.append(separable(channels, outputs, stride))
            if attention and k < 2:
                stages.append(SqueezeExcitation(outputs, _REDUCTION))
            channels = outputs
        self.blocks = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, h, w) -> (N, classes) logits."""
        logits: Tensor = self.classify(self.pool(self.blocks(self.stem(x))).flatten(1))
        return logits


class SimpleCNN(SeparableCNN):
    """Three blocks of 64, 128 and 256 channels, each of stride 2."""

    def __init__(self, classes: int, attention: bool = True) -> None:
        super().__init__(classes, ((64, 2), (128, 2), (256, 2)), attention)


class MobileNet(SeparableCNN):
    """Four blocks of 64, 128, 256 and 256 channels, the middle two of stride 2."""

    def __init__(self, classes: int, attention: bool = True) -> None:
        super().__init__(classes, ((64, 1), (128, 2), (256, 2), (256, 1)), attention)
