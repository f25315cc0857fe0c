"""Training images with a square hidden, so that a network answers as well when a patch certificate hides one.

A patch certificate (`framegate.runtime.certificate`) asks a network about views of a frame with a square masked by the
mean colour. A network that never saw such views answers them at random, and the certificate refuses most frames.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from framegate.models.training.augment import Augmentation, Images

FILL = 127
"""The level nearest to 127.5, the mean of every architecture: a mask is zero in the network's input."""
_SMALLEST = 0.15
"""Smallest side of a mask, as a share of the image's side."""


def masked(augment: Augmentation, share: float, side: float) -> Augmentation:
    """An augmentation that hides a square of random size and place in some of the views.

    Args:
        augment: Is applied first.
        share: Of the views that get a mask, 0 to 1.
        side: Largest side of a mask as a share of the image's shorter side, in (0.15, 1).
    """

    def mask(images: Images, rng: np.random.Generator) -> Images:
        views = augment(images, rng).copy()
        height, width = views.shape[1:3]
        for k in np.flatnonzero(rng.random(len(views)) < share):
            size = max(1, round(float(rng.uniform(_SMALLEST, side)) * min(height, width)))
            top, left = int(rng.integers(0, height - size + 1)), int(rng.integers(0, width - size + 1))
            views[k, top : top + size, left : left + size] = FILL
        return views

    return mask


def _hidden(pixels: Tensor, side: float) -> Tensor:
    """A square of random size and place hidden in each image."""
    count, _, height, width = pixels.shape
    shorter = min(height, width)
    size = (torch.empty(count, device=pixels.device).uniform_(_SMALLEST, side) * shorter).round().clamp(1).long()

    def inside(length: int) -> Tensor:
        first = (torch.rand(count, device=pixels.device) * (length - size + 1)).floor().long()
        at = torch.arange(length, device=pixels.device)
        return (at >= first[:, None]) & (at < (first + size)[:, None])

    square = inside(height)[:, None, :, None] & inside(width)[:, None, None, :]
    return torch.where(square, torch.tensor(FILL / 255, dtype=pixels.dtype, device=pixels.device), pixels)


@torch.no_grad()
def hardest(
    logits_of: Callable[[Tensor], Tensor], pixels: Tensor, labels: Tensor, share: float, side: float, choices: int
) -> Tensor:
    """Images in some of which the square is hidden that costs the network most, of several random ones.

    After the greedy cutout of Saha et al. 2023 (arXiv:2306.12610): a certificate asks about every place, so the worst
    place is what has to be learnt.

    Args:
        logits_of: The network, in the mode in which it shall judge.
        pixels: (N, 3, h, w) in [0, 1].
        labels: (N,).
        share: Of the images that get a mask, 0 to 1.
        side: Largest side of a mask as a share of the image's shorter side, in (0.15, 1).
        choices: Random squares to choose from, at least 1.

    Returns:
        (N, 3, h, w), a copy.
    """
    chosen = torch.rand(len(pixels), device=pixels.device) < share
    some, truth = pixels[chosen], labels[chosen]
    worst, most = some, torch.full((len(some),), -torch.inf, device=pixels.device)
    for _ in range(choices if len(some) else 0):
        views = _hidden(some, side)
        loss = F.cross_entropy(logits_of(views).float(), truth, reduction="none")
        worse = loss > most
        worst, most = torch.where(worse[:, None, None, None], views, worst), torch.maximum(loss, most)
    found = pixels.clone()
    found[chosen] = worst
    return found
