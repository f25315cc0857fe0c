"""The convolutional trunk of MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381), 1.0 width.

Parameter names are torchvision's ``features.*``, so published checkpoints load unchanged. Two conventions exist for
the padding of stride-2 convolutions and for the epsilon of batch normalisation: torchvision pads both sides and uses
1e-5; Keras pads right and bottom only and uses 1e-3. Weights trained under one lose accuracy under the other, so the
convention is an argument and not a constant.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framegate.runtime.errors import DataError

# (expansion factor, output channels, repetitions, stride of the first): table 2 of the paper.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

FEATURE_BLOCKS = 19
"""Number of entries of `MobileNetV2Trunk.features`: the stem, 17 inverted residuals, the last 1x1 convolution."""


class _Conv(nn.Conv2d):
    """A convolution with the padding of the chosen convention (torchvision or Keras)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int, keras: bool) -> None:
        self._asymmetric = keras and stride == 2
        padding = 0 if self._asymmetric else kernel // 2
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)) if self._asymmetric else x)


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int, groups: int, keras: bool) -> list[nn.Module]:
    return [
        _Conv(inputs, outputs, kernel, stride, groups, keras),
        nn.BatchNorm2d(outputs, eps=1e-3 if keras else 1e-5),
    ]


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int, keras: bool) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(nn.Sequential(*_conv_bn(inputs, hidden, 1, 1, 1, keras), nn.ReLU6(inplace=True)))
        layers.append(nn.Sequential(*_conv_bn(hidden, hidden, 3, stride, hidden, keras), nn.ReLU6(inplace=True)))
        layers.extend(_conv_bn(hidden, outputs, 1, 1, 1, keras))
        self.conv = nn.Sequential(*layers)
        self._residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self._residual else y


class MobileNetV2Trunk(nn.Module):
    """Images to a feature map: (N, 3, H, W) -> (N, 1280, H/32, W/32).

    Args:
        keras: Use Keras' padding and epsilon instead of torchvision's.
    """

    out_channels = 1280

    def __init__(self, keras: bool = False) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Sequential(*_conv_bn(3, 32, 3, 2, 1, keras), nn.ReLU6(inplace=True))]
        channels = 32
        for expansion, outputs, repetitions, first_stride in _STAGES:
            for k in range(repetitions):
                blocks.append(_InvertedResidual(channels, outputs, expansion, first_stride if k == 0 else 1, keras))
                channels = outputs
        blocks.append(nn.Sequential(*_conv_bn(channels, self.out_channels, 1, 1, 1, keras), nn.ReLU6(inplace=True)))
        self.features = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 1280, H/32, W/32)."""
        y: Tensor = self.features(x)
        return y

    def load_weights(self, path: str) -> None:
        """Load a ``features.*`` state dict saved by ``torch.save``; a ``classifier.*`` part is ignored.

        Raises:
            DataError: The file is missing or its tensors are not those of this network.
        """
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = {name: value for name, value in state.items() if name.startswith("features.")}
            self.load_state_dict(state)
        except FileNotFoundError as error:
            raise DataError(f"trunk weights {path}: no such file") from error
        except Exception as error:  # torch.load raises whatever strange bytes provoke
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DataError(f"trunk weights {path}: not a MobileNetV2 1.0 features.* state dict ({reason})") from error
