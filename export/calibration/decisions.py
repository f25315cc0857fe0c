"""What the runtime would decide about many images at once: its scores, limits and threshold on arrays.

The formulas are the runtime's own (`framegate.runtime.scores`, `framegate.runtime.policy.rules`); a test holds the two
together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores
from framegate.runtime.bundle.calibration import Calibration, Limit

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Outputs:
    """What one engine said about N images.

    Attributes:
        logits: (N, classes) float32.
        signals: Signal of the bundle's monitor -> (N,) float64; empty without a monitor.
    """

    logits: npt.NDArray[np.float32]
    signals: Mapping[str, Floats] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.logits)

    def subset(self, index: Indices) -> Outputs:
        """The chosen images."""
        return Outputs(self.logits[index], {name: values[index] for name, values in self.signals.items()})


def values_of(outputs: Outputs, temperature: float) -> dict[str, Floats]:
    """Every score and signal by name, (N,) each, higher is less trustworthy; NaN where an output is not finite."""
    scores = softmax_scores(outputs.logits, temperature)
    finite = np.isfinite(outputs.logits).all(axis=1)  # the kernel takes -inf for a mask, the runtime for a fault
    found = {
        "entropy": scores.entropy,
        "max_probability": 1.0 - scores.max_probability,
        "margin": 1.0 - scores.margin,
        "energy": scores.energy,
    }
    return {name: np.where(finite, each, math.nan) for name, each in found.items()} | dict(outputs.signals)


def predicted(outputs: Outputs) -> Indices:
    """(N,) number of the predicted label, -1 where an output is not finite."""
    return np.where(np.isfinite(outputs.logits).all(axis=1), outputs.logits.argmax(axis=1), -1)


def within(values: Mapping[str, Floats], limits: Iterable[Limit]) -> Flags:
    """(N,) which images lie inside all limits for single frames; NaN never does."""
    inside = np.ones(len(next(iter(values.values()))), bool)
    with np.errstate(invalid="ignore"):
        for limit in limits:
            if limit.frames > 1:
                continue
            value = values[limit.signal]
            inside &= np.isfinite(value)
            inside &= value >= (-math.inf if limit.low is None else limit.low)
            inside &= value <= (math.inf if limit.high is None else limit.high)
    return inside


def thresholds_of(outputs: Outputs, calibration: Calibration) -> float | Floats:
    """What each image's score is compared with: (N,) where labels have thresholds of their own."""
    if not calibration.classes:
        return calibration.threshold
    known = [calibration.threshold_of(k) for k in range(outputs.logits.shape[1])]
    return np.array([*known, math.nan])[predicted(outputs)]  # -1, no label, takes the last


def accepts(scores: Floats, threshold: float | Floats) -> Flags:
    """Which scores are accepted; NaN and infinities never are."""
    with np.errstate(invalid="ignore"):
        accepted: Flags = np.isfinite(scores) & (scores <= threshold)
    return accepted


def accepted(outputs: Outputs, calibration: Calibration) -> Flags:
    """(N,) which images the runtime would accept."""
    values = values_of(outputs, calibration.temperature)
    return within(values, calibration.limits) & accepts(values[calibration.score], thresholds_of(outputs, calibration))
