"""From recordings to rows: one file of a black box, or of ``framegate run --record``, becomes one part of the table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from framegate.evaluation.drives.table import (
    SIGNAL,
    VALUES,
    About,
    conform,
    full_schema,
    record_json,
    same,
    words,
    write_table,
)
from framegate.evaluation.drives.work import Unit
from framegate.runtime.errors import DataError, UsageError
from framegate.runtime.replay.messages import Contents, Message
from framegate.runtime.replay.recording import DRIVE_METADATA, EVENT, METADATA, Recording
from framegate.runtime.replay.replay import TOPIC
from framegate.runtime.sinks.mcap_file import CAMERA

_FIELDS = {
    "frame_id": "BIGINT",
    "stream": "VARCHAR",
    "reasons": ["VARCHAR"],
    "candidate": "VARCHAR",
    "captured_ns": "BIGINT",
    "decided_ns": "BIGINT",
    "engine_ms": "DOUBLE",
    "score": "DOUBLE",
    "threshold": "DOUBLE",
    "box": ["BIGINT"],
    "detected": "VARCHAR",
    "track": "BIGINT",
}
_EVIDENCE = {"found": ["VARCHAR"], "score": "DOUBLE", "threshold": "DOUBLE"}
_BATCH = 100_000


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
        except DataError as error:
            broken[str(path)] = str(error)
            continue
        about = metadata.get(DRIVE_METADATA, {})
        drive = about.get("drive", path.stem)
        camera = about.get("camera") or "camera"
        # A black box that was started again goes on with its drive; anything else is another drive of that name.
        whose = str(path.parent) if about else str(path)
        first = known.setdefault((drive, camera), (whose, path))
        if first[0] != whose:
            raise UsageError(
                f"two drives are called {drive!r}: {first[1]} and {path}; rename one file, or record with --drive NAME"
            )
        status = path.stat()
        about = {"drive": drive, "camera": camera, "drive_id": about.get("drive_id", "")}
        order = (drive, camera, about["drive_id"], path.name)
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
    contents = Contents(path)
    verdicts: list[Message] = []
    pictures: set[int] = set()
    events: dict[int, str] = {}
    for message in contents.messages(lambda topic: topic.startswith(TOPIC) or topic in (CAMERA, EVENT)):
        if message.topic == CAMERA:
            pictures.add(message.sequence)
        elif message.topic == EVENT:
            record = json.loads(message.data)
            events[record["frame_id"]] = " ".join(record["kinds"])
        else:
            verdicts.append(message)
    if METADATA not in contents.metadata:
        raise DataError(f"{path}: it does not say under which bundle it was made")
    recording = Recording.from_metadata(contents.metadata[METADATA])
    signals = _signals(path, verdicts)
    about = About()
    texts = {**contents.metadata[METADATA], "source": ""}  # the same for all drives of a bundle
    key = hashlib.sha256(record_json(texts).encode()).hexdigest()[:16]
    about.recordings[key] = texts
    if contents.broken_off:
        about.broken[str(path)] = f"breaks off ({contents.broken_off}); the {len(verdicts)} verdicts before are there"
    schema = full_schema([SIGNAL + name for name in signals])
    parts = [schema.empty_table()]
    for first in range(0, len(verdicts), _BATCH):
        part = _rows(path, verdicts[first : first + _BATCH], signals, pictures, events)
        parts.append(conform(_with_drive(part, unit, key, recording), schema))
    return pa.concat_tables(parts).unify_dictionaries(), tuple(SIGNAL + name for name in signals), about


def _signals(path: Path, verdicts: Sequence[Message]) -> tuple[str, ...]:
    """The monitor's signals: a recording has the same ones in every verdict that has any."""
    for message in verdicts:
        try:
            values = json.loads(message.data).get("evidence", {}).get("values", {})
        except (ValueError, AttributeError) as error:
            raise DataError(f"{path}: a verdict is garbled ({error})") from error
        if values:
            return tuple(sorted(set(values) - set(VALUES)))
    return ()


@lru_cache(maxsize=1)
def _connection() -> duckdb.DuckDBPyConnection:
    """One for all files of a process: opening it takes as long as reading ten thousand verdicts."""
    return duckdb.connect(config={"threads": 1})


def _rows(
    path: Path,
    verdicts: Sequence[Message],
    signals: Sequence[str],
    pictures: set[int],
    events: Mapping[int, str],
) -> dict[str, pa.Array]:
    """Columns of some verdicts, all but those that are the same for the whole file."""
    values = dict.fromkeys((*VALUES, *signals), "DOUBLE")
    structure = json.dumps({**_FIELDS, "evidence": {**_EVIDENCE, "values": values}})
    messages = pa.table({"data": pa.array([message[3] for message in verdicts], pa.string())})
    connection = _connection()
    connection.register("messages", messages)
    query = f"""
            select * exclude (evidence, reasons), array_to_string(reasons, ' ') as reasons,
                array_to_string(evidence.found, ' ') as found, evidence.score as exact, evidence.threshold as compared,
                evidence.values as values, evidence is null as scene
            from (select unnest(json_transform(data, '{structure.replace("'", "''")}')) from messages)"""
    try:
        table = connection.sql(query).to_arrow_table()
    except duckdb.Error as error:
        raise DataError(f"{path}: a verdict is garbled ({str(error).splitlines()[0]})") from error
    finally:
        connection.unregister("messages")
    if table["captured_ns"].null_count or table["decided_ns"].null_count or table["reasons"].null_count:
        raise DataError(f"{path}: a verdict lacks captured_ns, decided_ns or reasons")
    reasons = table["reasons"].combine_chunks()
    found = pc.coalesce(table["found"].combine_chunks(), reasons)  # a scene is not judged by scores
    frames = table["frame_id"].combine_chunks()
    event = pc.index_in(frames, value_set=pa.array(list(events), pa.int64()))
    columns: dict[str, Any] = {
        name: table[name] for name in ("frame_id", "captured_ns", "decided_ns", "engine_ms", "track", "scene")
    }
    columns |= {
        "region": table["stream"].combine_chunks().dictionary_encode(),
        "recorded_at": pa.array([message[2] // 1000 for message in verdicts], pa.timestamp("us", tz="UTC")),
        "accepted": pc.equal(reasons, ""),
        "reasons": reasons.dictionary_encode(),
        "found": found.dictionary_encode(),
        "events": words(["", *events.values()]).take(pc.add(pc.fill_null(event, -1), 1)),
        "candidate": table["candidate"].combine_chunks().dictionary_encode(),
        "detected": table["detected"].combine_chunks().dictionary_encode(),
        "picture": pc.is_in(frames, value_set=pa.array(sorted(pictures), pa.int64())),
        "score": pc.coalesce(table["exact"], table["score"]),  # what is beside the evidence has float32's digits
        "threshold": pc.coalesce(table["compared"], table["threshold"]),
    }
    boxes = table["box"].combine_chunks()  # of objects alone
    if boxes.null_count < len(boxes):
        lists = boxes.to_pylist()
        for k, name in enumerate(("x", "y", "width", "height")):
            columns[name] = pa.array([None if each is None else each[k] for each in lists], pa.int32())
    structs = table["values"].combine_chunks()
    for name in VALUES:
        columns[name] = pc.struct_field(structs, [name])
    for name in signals:
        columns[SIGNAL + name] = pc.struct_field(structs, [list(values).index(name)])
    return columns


def _with_drive(columns: dict[str, pa.Array], unit: Unit, key: str, recording: Recording) -> pa.Table:
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
