"""Controls: statistics of the input that need no network. A monitor must beat them to be worth its place.

All functions take pixels (N, C, h, w) or (N, C, depth, h, w), float in [0, 1] as before any normalisation, and give
(N,); they are plain differentiable torch, except the histogram. Means make sizes comparable; only ranks matter here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from framegate.evaluation.scores.activation import histogram_entropy, without_box3
from framegate.evaluation.scores.protocol import Floats, Score, recorded
from framegate.runtime.errors import UsageError

HISTOGRAM_BINS = 30


def total_variation(pixels: Tensor) -> Tensor:
    """Anisotropic total variation: mean absolute difference of neighbours along each axis, summed over the axes.

    In [0, 2] for images, [0, 3] for volumes (Rudin, Osher and Fatemi 1992, with the L1 norm of the gradient).
    """
    _check(pixels)
    axes = [axis for axis in range(2, pixels.ndim) if pixels.shape[axis] > 1]
    steps = [pixels.diff(dim=axis).abs().flatten(1).mean(1) for axis in axes]
    return torch.stack(steps).sum(0) if steps else pixels.flatten(1).sum(1) * 0.0


def high_frequency_energy(pixels: Tensor) -> Tensor:
    """Mean of (x - box3(x))^2, box3 the mean of the 3x3 (3x3x3) neighbourhood that lies inside the frame; in [0, 1]."""
    _check(pixels)
    return without_box3(pixels).square().flatten(1).mean(1)


def pixel_histogram_entropy(pixels: Tensor) -> Tensor:
    """Entropy in nats of a histogram of all pixel values in 30 equal bins of [0, 1]. No gradient."""
    _check(pixels)
    return histogram_entropy(pixels, torch.linspace(0, 1, HISTOGRAM_BINS + 1, dtype=torch.float64)[1:-1])


CONTROLS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "total_variation": total_variation,
    "high_frequency_energy": high_frequency_energy,
    "pixel_histogram_entropy": pixel_histogram_entropy,
}


@torch.no_grad()
def control_statistics(pixels: Tensor) -> dict[str, Floats]:
    """Every control of (N, ...) pixels as (N,) float64 arrays, for `Observations.controls`."""
    return {name: np.asarray(control(pixels).double().cpu()) for name, control in CONTROLS.items()}


def control_score(name: str) -> Score:
    """The recorded control as it is: higher counts as less trustworthy (noise and attacks raise all three)."""
    return recorded(name, "input", "control", lambda observations: observations.controls)


def _check(pixels: Tensor) -> None:
    if pixels.ndim not in (4, 5) or not pixels.is_floating_point() or min(pixels.shape[1:], default=0) < 1:
        raise UsageError(
            f"pixels: expected float (N, C, h, w) or (N, C, depth, h, w), found {tuple(pixels.shape)} of {pixels.dtype}"
        )
