"""VGG-16 with batch normalisation for 32x32 images.

The 13 convolutions of Simonyan and Zisserman 2015 (arXiv:1409.1556), configuration D, and one hidden linear layer
instead of two of 4,096 units (Liu and Deng 2015, ACPR).
"""

from __future__ import annotations

from torch import Tensor, nn

from framegate.models.layers import convolution

_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
_HIDDEN = 512


class VGG16(nn.Module):
    """(N, 3, 32, 32) float, normalised -> (N, classes) logits.

    Args:
        classes: Number of labels.
        dropout: Probability of zeroing a feature before each linear layer during training, in [0, 1).
    """

    def __init__(self, classes: int, dropout: float = 0.3) -> None:
        super().__init__()
        stages = []
        channels = 3
        for outputs, repetitions in _STAGES:
            layers: list[nn.Module] = []
            for _ in range(repetitions):
                layers += convolution(channels, outputs, 3)
                channels = outputs
            stages.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Sequential(nn.Linear(channels, _HIDDEN), nn.ReLU(inplace=True))
        self.classify = nn.Linear(_HIDDEN, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 32, 32) -> (N, classes) logits."""
        features = self.dropout(self.pool(self.stages(x)).flatten(1))
        logits: Tensor = self.classify(self.dropout(self.hidden(features)))
        return logits
