"""Temperature scaling: one number that makes a network's probabilities mean what they say."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from framegate.runtime.errors import CalibrationError

Logits = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

_TEMPERATURES = (0.05, 20.0)


def negative_log_likelihood(logits: Logits, labels: Labels, temperature: float, spread: float = 0.0) -> float:
    """Mean of -log p(label) in nats at a temperature.

    Args:
        logits: (N, classes).
        labels: (N,).
        temperature: Logits are divided by it.
        spread: So much of each target, in [0, 1), is spread evenly over all labels.
    """
    shifted = logits.astype(np.float64) / temperature
    shifted -= shifted.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(axis=1))
    aimed_at = (1 - spread) * shifted[np.arange(len(labels)), labels] + spread * shifted.mean(axis=1)
    return float(np.mean(log_sum - aimed_at))


def _golden_section(function: Callable[[float], float], low: float, high: float, tolerance: float = 1e-6) -> float:
    """The minimum of a function with one valley (Kiefer 1953)."""
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > tolerance:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2


def fit_temperature(logits: Logits, labels: Labels) -> float:
    """The temperature in [0.05, 20] of least negative log likelihood (Guo et al. 2017, arXiv:1706.04599).

    The likelihood is convex in 1 / temperature, hence has one valley in its logarithm too. Of images without an error
    it would still rise where all probabilities are one: they do not say how rare errors are. Then 1 / (N + 2) of each
    target belongs to all labels, as in Platt 1999, "Probabilistic outputs for support vector machines", section 2.2.

    Raises:
        CalibrationError: No row of logits is finite.
    """
    finite = np.isfinite(logits).all(axis=1)
    if not finite.any():
        raise CalibrationError("calibration: no image has finite logits; the model's outputs are not usable")
    usable, known = logits[finite], labels[finite]
    spread = 1 / (len(known) + 2) if bool((usable.argmax(axis=1) == known).all()) else 0.0
    low, high = (math.log(value) for value in _TEMPERATURES)
    return math.exp(_golden_section(lambda x: negative_log_likelihood(usable, known, math.exp(x), spread), low, high))
