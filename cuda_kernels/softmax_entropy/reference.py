"""The reference of softmax scores: NumPy, float64, no other room needed.

Every CUDA kernel and every runtime version of these scores is compared with this file before it is timed. Logits are
``(N, C)``: N frames, C classes. The shifted form is used throughout, with d = (x - max x) / T, Z = sum exp(d) and
S = sum d exp(d):

    p = exp(d) / Z        H = log Z - S / Z        margin = (1 - exp(d2)) / Z        E = -(max x + T log Z)

H follows from log p = d - log Z put into H = -sum p log p, so no logarithm is taken per class and no p = 0 meets one.
Subtracting the maximum before dividing by T keeps a small T from overflowing the largest logits.

Sources: temperature, Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv 1706.04599); energy, Liu et al.
2020, "Energy-based Out-of-distribution Detection" (arXiv 2010.03759), E = -T logsumexp(x / T); maximum subtracted
before exp, Milakov and Gimelshein 2018, "Online normalizer calculation for softmax" (arXiv 1805.02867).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["SoftmaxScores", "entropy", "softmax", "softmax_scores"]


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: == on arrays has no single truth value
class SoftmaxScores:
    """The scores of N rows of logits over C classes. A row without a distribution is NaN throughout.

    Attributes:
        probabilities: (N, C) float64 in [0, 1]; each row sums to 1.
        argmax: (N,) int64 in [0, C), the lowest index among equal maxima; -1 where ``finite`` is False.
        max_probability: (N,) float64 in [1/C, 1]; higher means more certain.
        entropy: (N,) float64 in [0, log C], nats; higher means less certain.
        margin: (N,) float64 in [0, 1], top-1 minus top-2 probability; 0 on a tie, 1 if only one class is unmasked.
        energy: (N,) float64, in the unit of the logits, unbounded; higher means less certain. It is -inf where it is
            beyond float64, which takes a temperature above 1e290.
        finite: (N,) bool, True where the row has a distribution: no NaN, no +inf and at least one finite logit.
    """

    probabilities: NDArray[np.float64]
    argmax: NDArray[np.int64]
    max_probability: NDArray[np.float64]
    entropy: NDArray[np.float64]
    margin: NDArray[np.float64]
    energy: NDArray[np.float64]
    finite: NDArray[np.bool_]


def _as_rows(logits: ArrayLike) -> NDArray[np.float64]:
    """Return the logits as a C-ordered float64 matrix (the caller's own if it is one: never write to it)."""
    # A signalling NaN, or a long double beyond float64, warns when cast. Either turns non-finite, and is flagged so.
    with np.errstate(invalid="ignore", over="ignore"):
        # order="C": the order in which a row is summed, hence its last bit, must not depend on the caller's strides.
        x = np.asarray(logits, dtype=np.float64, order="C")
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"logits: asked for shape (N, C) with C >= 1, found {x.shape}; one frame is logits[None, :]")
    return x


def softmax_scores(logits: ArrayLike, temperature: float = 1.0) -> SoftmaxScores:
    """Compute every softmax score of every row in one go.

    A logit of -inf is a mask: its class has probability 0 and adds nothing to any score. A row that holds NaN or +inf,
    or is masked throughout, gets NaN scores, so that ``score <= threshold`` is False for it. Two logits further apart
    than float64 reaches count as infinitely far apart.

    Args:
        logits: (N, C) real numbers of any float type, C >= 1; N may be 0. Not modified.
        temperature: T in p = softmax(x / T), finite and > 0; above 1 flattens the distribution.

    Returns:
        The scores in float64; a row's scores do not depend on the other rows.

    Raises:
        ValueError: if logits are not (N, C) with C >= 1, or temperature is not finite and > 0.
    """
    if not 0.0 < temperature < np.inf:
        raise ValueError(f"temperature: asked for a finite number > 0, found {temperature!r}")
    x = _as_rows(logits)
    argmax = x.argmax(axis=1).astype(np.int64, copy=False)
    largest = x.max(axis=1, keepdims=True)
    finite = np.isfinite(largest[:, 0])  # NaN and +inf win every maximum; -inf wins only if all are -inf
    all_finite = bool(finite.all())
    if not all_finite:
        x = np.where(finite[:, None], x, 0.0)  # any finite number will do: the scores are overwritten with NaN below
        largest = np.where(finite[:, None], largest, 0.0)

    # Overflow here means "infinitely far below the maximum" and underflow "probability 0"; both are the right answer.
    with np.errstate(over="ignore", under="ignore"):
        d = (x - largest) / temperature
        e = np.exp(d)
        z = e.sum(axis=1)
        s = (np.where(e > 0.0, d, 0.0) * e).sum(axis=1)  # a masked class would add -inf * 0 = NaN
        log_z = np.log(z)
        probabilities = e / z[:, None]
        # Rounding can pass log C by an ulp or two. It can't pass 0, because Z >= 1 and S <= 0 hold after rounding too.
        entropy_nats = np.minimum(log_z - s / z, np.log(x.shape[1]))
        energy = 0.0 - (largest[:, 0] + temperature * log_z)  # 0.0 - y, not -y: a zero score is never -0.0
        d[
            np.arange(len(d)), argmax
        ] = -np.inf  # what is left are the other classes; a single class has none, hence margin 1
        margin = (0.0 - np.expm1(d.max(axis=1))) / z  # -expm1(d2) is 1 - exp(d2) without its cancellation
    max_probability = 1.0 / z

    if not all_finite:
        argmax[~finite] = -1
        for score in (probabilities, max_probability, entropy_nats, margin, energy):
            score[~finite] = np.nan
    return SoftmaxScores(probabilities, argmax, max_probability, entropy_nats, margin, energy, finite)


def softmax(logits: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """Compute the class probabilities alone; arguments and errors as `softmax_scores`.

    Returns:
        (N, C) float64 in [0, 1]; NaN in rows without a distribution.
    """
    return softmax_scores(logits, temperature).probabilities


def entropy(logits: ArrayLike, temperature: float = 1.0) -> NDArray[np.float64]:
    """Compute the softmax entropy alone; arguments and errors as `softmax_scores`.

    Returns:
        (N,) float64 in [0, log C], nats; NaN in rows without a distribution.
    """
    return softmax_scores(logits, temperature).entropy
