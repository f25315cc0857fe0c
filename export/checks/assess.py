"""Every backend and precision of a bundle beside the network it was made from: gate, calibration and comparison."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from framegate.export.calibration.calibrate import Promise, calibrate, fingerprint
from framegate.export.calibration.decisions import Outputs
from framegate.export.checks.parity import ParityRow, check_accuracy, check_loss, compare, loss
from framegate.export.data.outputs import CPU_BACKENDS, backend_outputs
from framegate.export.data.splits import Splits
from framegate.export.progress import Progress
from framegate.runtime.bundle import sha256_file
from framegate.runtime.calibration import Calibration, record_key
from framegate.runtime.preprocess import PreprocessSpec

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
        labels = self._splits.test.labels
        rows, calibrations = {}, {}
        for backend in CPU_BACKENDS:
            key = record_key(backend, precision)
            outputs, engine = self._outputs(backend, key, model, spec, progress)
            reference = self._reference
            check_accuracy(key, outputs["test"].logits, reference.test.logits, labels, reference.title)
            calibrations[key] = self._calibrate(outputs["calibration"], sha256_file(model), engine)
            lost = loss(outputs["test"], calibrations[key], self._reference.test, self._own, labels)
            check_loss(key, lost, reference.title)
            rows[key] = compare(key, outputs["test"], calibrations[key], self._reference.test, self._own, labels)
        self.rows.update(rows)
        self.calibrations.update(calibrations)

    def _outputs(
        self, backend: str, key: str, model: Path, spec: PreprocessSpec, progress: Progress
    ) -> tuple[dict[str, Outputs], str]:
        """What an engine computes; the reference's own outputs where that is the same network on the same engine."""
        reference, splits = self._reference, self._splits
        sets = {"test": splits.test.images, "calibration": splits.calibration.images}
        if key == reference.same_as:
            few = {name: images[:_PROBED] for name, images in sets.items()}
            found, engine = backend_outputs(backend, model, spec, few, progress)
            whole = {"test": reference.test, "calibration": reference.calibration}
            if all(np.array_equal(found[name].logits, whole[name].logits[:_PROBED]) for name in sets):
                return whole, engine
        return backend_outputs(backend, model, spec, sets, progress)

    def table(self) -> list[ParityRow]:
        """The rows: the reference, then the others by name."""
        first, *others = self.rows
        return [self.rows[first], *(self.rows[key] for key in sorted(others))]
