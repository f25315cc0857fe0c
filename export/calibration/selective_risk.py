"""Threshold selection with a finite-sample promise: selective risk <= target_risk with probability confidence_level.

Selection with guaranteed risk is due to Geifman and El-Yaniv 2017 (arXiv:1705.08500): an exact binomial bound on the
errors among accepted images, corrected for the number of thresholds tried. Their binary search pays for ceil(log2 m)
thresholds, although which thresholds it visits depends on the data; a union over a fixed grid would pay for every one.
By default this module tests thresholds in an order that was fixed beforehand on other images and stops at the first
that fails: fixed sequence testing, which needs no correction at all (Angelopoulos et al. 2021, "Learn then Test",
arXiv:2110.01052, section 2.2 and appendix on split fixed sequence testing). So the whole confidence is spent on every
threshold, the promise is exact for any sample size, and coverage is higher. Geifman and El-Yaniv's form is there too,
with the union over all candidates, which keeps the promise whatever the data do.

Several engines of one network are proved together: a step of the sequence is one threshold of each, and it passes only
if every one of them passes at the whole 1 - confidence_level. A step at which one engine breaks the promise passes
with no more than that probability (intersection-union test, Berger 1982), so the promise holds for all engines at once
without dividing anything, and choosing among them afterwards does not weaken it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from framegate.export.calibration.decisions import Flags, Floats
from framegate.runtime.errors import CalibrationError, UsageError

METHODS = ("learn-then-test", "geifman-el-yaniv")

CANDIDATES = 200
"""Thresholds that may be tested: the score quantiles of the design images at steps of half a percent."""
SEVERAL_TARGETS = (
    "name every --target-risk that would do at once, such as 0.02 0.05 0.1: the smallest that can be proved is taken"
)
ONE_TARGET = "ask for a larger --target-risk on images of which nothing was asked before"
"""How another target can be asked for where a command takes several, and where it takes one."""
TARGETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
"""Target risks of the table of what can be proved."""
_UNION_STEP = 10
"""A union pays for every candidate, so Geifman and El-Yaniv's form tries only every so many."""


@dataclass(frozen=True)
class Selection:
    """A threshold and what it was proved on.

    Attributes:
        threshold: Accept iff isfinite(score) and score <= threshold.
        accepted: Accepted images among those tested; all tested units where the promise is about units.
        errors: Wrong ones among them; units with a wrong accept.
        size: Images or units tested.
        risk_bound: The binomial bound at this threshold, at most the target. It would be an upper confidence bound of
            the risk if the threshold had been fixed beforehand; chosen by these images, it is none.
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


def images_needed(target_risk: float, confidence_level: float, errors: int = 0) -> int:
    """How many accepted images with so many errors among them it takes to keep the promise."""
    fewest = math.ceil(math.log1p(-confidence_level) / math.log1p(-target_risk))
    if errors == 0:
        return fewest
    delta, enough = 1.0 - confidence_level, fewest + errors
    while not _proved((enough, errors), target_risk, delta):
        enough *= 2
    too_few = errors
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if _proved((middle, errors), target_risk, delta):
            enough = middle
        else:
            too_few = middle
    return enough


def check_promise(target_risk: float, confidence_level: float) -> None:
    """Check the two numbers of a promise.

    Raises:
        UsageError: One is not strictly between 0 and 1.
    """
    for name, value in (("target risk", target_risk), ("confidence level", confidence_level)):
        if not 0 < value < 1:
            raise UsageError(f"{name}: {value:g} given, expected a number between 0 and 1, both excluded")


@dataclass(frozen=True, eq=False)
class Part:
    """What one engine brings to the proof.

    Attributes:
        candidates: Thresholds in ascending order, fixed by the design images.
        start: Which of them a sequence begins with.
        counts: For each, how many images it accepts and how many of them are wrong (units: all, and with a wrong
            accept), among the images that prove.
        size: Images or units that prove.
    """

    candidates: Floats
    start: int
    counts: tuple[tuple[int, int], ...]
    size: int

    def at(self, step: int, sequence: bool) -> int:
        """Which candidate a step tests; one that has come to its end stays there."""
        return min((self.start if sequence else 0) + step, len(self.candidates) - 1)

    def steps(self, sequence: bool) -> int:
        """Steps until the end."""
        return len(self.candidates) - (self.start if sequence else 0)


def of_frames(design: tuple[Floats, Flags], test: tuple[Floats, Flags], target_risk: float) -> Part:
    """A promise about accepted frames: scores and error flags of the images that design, and of those that prove.

    Raises:
        CalibrationError: No image has a finite score.
    """
    scores, wrong = test
    _require_finite(design[0], scores)
    candidates = _candidates(design[0])
    evidence = [_log_tail(errors, count, target_risk) for count, errors in _counts(*design, candidates)]
    return Part(candidates, int(np.argmin(evidence)), tuple(_counts(scores, wrong, candidates)), len(scores))


def of_units(design: Floats, worst: Floats) -> Part:
    """A promise about units: at most the target share of them contain a wrong accept.

    A looser threshold never takes a wrong accept away, so the sequence begins with the strictest.

    Args:
        design: Scores of the images that design.
        worst: (units,) of those that prove: the smallest score of a wrong frame of the unit, infinity if none is.

    Raises:
        CalibrationError: No image has a finite score.
    """
    _require_finite(design, design)
    candidates = _candidates(design)
    errors = np.searchsorted(np.sort(worst), candidates, side="right")
    return Part(candidates, 0, tuple((len(worst), int(each)) for each in errors), len(worst))


def worst_scores(scores: Floats, wrong: Flags, groups: npt.NDArray[np.int64]) -> Floats:
    """(units,) smallest score of a wrong frame of each unit, infinity if none is; scores that are not finite are none.

    Args:
        scores: (N,) of all frames of the units.
        wrong: (N,).
        groups: (N,) unit of each frame.
    """
    units, inverse = np.unique(groups, return_inverse=True)
    worst = np.full(len(units), math.inf)
    counted = wrong & np.isfinite(scores)
    np.minimum.at(worst, inverse.reshape(-1)[counted], scores[counted])
    return worst


def units_bound(errors: int, units: int, tested: int, confidence_level: float) -> float:
    """A bound of the share of new units with a wrong accept, at thresholds that these very units helped to choose.

    It holds for every threshold that could have been chosen: Clopper and Pearson's, at each of them, which share
    1 - confidence_level.

    Args:
        errors: Units that prove and contain a wrong accept.
        units: That prove.
        tested: Thresholds, or combinations of thresholds, that could have been chosen; fixed by the design images.
        confidence_level: In (0, 1).
    """
    return binomial_upper_bound(errors, units, 1.0 - (1.0 - confidence_level) / tested)


def tested_thresholds(design: Floats) -> int:
    """How many thresholds the scores of the images that design give."""
    return len(_candidates(design))


def _require_finite(*scores: Floats) -> None:
    if not all(np.isfinite(each).any() for each in scores):
        raise CalibrationError("calibration: no image has a finite score; the model's outputs are not usable")


def _candidates(scores: Floats) -> Floats:
    """Thresholds in ascending order: quantiles of the design images' scores."""
    finite = np.sort(scores[np.isfinite(scores)])
    ranks = np.ceil(np.arange(1, CANDIDATES + 1) / CANDIDATES * len(finite)).astype(np.int64) - 1
    return np.unique(finite[ranks])


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
    """The largest threshold of one engine that keeps the promise about accepted frames; see `select`.

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
    return select([of_frames(design, test, target_risk)], target_risk, confidence_level, method)[0]


def select(
    parts: Sequence[Part],
    target_risk: float,
    confidence_level: float,
    method: str = METHODS[0],
    shares: int = 1,
    unit: str = "image",
    other_target: str = SEVERAL_TARGETS,
) -> list[Selection]:
    """The largest thresholds, one for each engine, that keep the promise for all of them at once.

    Args:
        parts: At least one.
        target_risk: In (0, 1).
        confidence_level: In (0, 1).
        method: One of `METHODS`.
        shares: Promises among which 1 - confidence_level is divided.
        unit: What one image that proves stands for, for the message.
        other_target: How another target can be asked for, for the message.

    Raises:
        CalibrationError: There are none; the message says what would be needed.
    """
    sequence = method == METHODS[0]
    tested = _tested(parts, sequence)
    # Each of m thresholds may be wrong with probability delta / m, or, in a sequence, the first wrong one with delta.
    delta = (1.0 - confidence_level) / shares / (1 if sequence else len(tested))
    chosen = None
    for step in tested:
        if all(_proved(part.counts[part.at(step, sequence)], target_risk, delta) for part in parts):
            chosen = step
        elif sequence:
            break
    if chosen is None:
        raise CalibrationError(_refusal(parts, target_risk, confidence_level, delta, sequence, unit, other_target))
    selections = []
    for part in parts:
        index = part.at(chosen, sequence)
        count, errors = part.counts[index]
        bound = min(binomial_upper_bound(errors, count, 1.0 - delta), target_risk)
        selections.append(Selection(float(part.candidates[index]), count, errors, part.size, bound))
    return selections


def _tested(parts: Sequence[Part], sequence: bool) -> range:
    """The steps that may be tested. A union tries few thresholds where there are many, and all where there are few."""
    steps = max(part.steps(sequence) for part in parts)
    if sequence or steps <= 2 * _UNION_STEP:
        return range(steps)
    return range((steps - 1) % _UNION_STEP, steps, _UNION_STEP)  # the loosest is one of them


def _proved(counts: tuple[int, int], target_risk: float, delta: float) -> bool:
    """The bound is at most the target exactly if so few errors are this unlikely at the target."""
    count, errors = counts
    return count > 0 and _log_tail(errors, count, target_risk) <= math.log(delta)


def provable(
    parts_of: Callable[[float], Sequence[Part]], confidence_level: float, method: str, shares: int
) -> list[tuple[float, float | None]]:
    """What can be proved, for every target of `TARGETS` at once: target and smallest coverage, None where nothing can.

    All lines hold together with the confidence: they share 1 - confidence_level. A calibration for one of them, which
    has more for itself, proves at least as much on the same data.

    Args:
        parts_of: Target -> what the engines bring.
        confidence_level: In (0, 1).
        method: One of `METHODS`.
        shares: Promises that share the confidence besides.
    """
    found: list[tuple[float, float | None]] = []
    for target in TARGETS:
        try:
            chosen = select(parts_of(target), target, confidence_level, method, shares * len(TARGETS))
        except CalibrationError:
            found.append((target, None))
        else:
            found.append((target, min(each.accepted / each.size for each in chosen)))
    return found


def _refusal(
    parts: Sequence[Part],
    target_risk: float,
    confidence_level: float,
    delta: float,
    sequence: bool,
    unit: str,
    other_target: str,
) -> str:
    size = parts[0].size
    count, errors = min(
        (part.counts[part.at(0, sequence)] for part in parts), key=lambda each: each[0] - each[1] / target_risk
    )
    found = f"{size} {unit}s" if unit == "image" else f"one image each of {size} {unit}s"
    more = f", and with {errors} errors {images_needed(target_risk, 1.0 - delta, errors)}" if errors > 1 else ""
    more = f", and with one {images_needed(target_risk, 1.0 - delta, 1)}" if errors == 1 else more
    return (
        f"calibration: no threshold keeps selective risk <= {target_risk:g} with probability {confidence_level:g}: of "
        f"{found}, those accepted by the threshold that the design images pointed to are {count} with {errors} "
        f"error{'' if errors == 1 else 's'} (coverage {count / size:.1%}), and even without a single error "
        f"{images_needed(target_risk, 1.0 - delta)} accepted {unit}s are needed{more}. Give more calibration "
        f"images, train a better model, or {other_target}"
    )
