"""Tail and upper bound of the binomial distribution, without SciPy, which no vehicle has."""

from __future__ import annotations

import math
from functools import lru_cache

_HALVINGS = 40
"""Of the interval in which a bound lies: to about 1e-12."""
_TANGENTS, _CLOSE = 30, 1e-14


def binomial_tail(errors: int, trials: int, rate: float) -> float:
    """P(X <= errors) for X ~ Binomial(trials, rate)."""
    if not 0 <= errors <= trials:
        return math.nan
    if rate <= 0 or errors == trials:
        return 1.0
    if rate >= 1:
        return 0.0
    log_rate, log_rest = math.log(rate), math.log1p(-rate)
    terms, largest = [], 0.0
    for k in range(errors, -1, -1):
        log_term = _log_coefficient(trials, k) + k * log_rate + (trials - k) * log_rest
        terms.append(math.exp(log_term))
        largest = max(largest, terms[-1])
        if k < rate * trials and terms[-1] <= 1e-20 * largest:  # below the mode the terms only fall
            break
    return min(math.fsum(terms), 1.0)


@lru_cache(maxsize=4096)
def _log_coefficient(trials: int, k: int) -> float:
    """Of the binomial coefficient; asked again and again while a bound is looked for."""
    return math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)


@lru_cache(maxsize=256)
def upper_bound(errors: int, trials: int, confidence_level: float) -> float:
    """One-sided upper bound of a rate by Clopper and Pearson (1934); 1 where nothing was tried.

    Args:
        errors: Seen, 0 to ``trials``.
        trials: Independent ones.
        confidence_level: In (0, 1).
    """
    if errors >= trials:
        return 1.0
    delta = 1.0 - confidence_level
    if errors <= 0:
        return 1.0 - float(delta ** (1.0 / trials))
    low, high = errors / trials, 1.0
    near = _near_root(errors, trials, delta)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if middle < near else (low, middle)
    if binomial_tail(errors, trials, low) > delta >= binomial_tail(errors, trials, high):
        return high
    low, high = errors / trials, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if binomial_tail(errors, trials, middle) > delta else (low, middle)
    return high


def _near_root(errors: int, trials: int, delta: float) -> float:
    """About the rate at which the tail is ``delta``, in a few steps instead of one for each bit.

    Newton's method on the logarithm of the tail, which is concave: every tangent meets ``log(delta)`` at or above the
    root, and the steps come down to it. The derivative of the tail is minus the density of
    Beta(errors + 1, trials - errors).
    """
    rate = errors / trials
    for _ in range(_TANGENTS):
        tail = binomial_tail(errors, trials, rate)
        if not (tail > 0.0 and 0.0 < rate < 1.0):
            break
        log_density = (
            _log_coefficient(trials, errors)
            + math.log(trials - errors)
            + errors * math.log(rate)
            + (trials - errors - 1) * math.log1p(-rate)
        )
        step = math.log(tail / delta) * tail * math.exp(-log_density)
        rate, before = min(rate + step, (rate + 1.0) / 2), rate
        if abs(rate - before) <= _CLOSE * before:
            break
    return rate
