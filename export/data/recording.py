"""A recorded drive with labelled regions, for a calibration on one's own camera.

The labels are a CSV file with a header, one line for each region that was labelled::

    frame,x,y,width,height,label,track
    0,795,385,160,130,automobile,12
    25,790,380,165,135,automobile,12

``frame`` counts from 0 in the order of the recording; ``x``, ``y``, ``width`` and ``height`` are pixels of the frame,
all four empty for the whole frame; ``track`` is any word that the regions of one object share: they are alike and count
as one.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from framegate.export.progress import Progress
from framegate.models.labelled import LabelledImages
from framegate.runtime.errors import DataError, UsageError
from framegate.runtime.health.check import MIN_SIDE
from framegate.runtime.pixel_format import to_bgr
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec
from framegate.runtime.roi import Roi
from framegate.runtime.sources.open import open_source
from framegate.runtime.verdict import BGR, Frame

COLUMNS = ("frame", "x", "y", "width", "height", "label", "track")


@dataclass(frozen=True)
class Region:
    """One labelled region.

    Attributes:
        line: Of the file, from 2.
        frame: Number of the frame.
        roi: Where.
        label: Number of the label.
        track: Word of the track.
    """

    line: int
    frame: int
    roi: Roi
    label: int
    track: str


def read_regions(path: Path, labels: tuple[str, ...]) -> list[Region]:
    """The labelled regions, in the order of the frames.

    Raises:
        DataError: The file cannot be read, lacks a column, or a line makes no sense.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{path}: no column {missing[0]!r}; expected the header {','.join(COLUMNS)}")
            regions = [_region(path, number, row, labels) for number, row in enumerate(reader, 2)]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a CSV file in UTF-8 ({error})") from error
    if not regions:
        raise DataError(f"{path}: no region is labelled; expected a line for each after the header")
    known: dict[str, Region] = {}
    for each in regions:
        first = known.setdefault(each.track, each)
        if first.label != each.label:
            raise DataError(
                f"{path}, line {each.line}: track {each.track!r} is {labels[each.label]!r} here and "
                f"{labels[first.label]!r} in line {first.line}; a track is one object, give another word"
            )
    return sorted(regions, key=lambda each: each.frame)


def _region(path: Path, line: int, row: dict[str, str | None], labels: tuple[str, ...]) -> Region:
    texts = {name: (row[name] or "").strip() for name in COLUMNS}
    where = f"{path}, line {line}"
    if texts["label"] not in labels:
        raise DataError(f"{where}: label {texts['label']!r} is none of the network's {len(labels)}")
    if not texts["track"]:
        raise DataError(f"{where}: no track; give the regions of one object one word, another object another")
    try:
        frame = int(texts["frame"])
        box = [texts[name] for name in COLUMNS[1:5]]
        numbers = [float(each) for each in box] if any(box) else []
    except ValueError as error:
        raise DataError(f"{where}: {error}; expected numbers for frame, x, y, width and height") from error
    if frame < 0 or (numbers and not (min(numbers) >= 0 and min(numbers[2:]) >= MIN_SIDE)):
        raise DataError(f"{where}: frame {frame}, region {box}; expected 0 or more, {MIN_SIDE} pixels or more a side")
    try:
        x, y, width, height = numbers or (0.0, 0.0, 1.0, 1.0)
        roi = Roi(f"line {line}", x, y, width, height, fractions=False) if numbers else Roi.whole()
    except UsageError as error:
        raise DataError(f"{where}: {error}") from error
    return Region(line, frame, roi, labels.index(texts["label"]), texts["track"])


def read_recording(
    source: str, path: Path, labels: tuple[str, ...], spec: PreprocessSpec, unit: str, progress: Progress
) -> LabelledImages:
    """The labelled regions of a recording, as the runtime would show them to the network.

    Args:
        source: What ``framegate run`` takes: a video, or a folder of frames.
        path: The CSV file.
        labels: The network's labels, in the order of its outputs.
        spec: How an image becomes the network's input.
        unit: What a track is called.
        progress: Called during the work.

    Raises:
        DataError: See `read_regions`; or a frame or region does not exist in the recording.
        SourceError: The recording cannot be opened or breaks off.
    """
    regions = read_regions(path, labels)
    wanted: dict[int, list[Region]] = defaultdict(list)
    for each in regions:
        wanted[each.frame].append(each)
    last = regions[-1].frame
    preprocess = Preprocessor(spec)
    images, taken = [], []
    recording = open_source(source, realtime=False)
    try:
        for number in range(last + 1):
            frame = recording.read()
            if frame is None:
                break
            for each in wanted.pop(number, ()):
                images.append(_pixels(frame, each, path, preprocess))
                taken.append(each)
            progress("reading the recording", number + 1, last + 1)
    finally:
        recording.close()
    if wanted:
        first = wanted[min(wanted)][0]
        raise DataError(f"{path}, line {first.line}: frame {first.frame} is labelled, but {source} ends before it")
    words, inverse = np.unique(np.array([each.track for each in taken]), return_inverse=True)
    # Where every track was labelled once, images are the units.
    groups = None if len(words) == len(taken) else inverse.reshape(-1).astype(np.int64)
    numbers = np.array([each.label for each in taken], np.int64)
    return LabelledImages(Path(source).name, np.stack(images), numbers, groups, unit)


def _pixels(frame: Frame, region: Region, path: Path, preprocess: Preprocessor) -> np.ndarray:
    image = (frame if frame.pixel_format == BGR else to_bgr(frame, None)).image
    crop = region.roi.crop(image)
    if crop is None:
        raise DataError(
            f"{path}, line {region.line}: the region reaches outside frame {region.frame} "
            f"({image.shape[1]}x{image.shape[0]} pixels)"
        )
    preprocess(crop)
    return np.asarray(preprocess.small.copy(), np.uint8)
