"""The upper bound of a rate, found by tangents, is bit for bit what halving the interval finds."""

from __future__ import annotations

import random

import pytest

from framegate.runtime.bundle import binomial


def _halved(errors: int, trials: int, level: float) -> float:
    low, high = errors / trials, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        above = binomial.binomial_tail(errors, trials, middle) > 1.0 - level
        low, high = (middle, high) if above else (low, middle)
    return high


def _cases() -> list[tuple[int, int, float]]:
    draw = random.Random(3)
    cases = [(500, 10_000, 0.999), (3334, 10_000, 0.999), (1, 2, 0.5), (9999, 10_000, 0.95)]
    for _ in range(60):
        trials = int(10 ** draw.uniform(0.4, 3.8))
        cases.append((draw.randint(1, trials - 1), trials, draw.choice((0.01, 0.5, 0.95, 0.999, 1 - 1e-9))))
    return cases


def test_the_bound_is_that_of_halving():
    for case in _cases():
        assert binomial.upper_bound(*case) == _halved(*case), case


@pytest.mark.parametrize("wrong", [0.0, 0.5, 1.0, float("nan")])
def test_tangents_that_led_elsewhere_change_nothing(monkeypatch, wrong):
    monkeypatch.setattr(binomial, "_near_root", lambda *_: wrong)
    binomial.upper_bound.cache_clear()
    assert binomial.upper_bound(40, 1000, 0.95) == _halved(40, 1000, 0.95)
    binomial.upper_bound.cache_clear()
