"""Temperature, limits, score and threshold from the outputs of the very backend and precision that will run.

The calibration split is divided once, by whole units (tracks, where frames come in tracks): one part designs, the
other proves. Which is which follows from the data's own fingerprint, so there is no seed to be tried. The design part
sets the temperature, the limits of the signals, which score is compared, and the order in which thresholds are tested;
nothing that the proof is made with has been looked at before. A frame outside a limit counts as rejected in the proof,
so the promise is about the frames that pass score and single-frame limits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framegate.export.calibration.decisions import Flags, Floats, Outputs, predicted, values_of, within
from framegate.export.calibration.design import (
    choose_limits,
    choose_score,
    choose_window,
    division_seed,
    require_units,
    split_units,
)
from framegate.export.calibration.selective_risk import (
    METHODS,
    Part,
    Selection,
    check_promise,
    of_frames,
    of_units,
    provable,
    select,
    units_bound,
    worst_scores,
)
from framegate.export.calibration.temperature import Labels, fit_temperature
from framegate.models.labelled import LabelledImages
from framegate.runtime.bundle.calibration import FINGERPRINT, FRAMES, IMAGE, SCORES, UNITS, Calibration, Limit
from framegate.runtime.errors import CalibrationError, UsageError
from framegate.runtime.monitor import SHIFT

AUTO = "auto"
QUANTILES = 100


@dataclass(frozen=True)
class Promise:
    """What a calibration shall promise.

    Attributes:
        target_risk: Largest share of errors among accepted frames, or of units with a wrong accept, in (0, 1).
        confidence_level: Probability with which the target is kept, in (0, 1).
        seed: Which training images serve INT8 ranges. Which images prove is no choice: it follows from the data.
        method: How the threshold is proved, see `framegate.export.calibration.selective_risk`.
        score: What is compared with the threshold; ``auto`` takes the one that the design images favour.
        limit_share: Share of clean frames that all limits together may reject, in [0, 0.5); 0 sets no limits.
        window: Also limit the mean of the monitor's ``shift`` over so many frames of a stream; 0 does not.
        larger_risks: Targets that would do, too, ascending and above `target_risk`: the smallest that can be proved is
            taken, and they share the confidence.
        about: `framegate.runtime.bundle.calibration.FRAMES` or ``UNITS``, see `Calibration.about`.
        proved: False: set the threshold without a proof, see `Calibration.proved`.
    """

    target_risk: float = 0.02
    confidence_level: float = 0.95
    seed: int = 0
    method: str = METHODS[0]
    score: str = AUTO
    limit_share: float = 0.01
    window: int = 0
    larger_risks: tuple[float, ...] = ()
    about: str = FRAMES
    proved: bool = True

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: A value is outside its range.
        """
        for target in self.targets:
            check_promise(target, self.confidence_level)
        if list(self.targets) != sorted(set(self.targets)):
            raise UsageError(f"target risk: {self.targets} given, expected different numbers in ascending order")
        if self.about not in (FRAMES, UNITS):
            raise UsageError(f"promise: {self.about!r} given, expected {FRAMES} or {UNITS}")
        if self.method not in METHODS:
            raise UsageError(f"method: {self.method!r} given, expected {' or '.join(METHODS)}")
        if self.score not in (AUTO, *SCORES, SHIFT):
            raise UsageError(f"score: {self.score!r} given, expected {', '.join((AUTO, *SCORES, SHIFT))}")
        if not 0 <= self.limit_share < 0.5:
            raise UsageError(f"limit share: {self.limit_share:g} given, expected a number from 0 to below 0.5")
        if self.window != 0 and not 2 <= self.window <= 256:
            raise UsageError(f"window: {self.window} frames given, expected 2 to 256, or 0 for none")

    @property
    def targets(self) -> tuple[float, ...]:
        """Every target that would do, ascending."""
        return (self.target_risk, *self.larger_risks)


@dataclass(frozen=True, eq=False)
class EngineOutputs:
    """What one engine says about the calibration split.

    Attributes:
        outputs: N images.
        model_sha256: The model file that computed them.
        engine: Name and version of the engine that ran it.
    """

    outputs: Outputs
    model_sha256: str = ""
    engine: str = ""


@dataclass(frozen=True)
class Circumstances:
    """What a calibration record says about its images and its run.

    Attributes:
        split_sha256: `fingerprint` of the split, which also divides it.
        groups: (N,) number of each image's unit (track); frames of a unit are alike and count as one: the proof takes
            one frame of each at random, so the promise is about a random frame of a new unit. None: each image is one.
        unit: What a unit is called.
        shares: Promises of this run among which 1 - confidence_level is divided, besides several targets.
        attempts: See `Calibration.attempts`.
        unseen: See `Calibration.unseen`.
        table: Whether a refusal computes what could be proved instead.
    """

    split_sha256: str
    groups: npt.NDArray[np.int64] | None = None
    unit: str = ""
    shares: int = 1
    attempts: int = 1
    unseen: str = ""
    table: bool = True


def fingerprint(split: LabelledImages) -> str:
    """SHA-256 of a split's images and labels."""
    digest = hashlib.sha256(np.ascontiguousarray(split.images).tobytes())
    digest.update(split.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def calibrate(
    outputs: Outputs,
    labels: Labels,
    promise: Promise,
    *,
    split_sha256: str,
    model_sha256: str,
    engine: str,
    groups: npt.NDArray[np.int64] | None = None,
) -> Calibration:
    """`calibrate_together` for a single engine.

    Raises:
        CalibrationError: The split or the outputs are not usable, or no threshold keeps the promise.
    """
    engines = {"": EngineOutputs(outputs, model_sha256, engine)}
    return calibrate_together(engines, labels, promise, Circumstances(split_sha256, groups))[""]


def calibrate_together(
    engines: Mapping[str, EngineOutputs], labels: Labels, promise: Promise, run: Circumstances
) -> dict[str, Calibration]:
    """Design on one part of the calibration split and prove the thresholds of all engines at once on the other.

    Args:
        engines: By key, of one and the same split; those that one promise shall cover (see `selective_risk`).
        labels: (N,).
        promise: What shall hold.
        run: What is known about images and run.

    Raises:
        CalibrationError: The split or the outputs are not usable, or no threshold keeps the promise; then with a table
            of what can be proved.
    """
    for each in engines.values():
        _check_split(each.outputs, labels)
    require_units(run.groups)
    if promise.about == UNITS and run.groups is None:
        raise CalibrationError(
            "calibration: a promise about units was asked for, but the images have none; see --group"
        )
    division = split_units(len(labels), run.groups, division_seed(run.split_sha256))
    if min(map(len, division)) == 0:
        units = len(labels) if run.groups is None else len(np.unique(run.groups))
        raise CalibrationError(f"calibration: {len(labels)} images in {units} units given; give a few thousand images")
    designs = {key: _Design.of(each.outputs, labels, promise, division, run) for key, each in engines.items()}
    if not promise.proved:
        return {key: _unproved(design, engines[key], promise, run) for key, design in designs.items()}
    shares = run.shares * len(promise.targets)
    failure = None
    for target in promise.targets:
        parts = [design.part(target) for design in designs.values()]
        try:
            chosen = select(parts, target, promise.confidence_level, promise.method, shares)
        except CalibrationError as error:
            failure = failure or error
            continue
        return {
            key: design.record(engines[key], promise, target, selection, run)
            for (key, design), selection in zip(designs.items(), chosen, strict=True)
        }
    if not run.table:
        raise CalibrationError(str(failure)) from failure
    table = provable(
        lambda target: [design.part(target) for design in designs.values()],
        promise.confidence_level, promise.method, run.shares,
    )  # fmt: skip
    first = next(iter(engines.values()))
    raise CalibrationError(f"{failure}{_guessing(first.outputs, labels)}. {_table_words(table, promise.about)}")


def _table_words(table: list[tuple[float, float | None]], about: str) -> str:
    possible = [f"{target:g} (coverage {coverage:.1%})" for target, coverage in table if coverage is not None]
    if about == UNITS:
        possible = [f"{target:g}" for target, coverage in table if coverage is not None]
    whole = f"all of {', '.join(f'{target:g}' for target, _ in table)} asked at once"
    return f"What these images can prove, {whole}: {', '.join(possible) if possible else 'none of them'}"


@dataclass(frozen=True, eq=False)
class _Design:
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

    @classmethod
    def of(
        cls, outputs: Outputs, labels: Labels, promise: Promise, division: tuple[Labels, Labels], run: Circumstances
    ) -> _Design:
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
            limits += choose_window(values, design, run.groups, promise.window, promise.limit_share, seed)
        return cls(
            temperature, values, predicted(outputs) != labels, limits, within(values, limits), promise.score, division,
            run.groups, promise.about,
        )  # fmt: skip

    def score(self, target: float) -> str:
        """What is compared with the threshold."""
        if self.asked != AUTO:
            return self.asked
        return choose_score(dict(self.values), self.wrong, self.inside, self.division[0], target)

    def compared(self, score: str) -> Floats:
        """(N,) scores, NaN outside the limits."""
        found = np.where(self.inside, self.values[score], np.nan)
        _check_scores(score, found)
        return found

    def _worst(self, compared: Floats) -> Floats:
        """Of all frames of the units that prove, see `worst_scores`."""
        assert self.groups is not None
        proving = np.isin(self.groups, self.groups[self.division[1]])
        return worst_scores(compared[proving], self.wrong[proving], self.groups[proving])

    def part(self, target: float) -> Part:
        """What this engine brings to the proof of a target."""
        design, test = self.division
        compared = self.compared(self.score(target))
        if self.about == UNITS:
            return of_units(compared[design], self._worst(compared))
        return of_frames((compared[design], self.wrong[design]), (compared[test], self.wrong[test]), target)

    def record(
        self, engine: EngineOutputs, promise: Promise, target: float, selection: Selection, run: Circumstances
    ) -> Calibration:
        """The record of a threshold."""
        design, test = self.division
        score = self.score(target)
        compared = self.compared(score)
        tested = self.values[score][test]
        quantiles = np.quantile(tested[np.isfinite(tested)], np.linspace(0, 1, QUANTILES + 1))
        with np.errstate(invalid="ignore"):
            coverage = float(np.mean(compared[test] <= selection.threshold))
        wrong_units: int | None = None
        bound: float | None = None
        if run.groups is not None:
            worst = self._worst(compared)
            wrong_units, bound = units_bound(compared[design], worst, selection.threshold, promise.confidence_level)
            if promise.about == UNITS:
                bound = target  # what was proved
        return Calibration(
            temperature=self.temperature,
            score=score,
            threshold=selection.threshold,
            target_risk=target,
            confidence_level=promise.confidence_level,
            risk_bound=selection.risk_bound,
            coverage=coverage,
            selective_risk=selection.errors / selection.accepted,
            size=selection.size,
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
            shares=run.shares * len(promise.targets),
            attempts=run.attempts,
            division=FINGERPRINT,
            proved=promise.proved,
            unseen=run.unseen,
        )


def _unproved(design: _Design, engine: EngineOutputs, promise: Promise, run: Circumstances) -> Calibration:
    """The threshold that the design images favour, on images that the network may have seen."""
    part = design.part(promise.target_risk)
    for index in range(len(part.candidates) - 1, -1, -1):
        accepted, errors = part.counts[index]
        if accepted and (errors <= promise.target_risk * accepted or index == 0):
            break
    selection = Selection(float(part.candidates[index]), max(accepted, 1), errors, part.size, 1.0)
    return design.record(engine, promise, promise.target_risk, selection, run)


def _check_split(outputs: Outputs, labels: Labels) -> None:
    if len(labels) == 0:
        raise CalibrationError("calibration: 0 images given; give a few thousand")
    if len(outputs) != len(labels):
        raise CalibrationError(f"calibration: {len(outputs)} outputs, {len(labels)} labels; they must belong together")
    classes = outputs.logits.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        raise CalibrationError(
            f"calibration: labels run from {labels.min()} to {labels.max()}, the network knows 0 to {classes - 1}; "
            "give data with this network's labels"
        )
    if len(np.unique(labels)) < 2:
        raise CalibrationError(
            f"calibration: all {len(labels)} images have one label, number {labels[0]}; a threshold from them says "
            "nothing about the others. Give images of all labels"
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


def _guessing(outputs: Outputs, labels: Labels) -> str:
    """A hint if the network does no better than always giving the most frequent label."""
    right = float((predicted(outputs) == labels).mean())
    usual = float(np.bincount(labels).max() / len(labels))
    if right > usual:
        return ""
    return (
        f". The network is right on {right:.1%} of these images, always giving the most frequent label on {usual:.1%}: "
        "do labels and images belong together?"
    )
