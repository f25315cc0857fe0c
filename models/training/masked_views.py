"""Training images with a square hidden, so that a network answers as well when a patch certificate hides one.

A patch certificate (`framegate.runtime.certificate`) asks a network about views of a frame with a square masked by the
mean colour. A network that never saw such views answers them at random, and the certificate refuses most frames.
"""

from __future__ import annotations

import numpy as np

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
