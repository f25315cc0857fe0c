"""GTSRB, the German Traffic Sign Recognition Benchmark (Stallkamp et al., Neural Networks 32, 2012), at 32x32 pixels.

Read from the official archives, unpacked (`Final_Training` with its ``GT-000XX.csv`` tables, `Final_Test` with
``GT-final_test.csv``), or from ``gtsrb32.npz`` with the same frames already at 32x32 in RGB order.

The whole image is used, sign and margin, as in most published results, not only the region in the tables; it is
brought to 32x32 by pixel-area averaging.

A track is one sign approached by the car, about 30 frames that look alike. The calibration split therefore takes
whole tracks, a fixed sixth of each class; split by frame, it would hold near copies of training images and every
threshold set on it would promise too much. The official test images serve only for reporting.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from framegate.models.labelled import LabelledImages, Labels, checked_labels, read_arrays
from framegate.runtime.errors import DataError
from framegate.runtime.sources.images import read_image
from framegate.runtime.sources.opencv import quiet_opencv

Images = npt.NDArray[np.uint8]

LABELS = (
    *(f"speed limit {speed} km/h" for speed in (20, 30, 50, 60, 70, 80)),
    "end of speed limit 80 km/h",
    "speed limit 100 km/h",
    "speed limit 120 km/h",
    "no passing",
    "no passing for vehicles over 3.5 t",
    "right of way at the next intersection",
    "priority road",
    "yield",
    "stop",
    "no vehicles",
    "no vehicles over 3.5 t",
    "no entry",
    "general caution",
    "dangerous curve to the left",
    "dangerous curve to the right",
    "double curve",
    "bumpy road",
    "slippery road",
    "road narrows on the right",
    "road work",
    "traffic signals",
    "pedestrians",
    "children crossing",
    "bicycles crossing",
    "beware of ice or snow",
    "wild animals crossing",
    "end of all speed and passing limits",
    "turn right ahead",
    "turn left ahead",
    "ahead only",
    "go straight or right",
    "go straight or left",
    "keep right",
    "keep left",
    "roundabout mandatory",
    "end of no passing",
    "end of no passing for vehicles over 3.5 t",
)
"""English names in the order of the official class numbers, 0 to 42."""
SIDE = 32
_PAIRS = ((19, 20), (33, 34), (36, 37), (38, 39))
"""Signs of which one is the other's mirror image, such as the two dangerous curves."""
MIRROR_LABELS = {
    **{label: label for label in (11, 12, 13, 15, 17, 18, 22, 26, 30, 35)},
    **{a: b for pair in _PAIRS for a, b in (pair, pair[::-1])},
}
"""Class of a sign -> class of its mirror image (left and right exchanged); all other signs have none."""
CALIBRATION_SHARE = 1 / 6
"""Share of each class's tracks; a class keeps at least one track in both splits if it has two."""
SPLIT_SEED = 20260101
SMALL = "gtsrb32.npz"


def find(folder: Path) -> Path | None:
    """The folder ``GTSRB`` of the unpacked archives, or an npz file of the frames; None if neither is there."""
    if folder.is_file():
        return folder if folder.name == SMALL else None
    for base in (folder, folder / "GTSRB"):
        if (base / "Final_Training").is_dir() or (base / "Final_Test").is_dir():
            return base
    return folder / SMALL if (folder / SMALL).is_file() else None


def _place(folder: str | Path) -> Path:
    place = find(Path(folder))
    if place is None:
        raise DataError(f"{folder}: no GTSRB here; give the folder that holds GTSRB/Final_Training, or {SMALL}")
    return place


def _read_table(path: Path) -> list[tuple[str, int]]:
    """File names and class numbers of an official annotation table."""
    try:
        with path.open(encoding="ascii", newline="") as file:
            rows = [(row["Filename"], int(row["ClassId"])) for row in csv.DictReader(file, delimiter=";")]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a GTSRB table with Filename and ClassId ({error!r}); unpack it again") from error
    if not rows or any(Path(name).name != name for name, _ in rows):
        raise DataError(f"{path}: it lists no images, or images in other folders; unpack the archive again")
    return rows


def _read_image(path: Path) -> Images:
    image = read_image(path)
    if image.ndim != 3 or image.dtype != np.uint8 or not image.size:
        raise DataError(f"{path}: missing or damaged; unpack the archive again")
    return np.asarray(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _read_training(base: Path) -> tuple[Images, Labels, Labels]:
    """Images BGR, class numbers and track numbers (each class counts its own) of the unpacked training archive."""
    root = base / "Final_Training" / "Images"
    folders = [root / f"{label:05d}" for label in range(len(LABELS))]
    missing = [folder.name for folder in folders if not folder.is_dir()]
    if missing:
        raise DataError(
            f"{root}: {len(missing)} of {len(folders)} class folders are missing, first {missing[0]}; "
            "unpack GTSRB_Final_Training_Images.zip again"
        )
    quiet_opencv()
    images, labels, tracks = [], [], []
    for label, folder in enumerate(folders):
        table = folder / f"GT-{folder.name}.csv"
        for name, given in _read_table(table):
            track = name.partition("_")[0]
            if given != label or not track.isdecimal():
                raise DataError(f"{table}: {name!r} of class {given}, expected TTTTT_FFFFF.ppm of class {label}")
            images.append(_read_image(folder / name))
            labels.append(label)
            tracks.append(int(track))
    return np.stack(images), np.array(labels, np.int64), np.array(tracks, np.int64)


def _read_test(base: Path) -> tuple[Images, Labels]:
    root = base / "Final_Test" / "Images"
    # The table comes in an archive of its own, which unpacks beside GTSRB.
    places = [place / "GT-final_test.csv" for place in (root, base, base.parent)]
    table = next((place for place in places if place.is_file()), None)
    if table is None or not root.is_dir():
        lacks = "Final_Test/Images" if table else "GT-final_test.csv"
        raise DataError(f"{base}: no {lacks}; unpack GTSRB_Final_Test_Images.zip and GTSRB_Final_Test_GT.zip here")
    quiet_opencv()
    rows = _read_table(table)
    labels = checked_labels(str(table), np.array([label for _, label in rows], np.int64), len(LABELS))
    return np.stack([_read_image(root / name) for name, _ in rows]), labels


def _from_rgb(path: Path, images: npt.NDArray[Any]) -> Images:
    if images.ndim != 4 or images.shape[1:] != (SIDE, SIDE, 3) or images.dtype != np.uint8:
        raise DataError(
            f"{path}: images of shape {images.shape} and type {images.dtype}, expected (N, {SIDE}, {SIDE}, 3) uint8"
        )
    return np.ascontiguousarray(images[..., ::-1])


def split_tracks(labels: Labels, tracks: Labels) -> tuple[Labels, Labels]:
    """Which frames train and which calibrate; whole tracks, the same share of every class, always the same ones.

    Args:
        labels: (N,) class numbers.
        tracks: (N,) track numbers; each class counts its own.

    Returns:
        Two arrays of frame numbers in rising order, training and calibration. A class with a single track trains.
    """
    calibrates = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        known = np.unique(tracks[labels == label])
        count = min(max(1, round(len(known) * CALIBRATION_SHARE)), len(known) - 1)
        # Seeded by the class as well: what one class gets does not hang on what the others hold.
        chosen = np.random.default_rng([SPLIT_SEED, int(label)]).permutation(known)[:count]
        calibrates |= (labels == label) & np.isin(tracks, chosen)
    return np.flatnonzero(~calibrates).astype(np.int64), np.flatnonzero(calibrates).astype(np.int64)


def _units(labels: Labels, tracks: Labels) -> Labels:
    """(N,) each class counts its own tracks; numbered through, a track is one unit of the calibration."""
    return np.unique(np.stack([labels, tracks]), axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)


def with_mirror_images(split: LabelledImages) -> LabelledImages:
    """A training split and the mirror images of it that are signs, too, under those signs' labels.

    Two of five frames have one. It gives the few tracks of a rare sign those of its mirror image.

    Args:
        split: Training frames; a mirror image belongs to the track of its frame.
    """
    mirror = np.array([MIRROR_LABELS.get(label, -1) for label in range(len(LABELS))], np.int64)
    chosen = np.flatnonzero(mirror[split.labels] >= 0)
    index = np.concatenate([np.arange(len(split)), chosen]).astype(np.int64)
    both = split.subset(index, f"{split.name}-mirrored")
    labels, images = both.labels.copy(), both.images
    images[len(split) :] = images[len(split) :, :, ::-1].copy()
    labels[len(split) :] = mirror[split.labels[chosen]]
    return LabelledImages(both.name, images, labels, both.groups, both.unit, both.sequence)


def load_training(folder: str | Path) -> tuple[LabelledImages, LabelledImages]:
    """The training and calibration splits of the official training frames, 32x32 BGR.

    Raises:
        DataError: The data are missing or damaged.
    """
    place = _place(folder)
    if place.is_dir():
        images, labels, tracks = _read_training(place)
    else:
        pixels, given, numbers = read_arrays(place, ("x_train", "y_train", "track_train"))
        images, labels = _from_rgb(place, pixels), checked_labels(str(place), given, len(LABELS))
        tracks = numbers.astype(np.int64) if numbers.dtype.kind in "iu" else np.empty(0, np.int64)
    LabelledImages("gtsrb", images, labels)  # refuses what does not fit together
    if tracks.shape != labels.shape:
        raise DataError(f"{place}: track_train does not hold one whole number for each of {len(labels)} images")
    everything = LabelledImages("gtsrb", images, labels, _units(labels, tracks), unit="track")
    train, calibration = split_tracks(labels, tracks)
    return everything.subset(train, "gtsrb-train"), everything.subset(calibration, "gtsrb-calibration")


def load_test(folder: str | Path) -> LabelledImages:
    """The official test frames (12,630), 32x32 BGR: for reporting only.

    Raises:
        DataError: The data are missing or damaged.
    """
    place = _place(folder)
    if place.is_dir():
        return LabelledImages("gtsrb-test", *_read_test(place))
    pixels, given = read_arrays(place, ("x_test", "y_test"))
    return LabelledImages("gtsrb-test", _from_rgb(place, pixels), checked_labels(str(place), given, len(LABELS)))
