"""A labelled data set of one folder per label: DIR/LABEL/IMAGE.

The order of the images is that of the SHA-256 of their files: the same on every machine, as good as shuffled, and
not changed for the others when an image is added. Copies of one picture count once, in whatever files they lie, so that
no image serves for calibration and test at the same time, and none proves twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from framegate.export.progress import Progress
from framegate.models.labelled import LabelledImages
from framegate.runtime.console import to_stderr
from framegate.runtime.errors import DataError
from framegate.runtime.health.check import MIN_SIDE
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec
from framegate.runtime.sources.images import read_image
from framegate.runtime.sources.opencv import IMAGE_SUFFIXES, quiet_opencv
from framegate.runtime.verdict import Image


@dataclass(frozen=True)
class NamedImages:
    """Labelled images and what they are called.

    Attributes:
        images: The images, brought to the network's input size as the runtime does.
        names: One per image, e.g. ``cat/0001.png``.
    """

    images: LabelledImages
    names: tuple[str, ...]


def is_image_folder(place: Path) -> bool:
    """True if a folder has sub-folders with images."""
    return place.is_dir() and any(_images(folder) for folder in _folders(place))


def read_image_folder(
    place: Path, labels: tuple[str, ...], spec: PreprocessSpec, limit: int | None, progress: Progress
) -> NamedImages:
    """Read the images in the order of their hashes.

    Args:
        place: A folder with one sub-folder per label; not every label needs one.
        labels: The network's labels, in the order of its outputs.
        spec: How an image becomes the network's input; images are stored at its size.
        limit: Read at most so many; None reads all.
        progress: Called during the work.

    Raises:
        DataError: A folder is no label, an image is damaged or too small, or one image lies in two folders.
    """
    quiet_opencv()
    files = _ordered(place, labels, progress)
    _tell_what_is_left_out(place, len(files), limit)
    files = files[:limit]
    preprocess = Preprocessor(spec)
    images = np.empty((len(files), *preprocess.small.shape), np.uint8)
    for k, (file, _) in enumerate(files):
        preprocess(_usable(file))
        images[k] = preprocess.small
        progress("reading images", k + 1, len(files))
    kept = _different(images, files)
    images, files = images[kept], [files[k] for k in kept]
    numbers = np.array([number for _, number in files], np.int64)
    names = tuple(f"{file.parent.name}/{file.name}" for file, _ in files)
    by_name = np.argsort(np.argsort(np.array(names, dtype=object), kind="stable"), kind="stable").astype(np.int64)
    return NamedImages(LabelledImages(place.name, images, numbers, sequence=by_name), names)


def _folders(place: Path) -> list[Path]:
    return sorted(entry for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _images(folder: Path) -> list[Path]:
    # Sorted: of two copies the first one gives its name, and with that its unit.
    return [entry for entry in _visible(folder) if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file()]


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _tell_what_is_left_out(place: Path, count: int, limit: int | None) -> None:
    """Say what of a folder is not read: a user who misses it takes the figures for those of all he has."""
    others = [
        entry for folder in _folders(place) for entry in _visible(folder) if entry.suffix.lower() not in IMAGE_SUFFIXES
    ]
    if others:
        to_stderr(
            f"framegate: {place}: {len(others)} entries of its folders are no images and are left out, such as "
            f"{others[0].parent.name}/{others[0].name}; images end in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    if limit is not None and count > limit:
        to_stderr(f"framegate: {place}: {limit:,} of its {count:,} images are used, the same ones in every run")


def _ordered(place: Path, labels: tuple[str, ...], progress: Progress) -> list[tuple[Path, int]]:
    """Every different image file with the number of its label, ordered by SHA-256."""
    number = {label: k for k, label in enumerate(labels)}
    folders = _folders(place)
    unknown = [folder.name for folder in folders if folder.name not in number]
    if unknown:
        known = f"{', '.join(labels[:3])}{', ...' if len(labels) > 3 else ''} ({len(labels)})"
        raise DataError(
            f"{place}: folder {unknown[0]!r} ({len(unknown)} of {len(folders)} like it) is no label of the network, "
            f"its labels are {known}; give the folder that holds one folder per label, named like the labels"
        )
    files = [(file, number[folder.name]) for folder in folders for file in _images(folder)]
    if not files:
        raise DataError(f"{place}: no image in its {len(folders)} folders; expected DIR/LABEL/IMAGE.png or .jpg")
    found: dict[str, tuple[Path, int]] = {}
    for k, (file, label) in enumerate(files):
        try:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
        except OSError as error:
            raise DataError(f"image {file}: cannot be read ({error.strerror})") from error
        other = found.setdefault(digest, (file, label))
        if other[1] != label:
            raise DataError(f"image {file}: the same file is {other[0]}, under another label; remove one")
        progress("looking for copies", k + 1, len(files))
    return [found[digest] for digest in sorted(found)]


def _different(images: npt.NDArray[np.uint8], files: Sequence[tuple[Path, int]]) -> npt.NDArray[np.int64]:
    """Positions of images that are no copy of an earlier one, pixel for pixel as the network is shown them.

    A picture in another file format, or with another comment, is the same evidence once more.
    """
    first: dict[bytes, int] = {}
    for k, image in enumerate(images):
        digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
        other, label = files[first.setdefault(digest, k)]
        if label != files[k][1]:
            raise DataError(f"image {files[k][0]}: the same picture is {other}, under another label; remove one")
    return np.array(sorted(first.values()), np.int64)


def _usable(file: Path) -> Image:
    image = read_image(file)
    if image.size == 0:
        raise DataError(f"image {file}: damaged or cut off; remove it or copy it again")
    if image.dtype != np.uint8:
        raise DataError(f"image {file}: {image.dtype} pixels, expected 8 bits; convert or remove it")
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    if min(image.shape[:2]) < MIN_SIDE:
        raise DataError(
            f"image {file}: {image.shape[1]}x{image.shape[0]} pixels; the runtime takes none below "
            f"{MIN_SIDE}x{MIN_SIDE}, remove it"
        )
    return image
