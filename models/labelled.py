"""Images with labels, and the checks that every data set's files have to pass before they become some."""

from __future__ import annotations

import hashlib
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from framegate.runtime.errors import DataError

Labels = npt.NDArray[np.int64]

# What zipfile and numpy raise on bytes that are not what they seem.
_DAMAGED = (ValueError, EOFError, KeyError, RuntimeError, SyntaxError, struct.error, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class LabelledImages:
    """Images with their labels.

    Attributes:
        name: Which split, for reports.
        images: (N, height, width, 3) uint8 **BGR**, the order of camera frames, so that data and camera take one path.
            A volume is one tall grey image, its slices one below the other: (N, depth * height, width, 3).
        labels: (N,) int64, numbers of the data set's labels.
        groups: (N,) int64, the unit (track, recording) that each image belongs to: images of one unit are alike. None
            where every image stands for itself.
        unit: What a unit is called: ``track``, ``patient``, ``drive``; what an image is called where it is one.
        sequence: (N,) position of each image in the order of names or of recording; None: they lie in this order.
        group: Regular expression that found the units in the names of files; empty without.

    Raises:
        DataError: The arrays have other shapes or types.
    """

    name: str
    images: npt.NDArray[np.uint8]
    labels: Labels
    groups: Labels | None = None
    unit: str = ""
    sequence: Labels | None = None
    group: str = ""

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit together."""
        images, labels = self.images, self.labels
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise DataError(
                f"images {self.name}: shape {images.shape} of {images.dtype}, expected (N, height, width, 3) of uint8"
            )
        if labels.shape != images.shape[:1]:
            raise DataError(f"images {self.name}: {len(images)} images, but labels of shape {labels.shape}")
        if self.groups is not None and self.groups.shape != labels.shape:
            raise DataError(f"images {self.name}: {len(images)} images, but groups of shape {self.groups.shape}")
        if self.sequence is not None and self.sequence.shape != labels.shape:
            raise DataError(f"images {self.name}: {len(images)} images, but a sequence of shape {self.sequence.shape}")

    def __len__(self) -> int:
        return len(self.labels)

    def as_captured(self) -> Labels:
        """(N,) positions of the images in the order of capture, those of a unit one after the other."""
        sequence = np.arange(len(self)) if self.sequence is None else self.sequence
        order: Labels = np.lexsort((sequence,) if self.groups is None else (sequence, self.groups))
        return order

    def subset(self, index: Labels, name: str) -> LabelledImages:
        """The images at ``index``, in that order."""
        groups = None if self.groups is None else self.groups[index]
        sequence = index if self.sequence is None else self.sequence[index]
        return LabelledImages(name, self.images[index], self.labels[index], groups, self.unit, sequence, self.group)


def fingerprint(split: LabelledImages) -> str:
    """SHA-256 of a split's images and labels, in their order."""
    digest = hashlib.sha256(np.ascontiguousarray(split.images).tobytes())
    digest.update(split.labels.astype("<i8").tobytes())
    return digest.hexdigest()


def read_arrays(path: Path, names: tuple[str, ...]) -> list[npt.NDArray[Any]]:
    """Some arrays of an ``.npz`` file, in the order of ``names``. Pickled objects are refused: they could run code.

    Raises:
        DataError: The file is missing, cut off or damaged, or has no such array.
    """
    try:
        # Opened here, because numpy leaves the file open when its content is no archive.
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: a single array, expected an .npz file with {', '.join(names)}")
            missing = [name for name in names if name not in file.files]
            if missing:
                held = ", ".join(file.files) or "nothing"
                raise DataError(f"{path}: no array {missing[0]!r} in it, it has {held}; is this the right file?")
            return [file[name] for name in names]
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except _DAMAGED as error:
        raise DataError(
            f"{path}: cut off or damaged, no complete .npz file of plain arrays; download it again"
        ) from error


def checked_labels(where: str, labels: npt.NDArray[Any], classes: int) -> Labels:
    """Labels of any whole-number type as int64.

    Args:
        where: What to name in the error.
        labels: (N,) or (N, 1).
        classes: How many labels there are.

    Raises:
        DataError: There are none, they are no whole numbers, or one is outside 0..classes - 1.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not len(labels) or labels.dtype.kind not in "iu":
        raise DataError(f"{where}: labels of shape {labels.shape} and type {labels.dtype}, expected (N,) whole numbers")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{where} has labels outside 0..{classes - 1}; the file is damaged or of another data set")
    return labels.astype(np.int64)
