"""From recordings to rows: one file of a black box, or of ``framegate run --record``, becomes one part of the table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from framegate.evaluation.drives.table import (
    SIGNAL,
    About,
    conform,
    full_schema,
    reasons_of,
    record_json,
    same,
    words,
    write_table,
)
from framegate.evaluation.drives.verdicts import Batch, Verdicts, read_verdicts
from framegate.evaluation.drives.work import Unit
from framegate.runtime.errors import DataError, UsageError
from framegate.runtime.mcap_messages import Contents
from framegate.runtime.replay.recording import DRIVE_METADATA, METADATA, Recording


@dataclass(frozen=True)
class Plan:
    """What an index run has to read.

    Attributes:
        units: The recordings, in the order of the table.
        broken: File -> why nothing of it can be read.
    """

    units: tuple[Unit, ...]
    broken: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class IndexTask:
    """Reads one recording in a worker."""

    def prepare(self) -> None:
        """Nothing to open."""

    def hello(self) -> dict[str, str]:
        """What the worker must have in common with whoever asks: the version alone."""
        return {}

    def do(self, unit: Unit, part: Path) -> None:
        """Write the rows of one recording.

        Raises:
            DataError: It cannot be read.
            SinkError: The part cannot be written.
        """
        table, signals, about = read_file(unit)
        write_table(part, [table], signals, about)


def find_files(folders: Sequence[Path]) -> list[Path]:
    """All recordings in some folders, and those that are named themselves.

    Raises:
        DataError: There is none.
    """
    found: dict[Path, None] = {}
    for each in folders:
        if not each.exists():
            raise DataError(f"{each}: there is no such file or folder; give folders with recordings (.mcap)")
        paths = sorted(each.rglob("*.mcap")) if each.is_dir() else [each]
        if not paths:
            raise DataError(f"{each}: there is no recording (.mcap) in this folder")
        found.update((path.resolve(), None) for path in paths)
    return list(found)


def plan(files: Sequence[Path]) -> Plan:
    """Which file is which part of which drive.

    Raises:
        UsageError: Two drives have the same name.
    """
    known: dict[tuple[str, str], tuple[str, Path]] = {}
    units, broken = [], {}
    for path in files:
        try:
            metadata = Contents(path).read_metadata()
            if METADATA not in metadata:
                raise DataError(
                    f"{path}: it does not say under which bundle it was made: it is empty, broken or from an older "
                    "version"
                )
            Recording.from_metadata(metadata[METADATA])
            status = path.stat()
        except DataError as error:
            broken[str(path)] = str(error)
            continue
        except OSError as error:  # the ring of a black box goes on while it is read
            broken[str(path)] = f"{path}: cannot be read ({error.strerror})"
            continue
        about = metadata.get(DRIVE_METADATA, {})
        drive = about.get("drive", path.stem)
        camera = about.get("camera") or "camera"
        # A black box that was started again goes on with its drive; anything else is another drive of that name.
        whose = str(path.parent) if about else str(path)
        first = known.setdefault((drive, camera), (whose, path))
        if first[0] != whose:
            # Only of `run --record` the drive is called as the file is.
            named = [each for each, of in (first[::-1], (path, whose)) if of == str(each)]
            remedy = f"rename {named[0]}" if named else "the name is inside the files, so index each folder by itself"
            raise UsageError(
                f"two drives are called {drive!r}: {first[1]} and {path}; {remedy}, or record with another --drive NAME"
            )
        about = {"drive": drive, "camera": camera, "drive_id": about.get("drive_id", "")}
        # Not by the clock on the wall, which may have been set back: a drive that goes on counts on.
        order = (drive, camera, len(path.name), path.name)
        units.append(
            (order, Unit(str(path), record_json({**about, "bytes": status.st_size, "at": status.st_mtime_ns})))
        )
    return Plan(tuple(unit for _, unit in sorted(units, key=lambda each: each[0])), broken)


def read_file(unit: Unit) -> tuple[pa.Table, tuple[str, ...], About]:
    """The rows of one recording.

    Returns:
        The rows, the names of its signals' columns, and what it says about itself.

    Raises:
        DataError: It cannot be read, or a verdict in it is garbled.
    """
    path = Path(unit.path)
    verdicts = read_verdicts(path)
    contents = verdicts.contents
    if METADATA not in contents.metadata:
        raise DataError(f"{path}: it does not say under which bundle it was made")
    recording = Recording.from_metadata(contents.metadata[METADATA])
    about = About()
    texts = {**contents.metadata[METADATA], "source": ""}  # the same for all drives of a bundle
    key = hashlib.sha256(record_json(texts).encode()).hexdigest()[:16]
    about.recordings[key] = texts
    if contents.broken_off:
        about.broken[str(path)] = f"breaks off ({contents.broken_off}); the {verdicts.count} verdicts before are there"
    signals = tuple(SIGNAL + name for name in verdicts.signals)
    schema = full_schema(signals)
    parts = [schema.empty_table()]
    for batch in verdicts.batches:
        _add_pictures(batch, verdicts)
        parts.append(conform(_with_drive(batch, unit, key, recording), schema))
    table = pa.concat_tables(parts).unify_dictionaries()
    for name in ("reasons", "found"):
        for text in table[name].unique().to_pylist():
            reasons_of(text, f"{path}: a verdict")
    return table, signals, about


def _add_pictures(batch: Batch, verdicts: Verdicts) -> None:
    """The columns that follow from what else is in the file, and the time."""
    frames, captured = (
        each.combine_chunks() if isinstance(each, pa.ChunkedArray) else each
        for each in (batch["frame_id"], batch["captured_ns"])
    )
    events, silences = verdicts.events, verdicts.silences
    event = pc.index_in(frames, value_set=pa.array(list(events), pa.int64()))
    silence = pc.index_in(captured, value_set=pa.array(list(silences), pa.int64()))
    number = pc.if_else(pc.is_null(frames), pc.add(silence, len(events)), event)
    kinds = words(["", *events.values(), *silences.values()])
    batch["events"] = kinds.take(pc.add(pc.fill_null(number, -1), 1))
    # What ``run --record`` keeps for people is scaled: a region's pixels are elsewhere in it, or mean something else.
    full = verdicts.pictures if DRIVE_METADATA in verdicts.contents.metadata else verdicts.pictures[:0]
    batch["picture"] = pc.is_in(frames, value_set=pa.array(full, pa.int64()))
    batch["recorded_at"] = pa.array(batch.pop("logged_ns") // 1000, pa.timestamp("us", tz="UTC"))


def _with_drive(columns: Batch, unit: Unit, key: str, recording: Recording) -> pa.Table:
    """The same rows with the columns that are the same for the whole file."""
    rows = len(columns["frame_id"])
    about = json.loads(unit.about)
    calibration = recording.calibration
    digest = "" if calibration is None else hashlib.sha256(record_json(calibration.to_json()).encode()).hexdigest()[:16]
    for name, text in (
        ("drive", about["drive"]),
        ("camera", about["camera"]),
        ("file", unit.path),
        ("recording", key),
        ("bundle", recording.bundle),
        ("bundle_digest", recording.digest),
        ("calibration", digest),
    ):
        columns[name] = same(text, rows)
    return pa.table(columns)
