"""The bound against known values, and the promise against thousands of simulated calibrations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from framegate.export.calibration.decisions import accepts
from framegate.export.calibration.selective_risk import (
    METHODS,
    binomial_upper_bound,
    check_promise,
    images_needed,
    select_threshold,
)
from framegate.runtime.errors import CalibrationError, UsageError

TARGET, CONFIDENCE = 0.02, 0.95


@pytest.mark.parametrize(
    ("errors", "trials", "confidence", "expected"),
    [
        (0, 299, 0.95, 0.0099691),  # about 3 / n, the rule of three
        (0, 149, 0.95, 0.0199048),
        (1, 10, 0.95, 0.3941633),
        (5, 100, 0.95, 0.1022533),
        (10, 1000, 0.99, 0.0200426),
        (2500, 5000, 0.95, 0.5117287),
    ],
)
def test_clopper_pearson_values(errors: int, trials: int, confidence: float, expected: float) -> None:
    assert binomial_upper_bound(errors, trials, confidence) == pytest.approx(expected, abs=2e-7)


def test_clopper_pearson_solves_the_binomial_tail_exactly() -> None:
    for errors, trials, confidence in ((1, 7, 0.9), (3, 50, 0.95), (30, 60, 0.99), (49, 50, 0.95)):
        rate = binomial_upper_bound(errors, trials, confidence)
        tail = sum(math.comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(errors + 1))
        assert tail == pytest.approx(1 - confidence, rel=1e-6)


def test_clopper_pearson_ends() -> None:
    assert binomial_upper_bound(0, 0, 0.95) == 1.0
    assert binomial_upper_bound(7, 7, 0.95) == 1.0
    for trials in (1, 10, 1000):
        assert binomial_upper_bound(0, trials, 0.95) == pytest.approx(1 - 0.05 ** (1 / trials), rel=1e-12)
    with pytest.raises(ValueError, match="errors"):
        binomial_upper_bound(3, 2, 0.95)


def test_images_needed_is_the_first_count_that_suffices() -> None:
    needed = images_needed(TARGET, CONFIDENCE)
    assert needed == 149
    assert binomial_upper_bound(0, needed, CONFIDENCE) <= TARGET < binomial_upper_bound(0, needed - 1, CONFIDENCE)


@pytest.mark.parametrize("errors", [0, 1, 7, 40])
def test_images_needed_with_errors_is_the_first_count_that_suffices(errors: int) -> None:
    needed = images_needed(TARGET, CONFIDENCE, errors)
    enough, too_few = (binomial_upper_bound(errors, each, CONFIDENCE) for each in (needed, needed - 1))
    assert enough <= TARGET + 1e-9
    assert too_few > TARGET


def test_a_refusal_says_how_many_images_would_do_with_as_many_errors() -> None:
    scores, wrong = np.linspace(0, 1, 80), np.arange(80) == 40
    with pytest.raises(CalibrationError) as caught:
        select_threshold((scores, wrong), (scores, wrong), 0.04, CONFIDENCE)
    assert "80 with 1 error (coverage" in str(caught.value)
    assert "even without a single error 74 accepted images are needed, and with one 117" in str(caught.value)


def test_nan_and_infinities_are_never_accepted() -> None:
    scores = np.array([np.nan, np.inf, -np.inf, 0.5, 1.0, 1.1])
    assert accepts(scores, 1.0).tolist() == [False, False, False, True, True, False]
    assert accepts(scores, np.inf).tolist() == [False, False, False, True, True, True]
    assert not accepts(scores, np.nan).any()


def _draw(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores uniform on [0, 1); an image of score s is wrong with probability s^2 / 2."""
    scores = rng.random(count)
    return scores, rng.random(count) < scores**2 / 2


def _true_risk(threshold: float) -> float:
    """Integral of s^2 / 2 from 0 to the threshold, divided by the threshold."""
    return threshold**2 / 6


@pytest.mark.parametrize("method", METHODS)
def test_the_promise_holds_over_many_calibrations(method: str) -> None:
    rng = np.random.default_rng(11)
    target = 0.05  # the best possible coverage is then sqrt(6 * 0.05) = 0.548
    draws, broken, naive_broken, coverage = 300, 0, 0, []
    for _ in range(draws):
        design, test = _draw(rng, 500), _draw(rng, 1000)
        try:
            threshold = select_threshold(design, test, target, CONFIDENCE, method).threshold
        except CalibrationError:
            continue
        coverage.append(threshold)  # scores are uniform, so the threshold is the true coverage
        broken += _true_risk(threshold) > target
        order = np.argsort(test[0])
        empirical = np.cumsum(test[1][order]) / np.arange(1, len(order) + 1)
        naive_broken += _true_risk(float(test[0][order][np.flatnonzero(empirical <= target)[-1]])) > target
    allowed = draws * (1 - CONFIDENCE) + 3 * math.sqrt(draws * CONFIDENCE * (1 - CONFIDENCE))
    assert broken <= allowed
    # The test can tell: a threshold without a bound breaks the promise about every second time.
    assert naive_broken > 2 * allowed
    # Nor is the promise kept by refusing or by accepting next to nothing.
    assert len(coverage) > 0.9 * draws
    # The union over 200 candidates costs coverage that the sequence keeps.
    assert np.mean(coverage) > (0.4 if method == METHODS[0] else 0.3)


def test_selection_reports_what_it_was_proved_on() -> None:
    rng = np.random.default_rng(12)
    design, test = _draw(rng, 500), _draw(rng, 2000)
    selection = select_threshold(design, test, 0.05, 0.9)
    accepted = test[0] <= selection.threshold
    assert (selection.accepted, selection.errors) == (accepted.sum(), test[1][accepted].sum())
    assert selection.size == 2000
    assert selection.risk_bound == binomial_upper_bound(selection.errors, selection.accepted, 0.9) <= 0.05


def test_thresholds_are_fixed_before_the_test_images_are_seen() -> None:
    """The chosen threshold is a score of a design image; were it one of the tested, the bound would not hold."""
    rng = np.random.default_rng(13)
    design, test = _draw(rng, 500), _draw(rng, 2000)
    threshold = select_threshold(design, test, 0.05, 0.9).threshold
    assert threshold in design[0]
    assert threshold not in test[0]


def test_images_without_a_score_count_against_coverage_and_are_never_accepted() -> None:
    rng = np.random.default_rng(14)
    design, (scores, wrong) = _draw(rng, 500), _draw(rng, 2000)
    plain = select_threshold(design, (scores, wrong), 0.05, 0.9)
    with_nan = (np.append(scores, np.full(1000, np.nan)), np.append(wrong, np.ones(1000, bool)))
    found = select_threshold(design, with_nan, 0.05, 0.9)
    assert (found.threshold, found.accepted, found.errors) == (plain.threshold, plain.accepted, plain.errors)
    assert found.size == 3000


def test_refusal_names_the_numbers() -> None:
    rng = np.random.default_rng(15)
    scores = rng.random(400)
    wrong = rng.random(400) < 0.3  # errors do not depend on the score: no threshold can help
    with pytest.raises(CalibrationError) as refusal:
        select_threshold((scores[:200], wrong[:200]), (scores[200:], wrong[200:]), TARGET, CONFIDENCE)
    message = str(refusal.value)
    for part in ("0.02", "0.95", "200 images", "149 accepted images", "coverage", "--target-risk"):
        assert part in message


def test_a_perfect_score_on_too_few_images_is_refused() -> None:
    scores = np.linspace(0, 1, 100)
    right = np.zeros(100, bool)
    with pytest.raises(CalibrationError, match="149 accepted images"):
        select_threshold((scores, right), (scores, right), TARGET, CONFIDENCE)


def test_outputs_without_any_finite_score_are_refused() -> None:
    nothing = (np.full(50, np.nan), np.ones(50, bool))
    good = (np.linspace(0, 1, 500), np.zeros(500, bool))
    for design, test in ((nothing, good), (good, nothing)):
        with pytest.raises(CalibrationError, match="finite score"):
            select_threshold(design, test, TARGET, CONFIDENCE)


@pytest.mark.parametrize(("target", "confidence"), [(0, 0.95), (1, 0.95), (0.02, 0), (0.02, 1), (float("nan"), 0.9)])
def test_impossible_promises_are_refused(target: float, confidence: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        check_promise(target, confidence)
