"""Is the promise kept? Thousands of calibrations on frames drawn from a known population, each checked on all of it.

A calibration says: selective risk <= target_risk with probability confidence_level. The bundle's calibration and test
frames together are taken as the population; each trial draws a calibration split from it, with replacement, so that
frames are independent as the promise supposes, calibrates as the product does, and looks up the true risk over the
population. Refusing to calibrate breaks no promise. Where frames come in tracks, tracks are drawn, and the risk is that
of a random frame of a random track.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from framegate.evaluation.metrics.intervals import share
from framegate.export.calibration.calibrate import Circumstances, EngineOutputs, Promise, calibrate_together
from framegate.export.calibration.decisions import Outputs, accepted, predicted
from framegate.export.calibration.selective_risk import binomial_upper_bound
from framegate.models.training.batches import Progress
from framegate.runtime.bundle.binomial import binomial_tail
from framegate.runtime.bundle.calibration import UNITS, Calibration
from framegate.runtime.errors import CalibrationError, UsageError

Labels = npt.NDArray[np.int64]
TRIALS = 7_000
"""Calibrations that tell a promise that is broken in 6 % of them from one that is broken in 5 %."""
LEVEL = 0.01
"""A promise that is exactly kept fails the simulation so often."""
POWER = 0.9


@dataclass(frozen=True, eq=False)
class Population:
    """Frames with known labels.

    Attributes:
        outputs: What the engine says about them.
        labels: (N,).
        groups: (N,) the track of each frame, or None.
    """

    outputs: Outputs
    labels: Labels
    groups: Labels | None = None

    def weights(self) -> npt.NDArray[np.float64]:
        """(N,) probability of each frame: all alike, or all tracks alike and all frames of a track alike."""
        if self.groups is None:
            return np.full(len(self.labels), 1.0 / len(self.labels))
        _, inverse, counts = np.unique(self.groups, return_inverse=True, return_counts=True)
        return np.asarray(1.0 / len(counts) / counts[inverse.reshape(-1)])


def draw(population: Population, size: int, rng: np.random.Generator) -> tuple[Labels, Labels | None]:
    """Positions of a calibration split of about ``size`` frames, and their tracks; one drawn twice counts as two."""
    if population.groups is None:
        return rng.integers(0, len(population.labels), size), None
    order = np.argsort(population.groups, kind="stable")
    units, first, counts = np.unique(population.groups[order], return_index=True, return_counts=True)
    chosen = rng.integers(0, len(units), max(2, round(size / counts.mean())))
    parts = [order[first[unit] : first[unit] + counts[unit]] for unit in chosen]
    return np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(part) for part in parts])


def simulate(
    population: Population,
    size: int,
    promise: Promise,
    trials: int,
    progress: Progress,
    seed: int = 0,
    tries: int = 1,
) -> dict[str, Any]:
    """How often the promise is broken.

    Args:
        population: Taken as everything there is.
        size: Frames of each calibration split.
        promise: What is promised each time.
        trials: At least 1.
        progress: Called during the work.
        seed: Of the draws.
        tries: How often each split is divided anew, the calibration of largest coverage being kept: what the product
            no longer allows. More than 1 is expected to break the promise.

    Returns:
        ``trials``, ``refused``, ``broken`` (share of the trials, with interval), ``issued_broken`` (share of those
        that were issued, of which nothing is promised), ``allowed`` (1 - confidence_level), ``tells`` (the smallest
        true share that so many trials would notice), ``kept`` (whether the count of broken ones is likely enough),
        mean coverage and risk of the issued ones; with units ``units_bound_broken``: how often the bound of units with
        a wrong accept lay below the truth.
    """
    if trials < 1 or size < 10 or tries < 1:
        raise UsageError(f"promise: {trials} trials of {size} frames, {tries} tries: expected 1, 10 and 1 or more")
    found = run_trials(population, size, promise, range(trials), progress, seed, tries)
    return summary(population, size, promise, found, tries)


@dataclass(frozen=True)
class Trial:
    """One calibration, and what is true of it.

    Attributes:
        broken: The promise does not hold; False where calibration refused.
        score: What it compares; empty where it refused.
        coverage: True coverage.
        risk: True selective risk.
        units_broken: Whether the bound of units with a wrong accept lies below the truth; None without one.
    """

    broken: bool = False
    score: str = ""
    coverage: float = 0.0
    risk: float = 0.0
    units_broken: bool | None = None


def run_trials(
    population: Population, size: int, promise: Promise, numbers: range, progress: Progress, seed: int, tries: int
) -> list[Trial]:
    """The trials of `simulate` with these numbers. Each draws from a stream of its own, so they can be run in parts."""
    truth, done = _Truth(population), []
    for count, number in enumerate(numbers, 1):
        rng = np.random.default_rng([seed, number])
        found = _best(population, size, promise, tries, rng)
        if found is None:
            done.append(Trial())
        else:
            coverage, risk, unit_share = truth.of(found)
            broken = (unit_share if promise.about == UNITS else risk) > found.target_risk
            bound = found.units_bound
            done.append(Trial(broken, found.score, coverage, risk, None if bound is None else unit_share > bound))
        if count % 20 == 0 or count == len(numbers):
            progress("promise: calibrations", count, len(numbers))
    return done


def summary(
    population: Population, size: int, promise: Promise, found: Sequence[Trial], tries: int = 1
) -> dict[str, Any]:
    """What `simulate` returns, from trials that were run."""
    trials, issued = len(found), [each for each in found if each.score]
    units = [each.units_broken for each in issued if each.units_broken is not None]
    scores = [each.score for each in issued]
    broken = sum(each.broken for each in found)
    allowed = 1.0 - promise.confidence_level
    return {
        "trials": trials,
        "tries": tries,
        "frames": size,
        "population": len(population.labels),
        "population_units": None if population.groups is None else len(np.unique(population.groups)),
        "method": promise.method,
        "target_risk": promise.target_risk,
        "confidence_level": promise.confidence_level,
        "refused": trials - len(issued),
        "broken": share([each.broken for each in found]).to_json(),
        "issued_broken": share([each.broken for each in issued]).to_json(),
        "units_bound_broken": share(units).to_json() if units else None,
        "allowed": round(allowed, 6),
        "tells": smallest_noticed(trials, allowed),
        "kept": is_kept(broken, trials, allowed),
        "mean_coverage": float(np.mean([each.coverage for each in issued])) if issued else None,
        "mean_risk": float(np.mean([each.risk for each in issued])) if issued else None,
        "scores": {name: scores.count(name) for name in sorted(set(scores))},
    }


class _Truth:
    """What is true of a calibration over the whole population."""

    def __init__(self, population: Population) -> None:
        self._population = population
        self._weights = population.weights()
        self._wrong = predicted(population.outputs) != population.labels
        self._units = None if population.groups is None else np.unique(population.groups, return_inverse=True)[1]

    def of(self, calibration: Calibration) -> tuple[float, float, float]:
        """Coverage, selective risk, and share of the units with a wrong accept (0 without units)."""
        passed = accepted(self._population.outputs, calibration)
        coverage = float(self._weights[passed].sum())
        risk = float(self._weights[passed & self._wrong].sum()) / coverage if coverage else 0.0
        if self._units is None:
            return coverage, risk, 0.0
        units = self._units.reshape(-1)
        return coverage, risk, len(np.unique(units[passed & self._wrong])) / (int(units.max()) + 1)


def _best(
    population: Population, size: int, promise: Promise, tries: int, rng: np.random.Generator
) -> Calibration | None:
    """The calibration of one split; of several divisions the one that accepts most; None if all are refused."""
    index, groups = draw(population, size, rng)
    engines = {"": EngineOutputs(population.outputs.subset(index))}
    found = []
    for _ in range(tries):
        run = Circumstances(str(rng.integers(2**62)), groups, table=False)
        with suppress(CalibrationError):
            found.append(calibrate_together(engines, population.labels[index], promise, run)[""])
    return max(found, key=lambda each: each.coverage, default=None)


def is_kept(broken: int, trials: int, allowed: float) -> bool:
    """Whether so many broken promises are likely enough: exact binomial test, one-sided, at level `LEVEL`."""
    return broken == 0 or 1.0 - binomial_tail(broken - 1, trials, allowed) > LEVEL


def smallest_noticed(trials: int, allowed: float) -> float:
    """The smallest true share of broken promises that `is_kept` finds with probability `POWER` in so many trials."""
    most = int(allowed * trials)
    while is_kept(most + 1, trials, allowed):
        most += 1
    return min((most + 1) / trials if most + 1 >= trials else binomial_upper_bound(most, trials, POWER), 1.0)
