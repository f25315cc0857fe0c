"""Activation entropy and its rivals: functions from one layer's activations to one value per frame, in nats.

Activations are (N, C, h, w), (N, C, depth, h, w) or (N, C), before or after a ReLU. A frame with a NaN or an infinity
in it gives NaN, and so does one without any mass (all zeros). The tests compare the entropies of a histogram and of the
mass with a reference in float64.

Histogram entropy after "Entropy-Based Non-Invasive Reliability Monitoring of Convolutional Neural Networks" (2025,
arXiv:2508.21715), there over a batch of 16 frames and in bits; here per frame. The paper takes a ReLU first. With all
edges above zero that is implied: whatever is below the first edge, negative or not, shares one bin. Mass entropy needs
no bins: -sum p log p of p = |a| / sum |a|, which is log S - sum |a| log |a| / S.

Everything is plain differentiable torch except `histogram_entropy` and `zero_fraction`, which count: their gradient is
zero almost everywhere, so an attack that adapts to them has to use a surrogate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

from framegate.evaluation.scores.protocol import Floats, Score, recorded
from framegate.runtime.errors import CalibrationError, UsageError

BINS = 30
_SAMPLED = 4096
_POOLS = {3: F.avg_pool1d, 4: F.avg_pool2d, 5: F.avg_pool3d}


def fit_edges(batches: Iterable[Tensor], bins: int = BINS, quantile: float = 0.999) -> Tensor:
    """Histogram edges from calibration activations: ``bins`` equal bins of [0, top], and one for all above.

    Args:
        batches: Activations (n, ...) of calibration frames, a few hundred frames in all. Of each frame 4,096 elements
            at most are looked at, the same random positions in every frame.
        bins: At least 2.
        quantile: ``top`` is this quantile of the positive activations; in (0, 1].

    Returns:
        (bins,) float64, ascending, the first above zero.

    Raises:
        CalibrationError: No activation is positive.
    """
    if bins < 2 or not 0 < quantile <= 1:
        raise UsageError(f"edges: {bins} bins up to quantile {quantile:g} given; at least 2, and (0, 1], are needed")
    kept = []
    for batch in batches:
        frames = batch.detach().flatten(1)
        chosen = torch.randperm(frames.shape[1], generator=torch.Generator().manual_seed(0))[:_SAMPLED]
        values = frames[:, chosen.to(frames.device)].double().cpu()
        kept.append(np.asarray(values[torch.isfinite(values) & (values > 0)]))
    positive = np.concatenate(kept) if kept else np.empty(0)
    if positive.size == 0:
        raise CalibrationError("edges: no calibration activation is positive; tap another layer")
    return torch.linspace(0, float(np.quantile(positive, quantile)), bins + 1, dtype=torch.float64)[1:]


def histogram_entropy(activations: Tensor, edges: Tensor | ArrayLike) -> Tensor:
    """(N,) float64 entropy of the histogram of a frame's elements, in [0, log(E + 1)]. No gradient.

    Args:
        activations: (N, ...), at least one element a frame.
        edges: (E,) finite, strictly ascending; bin b holds the elements with exactly b edges <= x.
    """
    frames = _frames(activations).detach()
    if frames.dtype != torch.float64:
        frames = frames.float()
    limits = _limits(edges, frames)
    bins = len(limits) + 1
    # right=True counts the edges <= x. NaN falls into the last bin and is dealt with below.
    indices = torch.bucketize(frames, limits, right=True)
    indices += torch.arange(len(frames), device=frames.device)[:, None] * bins
    counts = torch.bincount(indices.flatten(), minlength=len(frames) * bins).view(len(frames), bins)
    shares = counts.double() / frames.shape[1]
    entropy: Tensor = torch.special.entr(shares).sum(1)
    return entropy.masked_fill(~_all_finite(frames), torch.nan)


def mass_entropy(activations: Tensor) -> Tensor:
    """(N,) entropy of |a| / sum |a| over all n elements of a frame, in [0, log n]: how widely it is spread."""
    return _entropy_of_mass(_frames(activations).abs())


def spatial_entropy(activations: Tensor) -> Tensor:
    """(N,) mass entropy over the positions of one channel, in [0, log(h w)], mean over the channels that have mass."""
    _frames(activations, 3)
    mass = activations.abs().flatten(2)
    alive = mass.sum(2) > 0
    # A dead channel would divide 0 by 0, and its NaN would reach the gradient even if masked afterwards.
    entropy = _entropy_of_mass(torch.where(alive[..., None], mass, torch.ones_like(mass)))
    mean = torch.where(alive, entropy, torch.zeros_like(entropy)).sum(1) / alive.sum(1)
    return _finite_only(mean, activations)


def channel_entropy(activations: Tensor) -> Tensor:
    """(N,) mass entropy over the channels of the spatial means of |a|, in [0, log C]."""
    _frames(activations)
    return _entropy_of_mass(activations.abs().flatten(2).mean(2) if activations.ndim > 2 else activations.abs())


def mean_activation(activations: Tensor) -> Tensor:
    """(N,) mean of the positive part, >= 0."""
    return _finite_only(_frames(activations).relu().mean(1), activations)


def zero_fraction(activations: Tensor) -> Tensor:
    """(N,) share of elements that a ReLU leaves at zero, in [0, 1]. No gradient."""
    frames = _frames(activations).detach()
    return _finite_only((frames <= 0).to(frames.dtype).mean(1), activations)


def high_frequency_ratio(activations: Tensor) -> Tensor:
    """(N,) mean (a - box3(a))^2 / mean a^2, box3 the mean of the 3x3 neighbourhood inside the map; >= 0."""
    frames = _frames(activations, 3)
    # A ratio: the scale drops out, so that no square overflows.
    scale = frames.detach().abs().amax(1).clamp_min(torch.finfo(frames.dtype).tiny)
    scaled = activations / scale.view(-1, *[1] * (activations.ndim - 1))
    return without_box3(scaled).square().flatten(1).mean(1) / scaled.square().flatten(1).mean(1)


def without_box3(maps: Tensor) -> Tensor:
    """(N, C, ...) minus the mean of the neighbourhood of three along every spatial axis, as far as it is inside."""
    pool = _POOLS[maps.ndim]
    return maps - pool(maps, 3, stride=1, padding=1, count_include_pad=False)


FREE_OF_BINS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mass_entropy": mass_entropy,
    "channel_entropy": channel_entropy,
    "mean": mean_activation,
    "zero_fraction": zero_fraction,
}
ON_MAPS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "spatial_entropy": spatial_entropy,
    "high_frequency_ratio": high_frequency_ratio,
}


@torch.no_grad()
def tap_statistics(layer: str, activations: Tensor, edges: Tensor | ArrayLike | None = None) -> dict[str, Floats]:
    """Every statistic of one layer as ``LAYER:STATISTIC`` -> (N,) float64, for `Observations.taps`.

    Args:
        layer: Name of the tapped module.
        activations: (N, C, ...); statistics over positions are left out for (N, C).
        edges: Of the histogram (`fit_edges`); left out without.
    """
    if activations.dtype in (torch.float16, torch.bfloat16):
        activations = activations.float()
    # Frame by frame in memory: channels-last activations would be gathered anew by every statistic.
    activations = activations.contiguous()
    found = {name: statistic(activations) for name, statistic in FREE_OF_BINS.items()}
    if activations.ndim > 2:
        found |= {name: statistic(activations) for name, statistic in ON_MAPS.items()}
    if edges is not None:
        found["histogram_entropy"] = histogram_entropy(activations, edges)
    return {f"{layer}:{name}": np.asarray(values.double().cpu()) for name, values in found.items()}


def tap_score(name: str) -> Score:
    """The recorded tap ``LAYER:STATISTIC`` as it is. Attacks may move it either way: see the two-sided form."""
    return recorded(name, "activation", "tap", lambda observations: observations.taps)


def _entropy_of_mass(mass: Tensor) -> Tensor:
    """Entropy over the last axis of mass / sum; NaN where the sum is zero or not finite."""
    largest = mass.detach().amax(-1, keepdim=True)
    scaled = mass / largest  # 0 / 0 is the NaN asked for; no sum of finite numbers overflows
    p = scaled / scaled.sum(-1, keepdim=True)
    # clamp_min keeps the gradient finite where p is 0, and 0 * log(tiny) is still 0.
    entropy: Tensor = 0.0 - (p * p.clamp_min(torch.finfo(p.dtype).tiny).log()).sum(-1)
    return entropy


def _finite_only(values: Tensor, activations: Tensor) -> Tensor:
    return values.masked_fill(~_all_finite(activations.detach().flatten(1)), torch.nan)


def _all_finite(frames: Tensor) -> Tensor:
    """(N,) whether every element of (N, n) is finite: in one pass over them, because extremes carry NaN along."""
    least, most = torch.aminmax(frames, dim=1)
    return torch.isfinite(least) & torch.isfinite(most)


def _frames(activations: Tensor, least: int = 2) -> Tensor:
    if not least <= activations.ndim <= 5 or not activations.is_floating_point() or min(activations.shape[1:]) < 1:
        raise UsageError(
            f"activations: expected float (N, C{', h, w' if least > 2 else ''}) or with more positions, at least one "
            f"element a frame; found {tuple(activations.shape)} of {activations.dtype}"
        )
    return activations.flatten(1)


def _limits(edges: Tensor | ArrayLike, frames: Tensor) -> Tensor:
    limits = np.asarray(edges, dtype=np.float64)
    if limits.ndim != 1 or limits.size == 0 or not np.isfinite(limits).all() or not (np.diff(limits) > 0).all():
        raise UsageError(f"edges: expected at least one finite number, strictly ascending; found {edges!r}")
    if frames.dtype == torch.float32:
        # The smallest float32 not below an edge divides float32 numbers exactly as the edge itself does.
        rounded = limits.astype(np.float32)
        limits = np.where(rounded < limits, np.nextafter(rounded, np.float32(np.inf)), rounded)
    return torch.as_tensor(limits, dtype=frames.dtype, device=frames.device)
