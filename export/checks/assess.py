"""Every backend and precision of a bundle beside the network it was made from: gate, calibration and comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from framegate.export.calibration.attempts import Question, count_attempt
from framegate.export.calibration.calibrate import (
    Circumstances,
    EngineOutputs,
    Promise,
    calibrate_together,
    fingerprint,
)
from framegate.export.calibration.decisions import Outputs
from framegate.export.calibration.seen import check_report
from framegate.export.calibration.undeclared import undeclared_tracks
from framegate.export.checks.parity import ParityRow, check_accuracy, check_loss, compare, loss
from framegate.export.data.outputs import CPU_BACKENDS, backend_outputs
from framegate.export.data.splits import Splits
from framegate.export.progress import Progress
from framegate.runtime.bundle.bundle import sha256_file
from framegate.runtime.bundle.calibration import Calibration, record_key
from framegate.runtime.console import to_stderr
from framegate.runtime.preprocess import PreprocessSpec

PRECISIONS = ("fp32", "int8")
"""Promises of one export, which share the confidence: that of the float32 and that of the INT8 file."""
_PROBED = 64
"""Images of each split by which an engine is known to compute what the reference computed."""


@dataclass(frozen=True)
class Reference:
    """The network that every exported file is compared with.

    Attributes:
        key: How the report calls it, e.g. ``torch``.
        engine: Name and version of the library that computed its outputs.
        test: Its outputs on the test split.
        calibration: Its outputs on the calibration split.
        title: What it is, for people.
        same_as: Key of the engine that computed them from the very network that will be in the bundle; its images are
            not computed again if the first of them come out the same to the last bit. Empty if there is none.
    """

    key: str
    engine: str
    test: Outputs
    calibration: Outputs
    title: str = "the trained network"
    same_as: str = ""


class Assessment:
    """Gates, calibrates and compares exported files with one reference.

    Attributes:
        rows: Key -> row of the parity table; the reference's comes first.
        calibrations: ``backend/precision`` -> calibration.
        calibration_outputs: ``backend/precision`` -> outputs on the calibration split.
    """

    def __init__(self, reference: Reference, splits: Splits, promise: Promise, making: tuple[str, ...] = ()) -> None:
        """Calibrate the reference itself.

        Args:
            reference: What files are compared with.
            splits: Images.
            promise: What the calibrations shall promise.
            making: How files are made of which nothing is known yet, see `Question.others`.

        Raises:
            CalibrationError: Not even the reference can keep the promise.
        """
        self._reference, self._splits, self._promise, self._making = reference, splits, promise, making
        self._split_sha256 = fingerprint(splits.calibration)
        self._asked = 0
        own = {"": EngineOutputs(reference.calibration, "", reference.engine)}
        self._own = self._calibrate(own)[""]  # only compared with; it is issued to nobody
        if warning := undeclared_tracks(reference.calibration, splits.calibration):
            to_stderr(f"framegate: {warning}")
        labels = splits.test.labels
        first = compare(reference.key, reference.test, self._own, reference.test, self._own, labels)
        self.rows: dict[str, ParityRow] = {reference.key: first}
        self.calibrations: dict[str, Calibration] = {}
        self.calibration_outputs: dict[str, Outputs] = {}

    def _calibrate(self, engines: Mapping[str, EngineOutputs]) -> dict[str, Calibration]:
        split = self._splits.calibration
        run = Circumstances(
            self._split_sha256, split.groups, split.unit, len(PRECISIONS), max(self._asked, 1), self._splits.unseen,
            labels=self._splits.names, group=split.group, sequence=split.sequence,
        )  # fmt: skip
        return calibrate_together(engines, split.labels, self._promise, run)

    def add(self, precision: str, model: Path, spec: PreprocessSpec, progress: Progress) -> None:
        """Take one file through every CPU backend; nothing of it is kept if one of them fails.

        All backends of a file are proved together; every precision has its share of the confidence.

        Raises:
            BackendError: A backend cannot run the file.
            ExportRefusedError: The file lost accuracy.
            CalibrationError: No threshold keeps the promise, or the test images contradict it.
        """
        test, reference = self._splits.test, self._reference
        labels = test.labels
        engines, tests = {}, {}
        for backend in CPU_BACKENDS:
            key = record_key(backend, precision)
            outputs, engine = self._outputs(backend, key, model, spec, progress)
            engines[key] = EngineOutputs(outputs["calibration"], sha256_file(model), engine)
            tests[key] = outputs["test"]
        if not self._asked:
            keys = tuple(record_key(backend, each) for backend in CPU_BACKENDS for each in PRECISIONS)
            units = self._splits.calibration.groups
            question = Question(sha256_file(model), keys, self._promise, units, self._making)
            self._asked = count_attempt(self._split_sha256, question)
        calibrations = self._calibrate(engines)
        for key, calibration in calibrations.items():
            if calibration.proved:
                check_report(key, calibration, (engines[key].outputs, self._splits.calibration), (tests[key], test))
        for key, found in tests.items():
            check_loss(key, loss(found, calibrations[key], reference.test, self._own, labels), reference.title)
        rows = {
            key: compare(key, found, calibrations[key], reference.test, self._own, labels)
            for key, found in tests.items()
        }
        self.rows.update(rows)
        self.calibrations.update(calibrations)
        self.calibration_outputs.update({key: each.outputs for key, each in engines.items()})

    def _outputs(
        self, backend: str, key: str, model: Path, spec: PreprocessSpec, progress: Progress
    ) -> tuple[dict[str, Outputs], str]:
        """What an engine computes; the reference's own outputs where that is the same network on the same engine.

        The test images come first: an engine that loses labels there is asked nothing else.

        Raises:
            ExportRefusedError: It does.
        """
        reference, splits = self._reference, self._splits
        sets = {"test": splits.test.images, "calibration": splits.calibration.images}
        if key == reference.same_as:
            few = {name: images[:_PROBED] for name, images in sets.items()}
            found, engine = backend_outputs(backend, model, spec, few, progress)
            whole = {"test": reference.test, "calibration": reference.calibration}
            if all(np.array_equal(found[name].logits, whole[name].logits[:_PROBED]) for name in sets):
                return whole, engine
        images, engine = len(splits.test) + len(splits.calibration), ""
        outputs: dict[str, Outputs] = {}
        for name, part in sets.items():
            before = sum(len(each.logits) for each in outputs.values())
            counted = _Counted(progress, before, images)
            found, engine = backend_outputs(backend, model, spec, {name: part}, counted)
            outputs.update(found)
            if name == "test":
                expected, labels = reference.test.logits, splits.test.labels
                check_accuracy(key, found[name].logits, expected, labels, reference.title)
        return outputs, engine

    def table(self) -> list[ParityRow]:
        """The rows: the reference, then the others by name."""
        first, *others = self.rows
        return [self.rows[first], *(self.rows[key] for key in sorted(others))]


@dataclass(frozen=True)
class _Counted:
    """Progress of a part of the images as progress of all."""

    progress: Progress
    before: int
    images: int

    def __call__(self, description: str, done: int, total: int) -> None:
        self.progress(description, self.before + done, self.images)
