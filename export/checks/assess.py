"""Every backend and precision of a bundle beside the network it was made from: gate, calibration and comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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
from framegate.export.checks.parity import ParityRow, check_accuracy, compare
from framegate.export.data.outputs import CPU_BACKENDS, backend_outputs
from framegate.export.data.splits import Splits
from framegate.export.progress import Progress
from framegate.runtime.bundle import sha256_file
from framegate.runtime.calibration import Calibration, record_key
from framegate.runtime.console import to_stderr
from framegate.runtime.preprocess import PreprocessSpec

PRECISIONS = ("fp32", "int8")
"""Promises of one export, which share the confidence: that of the float32 and that of the INT8 file."""


@dataclass(frozen=True)
class Reference:
    """The network that every exported file is compared with.

    Attributes:
        key: How the report calls it, e.g. ``torch``.
        engine: Name and version of the library that computed its outputs.
        test: Its outputs on the test split.
        calibration: Its outputs on the calibration split.
    """

    key: str
    engine: str
    test: Outputs
    calibration: Outputs


class Assessment:
    """Gates, calibrates and compares exported files with one reference.

    Attributes:
        rows: Key -> row of the parity table; the reference's comes first.
        calibrations: ``backend/precision`` -> calibration.
    """

    def __init__(self, reference: Reference, splits: Splits, promise: Promise) -> None:
        """Calibrate the reference itself.

        Raises:
            CalibrationError: Not even the reference can keep the promise.
        """
        self._reference, self._splits, self._promise = reference, splits, promise
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

    def _calibrate(self, engines: Mapping[str, EngineOutputs]) -> dict[str, Calibration]:
        split = self._splits.calibration
        run = Circumstances(
            self._split_sha256, split.groups, split.unit, len(PRECISIONS), max(self._asked, 1), self._splits.unseen
        )
        return calibrate_together(engines, split.labels, self._promise, run)

    def add(self, precision: str, model: Path, spec: PreprocessSpec, progress: Progress) -> None:
        """Take one file through every CPU backend; nothing of it is kept if one of them fails.

        All backends of a file are proved together; every precision has its share of the confidence.

        Raises:
            BackendError: A backend cannot run the file.
            ExportRefusedError: The file lost accuracy.
            CalibrationError: No threshold keeps the promise, or the test images contradict it.
        """
        test, labels = self._splits.test, self._splits.test.labels
        image_sets = {"test": test.images, "calibration": self._splits.calibration.images}
        engines, tests = {}, {}
        for backend in CPU_BACKENDS:
            key = record_key(backend, precision)
            outputs, engine = backend_outputs(backend, model, spec, image_sets, progress)
            check_accuracy(key, outputs["test"].logits, self._reference.test.logits, labels)
            engines[key] = EngineOutputs(outputs["calibration"], sha256_file(model), engine)
            tests[key] = outputs["test"]
        if not self._asked:
            keys = tuple(record_key(backend, each) for backend in CPU_BACKENDS for each in PRECISIONS)
            question = Question(sha256_file(model), keys, self._promise)
            self._asked = count_attempt(self._split_sha256, question)
        calibrations = self._calibrate(engines)
        for key, found in calibrations.items():
            if found.proved:
                check_report(key, found, (engines[key].outputs, self._splits.calibration), (tests[key], test))
        rows = {
            key: compare(key, outputs, calibrations[key], self._reference.test, self._own, labels)
            for key, outputs in tests.items()
        }
        self.rows.update(rows)
        self.calibrations.update(calibrations)

    def table(self) -> list[ParityRow]:
        """The rows: the reference, then the others by name."""
        first, *others = self.rows
        return [self.rows[first], *(self.rows[key] for key in sorted(others))]
