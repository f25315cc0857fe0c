"""Every score that a set of observations allows, and fitting and computing them without doing anything twice.

Names: ``entropy``, ``mahalanobis``, ``total_variation``, ``LAYER:STATISTIC``, each also as ``two_sided(NAME)``; and the
combinations ``METHOD/SELECTION``, METHOD one of logistic, fisher, largest_atypicality and SELECTION

    output      entropy and energy: what the product has without tapping anything
    network     these, mahalanobis, knn and two statistics of every tap
    all         these and total_variation, the best control without a network

so that what taps add, and whether a network adds anything to a control, can be read off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from framegate.evaluation.frames.observations import Observations
from framegate.evaluation.scores.activation import tap_score
from framegate.evaluation.scores.combined import fisher, largest_atypicality, logistic, two_sided
from framegate.evaluation.scores.feature import LinearHead, feature_scores
from framegate.evaluation.scores.input import control_score
from framegate.evaluation.scores.output import output_scores
from framegate.evaluation.scores.protocol import FittedScore, Floats, Score
from framegate.runtime.errors import CalibrationError, UsageError

COMBINED_OUTPUTS = ("entropy", "energy")
COMBINED_FEATURES = ("mahalanobis", "knn")
COMBINED_STATISTICS = ("mass_entropy", "high_frequency_ratio")
COMBINED_CONTROLS = ("total_variation",)


def base_scores(observations: Observations, head: LinearHead | None = None) -> list[Score]:
    """Scores of one kind each, not folded: output, control, feature and tap, as far as recorded."""
    scores = output_scores()
    scores += [control_score(name) for name in observations.controls]
    if observations.features.shape[1] >= 2:
        scores += feature_scores(head)
    return scores + [tap_score(name) for name in observations.taps]


def combined_scores(base: Sequence[Score]) -> list[Score]:
    """Combinations of the base scores by the selections of this module; one without anything new is left out."""
    by_name = {score.name: score for score in base}

    def pick(*names: str) -> list[Score]:
        return [by_name[name] for name in names if name in by_name]

    taps = [name for name in by_name if name.rpartition(":")[0] and name.rpartition(":")[2] in COMBINED_STATISTICS]
    output = pick(*COMBINED_OUTPUTS)
    network = output + pick(*COMBINED_FEATURES, *taps)
    everything = network + pick(*COMBINED_CONTROLS)
    selections: dict[str, list[Score]] = {}
    for name, scores in (("output", output), ("network", network), ("all", everything)):
        if scores and all(len(scores) != len(found) for found in selections.values()):
            selections[name] = scores
    return [
        combine(f"{method}/{name}", scores)
        for method, combine in (
            ("logistic", logistic),
            ("fisher", fisher),
            ("largest_atypicality", largest_atypicality),
        )
        for name, scores in selections.items()
    ]


def all_scores(observations: Observations, head: LinearHead | None = None) -> list[Score]:
    """Base scores, their two-sided forms, and combinations.

    Args:
        observations: A set with everything recorded that other sets have too, such as the calibration split.
        head: The network's last layer, where it is at hand.
    """
    base = base_scores(observations, head)
    return [*base, *(two_sided(score) for score in base), *combined_scores(base)]


def select(scores: Sequence[Score], names: Sequence[str]) -> list[Score]:
    """The scores of these names, in this order.

    Raises:
        UsageError: A name is not among them.
    """
    by_name = {score.name: score for score in scores}
    for name in names:
        if name not in by_name:
            raise UsageError(f"score {name!r} is not known here; choose from {', '.join(by_name)}")
    return [by_name[name] for name in names]


def fit_scores(
    scores: Sequence[Score], calibration: Observations, left_out: dict[str, str] | None = None
) -> dict[str, FittedScore]:
    """Fit all on the calibration split, by name.

    Args:
        scores: Which.
        calibration: The split.
        left_out: Gets the scores that the split cannot fit, name -> why; None raises for the first one.

    Raises:
        CalibrationError: The split does not hold what a score needs, such as errors of the network.
    """
    known: dict[str, FittedScore] = {}
    fitted: dict[str, FittedScore] = {}
    for score in scores:
        try:
            fitted[score.name] = score.fit(calibration, known)
        except CalibrationError as error:
            if left_out is None:
                raise
            left_out[score.name] = str(error)
    return fitted


def score_frames(fitted: Mapping[str, FittedScore], observations: Observations) -> dict[str, Floats]:
    """(N,) scores of every fitted score, by name."""
    known: dict[str, Floats] = {}
    return {name: score.score(observations, known) for name, score in fitted.items()}
