"""Logistic regression with a ridge penalty and, for some weights, a sign: a few dozen columns, a few thousand rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from framegate.evaluation.scores.protocol import Floats

PENALTY = 1.0
_STEPS = 100
_TOLERANCE = 1e-8


@dataclass(frozen=True, eq=False)
class LogisticRegression:
    """log odds = columns @ weights + intercept.

    Attributes:
        weights: (K,).
        intercept: Natural logarithm of the odds where all columns are zero.
    """

    weights: Floats
    intercept: float

    def log_odds(self, columns: Floats) -> Floats:
        """(n, K) -> (n,); NaN in a row stays NaN, also where its weight is zero."""
        return np.asarray(columns @ self.weights + self.intercept)


def fit_logistic(columns: Floats, positive: NDArray[np.bool_], free: int) -> LogisticRegression:
    """Minimise the sum of logistic losses plus PENALTY / 2 |weights|^2, weights from position ``free`` on being >= 0.

    Newton's method (iteratively reweighted least squares) with halved steps, on the weights that are not held at zero;
    a weight is held while it would leave the allowed side, and let go when its gradient points inside again
    (projected Newton, Bertsekas 1982, SIAM J. Control and Optimization 20).

    Args:
        columns: (n, K) finite, of similar scale.
        positive: (n,) with both values present.
        free: How many leading weights may have either sign.
    """
    design = np.column_stack([columns, np.ones(len(columns))])
    penalty = np.append(np.full(columns.shape[1], PENALTY), 0.0)
    signed = np.zeros(design.shape[1], dtype=bool)
    signed[free:-1] = True
    target = positive.astype(np.float64)
    weights = np.zeros(design.shape[1])
    weights[-1] = np.log(target.mean() / (1.0 - target.mean()))
    loss = _loss(design, target, penalty, weights)
    for _ in range(_STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(design @ weights, -500, 500)))
        gradient = design.T @ (p - target) + penalty * weights
        moving = ~(signed & (weights <= 0.0) & (gradient > 0.0))
        if not np.max(np.abs(gradient[moving])) > _TOLERANCE * len(design):
            break
        curvature = (design * (p * (1.0 - p))[:, None]).T @ design + np.diag(penalty + 1e-10)
        step = np.zeros_like(weights)
        step[moving] = np.linalg.solve(curvature[np.ix_(moving, moving)], gradient[moving])
        size = 1.0
        while size > 1e-10:
            candidate = weights - size * step
            candidate[signed] = np.maximum(candidate[signed], 0.0)
            smaller = _loss(design, target, penalty, candidate)
            if smaller <= loss:
                break
            size /= 2.0
        if size <= 1e-10 or loss - smaller <= 1e-12 * loss:
            break
        weights, loss = candidate, smaller
    return LogisticRegression(weights[:-1], float(weights[-1]))


def _loss(design: Floats, target: Floats, penalty: Floats, weights: Floats) -> float:
    odds = design @ weights
    return float(np.sum(np.logaddexp(0.0, odds) - target * odds) + 0.5 * np.sum(penalty * weights**2))
