"""Pictures whose pixels are labelled: ``DIR/images/NAME.png`` (or .jpg) and ``DIR/masks/NAME.png``.

A mask is a grey PNG of its picture's size whose values are label numbers; 255 is a pixel that nobody labelled. This is
how Pascal VOC, Cityscapes (``labelTrainIds``) and most tools write them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from framegate.runtime.errors import DataError
from framegate.runtime.health.check import unusable
from framegate.runtime.sources.images import read_image
from framegate.runtime.sources.opencv import IMAGE_SUFFIXES, quiet_opencv

IGNORED = 255
"""Value of a mask where nobody knows the label."""

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class DensePictures:
    """Labelled pictures, in the order of their names.

    Attributes:
        images: (height, width, 3) uint8 BGR each.
        masks: (height, width) uint8 each, label numbers or `IGNORED`.
    """

    images: tuple[Picture, ...]
    masks: tuple[Picture, ...]

    def fingerprint(self) -> str:
        """SHA-256 over pixels and labels."""
        digest = hashlib.sha256()
        for image, mask in zip(self.images, self.masks, strict=True):
            digest.update(repr((image.shape, mask.shape)).encode() + image.tobytes() + mask.tobytes())
        return digest.hexdigest()


def read_dense_folder(place: Path, classes: int) -> DensePictures:
    """Read all of them.

    Args:
        place: A folder with ``images`` and ``masks``.
        classes: Number of labels.

    Raises:
        DataError: One is missing, damaged, has another size than its mask, or a value that is no label.
    """
    quiet_opencv()
    folder = place / "images"
    if not folder.is_dir() or not (place / "masks").is_dir():
        raise DataError(f"data {place}: expected the folders images and masks in it, a PNG in masks for each picture")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise DataError(f"data {folder}: there is no picture in it")
    images, masks, seen = [], [], set()
    for file in files:
        image, mask = _pair(file, place / "masks" / f"{file.stem}.png", classes)
        known = hashlib.sha256(image.tobytes()).digest()
        if known in seen:
            raise DataError(f"data {file}: the same picture lies in the folder twice; a copy proves nothing")
        seen.add(known)
        images.append(image)
        masks.append(mask)
    return DensePictures(tuple(images), tuple(masks))


def _pair(file: Path, mask_file: Path, classes: int) -> tuple[Picture, Picture]:
    image = read_image(file)
    problem = unusable(image)
    if problem:
        raise DataError(f"data {file}: {problem}")
    if not mask_file.is_file():
        raise DataError(f"data {file}: its mask {mask_file} is missing")
    mask = cv2.imread(str(mask_file), cv2.IMREAD_UNCHANGED)
    if mask is None or mask.ndim != 2 or mask.dtype != np.uint8 or mask.shape != image.shape[:2]:
        found = "nothing that can be read" if mask is None else f"{mask.dtype} {mask.shape}"
        raise DataError(f"data {mask_file}: expected a grey picture of uint8 {image.shape[:2]}, found {found}")
    strange = np.unique(mask[(mask >= classes) & (mask != IGNORED)])
    if len(strange):
        raise DataError(
            f"data {mask_file}: it holds the value {strange[0]}; there are {classes} labels, from 0, and 255"
        )
    return np.asarray(image, np.uint8), np.asarray(mask, np.uint8)
