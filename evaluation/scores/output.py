"""Scores computed from the logits alone: no layer is tapped and the calibration split only gives the temperature.

Sources: softmax entropy and 1 - maximum probability as reasons to abstain, Hendrycks and Gimpel 2017
(arXiv:1610.02136); temperature, Guo et al. 2017 (arXiv:1706.04599); energy, Liu et al. 2020 (arXiv:2010.03759); maximum
logit, Hendrycks et al. 2022 (arXiv:1911.11132); generalized entropy (GEN), Liu, Lochman and Zach 2023 (CVPR). Entropy,
probability, margin and energy are those of `framegate.cuda_kernels.softmax_entropy.reference`, as in the product. A
row with a logit that is not finite scores NaN, as in the runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from framegate.cuda_kernels.softmax_entropy.reference import SoftmaxScores, softmax_scores
from framegate.evaluation.frames.observations import NO_LABEL, Observations
from framegate.evaluation.scores.protocol import Compute, FittedScore, Floats, Learned, Score
from framegate.export.calibration.temperature import fit_temperature
from framegate.runtime.errors import CalibrationError

GEN_EXPONENT = 0.1
"""Gamma of the generalized entropy, the paper's choice."""
GEN_LARGEST = 100
"""How many of the largest probabilities it sums over, the paper's M."""


def calibrated_temperature(calibration: Observations) -> float:
    """The temperature of least negative log likelihood on the labelled calibration frames.

    Raises:
        CalibrationError: No frame has a label and finite logits.
    """
    known = calibration.labels != NO_LABEL
    if not known.any():
        raise CalibrationError(
            f"{calibration.name}: no frame has a label; calibrate on frames of the network's classes"
        )
    return fit_temperature(calibration.logits[known], calibration.labels[known])


def generalized_entropy(probabilities: Floats) -> Floats:
    """GEN of (N, C) probabilities: sum of (p (1 - p))^0.1 over the 100 largest; (N,), NaN rows stay NaN."""
    largest = np.sort(probabilities, axis=1)[:, -GEN_LARGEST:]
    return np.asarray(((largest * (1.0 - largest)) ** GEN_EXPONENT).sum(axis=1))


def _from_softmax(read: Callable[[SoftmaxScores], Floats], temperature: float) -> Compute:
    def compute(observations: Observations, _: Sequence[Floats]) -> Floats:
        return np.where(observations.finite, read(softmax_scores(observations.logits, temperature)), np.nan)

    return compute


def _tempered(name: str, read: Callable[[SoftmaxScores], Floats]) -> Score:
    def learn(calibration: Observations, _: Sequence[FittedScore]) -> Learned:
        temperature = calibrated_temperature(calibration)
        return Learned(_from_softmax(read, temperature), parameters={"temperature": temperature})

    return Score(name, "output", learn)


def _untempered(name: str, read: Callable[[SoftmaxScores], Floats]) -> Score:
    return Score(name, "output", lambda calibration, members: Learned(_from_softmax(read, 1.0)))


def _max_logit(observations: Observations, _: Sequence[Floats]) -> Floats:
    return np.where(observations.finite, -observations.logits.max(axis=1).astype(np.float64), np.nan)


def output_scores() -> list[Score]:
    """All scores of this module.

    ``entropy`` (nats, at most log C), ``max_probability`` (1 - it), ``margin`` (1 - it) and ``energy`` (unit of the
    logits) are taken at the calibrated temperature, ``entropy_untempered`` at 1 as in the research, ``gen`` at 1 as in
    its paper; ``max_logit`` is the negative largest logit, whose order no temperature changes.
    """
    return [
        _tempered("entropy", lambda scores: scores.entropy),
        _tempered("max_probability", lambda scores: 1.0 - scores.max_probability),
        _tempered("margin", lambda scores: 1.0 - scores.margin),
        _tempered("energy", lambda scores: scores.energy),
        _untempered("entropy_untempered", lambda scores: scores.entropy),
        _untempered("gen", lambda scores: generalized_entropy(scores.probabilities)),
        Score("max_logit", "output", lambda calibration, members: Learned(_max_logit)),
    ]
