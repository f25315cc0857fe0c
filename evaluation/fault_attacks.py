"""FGSM and PGD as faults on demand: ``framegate run ... --inject fgsm:10-20`` attacks the frames it shows.

The attack sees what the network sees: each region of interest is attacked on its own, at the camera's resolution and
through the network's resize, away from the label that the network gives to the clean region. Pixels are rounded to
8 bits, as they would come from a camera. It does not know of the gate; the attack that does is in
`framegate.evaluation.attacks.adaptive`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from framegate.evaluation.attacks.linf import fgsm as fgsm_attack
from framegate.evaluation.attacks.linf import pgd as pgd_attack
from framegate.evaluation.attacks.problem import AttackResult
from framegate.evaluation.attacks.radius import LEVELS
from framegate.evaluation.frames.network import Network
from framegate.models.pixels import to_images, to_pixels
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.errors import UsageError
from framegate.runtime.roi import Roi
from framegate.runtime.verdict import Image

RADII = {1: 2, 2: 4, 3: 8, 4: 16, 5: 32}
"""Severity -> radius in grey levels."""
STEPS = 10
"""Of PGD."""

Attack = Callable[[Network, Tensor, Tensor, float], AttackResult]
FaultFunction = Callable[[Image, int], Image]


def fgsm(bundle: Bundle, rois: Sequence[Roi]) -> FaultFunction:
    """One signed gradient step on every region (Goodfellow et al. 2015); radius by severity, see `RADII`."""
    return _fault(bundle, rois, fgsm_attack)


def pgd(bundle: Bundle, rois: Sequence[Roi]) -> FaultFunction:
    """Ten steps of projected gradient descent on every region (Madry et al. 2018); radius by severity, see `RADII`."""
    return _fault(
        bundle, rois, lambda network, pixels, labels, epsilon: pgd_attack(network, pixels, labels, epsilon, STEPS)
    )


def _fault(bundle: Bundle, rois: Sequence[Roi], attack: Attack) -> FaultFunction:
    if bundle.preprocess.depth > 1 or bundle.preprocess.colour == "grey":
        raise UsageError(f"attacks as faults are for networks that take colour images; {bundle.name} does not")
    network = Network.from_bundle(bundle)

    def attacked(image: Image, severity: int) -> Image:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            return image.copy()  # nothing that the network would see
        result = image.copy()
        for roi in rois or (Roi.whole(),):
            crop = roi.crop(result)
            if crop is None or min(crop.shape[:2]) < 2:
                continue
            pixels = to_pixels(np.ascontiguousarray(crop)[None])
            with torch.no_grad():
                labels = network(pixels).argmax(1)
            crop[...] = to_images(attack(network, pixels, labels, RADII[severity] / LEVELS).pixels)[0]
        return result

    return attacked
