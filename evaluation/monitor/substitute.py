"""A small network that answers like another one, for attacks on a network that has no gradient.

An attack that is made on a substitute often works on the network that it imitates (Papernot et al. 2017,
arXiv:1602.02697). The substitute learns the network's own probabilities, not the labels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from framegate.models.training.batches import Progress

LARGEST_SIDE = 64
"""The substitute looks at no more pixels along a side: its gradient reaches the others by interpolation."""
_CHANNELS = (32, 64, 128, 128)
_EPOCHS, _STEPS, _BATCH, _RATE = 12, 150, 64, 2e-3
_TEACHER_BATCH = 32


class Substitute(nn.Module):
    """Four convolutions and a linear layer; (N, 3, h, w) or (N, 1, depth, h, w) pixels in [0, 1] -> (N, classes)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for k, width in enumerate(_CHANNELS):
            layers += [
                nn.Conv2d(channels, width, 3, stride=1 if k == len(_CHANNELS) - 1 else 2, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            channels = width
        self.layers = nn.Sequential(*layers)
        self.classify = nn.Linear(channels, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits."""
        flat = pixels.flatten(1, 2) if pixels.dim() == 5 else pixels
        if max(flat.shape[-2:]) > LARGEST_SIDE:
            flat = F.interpolate(flat, size=(LARGEST_SIDE, LARGEST_SIDE), mode="bilinear", align_corners=False)
        found: Tensor = self.classify(self.layers(flat - 0.5).mean((2, 3)))
        return found


def imitate(teacher: Callable[[Tensor], Tensor], pixels: Tensor, seed: int, progress: Progress) -> Substitute:
    """Train a substitute.

    Args:
        teacher: (N, ...) pixels in [0, 1] -> (N, classes) logits.
        pixels: Of images that prove nothing.
        seed: Of weights and order.
        progress: Called after every epoch.
    """
    parts = [teacher(pixels[k : k + _TEACHER_BATCH]) for k in range(0, len(pixels), _TEACHER_BATCH)]
    wanted = torch.cat(parts).softmax(1)
    channels = pixels.shape[1] * (pixels.shape[2] if pixels.dim() == 5 else 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Substitute(channels, wanted.shape[1])
        optimiser = torch.optim.AdamW(network.parameters(), _RATE)
        network.train()
        epochs = max(_EPOCHS, -(-_STEPS * _BATCH // len(pixels)))  # few images are shown more often
        for epoch in range(epochs):
            progress("monitor: a substitute for the network, which has no gradient", epoch, epochs)
            order = torch.randperm(len(pixels))
            for k in range(0, len(order) - 1, _BATCH):
                batch = order[k : k + _BATCH]
                if len(batch) < 2:  # batch normalisation needs two
                    continue
                loss = F.cross_entropy(network(pixels[batch]), wanted[batch])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
        progress("monitor: a substitute for the network, which has no gradient", epochs, epochs)
    return network.eval().requires_grad_(False)
