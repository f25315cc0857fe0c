"""Noise: three of the common corruptions of CIFAR-10-C (Hendrycks and Dietterich 2019, arXiv:1903.12261).

Every corruption of this package maps (N, h, w, c) float32 in [0, 1], a severity 1..5 and one random generator per image
to float32 of the same shape; `framegate.evaluation.corruptions.suite.corrupt` clips and rounds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.float32]
Generators = Sequence[np.random.Generator]

_GAUSSIAN_STD = (0.04, 0.06, 0.08, 0.09, 0.10)
_SHOT_PHOTONS = (500, 250, 100, 75, 50)
_IMPULSE_SHARE = (0.01, 0.02, 0.03, 0.05, 0.07)


def gaussian_noise(images: Pixels, severity: int, rngs: Generators) -> Pixels:
    """Low light: independent normal noise on every value, standard deviation 0.04 to 0.10 of the full range."""
    noise = np.stack([rng.standard_normal(images.shape[1:], np.float32) for rng in rngs])
    return images + np.float32(_GAUSSIAN_STD[severity - 1]) * noise


def shot_noise(images: Pixels, severity: int, rngs: Generators) -> Pixels:
    """Counting noise of light: Poisson with 500 down to 50 photons at full brightness."""
    photons = _SHOT_PHOTONS[severity - 1]
    counts = [rng.poisson(image * photons) for image, rng in zip(images, rngs, strict=True)]
    return (np.stack(counts) / photons).astype(np.float32)


def impulse_noise(images: Pixels, severity: int, rngs: Generators) -> Pixels:
    """Salt and pepper: 1 to 7 % of the values, half of them set to 0 and half to 1, each channel by itself."""
    half = _IMPULSE_SHARE[severity - 1] / 2
    draw = np.stack([rng.random(images.shape[1:], np.float32) for rng in rngs])
    return np.where(draw < half, np.float32(0), np.where(draw >= 1 - half, np.float32(1), images))
