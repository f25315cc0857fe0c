"""Parts of a table become one file, a part at a time, or a folder of files as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from framegate.evaluation.drives.table import SIGNAL, WORDS, About, read_footer, write_table
from framegate.runtime.errors import SinkError


def merge(parts: Sequence[Path], out: Path, missing: Mapping[str, str]) -> tuple[int, About]:
    """Write the rows of all parts, in the order of the parts.

    Args:
        parts: What the workers wrote.
        out: The table.
        missing: File -> why there is no part of it.

    Returns:
        Rows, and what the table says about itself.

    Raises:
        DataError: A part cannot be read.
        SinkError: The table cannot be written.
    """
    whole = About(broken=dict(missing))
    signals: set[str] = set()
    for path in parts:
        schema = read_footer(path).schema.to_arrow_schema()
        about = About.of(schema, path)
        whole.recordings.update(about.recordings)
        whole.broken.update(about.broken)
        signals.update(name for name in schema.names if name.startswith(SIGNAL))
    tables = (pq.read_table(path, read_dictionary=list(WORDS), use_threads=False) for path in parts)
    return write_table(out, tables, signals, whole), whole


def gather(parts: Sequence[Path], folder: Path, missing: Mapping[str, str]) -> tuple[int, About]:
    """Make the parts a partitioned table: a file for each recording, whose names are in the order of the rows.

    Args:
        parts: What the workers wrote, on the same disk; they are renamed.
        folder: Of the table; there is none, or an empty one.
        missing: File -> why there is no part of it.

    Returns:
        Rows, and what the table says about itself.

    Raises:
        DataError: A part cannot be read.
        SinkError: The folder cannot be written.
    """
    whole = About(broken=dict(missing))
    rows = 0
    for path in parts:
        footer = read_footer(path)
        about = About.of(footer.schema.to_arrow_schema(), path)
        whole.recordings.update(about.recordings)
        whole.broken.update(about.broken)
        rows += footer.num_rows
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, path in enumerate(parts):
            path.replace(folder / f"{number:06d}.parquet")
    except OSError as error:
        raise SinkError(f"{folder}: cannot be written ({error.strerror}); choose another place") from error
    if missing:  # in a file without rows, as every file says what it knows
        write_table(folder / f"{len(parts):06d}.parquet", (), (), About(broken=dict(missing)))
    return rows, whole
