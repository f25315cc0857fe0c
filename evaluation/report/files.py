"""Files of records and reports: written whole or not at all, read with a message that says what to do."""

from __future__ import annotations

import gzip
import json
import lzma
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framegate.cuda_kernels.compile.cache import write_atomically
from framegate.runtime.errors import DataError, SinkError

_UNPACK = {".gz": gzip.decompress, ".xz": lzma.decompress}


def read_json(path: Path, advice: str) -> Any:
    """What a JSON file holds.

    Args:
        path: The file; ``.gz`` or ``.xz`` at the end: compressed.
        advice: What to do if it is missing or damaged, for the message.

    Raises:
        DataError: It cannot be read, or is no JSON.
    """
    try:
        content = path.read_bytes()
        unpack = _UNPACK.get(path.suffix)
        return json.loads(content if unpack is None else unpack(content))
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:  # not UTF-8, not JSON: ValueError
        raise DataError(f"{path}: cannot be read ({error}); {advice}") from error


def load_records(folder: Path, kind: str, command: str) -> list[dict[str, Any]]:
    """All records of a folder, in the order of their file names.

    Args:
        folder: Holds only records of this kind, as ``*.json`` or ``*.json.xz``.
        kind: Their ``format``.
        command: What writes them, for the messages.

    Raises:
        DataError: There is none, or one is damaged or of another kind.
    """
    found = []
    for path in sorted((*folder.glob("*.json"), *folder.glob("*.json.xz"))):
        record = read_json(path, f"write it anew with `{command}`")
        if not isinstance(record, dict) or record.get("format") != kind:
            raise DataError(f"{path}: expected a record of the format {kind!r}; write it anew with `{command}`")
        found.append(record)
    if not found:
        raise DataError(f"{folder}: no records (*.json) here; `{command}` writes them")
    return found


def rounded(record: Any, digits: int = 6) -> Any:
    """A JSON record with its floats at so many significant digits: more would be noise, and half the file."""
    if isinstance(record, float):
        return float(f"{record:.{digits}g}")
    if isinstance(record, Mapping):
        return {key: rounded(value, digits) for key, value in record.items()}
    return [rounded(value, digits) for value in record] if isinstance(record, list | tuple) else record


def write_json(path: Path, record: Any) -> None:
    """Write a record, one line for each entry: indented, a long one would be half spaces.

    Raises:
        SinkError: It cannot be written.
        ValueError: It holds NaN or an infinity.
    """
    if isinstance(record, dict) and record:
        lines = [f" {json.dumps(key)}: {_compact(value)}" for key, value in record.items()]
        write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")
    else:
        write_text(path, _compact(record) + "\n")


def _compact(value: Any) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def write_text(path: str | Path, content: str) -> None:
    """Write a file whole or not at all.

    Raises:
        SinkError: The folder or the file cannot be written.
    """
    try:
        write_atomically(Path(path), lambda temporary: _write(temporary, content))
    except OSError as error:
        raise SinkError(f"{path}: cannot be written: {error.strerror or error}; choose another folder") from error


def _write(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")
