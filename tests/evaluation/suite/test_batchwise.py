"""The published batch-wise protocols, against NumPy's histogram and by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.evaluation.suite.batchwise import (
    PAPER_EDGES,
    BatchEntropy,
    BatchRule,
    PrototypeRule,
    averaged,
    batch_entropy,
    detection_accuracy,
)
from framegate.runtime.errors import DataError, UsageError


def drawn(n, seed=0, scale=1.0):
    return torch.randn((n, 3, 5, 5), generator=torch.Generator().manual_seed(seed)) * scale


def numpys(values, edges):
    """In nats, from the counts that numpy.histogram gives after a ReLU."""
    counts = np.histogram(np.maximum(values, 0), edges)[0]
    p = counts[counts > 0] / counts.sum()
    return -(p * np.log(p)).sum()


# Entropy


def test_the_papers_edges_are_the_published_ones():
    first, last = PAPER_EDGES["features.0"], PAPER_EDGES["classifier.3"]
    assert (len(first), len(last)) == (16 + 15 + 6 + 3 + 1, 20 + 3 + 1)
    for edges in (first, last):
        assert (np.diff(edges) > 0).all()
        assert edges[0] == 0
        assert edges[-1] == 7
    assert {0.3, 0.34, 0.9, 1.083, 2.0, 2.67, 4.0} <= set(first.tolist())
    assert {2.0, 2.001, 4.0} <= set(last.tolist())
    assert first[1] == pytest.approx(0.02)
    assert last[1] == pytest.approx(2 / 19)


@pytest.mark.parametrize("edges", PAPER_EDGES.values(), ids=PAPER_EDGES)
def test_fixed_edges_are_numpys_histogram(edges):
    values = drawn(16, scale=4.0)  # some lie beyond 7 and are not counted
    assert (values > 7).any()
    counter = BatchEntropy(16, edges)
    counter.feed(values)
    assert counter.finish()[0] == pytest.approx(numpys(values.numpy(), edges), abs=1e-12)


def test_values_on_the_edges_are_counted_as_numpy_does():
    edges = np.array([0.0, 0.5, 1.0, 2.0])
    values = torch.tensor([0.0, 0.5, 1.0, 1.0, 2.0, 2.0, 2.5])
    assert batch_entropy(values, edges) == pytest.approx(numpys(values.numpy(), edges))


def test_the_prototypes_bins_stretch_with_the_batch():
    values = drawn(4).flatten().relu()
    expected = numpys(values.double().numpy(), np.linspace(0, float(values.max()), 31))
    assert batch_entropy(values) == pytest.approx(expected, abs=1e-9)
    assert batch_entropy(values * 1000) == pytest.approx(expected, abs=1e-6)
    assert batch_entropy(torch.zeros(10)) == 0.0


def test_negative_activations_count_as_zero():
    for edges in (None, PAPER_EDGES["features.0"]):
        counter = BatchEntropy(2, edges)
        counter.feed(torch.tensor([[-5.0, 0.1], [1.0, -0.1]]))
        assert counter.finish()[0] == pytest.approx(batch_entropy(torch.tensor([0.0, 0.1, 1.0, 0.0]), edges))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 7), st.booleans(), st.booleans())
def test_portions_of_any_size_give_the_same_batches(portions, batch, keep_last, uniform):
    edges = None if uniform else PAPER_EDGES["features.0"]
    frames = drawn(sum(portions))
    counter = BatchEntropy(batch, edges)
    for part in frames.split(portions):
        counter.feed(part)
    found = counter.finish(keep_last)
    groups = [group for group in frames.split(batch) if keep_last or len(group) == batch]
    np.testing.assert_allclose(found, [batch_entropy(group.flatten().relu(), edges) for group in groups], rtol=1e-12)


def test_a_batch_that_is_not_finite_or_beyond_all_edges_has_no_entropy():
    assert math.isnan(batch_entropy(torch.tensor([1.0, torch.nan])))
    assert math.isnan(batch_entropy(torch.tensor([1.0, torch.inf])))
    assert math.isnan(batch_entropy(torch.tensor([8.0, 9.0]), PAPER_EDGES["features.0"]))


@pytest.mark.parametrize(("batch", "edges"), [(0, None), (4, np.array([1.0, 1.0])), (4, np.array([1.0]))])
def test_impossible_batches_are_refused(batch, edges):
    with pytest.raises(UsageError, match="batch entropy"):
        BatchEntropy(batch, edges)


# The paper's rule


def test_separable_batches_are_separated_on_either_side():
    low, high = np.array([5.05, 5.1, 5.12]), np.array([5.14, 5.2])
    for clean, attacked, direction in ((low, high, 1), (high, low, -1)):
        rule = BatchRule.fit(clean, attacked)
        assert rule.direction == direction
        assert 5.12 < rule.threshold < 5.14
        found = detection_accuracy(rule, clean, attacked)
        assert (found.accuracy.value, found.accuracy.n) == (1.0, 5)
        assert found.false_positive_rate.value == found.false_negative_rate.value == 0.0


entropies = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=8).map(np.array)


@settings(max_examples=100, deadline=None)
@given(entropies, entropies)
def test_no_threshold_does_better_on_the_batches_it_was_fitted_on(clean, attacked):
    rule = BatchRule.fit(clean, attacked)

    def loss(candidate):
        return candidate.flags(clean).mean() + (~candidate.flags(attacked)).mean()

    others = [BatchRule(t, d) for t in np.arange(-0.5, 7.5, 0.5) for d in (1, -1)]
    assert loss(rule) <= min(map(loss, others)) + 1e-12


def test_decisions_are_counted_per_batch():
    """The paper's case: nothing wrong on five clean batches, one of five attacked ones missed."""
    from scipy.stats import binomtest

    rule = BatchRule(5.12, 1)
    clean, attacked = np.array([5.05, 5.06, 5.1, 5.11, 5.12]), np.array([5.11, 5.14, 5.15, 5.2, 5.2])
    found = detection_accuracy(rule, clean, attacked)
    exact = binomtest(9, 10).proportion_ci(method="exact")
    assert (found.accuracy.value, found.accuracy.n) == (0.9, 10)
    assert (found.accuracy.low, found.accuracy.high) == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert (found.false_positive_rate.value, found.false_negative_rate.value) == (0.0, 0.2)


def test_a_batch_without_entropy_is_flagged_and_not_fitted_on():
    rule = BatchRule.fit(np.array([1.0, math.nan]), np.array([2.0, 3.0]))
    assert rule.flags(np.array([1.0, math.nan, 2.5])).tolist() == [False, True, True]
    with pytest.raises(DataError, match="no calibration batch of one kind"):
        BatchRule.fit(np.array([math.nan]), np.array([2.0]))


# The prototype's rule


def test_any_layer_rejects_the_whole_batch():
    validation = {"early": np.array([1.0, 1.2, 0.8]), "logits": np.array([2.0, 2.0, 2.0])}
    rule = PrototypeRule.fit(validation)
    assert rule.thresholds["early"] == pytest.approx(1.0 + 2 * np.std([1.0, 1.2, 0.8]))
    assert rule.thresholds["logits"] == 2.0
    wrong = np.array([True, False, False, False, True, True, False, True, False, False])
    entropies = {"early": np.array([1.0, 9.0, 1.0]), "logits": np.array([2.0, 2.1, math.nan])}
    found = rule.select(entropies, wrong, batch=4)
    assert (found.batches, found.flagged) == (3, {"early": 1, "logits": 2})
    assert (found.coverage.value, found.coverage.n) == (0.4, 10)
    assert (found.accuracy_accepted.value, found.accuracy_accepted.n) == (0.75, 4)
    assert found.accuracy.value == 0.6


def test_the_last_incomplete_batch_counts_its_own_frames():
    rule = PrototypeRule({"early": 1.0})
    found = rule.select({"early": np.array([5.0, 5.0, 0.5])}, np.zeros(10, bool), batch=4)
    assert found.coverage.value == 0.2
    nothing = rule.select({"early": np.full(3, 5.0)}, np.zeros(10, bool), batch=4)
    assert nothing.coverage.value == 0.0
    assert nothing.accuracy_accepted.to_json()["value"] is None


def test_what_does_not_belong_together_is_refused():
    rule = PrototypeRule({"early": 1.0})
    with pytest.raises(DataError, match="fitted on"):
        rule.select({"late": np.zeros(3)}, np.zeros(10, bool), batch=4)
    with pytest.raises(DataError, match="10 frames make 3 of 4"):
        rule.select({"early": np.zeros(2)}, np.zeros(10, bool), batch=4)
    with pytest.raises(DataError, match="two finite ones"):
        PrototypeRule.fit({"early": np.array([1.0])})
    with pytest.raises(DataError, match="two finite ones"):
        PrototypeRule.fit({"early": np.array([1.0, math.nan])})


# What batches hide


def test_means_of_windows():
    np.testing.assert_array_equal(averaged([1.0, 3.0, 5.0, 7.0, 100.0], 2), [2.0, 6.0])
    with pytest.raises(UsageError):
        averaged([1.0], 0)


def test_a_shift_that_no_frame_shows_separates_batches():
    """Why batch figures are not comparable: the same tiny shift, judged per frame and per batch of 128."""
    frames = drawn(128 * 24)
    shifted = drawn(128 * 24, seed=1, scale=1.05)
    edges = np.linspace(0, 5, 31)

    def detected(size):
        halves = []
        for values in (frames, shifted):
            counter = BatchEntropy(size, edges)
            counter.feed(values)
            found = counter.finish()
            halves.append((found[: len(found) // 2], found[len(found) // 2 :]))
        rule = BatchRule.fit(halves[0][0], halves[1][0])
        return detection_accuracy(rule, halves[0][1], halves[1][1]).accuracy.value

    assert detected(1) < 0.65
    assert detected(128) > 0.9
