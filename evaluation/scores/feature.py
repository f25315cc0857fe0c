"""Scores in the space of penultimate features, the input of the last linear layer, fitted on the calibration split.

The papers fit on the training set; the owner of a bundle has its calibration split, so that is used here. With a
few thousand frames in a few hundred dimensions a frame's own part in the fit shows, so calibration scores leave it
out: exactly for `mahalanobis` (a rank-one downdate) and `knn`, over ten folds for `vim`, and not at all for `fdbd`,
where all that is fitted is one mean.

`vim` and `fdbd` need the last layer's weight and bias. They follow from features and logits, which are a linear map of
them; they are solved for where they are not given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from framegate.evaluation.frames.observations import NO_LABEL, Observations
from framegate.evaluation.scores.covariance import ClassGaussians
from framegate.evaluation.scores.protocol import FittedScore, Floats, Learned, Score
from framegate.runtime.errors import CalibrationError

_FOLDS = 10
_BLOCK = 1000
_LINEAR_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class LinearHead:
    """The last layer: logits = features @ weight.T + bias.

    Attributes:
        weight: (C, F) float64.
        bias: (C,) float64.
    """

    weight: Floats
    bias: Floats


def recover_head(calibration: Observations) -> LinearHead:
    """Solve logits = features @ weight.T + bias for the weight of least norm and the bias.

    A feature that is constant on the calibration split gets weight 0.

    Raises:
        CalibrationError: The logits are not a linear map of the features, to within 1 % of their spread.
    """
    rows = _usable(calibration)
    features = calibration.features[rows].astype(np.float64)
    logits = calibration.logits[rows].astype(np.float64)
    centre, level = features.mean(axis=0), logits.mean(axis=0)
    moved, wanted = features - centre, logits - level
    values, vectors = np.linalg.eigh(moved.T @ moved)
    kept = values > values[-1] * 1e-10
    inverse = (vectors[:, kept] / values[kept]) @ vectors[:, kept].T
    weight = (inverse @ (moved.T @ wanted)).T
    residual = np.sqrt(np.mean((wanted - moved @ weight.T) ** 2)) / max(float(wanted.std()), np.finfo(np.float64).tiny)
    if not residual <= _LINEAR_TOLERANCE:
        raise CalibrationError(
            f"{calibration.name}: {residual:.1%} of the logits' spread is not a linear map of the features; record the "
            "input of the last linear layer, or give that layer's weight and bias"
        )
    return LinearHead(weight, level - weight @ centre)


def mahalanobis() -> Score:
    """Smallest class-conditional Mahalanobis distance (Lee et al. 2018, arXiv:1807.03888), squared.

    One covariance shared by all classes, shrunk towards a multiple of the identity by the amount of Ledoit and Wolf
    2004 (J. Multivariate Analysis 88). The paper's input preprocessing and its sum over layers are left out.
    """

    def learn(calibration: Observations, _: Sequence[FittedScore]) -> Learned:
        rows = _usable(calibration, labelled=True)
        features = calibration.features[rows].astype(np.float64)
        gaussians = ClassGaussians.fit(features, calibration.labels[rows])

        def compute(observations: Observations, _: Sequence[Floats]) -> Floats:
            return gaussians.smallest_distance(_features(observations))

        scores = compute(calibration, [])
        scores[rows] = gaussians.left_out_distance(features, calibration.labels[rows])
        return Learned(compute, scores, {"shrinkage": gaussians.shrinkage})

    return Score("mahalanobis", "feature", learn)


def knn(neighbours: int | None = None) -> Score:
    """Distance to the k-th nearest calibration feature, all scaled to length one (Sun et al. 2022, arXiv:2204.06507).

    Args:
        neighbours: k; without it a thousandth of the calibration frames, the share of the paper's k = 50 of 50,000.
    """

    def learn(calibration: Observations, _: Sequence[FittedScore]) -> Learned:
        rows = _usable(calibration)
        bank = _unit(calibration.features[rows])
        nearest = max(1, round(len(bank) / 1000)) if neighbours is None else neighbours
        if not 1 <= nearest < len(bank):
            raise CalibrationError(
                f"{calibration.name}: {nearest} neighbours asked for, {len(bank)} usable frames found"
            )

        def compute(observations: Observations, _: Sequence[Floats]) -> Floats:
            return _kth_distance(_unit(observations.features), bank, nearest)

        scores = np.full(len(calibration), np.nan)
        scores[rows] = _kth_distance(bank, bank, nearest, itself=True)
        return Learned(compute, scores, {"neighbours": float(nearest)})

    return Score("knn", "feature", learn)


def vim(head: LinearHead | None = None) -> Score:
    """Virtual-logit matching (Wang et al. 2022, arXiv:2203.10807): alpha |residual| - logsumexp(logits).

    The residual is what lies outside the principal subspace of the features around -pinv(weight) bias, of 1,000
    dimensions from 2,048 features on, else 512, but at most half of the features, as small networks have fewer.
    Alpha gives it the size of the mean largest logit.
    """

    def learn(calibration: Observations, _: Sequence[FittedScore]) -> Learned:
        rows = _usable(calibration)
        layer = recover_head(calibration) if head is None else head
        origin = -np.linalg.pinv(layer.weight) @ layer.bias
        moved = calibration.features[rows].astype(np.float64) - origin
        logits = calibration.logits[rows].astype(np.float64)
        principal = min(1000 if moved.shape[1] >= 2048 else 512, moved.shape[1] // 2)
        scatter = moved.T @ moved
        residual, alpha = _residual_space(scatter, moved, logits, principal)

        def compute(observations: Observations, _: Sequence[Floats]) -> Floats:
            outside = np.linalg.norm((_features(observations) - origin) @ residual, axis=1)
            return np.asarray(alpha * outside - _logsumexp(observations))

        scores = compute(calibration, [])
        for part in np.array_split(np.random.default_rng(0).permutation(len(moved)), min(_FOLDS, len(moved))):
            rest = np.setdiff1d(np.arange(len(moved)), part)
            space, scale = _residual_space(scatter - moved[part].T @ moved[part], moved[rest], logits[rest], principal)
            outside = np.linalg.norm(moved[part] @ space, axis=1)
            scores[rows[part]] = scale * outside - _logsumexp(calibration.subset(rows[part]))
        return Learned(compute, scores, {"alpha": alpha, "principal_dimensions": float(principal)})

    return Score("vim", "feature", learn)


def fdbd(head: LinearHead | None = None) -> Score:
    """Minus the mean distance to the decision boundaries, relative to that from the mean feature (fDBD).

    Liu and Qin 2024 (arXiv:2312.11536): mean over the other classes c of (logit_p - logit_c) / |w_p - w_c| for the
    predicted class p, divided by |feature - mean feature|. Cheap: one small product and one norm per frame.
    """

    def learn(calibration: Observations, _: Sequence[FittedScore]) -> Learned:
        layer = recover_head(calibration) if head is None else head
        centre = calibration.features[_usable(calibration)].mean(axis=0, dtype=np.float64)
        apart = np.linalg.norm(layer.weight[:, None] - layer.weight[None], axis=2)
        np.fill_diagonal(apart, 1.0)  # a class has no boundary with itself; its difference of logits is 0 anyway

        def compute(observations: Observations, _: Sequence[Floats]) -> Floats:
            logits = np.where(observations.finite[:, None], observations.logits.astype(np.float64), np.nan)
            best = observations.logits.argmax(axis=1)
            differences = logits[np.arange(len(logits)), best][:, None] - logits
            with np.errstate(divide="ignore", invalid="ignore"):
                boundary = (differences / apart[best]).sum(axis=1) / (logits.shape[1] - 1)
                return np.asarray(-boundary / np.linalg.norm(_features(observations) - centre, axis=1))

        return Learned(compute)

    return Score("fdbd", "feature", learn)


def feature_scores(head: LinearHead | None = None) -> list[Score]:
    """All scores of this module; ``head`` is the network's last layer where it is at hand."""
    return [mahalanobis(), knn(), vim(head), fdbd(head)]


def _usable(calibration: Observations, labelled: bool = False) -> NDArray[np.int64]:
    """Positions of the frames with finite features and logits (and a label)."""
    usable = calibration.finite & np.isfinite(calibration.features).all(axis=1)
    if labelled:
        usable &= calibration.labels != NO_LABEL
    if calibration.features.shape[1] < 2 or usable.sum() < 2:
        raise CalibrationError(
            f"{calibration.name}: {usable.sum()} usable frames of {calibration.features.shape[1]} features found; "
            "record the penultimate features of a few thousand frames"
        )
    return np.flatnonzero(usable)


def _features(observations: Observations) -> Floats:
    """(N, F) float64; a row that is not finite is NaN throughout, as infinity divides to a harmless number."""
    features = observations.features.astype(np.float64)
    return np.where(np.isfinite(features).all(axis=1, keepdims=True), features, np.nan)


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows scaled to length one; a row of zeros has no direction and becomes NaN."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True))


def _kth_distance(rows: NDArray[np.float32], bank: NDArray[np.float32], nearest: int, itself: bool = False) -> Floats:
    """(N,) Euclidean distance to the ``nearest``-th row of the bank, one further if the row itself is in the bank."""
    kth = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        cosine = block @ bank.T
        if itself:
            cosine[np.arange(len(block)), start + np.arange(len(block))] = -np.inf
        # NaN would be sorted as if it were large.
        kth[start : start + _BLOCK] = -np.partition(-cosine, nearest - 1, axis=1)[:, nearest - 1]
    distance = np.sqrt(np.maximum(2.0 - 2.0 * kth, 0.0))
    return np.where(np.isfinite(rows).all(axis=1), distance, np.nan)


def _residual_space(scatter: Floats, moved: Floats, logits: Floats, principal: int) -> tuple[Floats, float]:
    """(F, F - principal) basis of the residual space and alpha."""
    residual = np.linalg.eigh(scatter)[1][:, : scatter.shape[0] - principal]
    size = float(np.linalg.norm(moved @ residual, axis=1).mean())
    return residual, float(logits.max(axis=1).mean()) / max(size, np.finfo(np.float64).tiny)


def _logsumexp(observations: Observations) -> Floats:
    """(N,) logsumexp of the logits; NaN where one is not finite."""
    logits = np.where(observations.finite[:, None], observations.logits.astype(np.float64), np.nan)
    largest = logits.max(axis=1)
    return np.asarray(largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1)))
