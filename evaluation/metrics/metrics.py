"""The figures of a report, each with its 95 % interval: accuracy, selective prediction, failure and attack detection.

Conventions. Higher score means less trustworthy; accept iff isfinite(score) and score <= threshold. Thresholds come
from calibration scores, figures from other frames. ``fpr95``: catch at least 95 % of the positives (errors, attacked
frames, frames out of distribution) and count the share of the others that is caught along. ``accepts95``: accept at
least 95 % of the others and count the share of positives that is accepted along. Neither splits ties.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from framegate.evaluation.metrics.intervals import (
    RESAMPLES,
    Counts,
    Interval,
    bootstrap,
    percentile_interval,
    proportion,
    resamples_of,
    share,
)
from framegate.evaluation.metrics.ranking import Flags, Floats, Ranking, accepted_positives, auroc, false_positive_rate
from framegate.evaluation.metrics.selective import accepts, areas, threshold_at
from framegate.runtime.errors import DataError

COVERAGES = (0.95, 0.9, 0.8, 0.7)


@dataclass(frozen=True)
class Selective:
    """What one threshold does to a set of frames.

    Attributes:
        threshold: Accept iff isfinite(score) and score <= threshold.
        coverage: Accepted / evaluated.
        accuracy: Right / accepted; selective risk is 1 - accuracy. NaN if nothing is accepted.
        false_accept_rate: Wrong and accepted / evaluated.
        errors_accepted: Wrong and accepted / wrong. NaN if nothing is wrong.
    """

    threshold: float
    coverage: Interval
    accuracy: Interval
    false_accept_rate: Interval
    errors_accepted: Interval

    def to_json(self) -> dict[str, object]:
        """The attributes by name; a threshold that accepts nothing (-infinity) becomes None."""
        figures = ("coverage", "accuracy", "false_accept_rate", "errors_accepted")
        threshold = self.threshold if np.isfinite(self.threshold) else None
        return {"threshold": threshold, **{name: getattr(self, name).to_json() for name in figures}}


@dataclass(frozen=True)
class Detection:
    """How well a score separates positives from the others.

    Attributes:
        auroc: Probability that a positive scores higher, ties counting one half.
        fpr95: Share of the others that is caught where 95 % of the positives are.
        accepts95: Share of the positives that is accepted where 95 % of the others are.
    """

    auroc: Interval
    fpr95: Interval
    accepts95: Interval

    def to_json(self) -> dict[str, object]:
        """The attributes by name."""
        return {name: getattr(self, name).to_json() for name in asdict(self)}


@dataclass(frozen=True)
class FailureDetection(Detection):
    """How well a score finds a classifier's own errors: `Detection` with the errors as positives, and areas.

    Attributes:
        aurc: Area under the risk-coverage curve, lower is better (not yet times 1000).
        eaurc: What of it an oracle would not have.
        augrc: Area under the generalized risk-coverage curve: mean rate of false accepts.
    """

    aurc: Interval
    eaurc: Interval
    augrc: Interval


def accuracy(wrong: Flags) -> Interval:
    """Share of (N,) frames that are right."""
    return share(~np.asarray(wrong, dtype=bool))


def selective(scores: Floats, wrong: Flags, threshold: float) -> Selective:
    """What a given threshold does.

    Args:
        scores: (N,).
        wrong: (N,) the prediction is wrong.
        threshold: Of the same score, from other frames.

    Raises:
        DataError: Another number of flags than scores.
    """
    scores, wrong = _checked(scores, wrong, least=0)
    accepted = accepts(scores, threshold)
    false_accepts = int((accepted & wrong).sum())
    kept = int(accepted.sum())
    return Selective(
        threshold,
        proportion(kept, len(scores)),
        proportion(kept - false_accepts, kept),
        proportion(false_accepts, len(scores)),
        proportion(false_accepts, int(wrong.sum())),
    )


def selective_at(
    calibration_scores: Floats, scores: Floats, wrong: Flags, coverages: Sequence[float] = COVERAGES
) -> dict[float, Selective]:
    """By target coverage: what the calibration split's threshold for it does to other frames.

    Args:
        calibration_scores: (n,) `FittedScore.calibration_scores`.
        scores: (N,) of other frames.
        wrong: (N,).
        coverages: Each in (0, 1].
    """
    return {coverage: selective(scores, wrong, threshold_at(calibration_scores, coverage)) for coverage in coverages}


def failure_detection(scores: Floats, wrong: Flags, resamples: int = RESAMPLES, seed: int = 0) -> FailureDetection:
    """How well a score finds the errors among N frames; the bootstrap draws frames.

    Where there are no errors, or nothing else, the figures of `Detection` are NaN.

    Raises:
        DataError: No frames, or another number of flags than scores.
    """
    scores, wrong = _checked(scores, wrong)
    ranking = Ranking(scores, wrong)

    def statistic(counts: Counts) -> NDArray[np.float64]:
        below = ranking.below(counts)
        return np.array([*_detection(*below), *areas(*below)])

    return FailureDetection(*bootstrap(statistic, len(scores), resamples, seed))


def detection(
    others: Floats, positives: Floats, *, paired: bool = False, resamples: int = RESAMPLES, seed: int = 0
) -> Detection:
    """How well a score separates two sets, such as clean frames and attacked or foreign ones.

    Args:
        others: (N,) scores of the frames that should be accepted.
        positives: (M,) scores of those that should be found.
        paired: Row k of both is the same image, clean and attacked; resamples then draw images. Otherwise each set is
            drawn on its own.
        resamples: Bootstrap resamples.
        seed: At least 0.

    Raises:
        DataError: One set is empty, or paired sets differ in size.
    """
    others, positives = np.asarray(others, dtype=np.float64), np.asarray(positives, dtype=np.float64)
    if len(others) == 0 or len(positives) == 0 or (paired and len(others) != len(positives)):
        raise DataError(
            f"detection: {len(others)} and {len(positives)} scores given; both are needed, as many of each if paired"
        )
    ranking = Ranking(np.concatenate([others, positives]), np.arange(len(others) + len(positives)) >= len(others))
    n = len(others) + len(positives)
    first = resamples_of(len(others), resamples, seed)
    second = resamples_of(len(positives), resamples, seed, *(() if paired else (1,)))
    drawn = np.array([_detection(*ranking.below(np.concatenate(pair))) for pair in zip(first, second, strict=True)])
    values = _detection(*ranking.below(np.ones(n, dtype=np.int64)))
    return Detection(*(percentile_interval(value, drawn[:, k], n) for k, value in enumerate(values)))


def same_images(
    scores: Floats, wrong: Flags, accepted: Flags, sets: int, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[Interval, Interval, Interval]:
    """Figures of several sets of the same images, each changed in another way; the bootstrap draws images.

    An image counts once, however often it is there: frames taken for independent would make the intervals as narrow as
    those of so many times the images.

    Args:
        scores: (sets * n,), one set of n images after the other.
        wrong: (sets * n,) the prediction is wrong.
        accepted: (sets * n,) a threshold accepts it.
        sets: How many.
        resamples: Bootstrap resamples.
        seed: At least 0.

    Returns:
        AUROC at finding the errors, share of wrong and accepted frames, and share of the errors that are accepted; n of
        each is the number of images.
    """
    scores, wrong = _checked(scores, wrong)
    ranking, let_through, images = Ranking(scores, wrong), wrong & accepted, len(scores) // sets

    def statistic(counts: Counts) -> NDArray[np.float64]:
        every = np.tile(counts, sets)
        errors, passed = int(every[wrong].sum()), int(every[let_through].sum())
        return np.array([auroc(*ranking.below(every)), passed / every.sum(), passed / errors if errors else np.nan])

    found = bootstrap(statistic, images, resamples, seed)
    shares = []
    for each in found[1:]:
        if each.value in (0.0, 1.0):  # all resamples agree, which is no certainty
            counted = proportion(round(each.value * images), images)
            each = replace(each, low=counted.low, high=counted.high)
        shares.append(each)
    return found[0], shares[0], shares[1]


def auroc_gain(scores: Floats, rival: Floats, wrong: Flags, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """By how much the AUROC at finding errors is above a rival score's on the same frames; in [-1, 1].

    The resamples are the same for both, so an interval above 0 says that the score is better.
    """
    scores, wrong = _checked(scores, wrong)
    rival, _ = _checked(rival, wrong)
    rankings = Ranking(scores, wrong), Ranking(rival, wrong)

    def statistic(counts: Counts) -> NDArray[np.float64]:
        ours, theirs = (auroc(*ranking.below(counts)) for ranking in rankings)
        return np.array([ours - theirs])

    return bootstrap(statistic, len(scores), resamples, seed)[0]


def _detection(positives: Counts, negatives: Counts) -> tuple[float, float, float]:
    return (
        auroc(positives, negatives),
        false_positive_rate(positives, negatives),
        accepted_positives(positives, negatives),
    )


def _checked(scores: Floats, wrong: Flags, least: int = 1) -> tuple[Floats, Flags]:
    scores, wrong = np.asarray(scores, dtype=np.float64), np.asarray(wrong, dtype=bool)
    if scores.ndim != 1 or scores.shape != wrong.shape or len(scores) < least:
        raise DataError(
            f"metrics: scores of shape {scores.shape} and flags of shape {wrong.shape} given; one of each per frame is "
            f"needed, and at least {least} frames"
        )
    return scores, wrong
