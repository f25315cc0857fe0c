"""What activation entropy is, by NumPy in float64: the scores of evaluation/scores/activation.py are compared with it.

For one frame of a tap, with n elements x:

    histogram entropy   H = log n - sum_b c_b log c_b / n,  c_b elements in bin b
    mass entropy        H = log S - sum a log a / S,        a = |x|, S = sum a

Both are -sum p log p, of p = c / n and of p = a / S. Bin b holds the x with exactly b edges <= x, so E edges make
E + 1 bins and no element is lost outside: a frame whose activations leave the range of the edges must show it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["ActivationEntropy", "activation_entropy"]


@dataclass(frozen=True, slots=True, eq=False)
class ActivationEntropy:
    """What a tap says about each of N frames.

    Attributes:
        histogram_entropy: (N,) float64 in [0, log(E + 1)], nats; NaN for a frame with NaN or inf in it.
        mass_entropy: (N,) float64 in [0, log n], nats; NaN likewise, and for a frame of zeros: no distribution.
        counts: (N, E + 1) int64, of the finite elements.
        non_finite: (N,) int64, elements that are NaN or inf.
    """

    histogram_entropy: NDArray[np.float64]
    mass_entropy: NDArray[np.float64]
    counts: NDArray[np.int64]
    non_finite: NDArray[np.int64]


def activation_entropy(activations: ArrayLike, edges: ArrayLike) -> ActivationEntropy:
    """Compute both entropies of every frame.

    Args:
        activations: (N, ...) real numbers, at least one element a frame. Not modified.
        edges: (E,) finite, strictly ascending, E >= 1.

    Raises:
        ValueError: if a frame has no elements, or the edges are not as asked.
    """
    limits = np.asarray(edges, dtype=np.float64)
    if limits.ndim != 1 or limits.size == 0 or not np.isfinite(limits).all() or not (np.diff(limits) > 0).all():
        raise ValueError(f"edges: asked for at least one finite number, strictly ascending, found {edges!r}")
    shape = np.shape(activations)
    if len(shape) < 2 or 0 in shape[1:]:
        raise ValueError(f"activations: asked for (N, ...) with at least one element a frame, found shape {shape}")
    frames = np.asarray(activations, dtype=np.float64).reshape(shape[0], -1)
    counts = np.zeros((len(frames), limits.size + 1), np.int64)
    histogram, mass = np.full(len(frames), np.nan), np.full(len(frames), np.nan)
    finite = np.isfinite(frames)
    for i, frame in enumerate(frames):
        kept = frame[finite[i]]
        counts[i] = np.bincount(np.digitize(kept, limits), minlength=limits.size + 1)
        if kept.size < frame.size:
            continue
        histogram[i] = _entropy_of_weights(counts[i].astype(np.float64))
        if frame.any():
            magnitude = np.abs(frame)
            mass[i] = _entropy_of_weights(magnitude / magnitude.max())  # scaled: no sum of float64 overflows
    return ActivationEntropy(histogram, mass, counts, (~finite).sum(axis=1))


def _entropy_of_weights(weights: NDArray[np.float64]) -> float:
    """Return -sum p log p of p = weights / sum; at least one weight is > 0."""
    p = weights[weights > 0.0] / weights.sum()
    p = p[p > 0.0]  # a ratio may underflow
    return float(max(0.0, -(p * np.log(p)).sum()))
