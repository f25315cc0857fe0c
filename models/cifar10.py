"""CIFAR-10 (Krizhevsky 2009) from its official binary or Python archives, unpacked.

Splits, fixed once and used everywhere: 45,000 training images, 5,000 calibration images (both from the official
training batches), and the 10,000 official test images, which serve only for reporting.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from framegate.models.labelled import LabelledImages, checked_labels
from framegate.runtime.errors import DataError

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CALIBRATION_SIZE = 5_000
SPLIT_SEED = 20260101
_PER_FILE = 10_000


def find(folder: Path) -> Path | None:
    """The folder with the batches, ``folder`` itself or one of the two official names in it; None if there is none."""
    for base in _places(folder):
        if any(
            (base / name).is_file() for name in ("data_batch_1", "test_batch", "data_batch_1.bin", "test_batch.bin")
        ):
            return base
    return None


def _places(folder: Path) -> tuple[Path, ...]:
    return folder, folder / "cifar-10-batches-bin", folder / "cifar-10-batches-py"


def _read_binary(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if data.size != _PER_FILE * 3073:
        raise DataError(f"{path}: {data.size} bytes, expected {_PER_FILE * 3073}; download CIFAR-10 again")
    rows = data.reshape(_PER_FILE, 3073)
    return rows[:, 1:], rows[:, 0].astype(np.int64)


class _ArraysOnly(pickle.Unpickler):
    """Loads the official batches and nothing else: a pickle may otherwise run any code it likes."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.partition(".")[0], name) in {("numpy", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _read_pickle(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    try:
        with path.open("rb") as file:
            record = _ArraysOnly(file, encoding="bytes").load()
        data, labels = np.asarray(record[b"data"], np.uint8), np.asarray(record[b"labels"], np.int64)
    except (OSError, pickle.UnpicklingError, KeyError, EOFError, ValueError, TypeError) as error:
        raise DataError(f"{path}: not a CIFAR-10 batch in the official Python format ({error!r})") from error
    if data.shape != (_PER_FILE, 3072) or labels.shape != (_PER_FILE,):
        raise DataError(f"{path}: data {data.shape}, expected ({_PER_FILE}, 3072)")
    return data, labels


def _read(folder: Path, batch: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """One official batch as (images (10000, 32, 32, 3) BGR, labels), whichever format lies in ``folder``."""
    for base in _places(folder):
        if (base / f"{batch}.bin").is_file():
            planes, labels = _read_binary(base / f"{batch}.bin")
            break
        if (base / batch).is_file():
            planes, labels = _read_pickle(base / batch)
            break
    else:
        raise DataError(
            f"{folder}: no CIFAR-10 batch {batch!r} here; give the folder that holds cifar-10-batches-bin "
            "or cifar-10-batches-py (https://www.cs.toronto.edu/~kriz/cifar.html)"
        )
    labels = checked_labels(f"{folder}: batch {batch!r}", labels, len(LABELS))
    rgb = planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(rgb[..., ::-1]), labels


def load_training(folder: str | Path) -> tuple[LabelledImages, LabelledImages]:
    """The training (45,000) and calibration (5,000) splits of the official training batches.

    Raises:
        DataError: A batch is missing or damaged.
    """
    parts = [_read(Path(folder), f"data_batch_{k}") for k in range(1, 6)]
    everything = LabelledImages("all", np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]))
    order = np.random.default_rng(SPLIT_SEED).permutation(len(everything)).astype(np.int64)
    calibration, train = order[:CALIBRATION_SIZE], order[CALIBRATION_SIZE:]
    return (
        everything.subset(np.sort(train), "cifar10-train"),
        everything.subset(np.sort(calibration), "cifar10-calibration"),
    )


def load_test(folder: str | Path) -> LabelledImages:
    """The 10,000 official test images: for reporting only.

    Raises:
        DataError: The batch is missing or damaged.
    """
    images, labels = _read(Path(folder), "test_batch")
    return LabelledImages("cifar10-test", images, labels)
