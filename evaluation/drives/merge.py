"""Parts of a table become one file, a part at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from framegate.evaluation.drives.table import SIGNAL, WORDS, About, read_footer, write_table


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
