"""From pixels to the network's input as a differentiable function, for training and for attacks.

It computes what `framegate.runtime.preprocess` computes, without the rounding to whole pixel values between resizing
and normalisation, so a gradient reaches the pixels of the camera crop.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framegate.runtime.errors import UsageError
from framegate.runtime.preprocess import PreprocessSpec


class PixelInput(nn.Module):
    """Pixels in [0, 1] at any size -> the network's normalised input.

    (N, 3, h, w) RGB -> (N, 3, height, width); for volumes (N, 1, depth, h, w) -> (N, 1, depth, height, width).

    Args:
        spec: How an image becomes the network's input.

    Raises:
        UsageError: The resize mode has no differentiable form here.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: PreprocessSpec) -> None:
        super().__init__()
        if spec.resize not in ("bilinear", "area"):
            raise UsageError(f"pixels: resize mode {spec.resize!r} given, expected 'bilinear' or 'area'")
        self.spec = spec
        shape = (1, -1, *[1] * (3 if spec.depth > 1 else 2))
        # The network's channel order is the spec's; pixels always arrive as RGB.
        order = slice(None, None, -1 if spec.colour == "bgr" else 1)
        self.register_buffer("mean", torch.tensor(spec.mean[order], dtype=torch.float32).view(shape) / 255)
        self.register_buffer("std", torch.tensor(spec.std[order], dtype=torch.float32).view(shape) / 255)

    def forward(self, pixels: Tensor) -> Tensor:
        """Resize and normalise."""
        normalised = (self._resize(pixels) - self.mean) / self.std
        return normalised.flip(1) if self.spec.colour == "bgr" else normalised

    def _resize(self, pixels: Tensor) -> Tensor:
        size = (self.spec.height, self.spec.width)
        if tuple(pixels.shape[-2:]) == size:
            return pixels
        # The slices of a volume are images of one channel.
        flat = pixels.flatten(0, 2).unsqueeze(1) if pixels.dim() == 5 else pixels
        shrinks = flat.shape[-2] >= size[0] and flat.shape[-1] >= size[1]
        if self.spec.resize == "area" and shrinks:
            small = F.interpolate(flat, size=size, mode="area")
        else:
            small = F.interpolate(flat, size=size, mode="bilinear", align_corners=False)
        return small.view(*pixels.shape[:3], *size) if pixels.dim() == 5 else small


def to_pixels(images: npt.NDArray[np.uint8], depth: int = 1, device: torch.device | str = "cpu") -> Tensor:
    """Camera images as pixels in [0, 1].

    Args:
        images: (N, h, w, 3) uint8 BGR; for volumes (N, depth * h, w, 3), the slices one below the other, grey.
        depth: Slices of a volume; 1 for images.
        device: Where the result shall be.

    Returns:
        (N, 3, h, w) float32 RGB, or (N, 1, depth, h, w) for volumes.
    """
    data = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    if depth > 1:
        count, height, width, _ = data.shape
        return data[..., 0].reshape(count, 1, depth, height // depth, width).float().div_(255)
    return data.permute(0, 3, 1, 2).flip(1).contiguous().float().div_(255)


def to_images(pixels: Tensor) -> npt.NDArray[np.uint8]:
    """The inverse of `to_pixels`, rounded to whole pixel values: what a camera would deliver."""
    rounded = pixels.detach().mul(255).round_().clamp_(0, 255).to(torch.uint8).cpu()
    if rounded.dim() == 5:
        count, _, depth, height, width = rounded.shape
        return rounded.reshape(count, depth * height, width, 1).expand(-1, -1, -1, 3).contiguous().numpy()
    return rounded.flip(1).permute(0, 2, 3, 1).contiguous().numpy()
