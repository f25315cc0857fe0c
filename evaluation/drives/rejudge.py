"""The recorded pictures judged again by another bundle: each file by one worker, which holds the engine open.

A black box keeps pictures around events only, so nothing is decided that several frames show. What is compared are the
reasons of each frame alone: those that no network gives (camera check, time) as they were recorded, those of the
network and its calibration as recorded and as they are now.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from framegate.evaluation.drives.difference import Difference
from framegate.evaluation.drives.index import read_file
from framegate.evaluation.drives.table import DriveTable, reasons_of, record_json
from framegate.evaluation.drives.work import Unit
from framegate.export.data.drives import Regions
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.errors import DataError, SinkError, UsageError
from framegate.runtime.replay.pictures import decode, read_jpegs
from framegate.runtime.replay.replay import OF_CALIBRATION
from framegate.runtime.session import Session
from framegate.runtime.verdict import Frame, Reason

KEY = ("file", "region", "frame_id")
"""Of a verdict. Not the drive: one that goes on after a restart counts its frames from 0 again, in another file."""


@dataclass
class JudgeTask:
    """Judges the pictures of one recording in a worker.

    Attributes:
        bundle: Folder of the bundle.
        digest: It must have this digest, on every machine.
        backend: What runs its network.
        precision: Which of its networks.
    """

    bundle: str
    digest: str
    backend: str
    precision: str
    _session: Session | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """Without the session, which every worker opens for itself."""
        return {**self.__dict__, "_session": None}

    def prepare(self) -> None:
        """Open the bundle."""
        self._session = Session.open(self.bundle, self.backend, self.precision, 1, camera=False)

    def hello(self) -> dict[str, str]:
        """The bundle that this worker has."""
        assert self._session is not None
        return {"bundle": self._session.bundle.digest}

    def do(self, unit: Unit, part: Path) -> None:
        """Judge the pictures of one recording.

        Raises:
            DataError: It cannot be read.
            SinkError: The part cannot be written.
        """
        assert self._session is not None
        table, _, about = read_file(Unit(unit.path, unit.about))
        regions = Regions(about.recordings)
        frames: dict[int, list[dict[str, Any]]] = defaultdict(list)
        judged_alone = pc.and_(table["picture"], pc.invert(table["scene"]))
        shown = table.filter(judged_alone).select([*KEY, "drive", "recording", "x", "y", "width", "height"])
        for row in shown.to_pylist():
            frames[row["frame_id"]].append(row)
        path = Path(unit.path)
        session = self._session
        found: list[dict[str, Any]] = []
        for frame_id, data in read_jpegs(path, frames):
            rows = frames.pop(frame_id, [])  # a picture that is there twice is judged once
            if not rows:
                continue
            image = decode(data, path, frame_id)
            rois = tuple(regions.of(row) for row in rows)
            judged = session.frame_judge.judge(
                Frame(frame_id, 0, image), rois, session.camera_health(fixed_size=False), None, None
            )
            for row, prediction in zip(rows, judged, strict=True):
                reasons = [each.value for each in prediction.found_reasons if each in OF_CALIBRATION]
                said = bool(prediction.candidate) or Reason.NOT_FINITE in prediction.found_reasons
                found.append(
                    {name: row[name] for name in KEY}
                    | {
                        "candidate": prediction.candidate,
                        "score": prediction.score,
                        # What gave no output is no accept, whatever the reason is called.
                        "reasons": " ".join(reasons if said else [each.value for each in prediction.found_reasons]),
                    }
                )
        try:
            pq.write_table(pa.Table.from_pylist(found, _SCHEMA), part, compression="zstd")
        except OSError as error:
            raise SinkError(f"{part}: cannot be written ({error.strerror or error}); choose another place") from error


_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("region", pa.string()),
        ("frame_id", pa.int64()),
        ("candidate", pa.string()),
        ("score", pa.float64()),
        ("reasons", pa.string()),
    ]
)


def require_comparable(bundle: Bundle, table: DriveTable) -> None:
    """Refuse a bundle that cannot say what the recorded one said.

    Raises:
        BundleError: It holds no classifier.
        UsageError: It is for volumes, or has not the labels that were recorded.
    """
    bundle.for_classifiers("drives what-if --bundle")
    if bundle.preprocess.depth > 1:
        raise UsageError(f"--bundle {bundle.name}: it is for volumes; give one for pictures")
    recorded: set[str] = set()
    for batch in table.batches(["candidate"]):
        recorded.update(filter(None, batch["candidate"].unique().to_pylist()))
    unknown = sorted(recorded.difference(bundle.labels))
    if unknown:
        raise UsageError(
            f"--bundle {bundle.name}: {len(unknown)} of {len(recorded)} recorded labels are none of its own, first "
            f"{unknown[0]!r}, so its verdicts cannot be compared; give a bundle with the labels of the recordings"
        )


def units_of(table: DriveTable) -> list[Unit]:
    """The recordings with pictures that a table was made from, in its order.

    Raises:
        DataError: There is none.
    """
    found: dict[str, Unit] = {}
    for batch in table.batches(["drive", "camera", "file", "picture"]):
        rows = batch.filter(batch["picture"]).group_by(["file", "drive", "camera"], use_threads=False).aggregate([])
        for row in rows.to_pylist():
            about = record_json({"drive": row["drive"], "camera": row["camera"], "drive_id": ""})
            found.setdefault(row["file"], Unit(row["file"], about))
    if not found:
        raise DataError(f"{table.path}: no verdict has a full picture that could be judged again")
    return list(found.values())


def compare(table: DriveTable, parts: Sequence[Path]) -> Difference:
    """What was recorded, beside what the bundle says now.

    Args:
        table: The drives.
        parts: What the workers wrote.

    Raises:
        UsageError: Nothing was judged.
    """
    now: dict[tuple[str, str, int], tuple[str, str]] = {}
    for path in parts:
        rows = pq.read_table(path, use_threads=False).to_pydict()
        keys = zip(*(rows[name] for name in KEY), strict=True)
        now.update(zip(keys, zip(rows["candidate"], rows["reasons"], strict=True), strict=True))
    if not now:
        raise UsageError(f"{table.path}: none of its pictures could be judged; are the recordings still there?")
    found = Difference()
    for batch in table.batches([*KEY, "drive", "picture", "scene", "found", "candidate", "label"]):
        rows = batch.filter(pc.and_(batch["picture"], pc.invert(batch["scene"]))).to_pydict()
        wanted = list(zip(*(rows[name] for name in KEY), strict=True))
        if not wanted:
            continue
        alone = [reasons_of(each, "a verdict of the table") for each in rows["found"]]
        stays = [[each.value for each in reasons if each not in OF_CALIBRATION] for reasons in alone]
        judged = [now.get(key) for key in wanted]
        after = [None if each is None else [*kept, *each[1].split()] for each, kept in zip(judged, stays, strict=True)]
        names = sorted(set(rows["drive"]))
        place = {name: k for k, name in enumerate(names)}
        labels, candidates = rows["label"], rows["candidate"]
        found.add(
            np.array([place[name] for name in rows["drive"]], np.int64),
            names,
            np.array([each is not None for each in after], bool),
            np.array([not each for each in alone], bool),
            np.array([each is not None and not each for each in after], bool),
            np.array([each is not None for each in labels], bool),
            np.array([a == b for a, b in zip(labels, candidates, strict=True)], bool),
            np.array([each is not None and each[0] == label for each, label in zip(judged, labels, strict=True)], bool),
        )
        for each in after:
            found.reasons.update(each or ())
    return found
