"""Every figure against an independent implementation: scikit-learn, SciPy, torch-uncertainty, or its definition."""

import importlib.util
import json
import math
import time

import numpy as np
import pytest
from drawn_digest import digest
from hypothesis import given, settings
from hypothesis import strategies as st
from repository import ROOT

from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores
from framegate.evaluation.frames.observations import Observations
from framegate.evaluation.metrics import intervals
from framegate.evaluation.metrics.calibration_error import calibration_error, reliability
from framegate.evaluation.metrics.intervals import Interval, bootstrap, percentile_interval, proportion, resamples_of
from framegate.evaluation.metrics.metrics import (
    COVERAGES,
    accuracy,
    auroc_gain,
    detection,
    failure_detection,
    same_images,
    selective,
    selective_at,
)
from framegate.evaluation.metrics.ranking import Ranking, accepted_positives, auroc, false_positive_rate
from framegate.evaluation.metrics.selective import accepts, areas, curve, threshold_at
from framegate.runtime.errors import DataError, UsageError

# SciPy and scikit-learn are imported by the tests that ask them: every worker of a parallel run reads all files.

GOLDEN = ROOT / "tests" / "golden"


def generator(name):
    return importlib.import_module(name)


def drawn(n, seed=0, step=None):
    """Scores that know something about the errors; rounded to a step they tie."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=n)
    wrong = rng.random(n) < 1 / (1 + np.exp(1.5 - 1.5 * scores))
    return (scores if step is None else np.round(scores / step) * step), wrong


def below(scores, positive, counts=None):
    ranking = Ranking(np.asarray(scores, float), np.asarray(positive))
    return ranking.below(np.ones(len(scores), np.int64) if counts is None else counts)


def frames_of(logits, labels):
    return Observations("set", logits, labels, np.empty((len(labels), 0)))


small = st.integers(2, 25).flatmap(
    lambda n: st.tuples(
        st.lists(st.sampled_from([-1.5, 0.0, 0.25, 0.5, 3.0, math.nan, math.inf]), min_size=n, max_size=n),
        st.lists(st.booleans(), min_size=n, max_size=n),
        st.lists(st.integers(0, 3), min_size=n, max_size=n),
    )
)


# Counts


@pytest.mark.parametrize(("count", "n"), [(0, 1), (1, 1), (0, 40), (9, 10), (40, 40), (7000, 10000), (1, 10000)])
@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_clopper_pearson_is_scipys(count, n, confidence):
    from scipy.stats import binomtest

    found = proportion(count, n, confidence)
    exact = binomtest(count, n).proportion_ci(confidence, method="exact")
    assert found.value == count / n
    assert found.n == n
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_the_papers_nine_of_ten():
    found = proportion(9, 10)
    assert (round(found.low, 3), round(found.high, 3)) == (0.555, 0.997)


def test_a_share_of_nothing_is_not_a_number_and_null_in_json():
    assert proportion(0, 0).to_json() == {"value": None, "low": None, "high": None, "n": 0}
    assert json.loads(json.dumps(proportion(1, 2).to_json(), allow_nan=False))["value"] == 0.5


@pytest.mark.parametrize(("count", "n"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(count, n):
    with pytest.raises(UsageError):
        proportion(count, n)


def test_accuracy():
    assert accuracy(np.array([False, True, False, False])).value == 0.75


# AUROC and FPR


@pytest.mark.parametrize("step", [None, 0.3, 10.0])
def test_auroc_is_scikit_learns(step):
    from sklearn.metrics import roc_auc_score

    scores, wrong = drawn(700, step=step)
    assert auroc(*below(scores, wrong)) == pytest.approx(roc_auc_score(wrong, scores), abs=1e-12)


@pytest.mark.parametrize("step", [None, 0.3, 10.0])
@pytest.mark.parametrize("tpr", [0.5, 0.95, 1.0])
def test_fpr_is_that_of_scikit_learns_curve(step, tpr):
    from sklearn.metrics import roc_curve

    scores, wrong = drawn(700, step=step)
    fpr, tprs, _ = roc_curve(wrong, scores, drop_intermediate=False)
    assert false_positive_rate(*below(scores, wrong), tpr) == pytest.approx(fpr[np.argmax(tprs >= tpr)], abs=1e-12)
    # The other convention is the same with the sides exchanged: correct frames are found by low scores.
    fpr, tprs, _ = roc_curve(~wrong, -scores, drop_intermediate=False)
    assert accepted_positives(*below(scores, wrong), tpr) == pytest.approx(fpr[np.argmax(tprs >= tpr)], abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(small)
def test_detection_by_definition_with_ties_weights_and_scores_that_are_not_finite(case):
    scores, positive, counts = (np.repeat(values, case[2]) for values in case)
    if len(scores) == 0 or not positive.any() or positive.all():
        return
    worst = np.where(np.isfinite(scores), scores, np.inf)
    high, low = worst[positive][:, None], worst[~positive][None]
    expected = ((high > low) + 0.5 * (high == low)).mean()
    caught = [t for t in np.unique(worst) if (worst[positive] >= t).mean() >= 0.95]
    passed = [t for t in np.unique(worst) if (worst[~positive] <= t).mean() >= 0.95]
    found = below(case[0], case[1], np.array(case[2]))
    assert auroc(*found) == pytest.approx(expected, abs=1e-12)
    assert false_positive_rate(*found) == pytest.approx((worst[~positive] >= max(caught)).mean(), abs=1e-12)
    assert accepted_positives(*found) == pytest.approx((worst[positive] <= min(passed)).mean(), abs=1e-12)
    assert counts.size == len(scores)


def test_95_of_100_positives_are_95_per_cent():
    scores = np.concatenate([np.arange(100.0), [4.5, 5.5]])
    positive = np.arange(102) < 100
    assert false_positive_rate(*below(scores, positive)) == 0.5


def test_one_kind_alone_gives_no_figure():
    for positive in (np.zeros(3, bool), np.ones(3, bool)):
        found = failure_detection(np.arange(3.0), positive, resamples=20)
        for figure in (found.auroc, found.fpr95, found.accepts95):
            assert figure.to_json() == {"value": None, "low": None, "high": None, "n": 3}
        assert found.aurc.value == positive.mean()


def test_nan_is_the_least_trustworthy():
    wrong = np.array([False, False, False, True])
    assert failure_detection(np.array([0.1, 0.2, 9.0, math.nan]), wrong, resamples=10).auroc.value == 1.0
    assert failure_detection(np.array([0.1, 0.2, 9.0, -math.inf]), wrong, resamples=10).auroc.value == 1.0


# Risk and coverage


def by_definition(scores, wrong):
    """AURC, E-AURC and AUGRC of distinct scores, frame by frame."""
    errors = np.cumsum(wrong[np.argsort(scores)])
    oracle = np.cumsum(np.sort(wrong))
    k = np.arange(1, len(wrong) + 1)
    return np.mean(errors / k), np.mean(errors / k) - np.mean(oracle / k), np.mean(errors / len(wrong))


def test_areas_by_definition():
    for n in (1, 2, 3, 400):
        scores, wrong = drawn(n, seed=n)
        assert areas(*below(scores, wrong)) == pytest.approx(by_definition(scores, wrong), abs=1e-12)


def test_ties_give_the_mean_over_random_orders():
    scores, wrong = drawn(40, seed=3, step=1.0)
    rng = np.random.default_rng(0)
    orders = [by_definition(scores + 1e-6 * rng.random(40), wrong) for _ in range(1500)]
    spread = np.std(orders, axis=0) / np.sqrt(len(orders))
    assert (np.abs(np.array(areas(*below(scores, wrong))) - np.mean(orders, axis=0)) < 5 * spread).all()


@settings(max_examples=50, deadline=None)
@given(small)
def test_a_weight_is_as_many_frames(case):
    counts = np.array(case[2])
    weighted = below(case[0], case[1], counts)
    repeated = np.repeat(case[0], counts), np.repeat(case[1], counts)
    if counts.sum() == 0:
        assert np.isnan(areas(*weighted)).all()
        return
    assert areas(*weighted) == pytest.approx(areas(*below(*repeated)), abs=1e-12)


def test_augrc_is_the_papers_formula():
    """Traub et al. 2024: AUGRC = (1 - AUROC) acc (1 - acc) + (1 - acc)^2 / 2, up to the grid's 1 / 2n."""
    from sklearn.metrics import roc_auc_score

    scores, wrong = drawn(4000)
    right = 1 - wrong.mean()
    expected = (1 - roc_auc_score(wrong, scores)) * right * (1 - right) + (1 - right) ** 2 / 2
    assert areas(*below(scores, wrong))[2] == pytest.approx(expected + (1 - right) / (2 * 4000), abs=1e-12)


def test_an_oracle_has_no_excess():
    wrong = drawn(300)[1]
    assert areas(*below(wrong.astype(float), wrong))[1] == pytest.approx(0, abs=1e-12)
    assert areas(*below(wrong + np.linspace(0, 0.5, 300), wrong))[1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("case", json.loads((GOLDEN / "torch_uncertainty_metrics.json").read_text())["cases"])
def test_figures_are_torch_uncertaintys(case):
    make = generator("make_torch_uncertainty_metrics")
    logits, labels = make.drawn(case["seed"], case["n"], case["classes"])
    assert digest((logits, labels)) == case["sha256"], "NumPy draws differently"
    scores = softmax_scores(logits)
    uncertainty, wrong, n = 1 - scores.max_probability, scores.argmax != labels, case["n"]
    aurc, _, augrc = areas(*below(uncertainty, wrong))
    # It integrates by trapezoids from coverage 1 / n on and divides by that range; ours is the mean over k.
    first, last = float(wrong[np.argmin(uncertainty)]), float(wrong.mean())
    assert (n * aurc - (first + last) / 2) / (n - 1) == pytest.approx(case["aurc"], abs=1e-6)
    assert (n * augrc - (first / n + last) / 2) / (n - 1) == pytest.approx(case["augrc"], abs=1e-6)
    assert false_positive_rate(*below(uncertainty, wrong)) == pytest.approx(case["fpr95"], abs=1e-6)
    tied = np.round(uncertainty * 8)
    assert false_positive_rate(*below(tied, wrong)) == pytest.approx(case["fpr95_tied"], abs=1e-6)
    found = calibration_error(frames_of(logits, labels), resamples=10)
    assert found.value == pytest.approx(case["ece"], abs=1e-6)


def test_the_curve_is_the_risk_at_each_coverage():
    scores, wrong = drawn(500)
    found = curve(scores, wrong, points=50)
    assert len(found["coverage"]) == len(found["risk"]) == 50
    assert found["coverage"][-1] == 1
    assert found["risk"][-1] == pytest.approx(wrong.mean())
    order = np.argsort(scores)
    for coverage, risk in zip(found["coverage"], found["risk"], strict=True):
        assert risk == pytest.approx(wrong[order[: round(coverage * 500)]].mean())
    for coverage, threshold in zip(found["coverage"], found["threshold"], strict=True):
        assert (scores <= threshold).sum() >= round(coverage * 500)
    scores[order[-1]] = np.nan
    assert curve(scores, wrong, points=50)["threshold"][-1] is None


# Thresholds


@pytest.mark.parametrize("coverage", [*COVERAGES, 1.0, 0.001])
@pytest.mark.parametrize("step", [None, 0.5])
def test_a_threshold_is_the_lowest_that_covers(coverage, step):
    scores = drawn(1000, step=step)[0]
    threshold = threshold_at(scores, coverage)
    assert accepts(scores, threshold).mean() >= coverage
    assert accepts(scores, np.nextafter(threshold, -np.inf)).mean() < coverage


def test_frames_without_a_score_are_not_covered():
    scores = np.concatenate([np.arange(90.0), np.full(10, math.nan)])
    assert accepts(scores, threshold_at(scores, 0.9)).mean() == 0.9
    assert threshold_at(scores, 0.95) == 89.0
    assert threshold_at(np.array([math.nan, math.inf]), 0.95) == -math.inf
    assert accepts(np.array([-math.inf, math.nan, math.inf, 0.0]), math.inf).tolist() == [False, False, False, True]


def test_selective_figures_are_counts():
    from scipy.stats import binomtest

    scores = np.array([0.1, 0.2, 0.3, 0.4, math.nan, 0.25])
    wrong = np.array([False, True, False, True, True, False])
    found = selective(scores, wrong, 0.3)
    assert (found.coverage.value, found.coverage.n) == (4 / 6, 6)
    assert (found.accuracy.value, found.accuracy.n) == (3 / 4, 4)
    assert (found.false_accept_rate.value, found.false_accept_rate.n) == (1 / 6, 6)
    assert (found.errors_accepted.value, found.errors_accepted.n) == (1 / 3, 3)
    assert found.accuracy.low == pytest.approx(binomtest(3, 4).proportion_ci(method="exact").low, abs=1e-9)


def test_accepting_nothing_is_null_not_perfect():
    found = selective(np.full(5, math.nan), np.ones(5, bool), -math.inf).to_json()
    assert found["threshold"] is None
    assert found["accuracy"]["value"] is None
    assert found["coverage"]["value"] == found["false_accept_rate"]["value"] == 0.0
    json.dumps(found, allow_nan=False)


def test_selective_at_takes_the_thresholds_from_the_calibration_scores_alone():
    scores, wrong = drawn(3000)
    found = selective_at(scores[:1000], scores[1000:] + 10, wrong[1000:])
    assert all(at.coverage.value < 0.01 for at in found.values())
    found = selective_at(scores[:1000], scores[1000:], wrong[1000:])
    assert list(found) == list(COVERAGES)
    for coverage, at in found.items():
        assert at.threshold == threshold_at(scores[:1000], coverage)
        assert at.coverage.low <= coverage + 0.03
        assert at.coverage.high >= coverage - 0.03
        assert at.accuracy.value > 1 - wrong.mean()


def test_other_numbers_of_flags_are_refused():
    for scores, wrong in ((np.zeros(3), np.zeros(2, bool)), (np.zeros((3, 1)), np.zeros((3, 1), bool)), ([], [])):
        with pytest.raises(DataError, match="one of each per frame"):
            failure_detection(scores, wrong)
    with pytest.raises(DataError, match="both are needed"):
        detection(np.zeros(0), np.zeros(3))
    with pytest.raises(DataError, match="as many of each"):
        detection(np.zeros(2), np.zeros(3), paired=True)


# Bootstrap


def test_a_resample_draws_as_many_frames_with_replacement():
    drawn_counts = list(resamples_of(500, 30, 4))
    assert len(drawn_counts) == 30
    assert all(counts.sum() == 500 for counts in drawn_counts)
    # A frame stays out with probability 1 / e.
    assert np.mean([np.mean(counts == 0) for counts in drawn_counts]) == pytest.approx(math.exp(-1), abs=0.01)
    again = list(resamples_of(500, 30, 4))
    assert all((a == b).all() for a, b in zip(drawn_counts, again, strict=True))
    assert any((a != b).any() for a, b in zip(drawn_counts, resamples_of(500, 30, 5), strict=True))


def test_a_changed_resample_does_not_change_the_next_bootstrap():
    before = bootstrap(lambda counts: np.array([counts[0]]), 50, 100)[0]
    for counts in resamples_of(50, 100, 0):
        counts[:] = 7
    assert bootstrap(lambda counts: np.array([counts[0]]), 50, 100)[0] == before


def test_the_bootstrap_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(1).normal(size=2000)
    found = bootstrap(lambda counts: np.array([np.dot(counts, values) / len(values)]), len(values), seed=3)[0]
    assert found.value == pytest.approx(values.mean())
    assert (found.high - found.low) == pytest.approx(2 * 1.96 * values.std() / math.sqrt(2000), rel=0.12)


def test_the_bootstrap_of_auroc_agrees_with_resampling_frames():
    scores, wrong = drawn(200)
    rng = np.random.default_rng(8)
    slow = []
    for _ in range(500):
        index = rng.integers(0, 200, 200)
        high, low = scores[index][wrong[index]][:, None], scores[index][~wrong[index]]
        slow.append(((high > low) + 0.5 * (high == low)).mean())
    found = failure_detection(scores, wrong).auroc
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])), abs=0.015)


def test_undefined_resamples_are_left_out():
    found = percentile_interval(0.5, [math.nan, 0.4, 0.6], 9)
    assert 0.4 <= found.low <= found.high <= 0.6
    assert percentile_interval(math.nan, [0.4], 9).to_json()["low"] is None
    undefined = percentile_interval(0.5, [math.nan], 9)
    assert undefined.value == 0.5
    assert math.isnan(undefined.low)
    assert math.isnan(undefined.high)


@pytest.mark.parametrize("arguments", [(0, 10, 0), (10, 0, 0), (10, 10, -1)])
def test_an_impossible_bootstrap_is_refused(arguments):
    with pytest.raises(UsageError, match="bootstrap"):
        next(iter(resamples_of(*arguments)))


def test_the_intervals_of_separate_sets_are_wider_than_those_of_pairs():
    """Clean and attacked scores of the same images move together; the pairs know."""
    rng = np.random.default_rng(0)
    image = rng.normal(size=400)
    clean, attacked = image + 0.05 * rng.normal(size=400), image + 0.3 + 0.05 * rng.normal(size=400)
    single, pairs = detection(clean, attacked, resamples=300), detection(clean, attacked, paired=True, resamples=300)
    assert single.auroc.value == pairs.auroc.value == pytest.approx((attacked[:, None] > clean).mean())
    assert pairs.auroc.high - pairs.auroc.low < 0.5 * (single.auroc.high - single.auroc.low)
    assert single.auroc.low < single.auroc.value < single.auroc.high


def test_detection_of_sets_of_different_size_is_scikit_learns():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(2)
    clean, foreign = rng.normal(size=300), rng.normal(0.7, 1, 120)
    found = detection(clean, foreign, resamples=50)
    assert found.auroc.value == pytest.approx(roc_auc_score(np.arange(420) >= 300, np.concatenate([clean, foreign])))
    assert found.auroc.n == 420
    assert set(found.to_json()) == {"auroc", "fpr95", "accepts95"}


def test_a_gain_is_judged_on_the_same_resamples():
    from sklearn.metrics import roc_auc_score

    scores, wrong = drawn(1000)
    rival = scores + 0.05 * np.random.default_rng(1).normal(size=1000)
    found = auroc_gain(scores, rival, wrong, resamples=300)
    assert found.value == pytest.approx(roc_auc_score(wrong, scores) - roc_auc_score(wrong, rival))
    own = failure_detection(scores, wrong, resamples=300).auroc
    assert found.high - found.low < 0.3 * (own.high - own.low)
    assert auroc_gain(scores, scores, wrong, resamples=50) == Interval(0.0, 0.0, 0.0, 1000)


# Calibration error


def test_ece_by_definition_and_its_diagram():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(400, 4)) * 2
    labels = np.where(rng.random(400) < 0.5, logits.argmax(1), rng.integers(0, 4, 400))
    observations = frames_of(logits, labels)
    confidence = softmax_scores(observations.logits, 1.7).max_probability
    right = observations.logits.argmax(1) == labels
    expected = 0.0
    for k in range(15):
        inside = (confidence >= k / 15) & (confidence < (k + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    found = calibration_error(observations, 1.7, resamples=200)
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert found.low < found.high
    diagram = reliability(observations, 1.7)
    gaps = [abs(c - a) * s for c, a, s in zip(*diagram.values(), strict=True) if c is not None]
    assert sum(gaps) == pytest.approx(expected, abs=1e-12)


def test_a_sure_and_right_network_has_no_calibration_error():
    logits = np.where(np.eye(3, dtype=bool)[[0, 1, 2, 1]], 100.0, 0.0)
    assert calibration_error(frames_of(logits, np.array([0, 1, 2, 1])), resamples=10).value == 0.0
    assert calibration_error(frames_of(logits, np.array([1, 0, 0, 0])), resamples=10).value == 1.0


def test_frames_without_finite_logits_are_left_out_of_the_calibration_error():
    logits = np.array([[0.0, 100.0], [math.nan, 0.0]])
    found = calibration_error(frames_of(logits, np.array([1, 1])), resamples=10)
    assert (found.value, found.n) == (0.0, 1)
    nothing = frames_of(logits[1:], np.array([1]))
    assert calibration_error(nothing).to_json()["value"] is None
    assert reliability(nothing)["share"] == [0.0] * 15


def test_a_thousand_resamples_of_ten_thousand_frames_take_seconds():
    """Forty scores have to fit into a minute or two; the limit is generous, for slow and busy machines."""
    scores, wrong = drawn(10_000)
    intervals._resampled.cache_clear()
    start = time.process_time()
    found = failure_detection(scores, wrong)
    assert time.process_time() - start < 10
    assert found.auroc.high - found.auroc.low < 0.03


def test_the_interval_of_the_calibration_error_holds_it():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (2000, 10))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([rng.choice(10, p=row / row.sum()) for row in shares])  # calibrated: resamples lie above it
    found = calibration_error(frames_of(logits, labels), resamples=50)
    assert found.low <= found.value < found.high


def test_an_image_that_is_there_in_many_forms_counts_once():
    """Sixty images in 75 corruptions are no 4,500 frames: by the interval of those a report chose its score."""
    rng = np.random.default_rng(0)
    sets, inside, nominal = 20, 0, 0
    for trial in range(40):
        hard = rng.random(30)  # some images are lost in every form, others in none
        wrong = np.tile(hard > 0.8, sets)
        scores = np.tile(hard, sets) + rng.normal(0, 0.05, 30 * sets)
        found = same_images(scores, wrong, np.ones(len(wrong), bool), sets, 200, trial)
        inside += found[1].low <= 0.2 <= found[1].high
        plain = selective(scores, wrong, math.inf).false_accept_rate
        nominal += plain.low <= 0.2 <= plain.high
        assert found[1].value == wrong.mean()
        assert [each.n for each in found] == [30, 30, 30]
        assert found[0].value == failure_detection(scores, wrong, 1).auroc.value
    assert inside >= 35
    assert nominal <= 25
    none = same_images(scores, wrong, np.zeros(len(wrong), bool), sets, 20)
    assert (none[1].value, none[1].high) == (0.0, proportion(0, 30).high)
    assert none[2].high == proportion(0, 30).high
    assert np.isnan(same_images(scores, np.zeros(len(wrong), bool), np.ones(len(wrong), bool), sets, 20)[2].value)
