"""The scores of one frame.

The truth is `framegate.cuda_kernels.softmax_entropy.reference.softmax_scores`. On a single row its twenty array
operations cost more than the arithmetic, so a row goes to one call of compiled code (frame_scores.c), and without
that, rows of up to 64 classes are computed with plain floats. The formulas are the same; a test holds all three
together.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores
from framegate.runtime.native import library

Tensor = npt.NDArray[np.float32]
"""What engines take and give."""

_SHORT = 64
_Five = ctypes.c_double * 5


class FrameScores(NamedTuple):
    """Scores of one row of logits.

    Attributes:
        argmax: Index of the largest logit, the lowest on a tie; -1 if the output is not finite.
        max_probability: In [1/C, 1], NaN if the output is not finite, like all that follow.
        entropy: In [0, log C], nats.
        margin: In [0, 1], best minus second-best probability.
        energy: -T logsumexp(x / T).
    """

    argmax: int
    max_probability: float
    entropy: float
    margin: float
    energy: float

    def values(self) -> dict[str, float]:
        """The scores by name, each turned so that higher is less trustworthy (`SCORES` of the calibration)."""
        return {name: score_of(self) for name, score_of in SCORE_OF.items()}

    @property
    def finite(self) -> bool:
        """False if the output held NaN or an infinity of either sign: from a network, each of them is a fault."""
        return self.argmax >= 0


class _Numbers(Protocol):
    """What has the numbers of `FrameScores` by their names."""

    @property
    def max_probability(self) -> float: ...
    @property
    def entropy(self) -> float: ...
    @property
    def margin(self) -> float: ...
    @property
    def energy(self) -> float: ...


SCORE_OF: Mapping[str, Callable[[_Numbers], float]] = {
    "entropy": lambda scores: scores.entropy,
    "max_probability": lambda scores: 1.0 - scores.max_probability,
    "margin": lambda scores: 1.0 - scores.margin,
    "energy": lambda scores: scores.energy,
}
"""Name -> the score, turned so that higher is less trustworthy."""
_NOT_FINITE = FrameScores(-1, math.nan, math.nan, math.nan, math.nan)


def not_finite() -> FrameScores:
    """The scores of an output that holds NaN or an infinity."""
    return _NOT_FINITE


def frame_scores(logits: Tensor, temperature: float) -> FrameScores:
    """Scores of the first row.

    Args:
        logits: (1, C) float32.
        temperature: Finite and positive.
    """
    code, _ = library()
    if code is not None and logits.dtype == np.float32 and logits.flags.c_contiguous:
        found = _Five()
        if not code.framegate_scores(logits.ctypes.data, logits.shape[1], temperature, found):
            return _NOT_FINITE
        best, probability, entropy, margin, energy = found
        return FrameScores(int(best), probability, entropy, margin, energy)
    row = logits[0].tolist()
    if not all(map(math.isfinite, row)):
        return _NOT_FINITE
    if len(row) > _SHORT:
        scores = softmax_scores(logits[:1], temperature)
        return FrameScores(
            int(scores.argmax[0]),
            float(scores.max_probability[0]),
            float(scores.entropy[0]),
            float(scores.margin[0]),
            float(scores.energy[0]),
        )
    largest = max(row)
    best = row.index(largest)
    shifted = [(x - largest) / temperature for x in row]
    powers = [math.exp(d) for d in shifted]
    z = math.fsum(powers)
    s = math.fsum([d * e for d, e in zip(shifted, powers, strict=True)])
    del shifted[best]
    return FrameScores(
        argmax=best,
        max_probability=1.0 / z,
        entropy=min(max(math.log(z) - s / z, 0.0), math.log(len(row))),
        # -expm1(d) is 1 - exp(d) without its cancellation; a lone class has no rival.
        margin=-math.expm1(max(shifted, default=-math.inf)) / z,
        energy=-(largest + temperature * math.log(z)),
    )


def class_probabilities(logits: Tensor, temperature: float) -> tuple[float, ...]:
    """Softmax of the first row, in the order of the classes.

    Args:
        logits: (1, C) float32, finite.
        temperature: Finite and positive.
    """
    row = logits[0].astype(np.float64)
    powers = np.exp((row - row.max()) / temperature)
    return tuple((powers / powers.sum()).tolist())
