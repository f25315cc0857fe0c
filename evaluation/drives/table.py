"""The table of drives: its columns, its version, and how it is read and written.

One row for each verdict. Whoever reads it with DuckDB, pandas or Spark finds the columns in docs/drives.md; the
footer of the Parquet file holds, as JSON under `KEY`, the version and what the recordings say about themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from framegate.export.data.drives import FORMAT, KEY
from framegate.runtime.errors import DataError, FramegateError, SinkError
from framegate.runtime.replay.recording import Recording
from framegate.runtime.verdict import Reason

SIGNAL = "signal:"
"""Before the name of a monitor's signal: its column."""
VALUES = ("entropy", "max_probability", "margin", "energy")
_WORD = pa.dictionary(pa.int32(), pa.string())
COLUMNS: tuple[tuple[str, pa.DataType], ...] = (
    ("drive", _WORD),
    ("camera", _WORD),
    ("file", _WORD),
    ("recording", _WORD),
    ("bundle", _WORD),
    ("bundle_digest", _WORD),
    ("calibration", _WORD),
    ("region", _WORD),
    ("scene", pa.bool_()),
    ("frame_id", pa.int64()),
    ("recorded_at", pa.timestamp("us", tz="UTC")),
    ("captured_ns", pa.int64()),
    ("decided_ns", pa.int64()),
    ("engine_ms", pa.float64()),
    ("accepted", pa.bool_()),
    ("reasons", _WORD),
    ("found", _WORD),
    ("events", _WORD),
    ("candidate", _WORD),
    ("detected", _WORD),
    ("track", pa.int64()),
    ("x", pa.int32()),
    ("y", pa.int32()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("picture", pa.bool_()),
    ("score", pa.float64()),
    ("threshold", pa.float64()),
    *((name, pa.float64()) for name in VALUES),
    ("label", _WORD),
)
"""Name and type; the signals of the monitors come behind."""
NAMES = tuple(name for name, _ in COLUMNS)
WORDS = tuple(name for name, kind in COLUMNS if kind == _WORD)
GROUP_ROWS = 1_000_000
_REASONS = frozenset(each.value for each in Reason)
_DICTIONARIES = (*WORDS, "threshold")
_DELTAS = tuple(name for name, kind in COLUMNS if pa.types.is_integer(kind) or pa.types.is_timestamp(kind))
"""Columns whose values rise with time, or repeat: their differences are short. Readers of Parquet 2 know both."""


@dataclass
class About:
    """What a table says about itself.

    Attributes:
        recordings: Key -> metadata texts of `Recording.to_metadata`; rows name the key in ``recording``.
        broken: File -> why it ends before its end, or why nothing of it is in the table.
    """

    recordings: dict[str, dict[str, str]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """As JSON, always the same bytes for the same content."""
        record = {"format": FORMAT, "recordings": self.recordings, "broken": self.broken}
        return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def of(cls, schema: pa.Schema, path: Path) -> About:
        """What the footer says.

        Raises:
            DataError: It is no table of drives, or one of another version.
        """
        try:
            record = json.loads((schema.metadata or {})[KEY])
            version = record["format"]
        except (KeyError, ValueError, TypeError):
            raise DataError(
                f"{path}: it is no table of drives; framegate drives index writes one from recordings"
            ) from None
        if version != FORMAT:
            raise DataError(f"{path}: its format is {version!r}, this version reads {FORMAT!r}; index the drives again")
        return cls(dict(record["recordings"]), dict(record["broken"]))

    def recording(self, key: str) -> Recording:
        """What one of the recordings says about itself.

        Raises:
            DataError: It cannot be read.
        """
        return Recording.from_metadata(self.recordings[key])


class DriveTable:
    """A table on disk: one Parquet file, or a folder of them.

    Args:
        path: The file or folder.

    Attributes:
        path: As given.
        files: Its Parquet files, in order.
        about: What they say, together.
        signals: Names of the monitors' signals.

    Raises:
        DataError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        if not self.files:
            raise DataError(f"{path}: there is no Parquet file in this folder; framegate drives index writes them")
        self.about = About()
        signals: dict[str, None] = {}
        self.rows = 0
        for each in self.files:
            footer = read_footer(each)
            about = About.of(footer.schema.to_arrow_schema(), each)
            self.about.recordings.update(about.recordings)
            self.about.broken.update(about.broken)
            signals.update((name, None) for name in footer.schema.names if name.startswith(SIGNAL))
            self.rows += footer.num_rows
        self.signals = tuple(sorted(signals))

    @property
    def schema(self) -> pa.Schema:
        """All columns, with the signals."""
        return full_schema(self.signals)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows, a row group at a time, in the order of the table; words are dictionaries.

        Args:
            columns: Of the schema.
        """
        for path in self.files:
            file = pq.ParquetFile(path, read_dictionary=list(WORDS))
            present = [name for name in columns if name in file.schema_arrow.names]
            for group in range(file.num_row_groups):
                yield conform(file.read_row_group(group, columns=present, use_threads=False), self.schema, columns)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows; for tables that fit into memory."""
        names = list(columns or self.schema.names)
        empty = pa.schema([self.schema.field(name) for name in names]).empty_table()
        return pa.concat_tables([empty, *self.batches(names)]).unify_dictionaries()

    def sql_source(self) -> str:
        """What stands behind ``from`` in a query of DuckDB."""
        quoted = ", ".join("'" + str(each).replace("'", "''") + "'" for each in self.files)
        return f"read_parquet([{quoted}], union_by_name = true)"


def full_schema(signals: Iterable[str]) -> pa.Schema:
    """The columns of a table whose monitors have these signals (with `SIGNAL` before each name)."""
    return pa.schema([*COLUMNS, *((name, pa.float64()) for name in sorted(set(signals)))])


def read_footer(path: Path) -> pq.FileMetaData:
    """The footer of a Parquet file.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return pq.read_metadata(path)
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; framegate drives index writes it") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"{path}: it is no whole Parquet file ({str(error).splitlines()[0]})") from error


def conform(table: pa.Table, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """A table with exactly these columns, in this order; what is missing is null."""
    arrays = []
    fields = [schema.field(name) for name in columns or schema.names]
    for each in fields:
        if each.name in table.column_names:
            column = table[each.name]
            arrays.append(column if column.type == each.type else column.cast(each.type))
        else:
            arrays.append(pa.nulls(table.num_rows, each.type))
    return pa.table(arrays, schema=pa.schema(fields))


def write_table(path: Path, parts: Iterable[pa.Table], signals: Iterable[str], about: About) -> int:
    """Write a table, whole or not at all. The same rows and the same parts give the same bytes.

    Args:
        path: The file.
        parts: Its rows in order.
        signals: Names of their signals' columns.
        about: What the table says about itself.

    Returns:
        Its rows.

    Raises:
        SinkError: It cannot be written.
    """
    schema = full_schema(signals).with_metadata({KEY: about.to_bytes()})
    part = path.with_name(f".{path.name}.part")
    rows = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(
            part,
            schema,
            compression="zstd",
            store_schema=True,
            # Nothing is tried on numbers that hardly ever repeat: it takes as long as all the rest.
            use_dictionary=list(_DICTIONARIES),
            column_encoding=dict.fromkeys(_DELTAS, "DELTA_BINARY_PACKED"),
        ) as writer:
            for each in _in_groups(parts, schema):
                rows += each.num_rows
                writer.write_table(each.replace_schema_metadata(schema.metadata), row_group_size=GROUP_ROWS)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise SinkError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from error
    except FramegateError:
        part.unlink(missing_ok=True)
        raise
    return rows


def _in_groups(parts: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """The same rows in pieces of `GROUP_ROWS`, however they come."""
    held: list[pa.Table] = []
    rows = 0
    for each in parts:
        held.append(conform(each, schema))
        rows += each.num_rows
        while rows >= GROUP_ROWS:
            whole = pa.concat_tables(held)
            yield whole.slice(0, GROUP_ROWS).combine_chunks().unify_dictionaries()
            held = [whole.slice(GROUP_ROWS)]
            rows -= GROUP_ROWS
    if rows:
        yield pa.concat_tables(held).unify_dictionaries().combine_chunks()


def reasons_of(text: str | None, where: str) -> list[Reason]:
    """The reasons that stand in a row.

    Args:
        text: Separated by spaces.
        where: They stand, for the message.

    Raises:
        DataError: This version does not know one of them, so it cannot say what they mean.
    """
    found = (text or "").split()
    for each in found:
        if each not in _REASONS:
            raise DataError(
                f"{where} is rejected for {each!r}, a reason that this version does not know; read it with the version "
                "that recorded it, or a later one"
            )
    return [Reason(each) for each in found]


def words(texts: Sequence[str | None]) -> pa.Array:
    """Texts as a dictionary column."""
    return pa.array(texts, pa.string()).dictionary_encode()


def same(text: str | None, rows: int) -> pa.Array:
    """A column that says the same in every row."""
    return pa.DictionaryArray.from_arrays(pa.nulls(rows, pa.int32()).fill_null(0), pa.array([text], pa.string()))


def record_json(values: Mapping[str, Any]) -> str:
    """JSON that is always the same for the same values."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"))
