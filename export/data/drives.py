"""Labelled verdicts of recorded drives, with their pictures, for a calibration by drive.

The table is what ``framegate drives index`` writes (docs/drives.md); a picture is what the black box kept of the frame.
"""

from __future__ import annotations

import importlib.util
import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from framegate.export.progress import Progress
from framegate.models.labelled import LabelledImages
from framegate.runtime.errors import DataError, UsageError
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec
from framegate.runtime.replay.pictures import decode, read_jpegs
from framegate.runtime.replay.recording import Recording
from framegate.runtime.roi import Roi
from framegate.runtime.sinks.events import SAMPLE

FORMAT = "framegate-drives-1"
KEY = b"framegate.drives"
"""Under which the footer of a table says its format and what the recordings say about themselves."""
UNIT = "drive"
MINED = "mined"
"""Among the events of a labelled verdict that was given out for what was seen in it, and not drawn at random."""
_SHOWN = 8
_COLUMNS = (
    "drive", "camera", "file", "recording", "region", "frame_id", "x", "y", "width", "height", "picture", "label",
    "events",
)  # fmt: skip


def is_table(path: Path) -> bool:
    """Whether ``--from`` names a table of drives and no recording."""
    return path.suffix == ".parquet" or (path.is_dir() and any(path.glob("*.parquet")))


class Regions:
    """Where the regions of verdicts lie on their pictures.

    Args:
        recordings: Key -> what a recording says about itself (`Recording.to_metadata`).
    """

    def __init__(self, recordings: Mapping[str, Mapping[str, str]]) -> None:
        self._recordings = recordings
        self._known: dict[str, dict[str, Roi]] = {}

    def of(self, row: Mapping[str, Any]) -> Roi:
        """The region of a verdict: its own box, if it is on an object.

        Raises:
            DataError: The recording does not name the region.
        """
        if row["x"] is not None:
            try:
                return Roi(row["region"], row["x"], row["y"], row["width"], row["height"], fractions=False)
            except UsageError as error:
                raise DataError(f"drive {row['drive']}: {error}") from error
        key = row["recording"]
        if key not in self._known:
            self._known[key] = {roi.name: roi for roi in Recording.from_metadata(self._recordings[key]).rois}
        whole = Roi.whole()
        roi = self._known[key].get(row["region"]) or (whole if row["region"] == whole.name else None)
        if roi is None:
            raise DataError(f"drive {row['drive']}: its recording does not say where the region {row['region']!r} is")
        return roi


@dataclass(frozen=True)
class DriveImages:
    """What a calibration takes from a table.

    Attributes:
        images: The labelled regions; their unit is the drive.
        foreign: Label that is none of the network's classes -> how many verdicts have it; they are left out.
        picked: Used ones that were not drawn at random, but for what was seen in them.
        lost: Labelled verdicts whose picture is no longer there, or that have none.
    """

    images: LabelledImages
    foreign: Mapping[str, int]
    picked: int
    lost: int

    def remarks(self) -> list[str]:
        """What whoever calibrates must know, in sentences."""
        said = []
        if self.foreign:
            count = sum(self.foreign.values())
            names = [f"{label!r} {number}" for label, number in sorted(self.foreign.items())]
            listed = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
            said.append(
                f"{count} labelled verdicts are none of the network's classes and are left out ({listed}): a misspelt "
                "label hides what the network did there"
            )
        if self.picked:
            said.append(
                f"{self.picked} of {len(self.images)} labelled verdicts were not drawn at random: what is promised is "
                "promised for frames like these; label what framegate drives mine --random gives"
            )
        if self.lost:
            said.append(f"of {self.lost} labelled verdicts there is no picture any more; they are left out")
        return said


def read_drives(path: Path, labels: tuple[str, ...], spec: PreprocessSpec, progress: Progress) -> DriveImages:
    """The labelled regions of recorded drives, as the runtime would show them to the network.

    Args:
        path: The table, a file or a folder.
        labels: The network's labels, in the order of its outputs.
        spec: How an image becomes the network's input.
        progress: Called during the work.

    Raises:
        UsageError: The package pyarrow is not installed.
        DataError: The table cannot be read, has no label, or none of its pictures is there.
    """
    rows, recordings = _labelled(path)
    regions = Regions(recordings)
    known = [row for row in rows if row["label"] in labels]
    by_file: dict[str, dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in known:
        if row["picture"]:
            by_file[row["file"]][row["frame_id"]].append(row)
    preprocess = Preprocessor(spec)
    images, used = [], []
    for number, (name, frames) in enumerate(sorted(by_file.items())):
        progress("reading the drives", number, len(by_file))
        if not Path(name).exists():
            continue
        for frame_id, data in read_jpegs(Path(name), frames):
            image = decode(data, Path(name), frame_id)
            for row in frames.pop(frame_id, ()):
                crop = regions.of(row).crop(image)
                if crop is not None:
                    preprocess(crop)
                    images.append(np.asarray(preprocess.small.copy(), np.uint8))
                    used.append(row)
    if not used:
        raise DataError(
            f"{path}: of its {len(rows)} labelled verdicts none has a picture and a label of this network "
            f"({', '.join(labels[:_SHOWN])}{', ...' if len(labels) > _SHOWN else ''})"
        )
    words, inverse = np.unique(np.array([row["drive"] for row in used]), return_inverse=True)
    groups = None if len(words) == len(used) else inverse.reshape(-1).astype(np.int64)
    numbers = np.array([labels.index(row["label"]) for row in used], np.int64)
    events = [(row["events"] or "").split() for row in used]
    picked = sum(SAMPLE not in each or MINED in each for each in events)
    foreign = Counter(row["label"] for row in rows if row["label"] not in labels)
    found = LabelledImages(path.name, np.stack(images), numbers, groups, UNIT)
    return DriveImages(found, foreign, picked, len(known) - len(used))


def _labelled(path: Path) -> tuple[list[dict[str, Any]], dict[str, dict[str, str]]]:
    """The labelled rows of a table, and what its recordings say about themselves.

    Raises:
        UsageError: The package pyarrow is not installed.
        DataError: It cannot be read, or has none.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise UsageError(f"--from {path}: the package 'pyarrow' is not installed; pip install 'framegate[drives]'")
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    rows: list[dict[str, Any]] = []
    recordings: dict[str, dict[str, str]] = {}
    for each in files:
        try:
            record = json.loads((pq.read_schema(each).metadata or {})[KEY])
            version = record["format"]
            found = pq.read_table(each, columns=list(_COLUMNS))
        except (OSError, pa.ArrowInvalid, LookupError, TypeError, ValueError) as error:
            raise DataError(
                f"--from {each}: it is no table of drives ({type(error).__name__}); framegate drives index writes one"
            ) from error
        if version != FORMAT:
            raise DataError(f"--from {each}: its format is {version!r}, this version reads {FORMAT!r}")
        recordings.update(record["recordings"])
        rows += found.filter(found["label"].is_valid()).to_pylist()
    if not rows:
        raise DataError(
            f"--from {path}: no verdict in it has a label; framegate drives mine writes frames to label, framegate "
            "drives labels reads the labels back"
        )
    return rows, recordings
