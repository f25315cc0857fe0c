from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.policy.rules import judge_age, judge_score
from framegate.runtime.verdict import Reason

ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True)


def calibration(threshold: float) -> Calibration:
    return Calibration(1.0, "entropy", threshold, 0.05, 0.95, 0.04, 0.9, 0.01, 1000, "0", "0", "test")


@given(score=ANY_FLOAT, finite=st.booleans(), threshold=st.floats(-10, 10))
def test_accepts_exactly_finite_scores_up_to_the_threshold(score, finite, threshold):
    reasons = judge_score(score, finite, calibration(threshold))
    usable = finite and math.isfinite(score) and score <= threshold
    assert (reasons == {}) == usable


@given(score=ANY_FLOAT, finite=st.booleans())
def test_without_calibration_nothing_is_accepted(score, finite):
    assert Reason.NOT_CALIBRATED in judge_score(score, finite, None)


def test_the_threshold_itself_is_accepted_and_the_next_number_is_not():
    assert judge_score(0.5, True, calibration(0.5)) == {}
    assert tuple(judge_score(math.nextafter(0.5, 1), True, calibration(0.5))) == (Reason.HIGH_SCORE,)


def test_nan_says_not_finite():
    assert tuple(judge_score(math.nan, False, calibration(0.5))) == (Reason.NOT_FINITE,)
    # A score that is NaN although the output was called finite must not slip through either.
    assert tuple(judge_score(math.nan, True, calibration(0.5))) == (Reason.HIGH_SCORE,)


def test_age():
    assert judge_age(10, None) == {}
    assert judge_age(10, 10) == {}
    assert tuple(judge_age(11, 10)) == (Reason.LATE,)
    # A frame from the future means two clocks that disagree: its age is unknown.
    assert tuple(judge_age(-1, 10)) == (Reason.LATE,)
