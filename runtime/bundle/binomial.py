"""Tail and upper bound of the binomial distribution, without SciPy, which no vehicle has."""

from __future__ import annotations

import math
from functools import lru_cache


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
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if binomial_tail(errors, trials, middle) > delta else (low, middle)
    return high
