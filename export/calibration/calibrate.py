"""Temperature, limits, score and threshold from the outputs of the very backend and precision that will run.

The calibration split is divided once, by whole units (tracks, where frames come in tracks): one part designs, the
other proves. Which is which follows from the data's own fingerprint, so there is no seed to be tried. The design part
sets the temperature, the limits of the signals, which score is compared, and the order in which thresholds are tested;
nothing that the proof is made with has been looked at before. A frame outside a limit counts as rejected in the proof,
so the promise is about the frames that pass score and single-frame limits.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from framegate.export.calibration.classes import asked_classes, refusal, require_frames
from framegate.export.calibration.decisions import Outputs, predicted
from framegate.export.calibration.design import division_seed, require_units, split_units
from framegate.export.calibration.engine_design import OTHERS, EngineDesign, Selections
from framegate.export.calibration.promise import Circumstances, EngineOutputs, Promise
from framegate.export.calibration.selective_risk import Selection, provable, select
from framegate.export.calibration.temperature import Labels
from framegate.models.labelled import fingerprint
from framegate.runtime.bundle.calibration import UNITS, Calibration
from framegate.runtime.errors import CalibrationError

__all__ = ["Circumstances", "EngineOutputs", "Promise", "calibrate", "calibrate_together", "fingerprint", "groups_of"]


def calibrate(
    outputs: Outputs,
    labels: Labels,
    promise: Promise,
    *,
    split_sha256: str,
    model_sha256: str,
    engine: str,
    groups: npt.NDArray[np.int64] | None = None,
    names: tuple[str, ...] = (),
) -> Calibration:
    """`calibrate_together` for a single engine; ``names`` are the network's labels.

    Raises:
        CalibrationError: The split or the outputs are not usable, or no threshold keeps the promise.
    """
    engines = {"": EngineOutputs(outputs, model_sha256, engine)}
    return calibrate_together(engines, labels, promise, Circumstances(split_sha256, groups, labels=names))[""]


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
        UsageError: A label that was asked for by name is none of the network's.
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
    designs = {key: EngineDesign.of(each.outputs, labels, promise, division, run) for key, each in engines.items()}
    if not promise.proved:
        return {key: _unproved(design, engines[key], promise, run) for key, design in designs.items()}
    shares = run.shares * len(promise.targets) * groups_of(promise, run.labels)
    failure = None
    for target in promise.targets:
        try:
            chosen = _proved(list(designs.values()), promise, target, shares, run)
        except CalibrationError as error:
            failure = failure or error
            continue
        return {
            key: design.record(engines[key], promise, target, selections, shares, run)
            for (key, design), selections in zip(designs.items(), chosen, strict=True)
        }
    if not run.table or promise.class_risks:
        raise CalibrationError(str(failure)) from failure
    table = provable(
        lambda target: [design.part(target) for design in designs.values()],
        promise.confidence_level, promise.method, run.shares,
    )  # fmt: skip
    first = next(iter(engines.values()))
    guess = _guessing(first.outputs, labels)
    end = "" if guess.endswith("?") else "."
    raise CalibrationError(f"{failure}{guess}{end} {_table_words(table, promise.about)}")


def groups_of(promise: Promise, labels: tuple[str, ...]) -> int:
    """Proofs of one target, which share the confidence: each label that was asked for, and all others."""
    asked = len(promise.class_risks)
    return asked + (not asked or asked < len(labels))


def _proved(
    designs: list[EngineDesign], promise: Promise, target: float, shares: int, run: Circumstances
) -> list[Selections]:
    """The thresholds of every engine at one target.

    Raises:
        CalibrationError: Those of a group cannot be proved.
    """
    level = 1.0 - (1.0 - promise.confidence_level) / shares
    unit = run.unit or ("image" if run.groups is None else "track")
    chosen: list[Selections] = [{} for _ in designs]
    for class_id, (name, risk) in asked_classes(promise.class_risks, run.labels).items():
        for design in designs:
            require_frames(name, risk, design.scores_of(target, class_id), level, unit)
        parts = [design.part(target, class_id, risk) for design in designs]
        try:
            found = select(parts, risk, promise.confidence_level, promise.method, shares)
        except CalibrationError as error:
            raise CalibrationError(refusal(name, risk, parts, level, unit)) from error
        for selections, selection in zip(chosen, found, strict=True):
            selections[class_id] = selection
    if len(chosen[0]) < groups_of(promise, run.labels):
        parts = [design.part(target) for design in designs]
        found = select(parts, target, promise.confidence_level, promise.method, shares, unit)
        for selections, selection in zip(chosen, found, strict=True):
            selections[OTHERS] = selection
    return chosen


def _table_words(table: list[tuple[float, float | None]], about: str) -> str:
    possible = [f"{target:g} (coverage {coverage:.1%})" for target, coverage in table if coverage is not None]
    if about == UNITS:
        possible = [f"{target:g}" for target, coverage in table if coverage is not None]
    whole = f"all of {', '.join(f'{target:g}' for target, _ in table)} asked at once"
    return f"What these images can prove, {whole}: {', '.join(possible) if possible else 'none of them'}"


def _unproved(design: EngineDesign, engine: EngineOutputs, promise: Promise, run: Circumstances) -> Calibration:
    """The threshold that the design images favour, on images that the network may have seen."""
    part = design.part(promise.target_risk)
    for index in range(len(part.candidates) - 1, -1, -1):
        accepted, errors = part.counts[index]
        if accepted and (errors <= promise.target_risk * accepted or index == 0):
            break
    selection = Selection(float(part.candidates[index]), max(accepted, 1), errors, part.size, 1.0)
    shares = run.shares * len(promise.targets)
    return design.record(engine, promise, promise.target_risk, {OTHERS: selection}, shares, run)


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
