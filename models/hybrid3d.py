"""The hybrid's 3D pathway for volumes: three 3D convolutions of 32, 64 and 128 channels and global average pooling.

Batch normalisation is added to the research's layout; it is folded away before deployment and costs nothing there.
"""

from __future__ import annotations

from torch import Tensor, nn

_CHANNELS = (32, 64, 128)


class Hybrid3D(nn.Module):
    """(N, 1, depth, h, w) float, normalised -> (N, classes) logits.

    Args:
        classes: Number of labels.
        dropout: Probability of zeroing a pooled feature during training, in [0, 1).
    """

    def __init__(self, classes: int, dropout: float = 0.3) -> None:
        super().__init__()
        stages = []
        channels = 1
        for k, outputs in enumerate(_CHANNELS):
            layers: list[nn.Module] = [
                nn.Conv3d(channels, outputs, 3, padding=1, bias=False),
                nn.BatchNorm3d(outputs),
                nn.ReLU(inplace=True),
            ]
            if k < len(_CHANNELS) - 1:
                layers.append(nn.MaxPool3d(2))
            stages.append(nn.Sequential(*layers))
            channels = outputs
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, depth, h, w) -> (N, classes) logits."""
        logits: Tensor = self.classify(self.dropout(self.pool(self.stages(x)).flatten(1)))
        return logits
