"""How long an evaluation may still take."""

from __future__ import annotations

import pytest

from framegate.evaluation.suite.estimate import Estimate, duration


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def estimate(clock, told) -> Estimate:
    return Estimate({"clean": 100, "attack": 300, "kept": 1000}, lambda what, done, total: told.append(what), clock)


def test_the_rest_is_told_from_the_pace_of_what_was_done(estimate, clock, told):
    estimate.skip("kept")  # nothing of an earlier run is waited for
    with estimate.part("clean"):
        clock.now = 10.0
        estimate("observe", 5, 10)
    assert estimate.seconds_left() == pytest.approx(30.0)
    with estimate.part("attack"):
        clock.now = 25.0
        estimate("PGD", 20, 20)
    assert told[-1] == "PGD (whole work: about 1 s left)"
    assert estimate.seconds_left() == pytest.approx(0.0)


def test_nothing_is_told_before_there_is_a_pace(estimate, clock, told):
    with estimate.part("clean"):
        clock.now = 1.0
        estimate("observe", 9, 10)
        assert told == ["observe"]
        clock.now = 5.0
        estimate("observe", 9, 10)
        assert "left" in told[-1]


def test_a_part_within_a_part_and_an_unknown_one_count_nothing(estimate, clock):
    with estimate.part("unknown"):
        clock.now = 4.0
    assert estimate.seconds_left() is None
    with estimate.part("clean"), estimate.part("attack"):
        clock.now = 8.0
    assert estimate.seconds_left() == pytest.approx(4.0 / 100 * 1300)  # the attack itself is still to come


@pytest.mark.parametrize(("seconds", "text"), [(0, "0 s"), (119, "119 s"), (150, "2 min"), (9000, "2.5 h")])
def test_durations_for_people(seconds, text):
    assert duration(seconds) == text
