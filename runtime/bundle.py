"""The model bundle: a folder with the networks, their calibration and a manifest that vouches for every file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framegate.runtime.calibration import FORMAT as CALIBRATION_FORMAT
from framegate.runtime.calibration import SCORES, Calibration, record_key
from framegate.runtime.errors import BundleError, CalibrationError
from framegate.runtime.monitor import FILE as MONITOR
from framegate.runtime.monitor import Monitor
from framegate.runtime.preprocess import PreprocessSpec

FORMAT = "framegate-bundle-1"
MANIFEST = "manifest.json"
CALIBRATION = "calibration.json"


def sha256_file(path: Path) -> str:
    """SHA-256 of a file as 64 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"bundle {path.parent}: {path.name} is missing; copy the whole folder again") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BundleError(f"bundle {path.parent}: {path.name} cannot be read ({error})") from error
    if not isinstance(record, dict):
        raise BundleError(f"bundle {path.parent}: {path.name} is not a JSON object")
    return record


@dataclass(frozen=True)
class Bundle:
    """An opened bundle; every file listed in its manifest was present with the right hash.

    Attributes:
        path: The folder.
        name: Name of the model.
        labels: One per class, in the order of the logits.
        preprocess: How an image becomes the network's input.
        models: Precision -> file name.
        hashes: File name -> SHA-256.
        calibrations: ``backend/precision`` -> calibration.
        taps: Layers whose activations can be watched, from early to late.
        origin: Where weights and data come from, for people.
        parity: The export's report: each backend and precision beside the trained network on the test images.
        monitor: Turns the networks' second output into signals; None if they have none.
    """

    path: Path
    name: str
    labels: tuple[str, ...]
    preprocess: PreprocessSpec
    models: Mapping[str, str]
    hashes: Mapping[str, str]
    calibrations: Mapping[str, Calibration]
    taps: tuple[str, ...]
    origin: Mapping[str, Any]
    parity: tuple[Mapping[str, Any], ...]
    monitor: Monitor | None = None

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Open and verify a bundle.

        Raises:
            BundleError: The folder or a file is missing, a hash is wrong, or the format is unknown.
        """
        folder = Path(path)
        if not folder.is_dir():
            found = "a file" if folder.exists() else "nothing"
            raise BundleError(f"bundle {folder}: expected a folder NAME.bundle, found {found} there")
        manifest = _read_json(folder / MANIFEST)
        if manifest.get("format") != FORMAT:
            raise BundleError(
                f"bundle {folder}: format is {manifest.get('format')!r}, this version reads {FORMAT!r}; "
                "export the model again or use a matching framegate"
            )
        try:
            labels = tuple(str(label) for label in manifest["labels"])
            hashes = {str(name): str(value) for name, value in manifest["files"].items()}
            models = {str(precision): str(file) for precision, file in manifest["models"].items()}
            name, preprocess = str(manifest["name"]), PreprocessSpec.from_json(manifest["preprocess"])
        except (KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"bundle {folder}: {MANIFEST} lacks or garbles {error}") from error
        if not labels or len(set(labels)) != len(labels):
            raise BundleError(f"bundle {folder}: labels are missing or not unique")
        for precision, file in models.items():
            if file not in hashes:
                raise BundleError(f"bundle {folder}: {precision} model {file!r} has no hash in {MANIFEST}")
        _verify(folder, hashes)
        monitor = _read_monitor(folder) if MONITOR in hashes else None
        calibrated = CALIBRATION in hashes
        calibrations = _read_calibrations(folder, models, hashes, monitor) if calibrated else {}
        return cls(
            path=folder,
            name=name,
            labels=labels,
            preprocess=preprocess,
            models=models,
            hashes=hashes,
            calibrations=calibrations,
            taps=tuple(str(tap) for tap in manifest.get("taps", ())),
            origin=dict(manifest.get("origin", {})),
            parity=tuple(manifest.get("parity", ())),
            monitor=monitor,
        )

    def model_path(self, precision: str) -> Path:
        """The ONNX file of a precision.

        Raises:
            BundleError: The bundle has no model of this precision.
        """
        if precision not in self.models:
            raise BundleError(
                f"bundle {self.path}: precision {precision!r} was asked for, it has {', '.join(sorted(self.models))}"
            )
        return self.path / self.models[precision]

    def calibration(self, backend: str, precision: str) -> Calibration | None:
        """The calibration for a backend and precision; None if there is none (every frame is then rejected)."""
        return self.calibrations.get(record_key(backend, precision))


def _verify(folder: Path, hashes: Mapping[str, str]) -> None:
    """Check that every listed file is there and unchanged."""
    for name, expected in hashes.items():
        if Path(name).name != name:
            raise BundleError(f"bundle {folder}: {MANIFEST} lists {name!r}; files must lie in the folder itself")
        path = folder / name
        if not path.is_file():
            raise BundleError(f"bundle {folder}: {name} is missing; copy the whole folder again")
        found = sha256_file(path)
        if found != expected:
            raise BundleError(
                f"bundle {folder}: {name} has SHA-256 {found[:12]}..., the manifest says {expected[:12]}...; "
                "the file was changed or damaged, copy the bundle again"
            )


def _read_monitor(folder: Path) -> Monitor:
    record = _read_json(folder / MONITOR)
    try:
        return Monitor.from_json(record)
    except BundleError as error:
        raise BundleError(f"bundle {folder}: {error}") from error


def _read_calibrations(
    folder: Path, models: Mapping[str, str], hashes: Mapping[str, str], monitor: Monitor | None
) -> dict[str, Calibration]:
    record = _read_json(folder / CALIBRATION)
    if record.get("format") != CALIBRATION_FORMAT:
        raise BundleError(
            f"bundle {folder}: {CALIBRATION} has format {record.get('format')!r}, expected {CALIBRATION_FORMAT!r}"
        )
    try:
        calibrations = {str(key): Calibration.from_json(value) for key, value in record["records"].items()}
    except (KeyError, AttributeError, CalibrationError) as error:
        raise BundleError(f"bundle {folder}: {CALIBRATION}: {error}") from error
    for key, calibration in calibrations.items():
        model = models.get(key.partition("/")[2])
        if model is None or hashes[model] != calibration.model_sha256:
            raise BundleError(
                f"bundle {folder}: calibration {key} belongs to another model file; calibrate this bundle again"
            )
        known = (*SCORES, *(monitor.signals if monitor else ()))
        unknown = [
            name for name in (calibration.score, *(limit.signal for limit in calibration.limits)) if name not in known
        ]
        if unknown:
            raise BundleError(
                f"bundle {folder}: calibration {key} needs {unknown[0]!r}, this bundle gives {', '.join(known)}; "
                "calibrate it again"
            )
    return calibrations


def write_bundle_json(folder: Path, name: str, record: Mapping[str, Any]) -> None:
    """Write a JSON file of a bundle, completely or not at all."""
    temporary = folder / (name + ".part")
    temporary.write_text(json.dumps(record, indent=2, sort_keys=False) + "\n", encoding="utf-8")
    os.replace(temporary, folder / name)
