"""Typicality, the two-sided form of a score, and combinations of several scores fitted on the calibration split.

An attack can make a network too uncertain or too certain; the two-sided form sees both. It is -log p of the two-sided
conformal p-value, p = min(1, 2 min(p_low, p_high)) with p_low = (1 + #{calibration <= x}) / (n + 1) and p_high the same
with >= (Vovk et al. 2005, "Algorithmic Learning in a Random World"; Bates et al. 2023, arXiv:2104.08279). Ranks need
no assumption about the distribution, so a skewed score such as entropy, crowded near zero, keeps both its tails, which
|x - median| / MAD would not. Ties count on both sides, so a crowded value is typical. All values beyond the calibration
range share the smallest p; the excess over the range, in units of the range, is added so that further out is still less
trustworthy.

Combinations: Fisher 1932, -sum log p, and the smallest p (Tippett 1931); scores are dependent, so neither is read as a
probability, only as an order with a threshold from the calibration split. They need no errors and no attacks. The
logistic regression learns from the errors on the calibration split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from framegate.evaluation.frames.observations import NO_LABEL, Observations
from framegate.evaluation.scores.logistic import LogisticRegression, fit_logistic
from framegate.evaluation.scores.protocol import FittedScore, Floats, Learned, Score
from framegate.runtime.errors import CalibrationError

_FOLDS = 5
_OUTERMOST = 0.001


@dataclass(frozen=True, eq=False)
class Typicality:
    """The calibration distribution of one score.

    Attributes:
        ordered: (n,) finite calibration scores, ascending.
    """

    ordered: Floats

    @classmethod
    def fit(cls, name: str, scores: Floats) -> Typicality:
        """Take the finite ones of (N,) calibration scores.

        Raises:
            CalibrationError: None is finite.
        """
        finite = np.sort(scores[np.isfinite(scores)])
        if finite.size == 0:
            raise CalibrationError(f"score {name}: no calibration frame has a finite score; it cannot be used here")
        return cls(finite)

    def atypicality(self, scores: Floats, *, left_out: bool = False) -> Floats:
        """(N,) -log of the two-sided p-value, >= 0, plus the excess over the range; NaN stays NaN.

        Args:
            scores: (N,).
            left_out: The scores are the calibration scores, each to be compared with the others.
        """
        own = 0 if left_out else 1
        n = len(self.ordered)
        at_most = np.searchsorted(self.ordered, scores, side="right") + own
        at_least = n - np.searchsorted(self.ordered, scores, side="left") + own
        p = np.minimum(1.0, 2.0 * np.minimum(at_most, at_least) / (n + own))
        low, high = self.ordered[0], self.ordered[-1]
        unit = high - low if high > low else 1.0
        with np.errstate(invalid="ignore"):
            excess = np.maximum(0.0, np.maximum(low - scores, scores - high)) / unit
        return np.where(np.isnan(scores), np.nan, excess - np.log(np.maximum(p, 1.0 / (n + 1))))


def two_sided(score: Score) -> Score:
    """The typicality form of a score, named ``two_sided(NAME)``: high on both sides of the calibration distribution."""

    def learn(_: Observations, members: Sequence[FittedScore]) -> Learned:
        values = members[0].calibration_scores
        typicality = Typicality.fit(score.name, values)
        return Learned(
            lambda observations, known: typicality.atypicality(known[0]),
            typicality.atypicality(values, left_out=True),
        )

    return Score(f"two_sided({score.name})", score.family, learn, two_sided=True, members=(score,))


def fisher(name: str, scores: Sequence[Score]) -> Score:
    """Sum of the atypicalities of ``scores`` (Fisher 1932): many slightly unusual values count together."""
    return _of_atypicalities(name, scores, lambda values: values.sum(axis=0))


def largest_atypicality(name: str, scores: Sequence[Score]) -> Score:
    """Largest atypicality of ``scores`` (Tippett 1931): one very unusual value is enough."""
    return _of_atypicalities(name, scores, lambda values: values.max(axis=0))


def _of_atypicalities(name: str, scores: Sequence[Score], join: Callable[[Floats], Floats]) -> Score:
    """One score of the atypicalities of ``scores``; ``join`` makes (N,) values of (scores, N)."""
    return Score(
        name,
        "combined",
        lambda calibration, members: Learned(lambda observations, known: join(np.stack(known))),
        two_sided=True,
        members=tuple(two_sided(score) for score in scores),
    )


def logistic(name: str, scores: Sequence[Score]) -> Score:
    """Log odds of an error, by logistic regression on the scores and their atypicalities.

    Scores are limited to the calibration range between the outermost thousandths and standardised. Atypicalities get
    weights >= 0. So a value that was never seen, such as an attack's, can't make a frame trustworthy by a line drawn
    beyond the data: outside the range only the atypicality still moves, and it can only take trust away. Calibration
    scores are those of five folds, each predicted by the other four.
    """
    count = len(scores)

    def learn(calibration: Observations, members: Sequence[FittedScore]) -> Learned:
        columns = np.stack([member.calibration_scores for member in members], axis=1)
        usable = np.isfinite(columns).all(axis=1) & (calibration.labels != NO_LABEL)
        wrong = calibration.wrong
        if not (usable & wrong).any() or not (usable & ~wrong).any():
            raise CalibrationError(
                f"score {name}: {int((usable & wrong).sum())} errors among {int(usable.sum())} usable frames of "
                f"{calibration.name}; both right and wrong frames are needed"
            )
        scale = _Scale.fit(columns[usable], count)
        model = fit_logistic(scale.apply(columns[usable]), wrong[usable], free=count)
        scores = np.full(len(calibration), np.nan)
        unlabelled = np.isfinite(columns).all(axis=1) & ~usable
        scores[unlabelled] = model.log_odds(scale.apply(columns[unlabelled]))
        scores[usable] = _cross_fitted(columns[usable], wrong[usable], count, model)
        weights = dict(zip([member.name for member in members], model.weights.tolist(), strict=True))
        return Learned(
            lambda observations, known: model.log_odds(scale.apply(np.stack(known, axis=1))),
            scores,
            weights | {"intercept": model.intercept},
        )

    return Score(name, "combined", learn, members=(*scores, *(two_sided(score) for score in scores)))


@dataclass(frozen=True, eq=False)
class _Scale:
    """Limits and standardisation of the columns; the first ``limited`` columns are limited.

    Attributes:
        low: (K,) lower limits.
        high: (K,) upper limits.
        centre: (K,) means.
        spread: (K,) standard deviations, 1 for a constant column.
    """

    low: Floats
    high: Floats
    centre: Floats
    spread: Floats

    @classmethod
    def fit(cls, columns: Floats, limited: int) -> _Scale:
        low, high = np.quantile(columns, [_OUTERMOST, 1.0 - _OUTERMOST], axis=0)
        low[limited:], high[limited:] = -np.inf, np.inf
        clipped = np.clip(columns, low, high)
        spread = clipped.std(axis=0)
        return cls(low, high, clipped.mean(axis=0), np.where(spread > 0, spread, 1.0))

    def apply(self, columns: Floats) -> Floats:
        """(n, K) -> (n, K); NaN stays NaN."""
        return np.asarray((np.clip(columns, self.low, self.high) - self.centre) / self.spread)


def _cross_fitted(columns: Floats, wrong: Floats, count: int, whole: LogisticRegression) -> Floats:
    """(n,) log odds of each frame by a model of the other folds, or the whole model where the others lack a class."""
    log_odds = np.empty(len(columns))
    folds = np.random.default_rng(0).permutation(len(columns)) % _FOLDS
    for fold in range(_FOLDS):
        inside, outside = folds == fold, folds != fold
        scale = _Scale.fit(columns[outside], count) if outside.any() else _Scale.fit(columns, count)
        one_kind = not wrong[outside].any() or bool(wrong[outside].all())
        model = whole if one_kind else fit_logistic(scale.apply(columns[outside]), wrong[outside], free=count)
        log_odds[inside] = model.log_odds(scale.apply(columns[inside]))
    return log_odds
