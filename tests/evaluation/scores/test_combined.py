"""Typicality and combinations."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.evaluation.frames.observations import Observations
from framegate.evaluation.metrics.metrics import detection, failure_detection
from framegate.evaluation.metrics.selective import accepts, threshold_at
from framegate.evaluation.scores.activation import tap_score
from framegate.evaluation.scores.combined import Typicality, fisher, largest_atypicality, logistic, two_sided
from framegate.evaluation.scores.logistic import PENALTY, fit_logistic
from framegate.evaluation.scores.registry import fit_scores, score_frames
from framegate.runtime.errors import CalibrationError


def made(taps, labels=None, name="set"):
    """Frames of a network that always says class 0: a frame is wrong where its label is 1."""
    n = len(next(iter(taps.values())))
    labels = np.zeros(n, np.int64) if labels is None else labels
    return Observations(name, np.tile([1.0, 0.0], (n, 1)), labels, np.empty((n, 0)), taps)


def one(values, **others):
    return made({"a:mean": np.asarray(values, float)}, **others)


values = st.floats(-1e6, 1e6, allow_nan=False)


# Typicality


def test_it_is_the_conformal_p_value():
    reference = np.array([1.0, 2.0, 2.0, 5.0, 9.0])
    typicality = Typicality.fit("a", reference)
    for x in (1.0, 1.5, 2.0, 4.0, 5.0, 9.0):
        low = (1 + sum(c <= x for c in reference)) / 6
        high = (1 + sum(c >= x for c in reference)) / 6
        p = min(1.0, 2 * min(low, high))
        assert typicality.atypicality(np.array([x]))[0] == pytest.approx(-math.log(p))


def test_left_out_values_are_compared_with_the_others():
    reference = np.random.default_rng(0).normal(size=40)
    found = Typicality.fit("a", reference).atypicality(reference, left_out=True)
    inside = np.argsort(reference)[1:-1]  # without the ends: each of them is beyond all others
    assert len(inside) == 38
    for k in inside:
        rest = np.delete(reference, k)
        assert found[k] == pytest.approx(Typicality.fit("a", rest).atypicality(reference[k : k + 1])[0])


@settings(max_examples=100, deadline=None)
@given(st.lists(values, min_size=1, max_size=30), st.lists(values, min_size=2, max_size=20))
def test_it_rises_away_from_the_centre_and_most_beyond_the_range(reference, asked):
    typicality = Typicality.fit("a", np.array(reference))
    low, high = min(reference), max(reference)
    middle = np.median(reference)
    above = np.sort([x for x in asked if x >= middle])
    below = np.sort([x for x in asked if x <= middle])[::-1]
    for side in (above, below):
        assert (np.diff(typicality.atypicality(side)) >= 0).all()
    scores = typicality.atypicality(np.array(asked))
    assert (scores >= 0).all()
    inside = [s for x, s in zip(asked, scores, strict=True) if low <= x <= high]
    outside = [s for x, s in zip(asked, scores, strict=True) if not low <= x <= high]
    within = typicality.atypicality(np.array(reference)).max()
    assert all(s > max(inside, default=0.0) for s in outside)
    assert all(s > within for s in outside)


def test_beyond_the_range_further_is_worse():
    typicality = Typicality.fit("a", np.arange(10.0))
    scores = typicality.atypicality(np.array([-1e9, -2.0, -0.1, 9.1, 20.0, math.inf]))
    assert (np.diff(scores[:3]) < 0).all()
    assert (np.diff(scores[3:]) > 0).all()
    assert scores[-1] == math.inf


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-50, 50).map(lambda x: round(x, 2)), min_size=3, max_size=30))
def test_a_monotone_change_of_the_score_changes_nothing_inside_the_range(reference):
    reference = np.array(reference)
    found = Typicality.fit("a", reference).atypicality(reference)
    np.testing.assert_allclose(Typicality.fit("a", np.arctan(reference)).atypicality(np.arctan(reference)), found)
    np.testing.assert_allclose(Typicality.fit("a", -reference).atypicality(-reference), found)


def test_a_crowded_value_is_typical():
    """Half of the entropies may be 0: they are no extreme because nothing is below them."""
    reference = np.concatenate([np.zeros(50), np.linspace(0.1, 1, 50)])
    scores = Typicality.fit("a", reference).atypicality(np.array([0.0, -0.01, 1.0, 1.01]))
    assert scores[0] == 0.0
    assert scores[1] > 3
    assert scores[3] > scores[2] > 3


def test_a_constant_score_is_typical_and_anything_else_is_not():
    scores = Typicality.fit("a", np.full(20, 2.0)).atypicality(np.array([2.0, 2.1, 1.9, math.nan]))
    assert scores[0] == 0
    assert (scores[1:3] > 2).all()
    assert math.isnan(scores[3])


def test_nan_in_the_calibration_is_left_out_and_nothing_else_is_refused():
    reference = np.arange(20.0)
    with_nan = Typicality.fit("a", np.concatenate([reference, [math.nan, math.inf]]))
    np.testing.assert_array_equal(with_nan.ordered, reference)
    with pytest.raises(CalibrationError, match="score a: no calibration frame has a finite score"):
        Typicality.fit("a", np.array([math.nan]))


def test_the_two_sided_form_sees_an_attack_on_the_lower_side():
    rng = np.random.default_rng(0)
    calibration, clean = one(rng.gamma(0.3, 0.3, 2000), name="calibration"), one(rng.gamma(0.3, 0.3, 1000))
    too_certain = one(np.full(1000, 1e-30))
    single, both = tap_score("a:mean").fit(calibration), two_sided(tap_score("a:mean")).fit(calibration)
    assert (both.name, both.family, both.two_sided) == ("two_sided(a:mean)", "activation", True)
    assert detection(single.score(clean), single.score(too_certain), resamples=5).auroc.value < 0.05
    assert detection(both.score(clean), both.score(too_certain), resamples=5).auroc.value > 0.95
    accepted = accepts(both.score(clean), threshold_at(both.calibration_scores, 0.9)).mean()
    assert accepted == pytest.approx(0.9, abs=0.03)


# Fisher and the largest


def members(n=1500, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    return made({f"layer{k}:mean": rng.normal(size=n) + shift for k in range(4)}, name=f"set{seed}")


TAPS = [tap_score(f"layer{k}:mean") for k in range(4)]


def test_fisher_adds_and_the_largest_is_the_largest():
    calibration, frames = members(), members(50, seed=1)
    scores = [*(two_sided(tap) for tap in TAPS), fisher("f", TAPS), largest_atypicality("l", TAPS)]
    found = score_frames(fit_scores(scores, calibration), frames)
    single = np.stack([found[f"two_sided({tap.name})"] for tap in TAPS])
    np.testing.assert_allclose(found["f"], single.sum(0))
    np.testing.assert_allclose(found["l"], single.max(0))


def test_small_shifts_everywhere_are_fishers_and_one_large_shift_is_the_largests():
    calibration, clean = members(), members(seed=1)
    fitted = fit_scores([fisher("f", TAPS), largest_atypicality("l", TAPS)], calibration)
    everywhere = members(seed=2, shift=1.2)
    alone = members(seed=2)
    alone = made({key: value + (4.0 if key == "layer2:mean" else 0) for key, value in alone.taps.items()})
    of = {
        (name, kind): detection(score.score(clean), score.score(frames), resamples=5).auroc.value
        for name, score in fitted.items()
        for kind, frames in (("everywhere", everywhere), ("alone", alone))
    }
    assert of["f", "everywhere"] > of["l", "everywhere"] > 0.6
    assert of["l", "alone"] > of["f", "alone"] > 0.6


@pytest.mark.parametrize("combine", [fisher, largest_atypicality])
def test_a_combination_needs_no_errors_keeps_its_coverage_and_passes_nan_on(combine):
    calibration, frames = members(), members(4000, seed=1)
    fitted = combine("c", TAPS).fit(calibration)
    accepted = accepts(fitted.score(frames), threshold_at(fitted.calibration_scores, 0.9)).mean()
    assert accepted == pytest.approx(0.9, abs=0.03)
    spoiled = made({key: np.where(np.arange(3) == 1, math.nan, value[:3]) for key, value in frames.taps.items()})
    assert np.isnan(fitted.score(spoiled)).tolist() == [False, True, False]


# Logistic regression


def test_free_weights_are_scikit_learns():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5))
    y = rng.random(400) < 1 / (1 + np.exp(1 - x @ [2, -1, 0.5, 0, 0.1]))
    found = fit_logistic(x, y, free=5)
    expected = LogisticRegression(C=1 / PENALTY, tol=1e-10, max_iter=1000).fit(x, y)
    np.testing.assert_allclose(found.weights, expected.coef_[0], atol=1e-5)
    assert found.intercept == pytest.approx(expected.intercept_[0], abs=1e-5)


def test_signed_weights_are_the_best_without_the_forbidden_side():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(600, 5))
    x[:, 4] += x[:, 3]
    y = rng.random(600) < 1 / (1 + np.exp(-x @ [1, -1, 1, -1, 0.3]))
    found = fit_logistic(x, y, free=2)
    assert found.weights[1] < -0.5
    assert found.weights[3] == 0.0
    assert (found.weights[2:] >= 0).all()
    # Karush-Kuhn-Tucker: no allowed direction lowers the loss.
    p = 1 / (1 + np.exp(-found.log_odds(x)))
    gradient = x.T @ (p - y) + PENALTY * found.weights
    free = np.array([True, True, *(found.weights[2:] > 0)])
    np.testing.assert_allclose(gradient[free], 0, atol=1e-3)
    assert (gradient[~free] > 0).all()
    assert np.sum(p - y) == pytest.approx(0, abs=1e-3)


def test_separable_columns_have_finite_weights():
    x = np.linspace(-1, 1, 50)[:, None]
    found = fit_logistic(x, x[:, 0] > 0, free=1)
    assert np.isfinite(found.weights).all()
    assert found.weights[0] > 1


def errors(n, seed):
    """Errors come with a high value of one tap and with values of another on both sides."""
    rng = np.random.default_rng(seed)
    taps = {f"layer{k}:mean": rng.normal(size=n) for k in range(4)}
    odds = 1.5 * taps["layer0:mean"] + 1.2 * np.abs(taps["layer1:mean"]) - 2.5
    return made(taps, labels=(rng.random(n) < 1 / (1 + np.exp(-odds))).astype(np.int64), name="calibration")


def test_logistic_beats_its_members_and_keeps_its_coverage():
    calibration, frames = errors(3000, 0), errors(3000, 1)
    scores = [logistic("l", TAPS), *TAPS, *(two_sided(tap) for tap in TAPS)]
    fitted = fit_scores(scores, calibration)
    found = score_frames(fitted, frames)
    of = {name: failure_detection(v, frames.wrong, resamples=5).auroc.value for name, v in found.items()}
    assert of["l"] > max(value for name, value in of.items() if name != "l") + 0.02
    accepted = accepts(found["l"], threshold_at(fitted["l"].calibration_scores, 0.9)).mean()
    assert accepted == pytest.approx(0.9, abs=0.03)
    assert set(fitted["l"].parameters) == {"intercept", *(s.name for s in scores[1:])}
    assert fitted["l"].parameters["layer0:mean"] > 0.5
    assert fitted["l"].parameters["two_sided(layer1:mean)"] > 0.2


def test_a_value_never_seen_takes_trust_away_on_either_side():
    """The line through the errors says that a low value is safe; a value far below all calibration values is not."""
    calibration = errors(3000, 0)
    fitted = logistic("l", TAPS).fit(calibration)
    lowest = calibration.taps["layer0:mean"].min()
    frames = made({f"layer{k}:mean": np.array([lowest, -50.0, -5000.0]) if k == 0 else np.zeros(3) for k in range(4)})
    scores = fitted.score(frames)
    assert (np.diff(scores) >= 0).all()
    weights = np.array([w for name, w in fitted.parameters.items() if name.startswith("two_sided")])
    assert (weights >= 0).all()


def test_cross_fitted_scores_do_not_flatter():
    """Labels without any relation: in sample the regression finds one, on other folds it must not."""
    rng = np.random.default_rng(0)
    n = 120
    frames = made({f"layer{k}:mean": rng.normal(size=n) for k in range(4)}, labels=rng.integers(0, 2, n))
    fitted = logistic("l", TAPS).fit(frames)
    flattering = failure_detection(fitted.score(frames), frames.wrong, resamples=5).auroc.value
    fair = failure_detection(fitted.calibration_scores, frames.wrong, resamples=5).auroc.value
    assert flattering > 0.56
    assert fair < flattering - 0.05


def test_without_errors_there_is_nothing_to_learn():
    with pytest.raises(CalibrationError, match="score l: 0 errors among 100 usable frames"):
        logistic("l", TAPS).fit(members(100))


def test_frames_without_label_or_score_are_not_learned_from():
    calibration = errors(800, 0)
    labels = np.array(calibration.labels)
    labels[:10] = -1
    taps = {key: np.where(np.arange(800) == 20, math.nan, value) for key, value in calibration.taps.items()}
    mixed = made(taps, labels=labels)
    fitted = logistic("l", TAPS).fit(mixed)
    assert np.isnan(fitted.calibration_scores).nonzero()[0].tolist() == [20]
    np.testing.assert_allclose(fitted.calibration_scores[:10], fitted.score(mixed)[:10], atol=0.2)
    assert np.isnan(fitted.score(mixed)).nonzero()[0].tolist() == [20]


def test_a_single_error_still_gives_scores():
    labels = np.zeros(40, np.int64)
    labels[3] = 1
    frames = made(dict(members(40).taps), labels=labels)
    assert np.isfinite(logistic("l", TAPS).fit(frames).calibration_scores).all()
