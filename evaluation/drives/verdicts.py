"""The verdicts of a recording as Arrow columns: by compiled code, or, where that is missing or refuses, by DuckDB.

Both give the same columns, to the byte; the compiled code is about ten times as fast, and refuses everything that
framegate does not write itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from framegate.evaluation.drives.table import SIGNAL, VALUES
from framegate.runtime.errors import DataError
from framegate.runtime.mcap_messages import Contents, Message
from framegate.runtime.replay.columns import NO_NUMBER, Columns, read_columns
from framegate.runtime.replay.recording import EVENT
from framegate.runtime.replay.replay import TOPIC
from framegate.runtime.sinks.mcap_file import CAMERA
from framegate.runtime.verdict import NO_FRAME_ID

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
_LATEST_NS = 2**63 - 1
_YEAR_NS = 31_556_952 * 10**9
_BOX = ("x", "y", "width", "height")
Batch = dict[str, Any]
"""Column of the table -> its values, for some verdicts; with ``logged_ns``, the time on the wall in ns since 1970."""


@dataclass(frozen=True)
class Verdicts:
    """What is in a file.

    Attributes:
        contents: What it says about itself, and where it breaks off.
        count: Verdicts.
        signals: Names of the monitor's signals.
        pictures: Numbers of the frames with a full picture, rising.
        events: Number of a frame -> what was worth pictures there, separated by spaces.
        silences: Time of a report of silence, as its ``captured_ns`` -> the same of it.
        batches: Their columns, in their order.
    """

    contents: Contents
    count: int
    signals: tuple[str, ...]
    pictures: npt.NDArray[np.int64]
    events: dict[int, str]
    silences: dict[int, str]
    batches: Iterator[Batch]


def read_verdicts(path: Path) -> Verdicts:
    """Read a recording.

    Raises:
        DataError: It cannot be read, or a verdict in it is garbled; that can also be said by the batches.
    """
    contents = Contents(path)
    found = read_columns(contents, (TOPIC, CAMERA, EVENT), VALUES)
    if found is None:
        return _read_slowly(path)
    signals = tuple(sorted(set(found.values) - set(VALUES)))
    events, silences = _events(path, found.events)
    return Verdicts(contents, len(found.rows), signals, np.unique(found.pictures), events, silences, _one(found))


def _events(path: Path, messages: Sequence[bytes]) -> tuple[dict[int, str], dict[int, str]]:
    """Events on frames by their number, and those of silence, which has none, by their time."""
    events, silences = {}, {}
    try:
        for each in messages:
            record = json.loads(each)
            frame, kinds = record["frame_id"], " ".join(record["kinds"])
            if frame is not None and frame != NO_FRAME_ID:
                events[_whole(frame)] = kinds
            elif "captured_ns" in record:  # older recordings do not say it: nobody knows which silence it was
                silences[_whole(record["captured_ns"])] = kinds
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path}: an event is garbled ({error})") from error
    return events, silences


def _whole(number: object) -> int:
    if not isinstance(number, int) or not -(2**63) <= number < 2**63:
        raise ValueError(f"{number!r} is no number of a frame or time")
    return number


def _one(found: Columns) -> Iterator[Batch]:
    """All verdicts at once, if there are any."""
    rows = found.rows
    if not len(rows):
        return

    def words(name: str) -> pa.DictionaryArray:
        codes = np.ascontiguousarray(rows[name])
        return pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), pa.array(found.words[name], pa.string()))

    def integers(name: str) -> pa.Array:
        numbers = np.ascontiguousarray(rows[name])
        return pa.array(numbers, mask=numbers == NO_NUMBER)

    def floats(column: npt.NDArray[np.float64]) -> pa.Array:
        return pa.array(np.ascontiguousarray(column), from_pandas=True)  # NaN is null

    batch: Batch = {name: integers(name) for name in ("frame_id", "captured_ns", "decided_ns", "track")}
    batch |= {name: floats(rows[name]) for name in ("engine_ms", "score", "threshold")}
    batch |= {
        "region": words("stream"),
        **{name: words(name) for name in ("reasons", "found", "candidate", "detected")},
    }
    none = found.words["reasons"].index("") if "" in found.words["reasons"] else -1
    batch["accepted"] = pa.array(rows["reasons"] == none)
    batch["scene"] = pa.array(rows["scene"] != 0)
    batch["logged_ns"] = np.ascontiguousarray(rows["log_ns"])
    unboxed = rows["boxed"] == 0
    if not unboxed.all():
        for k, name in enumerate(_BOX):
            batch[name] = pa.array(np.ascontiguousarray(rows["box"][:, k]), mask=unboxed)
    for name, column in found.values.items():
        batch[name if name in VALUES else SIGNAL + name] = floats(column)
    yield batch


def _read_slowly(path: Path) -> Verdicts:
    """Every message as an object of Python, and its JSON by DuckDB."""
    contents = Contents(path)
    verdicts: list[Message] = []
    pictures: set[int] = set()
    events: list[bytes] = []
    for message in contents.messages(lambda topic: topic.startswith(TOPIC) or topic in (CAMERA, EVENT)):
        if message.log_ns > _LATEST_NS:
            raise DataError(f"{path}: a message is of the year {1970 + message.log_ns // _YEAR_NS}")
        if message.topic == CAMERA:
            pictures.add(message.sequence)
        elif message.topic == EVENT:
            events.append(message.data)
        else:
            verdicts.append(message)
    signals = _signals(path, verdicts)
    batches = (_batch(path, verdicts[k : k + _BATCH], signals) for k in range(0, len(verdicts), _BATCH))
    numbers = np.array(sorted(pictures), np.int64)
    return Verdicts(contents, len(verdicts), signals, numbers, *_events(path, events), batches)


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


def _batch(path: Path, verdicts: Sequence[Message], signals: Sequence[str]) -> Batch:
    """Columns of some verdicts."""
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
    columns: Batch = {
        name: table[name] for name in ("frame_id", "captured_ns", "decided_ns", "engine_ms", "track", "scene")
    }
    columns |= {
        "region": table["stream"].combine_chunks().dictionary_encode(),
        "logged_ns": np.array([message[2] for message in verdicts], np.int64),
        "accepted": pc.equal(reasons, ""),
        "reasons": reasons.dictionary_encode(),
        "found": found.dictionary_encode(),
        "candidate": table["candidate"].combine_chunks().dictionary_encode(),
        "detected": table["detected"].combine_chunks().dictionary_encode(),
        "score": pc.coalesce(table["exact"], table["score"]),  # what is beside the evidence has float32's digits
        "threshold": pc.coalesce(table["compared"], table["threshold"]),
    }
    boxes = table["box"].combine_chunks()  # of objects alone
    if boxes.null_count < len(boxes):
        lists = boxes.to_pylist()
        for k, name in enumerate(_BOX):
            columns[name] = pa.array([None if each is None else each[k] for each in lists], pa.int32())
    structs = table["values"].combine_chunks()
    for name in VALUES:
        columns[name] = pc.struct_field(structs, [name])
    for name in signals:
        columns[SIGNAL + name] = pc.struct_field(structs, [list(values).index(name)])
    return columns
