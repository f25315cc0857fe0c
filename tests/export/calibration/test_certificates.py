from __future__ import annotations

import math

import numpy as np
import pytest

from framegate.export.calibration.certificates import (
    Closer,
    counted,
    first_certified,
    possible_of_views,
    prove,
)
from framegate.export.calibration.selective_risk import binomial_upper_bound
from framegate.runtime.errors import CalibrationError, UsageError


def test_the_loosest_threshold_that_keeps_the_target():
    possible = np.random.default_rng(0).normal(size=1000)
    proof = prove(possible, None, -100.0, 0.05, 0.95)
    assert proof.events == (possible >= proof.tau).sum()
    assert proof.risk_bound == binomial_upper_bound(proof.events, 1000, 0.95) <= 0.05
    assert binomial_upper_bound(proof.events + 1, 1000, 0.95) > 0.05


def test_the_threshold_is_not_below_the_lowest():
    assert prove(np.full(500, -math.inf), None, 0.0, 0.02, 0.95).tau == 0.0


def test_the_promise_holds_as_often_as_it_says():
    """Where the event at the issued threshold has more than the target's probability, the promise is broken: <= 5 %."""
    rng = np.random.default_rng(1)
    broken = 0
    for _ in range(1000):
        tau = prove(rng.random(300), None, 0.0, 0.05, 0.95).tau
        broken += 1 - tau > 0.05
    assert broken / 1000 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)
    assert broken > 10


def test_too_few_units_are_refused_with_what_is_missing():
    with pytest.raises(CalibrationError, match=r"needs at least 149 units .* 113 are there"):
        prove(np.full(113, -math.inf), None, 0.0, 0.02, 0.95)


def test_a_track_counts_its_worst_frame():
    groups = np.repeat(np.arange(200), 10)
    possible = np.full(2000, -1.0)
    possible[::10] = 5.0  # one frame of every track
    proof = prove(possible, groups, 0.0, 0.02, 0.95)
    assert proof.units == 200
    assert proof.tau > 5.0


def test_fault_outputs_that_are_not_finite_count_against_the_certificate():
    with pytest.raises(CalibrationError, match="not finite"):
        prove(np.full(400, np.nan), None, 0.0, 0.02, 0.95)


def test_one_random_frame_of_each_track_is_looked_at():
    groups = np.repeat(np.arange(50), 30)
    chosen = counted(1500, groups, "frame", None)
    assert sorted(groups[chosen]) == list(range(50))
    assert len({int(k) % 30 for k in chosen}) > 10
    assert list(counted(1500, groups, "track", None)) == list(range(1500))
    assert len(counted(1500, None, "frame", 200)) == 200
    some = groups[counted(1500, groups, "frame", 20)]
    assert len(some) == len(set(some)) == 20
    assert max(some) > 30  # random tracks, not the first ones
    for wrong in ((None, None), (groups, 100)):
        with pytest.raises(UsageError, match="unit track"):
            counted(1500, wrong[0], "track", wrong[1])


def test_the_first_certified_frame_of_each_track():
    groups = np.repeat(np.arange(4), 5)
    certified = np.zeros(20, bool)
    certified[[2, 4, 5, 14]] = True  # third frame of track 0, first of track 1, last of track 2, none of track 3
    assert first_certified(certified, groups) == (0.75, 3.0)
    assert first_certified(np.zeros(20, bool), groups) == (0.0, None)


def test_what_a_wrong_label_can_reach():
    means = np.array([[-0.1, -3.0, -4.0], [-2.0, -0.5, -4.0]])
    assert possible_of_views(means, 0) == -0.5
    assert possible_of_views(means, 1) == -0.1
    assert possible_of_views(np.array([[np.nan, 0.0]]), 0) == math.inf


@pytest.mark.parametrize("groups", [None, np.repeat(np.arange(200), 5)])
def test_lower_bounds_are_asked_for_where_the_threshold_depends_on_them(groups):
    rng = np.random.default_rng(2)
    possible = np.where(rng.random(1000) < 0.4, rng.exponential(size=1000), -math.inf)
    better = np.where(rng.random(1000) < 0.1, math.nan, possible * rng.uniform(0.4, 1.1, 1000))
    asked: list[int] = []

    def lower(rows, left):
        assert left >= len(rows)
        asked.extend(rows)
        return better[rows]

    every = prove(np.fmin(possible, better), groups, 0.0, 0.05, 0.95)
    some = prove(possible, groups, 0.0, 0.05, 0.95, [Closer(lower, 20)])
    assert some == every
    assert some.tau < prove(possible, groups, 0.0, 0.05, 0.95).tau
    assert len(asked) == len(set(asked)) < 0.8 * np.isfinite(possible).sum()
    # A second, closer one is asked for fewer.
    again: list[int] = []

    def lowest(rows, left):
        again.extend(rows)
        return better[rows] - 0.1

    last = prove(possible, groups, 0.0, 0.05, 0.95, [Closer(lower, 20), Closer(lowest, 1)])
    assert last.tau < some.tau
    assert 0 < len(again) == len(set(again)) < len(asked)


def test_fault_a_lower_bound_does_not_hide_outputs_that_are_not_finite():
    possible = np.array([math.inf] * 30 + [1.0] * 370)
    with pytest.raises(CalibrationError, match="not finite"):
        prove(possible, None, 0.0, 0.02, 0.95, [Closer(lambda rows, left: np.zeros(len(rows)), 20)])
