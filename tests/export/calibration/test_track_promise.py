from __future__ import annotations

import math

import numpy as np
import pytest

from framegate.export.calibration.design import choose_window
from framegate.export.calibration.selective_risk import binomial_upper_bound
from framegate.export.calibration.track_promise import prove_rule
from framegate.runtime import UsageError
from framegate.runtime.monitor import SHIFT
from framegate.runtime.policy.track import TrackRule

STRICT, MIDDLE, LAX = TrackRule(5, 6, 5), TrackRule(1, 1, 3), TrackRule()


def test_the_laxest_rule_that_keeps_the_target_is_proved():
    found = prove_rule([(STRICT, 0), (MIDDLE, 0), (LAX, 9)], 113, 0.05, 0.95)
    assert found.rule == MIDDLE
    assert found.bound == pytest.approx(1 - 0.05 ** (1 / 113))
    assert "at most 5.00% of the tracks ever show a wrong accepted label" in found.describe()
    assert "missed are not covered" in found.describe()


def test_the_sequence_ends_at_the_first_failure_although_a_laxer_rule_would_pass():
    found = prove_rule([(STRICT, 0), (MIDDLE, 9), (LAX, 0)], 113, 0.05, 0.95)
    assert found.rule == STRICT


def test_too_few_tracks_promise_nothing_and_it_is_said_how_many_are_needed():
    found = prove_rule([(STRICT, 0), (LAX, 0)], 113, 0.01, 0.95)
    assert found.rule is None
    assert found.needed == math.ceil(math.log(0.05) / math.log(0.99)) == 299
    assert "299 tracks without a wrong one would do" in found.describe()
    assert prove_rule([(STRICT, 0)], found.needed, 0.01, 0.95).rule == STRICT
    assert prove_rule([(STRICT, 0)], found.needed - 1, 0.01, 0.95).rule is None


def test_the_bound_is_the_exact_one():
    found = prove_rule([(STRICT, 4)], 644, 0.02, 0.95)
    assert found.bound == binomial_upper_bound(4, 644, 0.95)
    assert found.rule == STRICT


@pytest.mark.parametrize(("risk", "level"), [(0, 0.95), (1, 0.95), (0.05, 1), (math.nan, 0.95)])
def test_numbers_that_are_no_promise_are_refused(risk, level):
    with pytest.raises(UsageError):
        prove_rule([(STRICT, 0)], 100, risk, level)


def test_the_limit_of_a_window_hangs_on_the_order_of_capture_and_not_on_that_of_files():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(400), 12)
    shift = np.repeat(rng.normal(size=(400, 2)), 6, axis=1).ravel() + rng.normal(0, 0.1, 4800)  # frames resemble others
    design = np.arange(4800)
    (right,) = choose_window({SHIFT: shift}, design, groups, 6, 0.01, 0)
    mixed = rng.permutation(4800)
    shuffled = {SHIFT: shift[mixed]}, design, groups[mixed], 6, 0.01, 0
    (ordered,), (blind,) = choose_window(*shuffled, mixed), choose_window(*shuffled)
    assert ordered == right
    assert blind.high < right.high
