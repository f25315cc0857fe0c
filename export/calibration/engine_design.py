"""What the design images decided about one engine, what it brings to a proof, and the record of what was proved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framegate.export.calibration.classes import among, asked_classes, others
from framegate.export.calibration.decisions import (
    Flags,
    Floats,
    Indices,
    Outputs,
    accepts,
    predicted,
    values_of,
    within,
)
from framegate.export.calibration.design import choose_limits, choose_score, choose_window, division_seed
from framegate.export.calibration.promise import AUTO, Circumstances, EngineOutputs, Promise
from framegate.export.calibration.selective_risk import (
    Part,
    Selection,
    of_frames,
    of_units,
    tested_thresholds,
    units_bound,
    worst_scores,
)
from framegate.export.calibration.temperature import Labels, fit_temperature
from framegate.runtime.bundle.calibration import FINGERPRINT, IMAGE, UNITS, Calibration, Limit
from framegate.runtime.bundle.class_risk import ClassRisk
from framegate.runtime.errors import CalibrationError

QUANTILES = 100
OTHERS = -1
"""In place of a label's number: all labels that were not asked for."""
Selections = dict[int, Selection]
"""Number of a label that was asked for, or `OTHERS` -> its threshold."""


@dataclass(frozen=True, eq=False)
class EngineDesign:
    """What the design images decided about one engine.

    Attributes:
        temperature: Of the softmax.
        values: Every score and signal, (N,).
        wrong: (N,) errors.
        limits: Of the signals.
        inside: (N,) within the single-frame limits.
        asked: The score that was asked for, or `AUTO`.
        division: Positions of the images that design, and of those that prove: one of each unit.
        groups: (N,) units, or None.
        about: What the promise is about.
        read_as: (N,) number of the most probable label, -1 where an output is not finite.
        classes: Number of each label with a risk of its own -> its name and risk.
    """

    temperature: float
    values: Mapping[str, Floats]
    wrong: Flags
    limits: tuple[Limit, ...]
    inside: Flags
    asked: str
    division: tuple[Labels, Labels]
    groups: npt.NDArray[np.int64] | None
    about: str
    read_as: Indices
    classes: Mapping[int, tuple[str, float]]

    @classmethod
    def of(
        cls, outputs: Outputs, labels: Labels, promise: Promise, division: tuple[Labels, Labels], run: Circumstances
    ) -> EngineDesign:
        """Fit temperature and limits on the images that design.

        Raises:
            CalibrationError: The outputs are not usable, or this bundle has no such score.
            UsageError: A label that was asked for by name is none of the network's.
        """
        design = division[0]
        temperature = fit_temperature(outputs.logits[design], labels[design])
        values = values_of(outputs, temperature)
        if promise.score != AUTO and promise.score not in values:
            raise CalibrationError(
                f"calibration: score {promise.score!r} was asked for, this bundle gives {', '.join(values)}"
            )
        limits = choose_limits({name: each[design] for name, each in values.items()}, promise.limit_share)
        if promise.window:
            seed = division_seed(run.split_sha256)
            order = run.sequence
            limits += choose_window(values, design, run.groups, promise.window, promise.limit_share, seed, order)
        read_as = predicted(outputs)
        return cls(
            temperature, values, read_as != labels, limits, within(values, limits), promise.score, division, run.groups,
            promise.about, read_as, asked_classes(promise.class_risks, run.labels),
        )  # fmt: skip

    def score(self, target: float) -> str:
        """What is compared with the threshold, where all labels have this target."""
        if self.asked != AUTO:
            return self.asked
        return choose_score(dict(self.values), self.wrong, self.inside, self.division[0], target)

    def compared(self, score: str) -> Floats:
        """(N,) scores, NaN outside the limits."""
        found = np.where(self.inside, self.values[score], np.nan)
        _check_scores(score, found)
        return found

    def scores_of(self, target: float, class_id: int = OTHERS) -> tuple[Floats, Floats]:
        """Scores of a group of labels, NaN elsewhere: of the images that design, and of those that prove."""
        compared = among(self.compared(self.score(target)), self._members(class_id))
        return compared[self.division[0]], compared[self.division[1]]

    def part(self, target: float, class_id: int = OTHERS, risk: float | None = None) -> Part:
        """What this engine brings to the proof of a target.

        Args:
            target: Of all labels, which the score is chosen for.
            class_id: The label that is proved for itself.
            risk: Its target; None: that of all labels.
        """
        design, test = self.division
        if self.about == UNITS:
            compared = self.compared(self.score(target))
            return of_units(compared[design], self._worst(compared))
        first, second = self.scores_of(target, class_id)
        return of_frames((first, self.wrong[design]), (second, self.wrong[test]), target if risk is None else risk)

    def _members(self, class_id: int) -> Flags:
        return others(self.read_as, self.classes) if class_id == OTHERS else self.read_as == class_id

    def _worst(self, compared: Floats) -> Floats:
        """Of all frames of the units that prove, see `worst_scores`."""
        assert self.groups is not None
        proving = self._proving()
        return worst_scores(compared[proving], self.wrong[proving], self.groups[proving])

    def _proving(self) -> Flags:
        """(N,) every frame of the units that prove."""
        assert self.groups is not None
        return np.isin(self.groups, self.groups[self.division[1]])

    def _units(self, target: float, passed: Flags, selections: Selections, level: float) -> tuple[int, float]:
        """Units that prove and contain a wrong accept, and a bound for new ones.

        The bound holds for every threshold that could have been chosen; where groups of labels have their own, for
        every combination of them.
        """
        assert self.groups is not None
        wrong = len(np.unique(self.groups[self._proving() & passed & self.wrong]))
        tested = math.prod(tested_thresholds(self.scores_of(target, each)[0]) for each in selections)
        return wrong, units_bound(wrong, len(self.division[1]), tested, level)

    def record(
        self,
        engine: EngineOutputs,
        promise: Promise,
        target: float,
        selections: Selections,
        shares: int,
        run: Circumstances,
    ) -> Calibration:
        """The record of what was proved.

        Args:
            engine: Whose outputs these are.
            promise: What was asked.
            target: What was proved.
            selections: The thresholds.
            shares: Proofs among which 1 - confidence_level was divided.
            run: What is known about images and run.
        """
        test = self.division[1]
        score = self.score(target)
        compared = self.compared(score)
        passed = np.zeros(len(compared), bool)
        for class_id, each in selections.items():
            passed |= accepts(among(compared, self._members(class_id)), each.threshold)
        tested = self.values[score][test]
        quantiles = np.quantile(tested[np.isfinite(tested)], np.linspace(0, 1, QUANTILES + 1))
        # Of all images: a threshold that the design images pointed to may lie above every tested one.
        quantiles[-1] = np.max(self.values[score], where=np.isfinite(self.values[score]), initial=quantiles[-1])
        wrong_units: int | None = None
        bound: float | None = None
        if run.groups is not None:
            wrong_units, bound = self._units(target, passed, selections, promise.confidence_level)
            if promise.about == UNITS:
                bound = target  # what was proved
        chosen = list(selections.values())
        return Calibration(
            temperature=self.temperature,
            score=score,
            threshold=selections[OTHERS].threshold if OTHERS in selections else min(each.threshold for each in chosen),
            target_risk=target,
            confidence_level=promise.confidence_level,
            risk_bound=max(each.risk_bound for each in chosen),
            coverage=float(np.mean(passed[test])),
            selective_risk=sum(each.errors for each in chosen) / sum(each.accepted for each in chosen),
            size=chosen[0].size,
            fingerprint=run.split_sha256,
            model_sha256=engine.model_sha256,
            engine=engine.engine,
            method=promise.method,
            groups=None if run.groups is None else len(np.unique(run.groups)),
            limits=self.limits,
            score_quantiles=tuple(float(each) for each in np.maximum.accumulate(quantiles)),
            unit=run.unit or (IMAGE if run.groups is None else "track"),
            about=promise.about,
            units_wrong=wrong_units,
            units_bound=bound,
            shares=shares,
            attempts=run.attempts,
            division=FINGERPRINT,
            proved=promise.proved,
            unseen=run.unseen,
            group=run.group,
            classes=self._class_risks(selections),
        )

    def _class_risks(self, selections: Selections) -> tuple[ClassRisk, ...]:
        return tuple(
            ClassRisk(name, class_id, risk, each.threshold, each.accepted, each.errors, each.risk_bound)
            for class_id, (name, risk) in self.classes.items()
            for each in (selections[class_id],)
        )


def _check_scores(score: str, compared: Floats) -> None:
    finite = compared[np.isfinite(compared)]
    if finite.size == 0:
        raise CalibrationError(
            "calibration: no image has finite logits and a finite score; the model's outputs are not usable"
        )
    if finite.min() == finite.max():
        raise CalibrationError(
            f"calibration: all {len(finite)} images have the same {score}, {finite[0]:.6g}; it cannot tell right from "
            "wrong. Is the model file the trained one?"
        )
