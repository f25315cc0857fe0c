"""The 3D sets of MedMNIST v2 (Yang et al., Scientific Data 10:41, 2023, arXiv 2110.14795) at 28x28x28.

One ``NAME.npz`` each, with ``train_images`` (N, 28, 28, 28) uint8, ``train_labels`` (N, 1), and the same for ``val``
and ``test``. The official validation split calibrates; the test split serves only for reporting.

A volume travels as one tall grey image, its 28 slices one below the other, so that whatever handles camera frames
handles volumes: (28 * 28, 28, 3) with equal channels. The network sees it as (1, 28, 28, 28) again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from framegate.models.labelled import LabelledImages, checked_labels, read_arrays
from framegate.runtime.errors import DataError

CALIBRATION_SHARE = 5
"""One in so many official training volumes serves for calibration."""
SIDE = 28
"""Slices of a volume, and width and height of a slice, in voxels."""
LABELS = {
    "adrenalmnist3d": ("normal", "hyperplasia"),
    "fracturemnist3d": ("buckle rib fracture", "nondisplaced rib fracture", "displaced rib fracture"),
    "nodulemnist3d": ("benign", "malignant"),
    "organmnist3d": (
        "liver",
        "kidney-right",
        "kidney-left",
        "femur-right",
        "femur-left",
        "bladder",
        "heart",
        "lung-right",
        "lung-left",
        "spleen",
        "pancreas",
    ),
    "synapsemnist3d": ("inhibitory synapse", "excitatory synapse"),
    "vesselmnist3d": ("vessel", "aneurysm"),
}
"""The labels of every set, in the order of MedMNIST's own table (`medmnist.INFO`)."""


def find(name: str, folder: Path) -> Path | None:
    """The file of a set: ``folder`` itself or in it; None if it is not there."""
    path = folder if folder.name == f"{name}.npz" and not folder.is_dir() else folder / f"{name}.npz"
    return path if path.is_file() else None


def as_strips(volumes: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Volumes as tall grey images: (N, depth, height, width) -> (N, depth * height, width, 3)."""
    count, depth, height, width = volumes.shape
    return np.repeat(volumes.reshape(count, depth * height, width, 1), 3, axis=3)


def _scale(path: Path, training: npt.NDArray[Any]) -> int:
    """255 for shape masks that are stored as 0 and 1, otherwise 1: the largest value shall be 255 in every set.

    AdrenalMNIST3D and VesselMNIST3D hold shapes, not images: two values, 0 and 255 in the files of MedMNIST v2.
    """
    if not training.size:
        raise DataError(f"{path}: train_images is empty; download it again")
    return 255 if training.max() <= 1 else 1


def _split(name: str, folder: str | Path, parts: dict[str, str]) -> list[LabelledImages]:
    """Some splits: official name of the split -> our name."""
    path = find(name, Path(folder))
    if path is None:
        raise DataError(f"{folder}: no {name}.npz here; give the file or the folder that holds it")
    training = read_arrays(path, ("train_images",))[0]
    scale = _scale(path, training)
    splits = []
    for official, own in parts.items():
        volumes, labels = read_arrays(path, (f"{official}_images", f"{official}_labels"))
        if volumes.shape[1:] != (SIDE, SIDE, SIDE) or volumes.dtype != np.uint8:
            raise DataError(
                f"{path}: {official}_images of shape {volumes.shape} and type {volumes.dtype}, "
                f"expected (N, {SIDE}, {SIDE}, {SIDE}) uint8"
            )
        numbers = checked_labels(f"{path}: {official}_labels", labels, len(LABELS[name]))
        splits.append(LabelledImages(f"{name}-{own}", as_strips(volumes * np.uint8(scale)), numbers))
    return splits


def load_training(name: str, folder: str | Path) -> tuple[LabelledImages, LabelledImages]:
    """Four fifths of the official training split for training; the rest and the validation split for calibration.

    The official validation splits are too small to promise much: with 98 volumes, of which half prove the threshold,
    no risk below 6 % can be proved at 95 % even if no accepted volume is wrong. The last fifth is taken as one block,
    because a patient's two sides may lie beside each other.

    Args:
        name: A key of `LABELS`.
        folder: The file, or the folder that holds it.

    Raises:
        DataError: The file is missing, damaged or of another kind.
    """
    official, validation = _split(name, folder, {"train": "train", "val": "calibration"})
    index = np.arange(len(official), dtype=np.int64)
    cut = len(official) - len(official) // CALIBRATION_SHARE
    held_out = official.subset(index[cut:], validation.name)
    calibration = LabelledImages(
        validation.name,
        np.concatenate([validation.images, held_out.images]),
        np.concatenate([validation.labels, held_out.labels]),
    )
    return official.subset(index[:cut], official.name), calibration


def load_test(name: str, folder: str | Path) -> LabelledImages:
    """The official test split of a set: for reporting only.

    Args:
        name: A key of `LABELS`.
        folder: The file, or the folder that holds it.

    Raises:
        DataError: The file is missing, damaged or of another kind.
    """
    return _split(name, folder, {"test": "test"})[0]
