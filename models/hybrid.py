"""The hybrid classifier: an ImageNet MobileNetV2 trunk and a small attention head for the target domain.

Head: 1x1 domain-adaptation convolution -> squeeze-and-excitation -> grouped (or depthwise separable) convolution of
stride 2 -> squeeze-and-excitation -> global average pooling -> linear. Squeeze-and-excitation after Hu et al. 2018
(arXiv:1709.01507).
"""

from __future__ import annotations

from torch import Tensor, nn

from framegate.models.layers import SqueezeExcitation, convolution, separable
from framegate.models.mobilenet_v2 import MobileNetV2Trunk

HEAD_CHANNELS = 64
GROUPED_CHANNELS = 128
GROUPS = 4


def _head_convolution(kind: str) -> nn.Sequential:
    if kind == "grouped":
        return nn.Sequential(*convolution(HEAD_CHANNELS, GROUPED_CHANNELS, 3, 2, groups=GROUPS))
    if kind == "depthwise":
        return separable(HEAD_CHANNELS, GROUPED_CHANNELS, 2)
    raise ValueError(f"head convolution is {kind!r}; expected 'grouped' or 'depthwise'")


class HybridClassifier(nn.Module):
    """(N, 3, 96, 96) float, pixel / 127.5 - 1 in RGB order -> (N, classes) logits.

    Args:
        classes: Number of labels.
        convolution: ``grouped`` or ``depthwise``, the second convolution of the head.
        attention: Put squeeze-and-excitation behind both convolutions of the head.
        keras_trunk: The trunk follows Keras' padding and epsilon (see `MobileNetV2Trunk`).
        dropout: Probability of zeroing a pooled feature during training, in [0, 1).
    """

    def __init__(
        self,
        classes: int,
        convolution: str = "grouped",
        attention: bool = True,
        keras_trunk: bool = True,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.trunk = MobileNetV2Trunk(keras=keras_trunk)
        self.adapt = nn.Sequential(
            nn.Conv2d(self.trunk.out_channels, HEAD_CHANNELS, 1, bias=False),
            nn.BatchNorm2d(HEAD_CHANNELS),
            nn.ReLU(inplace=True),
        )
        self.attend1 = SqueezeExcitation(HEAD_CHANNELS) if attention else nn.Identity()
        self.convolve = _head_convolution(convolution)
        self.attend2 = SqueezeExcitation(GROUPED_CHANNELS) if attention else nn.Identity()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(GROUPED_CHANNELS, classes)

    def head(self, features: Tensor) -> Tensor:
        """(N, 1280, h, w) trunk features -> (N, classes) logits."""
        x = self.attend2(self.convolve(self.attend1(self.adapt(features))))
        logits: Tensor = self.classify(self.dropout(self.pool(x).flatten(1)))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, 96, 96) -> (N, classes) logits."""
        return self.head(self.trunk(x))

    def stages(self, frozen_blocks: int) -> tuple[nn.Sequential, nn.Sequential]:
        """Split the trunk into the first ``frozen_blocks`` blocks and the rest (sharing the parameters)."""
        blocks = list(self.trunk.features)
        return nn.Sequential(*blocks[:frozen_blocks]), nn.Sequential(*blocks[frozen_blocks:])
