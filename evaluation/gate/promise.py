"""Is the promise kept? A thousand calibrations on frames drawn from a known population, each checked on all of it.

A calibration says: selective risk <= target_risk with probability confidence_level. The bundle's calibration and test
frames together are taken as the population; each trial draws a calibration split from it, with replacement, so that
frames are independent as the promise supposes, calibrates as the product does, and looks up the true risk over the
population. Refusing to calibrate breaks no promise. Where frames come in tracks, tracks are drawn, and the risk is that
of a random frame of a random track.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from framegate.evaluation.metrics.intervals import share
from framegate.export.calibration.calibrate import Promise, calibrate
from framegate.export.calibration.decisions import Outputs, accepted, predicted
from framegate.models.training_batches import Progress
from framegate.runtime.errors import CalibrationError, UsageError

Labels = npt.NDArray[np.int64]


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
    population: Population, size: int, promise: Promise, trials: int, progress: Progress, seed: int = 0
) -> dict[str, Any]:
    """How often the promise is broken.

    Args:
        population: Taken as everything there is.
        size: Frames of each calibration split.
        promise: What is promised each time.
        trials: At least 1.
        progress: Called during the work.
        seed: Of the draws.

    Returns:
        ``trials``, ``refused``, ``broken`` (share of the trials, with interval), ``allowed`` (1 - confidence_level),
        ``kept`` (whether the count of broken ones is within binomial tolerance), mean coverage and risk of the others.
    """
    if trials < 1 or size < 10:
        raise UsageError(f"promise: {trials} trials of {size} frames given, expected 1 and 10 or more")
    rng = np.random.default_rng(seed)
    weights = population.weights()
    wrong = predicted(population.outputs) != population.labels
    broken, coverages, risks, scores = [], [], [], []
    refused = 0
    for trial in range(trials):
        index, groups = draw(population, size, rng)
        try:
            found = calibrate(
                population.outputs.subset(index),
                population.labels[index],
                replace(promise, seed=int(rng.integers(2**31))),
                split_sha256="",
                model_sha256="",
                engine="",
                groups=groups,
            )
        except CalibrationError:
            refused += 1
            broken.append(False)
        else:
            passed = accepted(population.outputs, found)
            coverage = float(weights[passed].sum())
            risk = float(weights[passed & wrong].sum()) / coverage if coverage else 0.0
            broken.append(risk > promise.target_risk)
            coverages.append(coverage)
            risks.append(risk)
            scores.append(found.score)
        if trial % 20 == 19 or trial + 1 == trials:
            progress("promise: calibrations", trial + 1, trials)
    allowed = 1.0 - promise.confidence_level
    # Three standard deviations of a binomial: a promise that is exactly kept passes 999 times in a thousand.
    tolerance = allowed * trials + 3 * math.sqrt(trials * allowed * (1 - allowed))
    return {
        "trials": trials,
        "frames": size,
        "population": len(population.labels),
        "method": promise.method,
        "target_risk": promise.target_risk,
        "confidence_level": promise.confidence_level,
        "refused": refused,
        "broken": share(broken).to_json(),
        "allowed": round(allowed, 6),
        "kept": bool(sum(broken) <= tolerance),
        "mean_coverage": float(np.mean(coverages)) if coverages else None,
        "mean_risk": float(np.mean(risks)) if risks else None,
        "scores": {name: scores.count(name) for name in sorted(set(scores))},
    }
