"""Threshold selection with a finite-sample promise: selective risk <= target_risk with probability confidence_level.

Selection with guaranteed risk is due to Geifman and El-Yaniv 2017 (arXiv:1705.08500): an exact binomial bound on the
errors among accepted images, corrected for the number of thresholds tried. Their binary search pays for ceil(log2 m)
thresholds, although which thresholds it visits depends on the data; a union over a fixed grid would pay for every one.
By default this module tests thresholds in an order that was fixed beforehand on other images and stops at the first
that fails: fixed sequence testing, which needs no correction at all (Angelopoulos et al. 2021, "Learn then Test",
arXiv:2110.01052, section 2.2 and appendix on split fixed sequence testing). So the whole confidence is spent on every
threshold, the promise is exact for any sample size, and coverage is higher. Geifman and El-Yaniv's form is there too,
with the union over all candidates, which keeps the promise whatever the data do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from framegate.export.calibration.decisions import Flags, Floats
from framegate.runtime.errors import CalibrationError, UsageError

METHODS = ("learn-then-test", "geifman-el-yaniv")

CANDIDATES = 200
"""Thresholds that may be tested: the score quantiles of the design images at steps of half a percent."""


_UNION_STEP = 10
"""A union pays for every candidate, so Geifman and El-Yaniv's form tries only every so many."""


@dataclass(frozen=True)
class Selection:
    """A threshold and what it was proved on.

    Attributes:
        threshold: Accept iff isfinite(score) and score <= threshold.
        accepted: Accepted images among those tested.
        errors: Wrong ones among them.
        size: Images tested.
        risk_bound: Upper confidence bound of the selective risk, at most the target.
    """

    threshold: float
    accepted: int
    errors: int
    size: int
    risk_bound: float


@lru_cache(maxsize=4)
def _log_factorials(size: int) -> Floats:
    """Logarithms of 0! to size!."""
    return np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, size + 1)))))


def _log_tail(errors: int, trials: int, rate: float) -> float:
    """Natural logarithm of P(X <= errors) for X ~ Binomial(trials, rate), 0 < rate < 1."""
    k = np.arange(errors + 1)
    log_factorial = _log_factorials(4096 * math.ceil(trials / 4096))  # few sizes, so that they stay cached
    log_terms = log_factorial[trials] - log_factorial[k] - log_factorial[trials - k]
    log_terms = log_terms + k * math.log(rate) + (trials - k) * math.log1p(-rate)
    largest = float(log_terms.max())
    return largest + math.log(float(np.exp(log_terms - largest).sum()))


@lru_cache(maxsize=50_000)  # forty tails each; reports and tables ask for the same counts again and again
def binomial_upper_bound(errors: int, trials: int, confidence_level: float) -> float:
    """One-sided Clopper-Pearson bound: the rate is below it with probability >= confidence_level.

    Solves P(X <= errors | trials, rate) = 1 - confidence_level for the rate (Clopper and Pearson 1934).

    Args:
        errors: Errors seen, 0 to ``trials``.
        trials: Independent trials; 0 proves nothing and gives 1.
        confidence_level: In (0, 1).
    """
    if not 0 <= errors <= trials:
        raise ValueError(f"errors: asked for 0 to {trials}, found {errors}")
    if errors == trials:
        return 1.0
    log_delta = math.log1p(-confidence_level)
    if errors == 0:
        return -math.expm1(log_delta / trials)
    low, high = errors / trials, 1.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        if _log_tail(errors, trials, middle) > log_delta:
            low = middle
        else:
            high = middle
    return high  # the side that is never too small


def images_needed(target_risk: float, confidence_level: float) -> int:
    """How many accepted images without a single error it takes to keep the promise."""
    return math.ceil(math.log1p(-confidence_level) / math.log1p(-target_risk))


def check_promise(target_risk: float, confidence_level: float) -> None:
    """Check the two numbers of a promise.

    Raises:
        UsageError: One is not strictly between 0 and 1.
    """
    for name, value in (("target risk", target_risk), ("confidence level", confidence_level)):
        if not 0 < value < 1:
            raise UsageError(f"{name}: {value:g} given, expected a number between 0 and 1, both excluded")


def _candidates(scores: Floats, wrong: Flags, target_risk: float) -> tuple[Floats, int]:
    """Thresholds in ascending order, and where to start: where the design images speak most clearly for the promise."""
    finite = np.sort(scores[np.isfinite(scores)])
    ranks = np.ceil(np.arange(1, CANDIDATES + 1) / CANDIDATES * len(finite)).astype(np.int64) - 1
    candidates = np.unique(finite[ranks])
    evidence = [_log_tail(errors, count, target_risk) for count, errors in _counts(scores, wrong, candidates)]
    return candidates, int(np.argmin(evidence))


def _counts(scores: Floats, wrong: Flags, thresholds: Floats) -> list[tuple[int, int]]:
    """For each threshold, how many images it accepts and how many of them are wrong; see `decisions.accepts`."""
    finite = np.isfinite(scores)
    order = np.argsort(scores[finite], kind="stable")
    ordered, errors = scores[finite][order], np.concatenate(([0], np.cumsum(wrong[finite][order])))
    counts = np.searchsorted(ordered, thresholds, side="right")
    return list(zip(counts.tolist(), errors[counts].tolist(), strict=True))


def select_threshold(
    design: tuple[Floats, Flags],
    test: tuple[Floats, Flags],
    target_risk: float,
    confidence_level: float,
    method: str = METHODS[0],
) -> Selection:
    """The largest threshold that keeps the promise.

    Args:
        design: Scores and error flags of the images that fix which thresholds are tested and in which order.
        test: Scores and error flags of other images, on which they are tested; both exchangeable with later frames.
        target_risk: Largest share of errors among accepted frames, in (0, 1).
        confidence_level: Probability with which the target is kept, in (0, 1).
        method: ``learn-then-test``, or ``geifman-el-yaniv`` with a union over all candidates.

    Raises:
        UsageError: target_risk or confidence_level is outside (0, 1).
        CalibrationError: No threshold keeps the promise; the message says what would be needed.
    """
    check_promise(target_risk, confidence_level)
    scores, wrong = test
    if not np.isfinite(design[0]).any() or not np.isfinite(scores).any():
        raise CalibrationError("calibration: no image has a finite score; the model's outputs are not usable")
    candidates, start = _candidates(*design, target_risk)
    in_sequence = method == METHODS[0]
    # Each of m thresholds may be wrong with probability delta / m, or, in a sequence, the first wrong one with delta.
    tested = candidates[start:] if in_sequence else candidates[_UNION_STEP - 1 :: _UNION_STEP]
    delta = (1.0 - confidence_level) / (1 if in_sequence else max(1, len(tested)))
    selection = None
    for threshold, (count, errors) in zip(tested, _counts(scores, wrong, tested), strict=True):
        # The bound is at most the target exactly if so few errors are this unlikely at the target.
        if count == 0 or not _log_tail(errors, count, target_risk) <= math.log(delta):
            if in_sequence:
                break
            continue
        bound = min(binomial_upper_bound(errors, count, 1.0 - delta), target_risk)
        selection = Selection(float(threshold), count, errors, len(scores), bound)
    if selection is None:
        raise CalibrationError(_refusal(candidates, start, test, target_risk, confidence_level, delta))
    return selection


def _refusal(
    candidates: Floats,
    start: int,
    test: tuple[Floats, Flags],
    target_risk: float,
    confidence_level: float,
    delta: float,
) -> str:
    scores, wrong = test
    bounds = []
    for count, errors in _counts(scores, wrong, candidates):
        bounds.append((binomial_upper_bound(errors, count, 1.0 - delta), count / len(scores)))
    best, coverage = min(bounds, key=lambda each: each[0])
    because = f"the best bound on {len(scores)} images is {best:.4f}, at coverage {coverage:.1%}"
    if best <= target_risk:
        # Found on the very images that would have to prove it: choosing it now would break the promise.
        because = (
            f"of {len(scores)} images, those accepted by the threshold that the design images pointed to give a bound "
            f"of {bounds[start][0]:.4f}, at coverage {bounds[start][1]:.1%}"
        )
    return (
        f"calibration: no threshold keeps selective risk <= {target_risk:g} with probability {confidence_level:g}; "
        f"{because}, and even without a single error {images_needed(target_risk, 1.0 - delta)} accepted images "
        "are needed. Give more calibration images, train a better model, or raise --target-risk"
    )
