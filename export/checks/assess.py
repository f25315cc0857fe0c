"""Every backend and precision of a bundle beside the network it was made from: gate, calibration and comparison."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from framegate.export.calibration.calibrate import Promise, calibrate, fingerprint
from framegate.export.calibration.decisions import Outputs
from framegate.export.checks.parity import ParityRow, check_accuracy, compare
from framegate.export.data.outputs import CPU_BACKENDS, backend_outputs
from framegate.export.data.splits import Splits
from framegate.export.progress import Progress
from framegate.runtime.bundle import sha256_file
from framegate.runtime.calibration import Calibration, record_key
from framegate.runtime.preprocess import PreprocessSpec


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
        self._own = self._calibrate(reference.calibration, "", reference.engine)
        labels = splits.test.labels
        first = compare(reference.key, reference.test, self._own, reference.test, self._own, labels)
        self.rows: dict[str, ParityRow] = {reference.key: first}
        self.calibrations: dict[str, Calibration] = {}

    def _calibrate(self, outputs: Outputs, model_sha256: str, engine: str) -> Calibration:
        return calibrate(
            outputs,
            self._splits.calibration.labels,
            self._promise,
            split_sha256=self._split_sha256,
            model_sha256=model_sha256,
            engine=engine,
            groups=self._splits.calibration.groups,
        )

    def add(self, precision: str, model: Path, spec: PreprocessSpec, progress: Progress) -> None:
        """Take one file through every CPU backend; nothing of it is kept if one of them fails.

        Raises:
            BackendError: A backend cannot run the file.
            ExportRefusedError: The file lost accuracy.
            CalibrationError: No threshold keeps the promise.
        """
        test, labels = self._splits.test, self._splits.test.labels
        image_sets = {"test": test.images, "calibration": self._splits.calibration.images}
        rows, calibrations = {}, {}
        for backend in CPU_BACKENDS:
            key = record_key(backend, precision)
            outputs, engine = backend_outputs(backend, model, spec, image_sets, progress)
            check_accuracy(key, outputs["test"].logits, self._reference.test.logits, labels)
            calibrations[key] = self._calibrate(outputs["calibration"], sha256_file(model), engine)
            rows[key] = compare(key, outputs["test"], calibrations[key], self._reference.test, self._own, labels)
        self.rows.update(rows)
        self.calibrations.update(calibrations)

    def table(self) -> list[ParityRow]:
        """The rows: the reference, then the others by name."""
        first, *others = self.rows
        return [self.rows[first], *(self.rows[key] for key in sorted(others))]
