"""Records on disk: JSON files, and folders that hold one of each bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from framegate.runtime.errors import DataError


def read_json(path: Path, advice: str) -> Any:
    """What a JSON file holds.

    Args:
        path: The file.
        advice: What to do if it is missing or damaged, for the message.

    Raises:
        DataError: It cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # text that is not UTF-8 or not JSON raises a ValueError
        raise DataError(f"{path}: cannot be read ({error}); {advice}") from error


def load_records(folder: Path, kind: str, command: str) -> list[dict[str, Any]]:
    """All records of a folder, in the order of their file names.

    Args:
        folder: Holds only records of this kind, as ``*.json``.
        kind: Their ``format``.
        command: What writes them, for the messages.

    Raises:
        DataError: There is none, or one is damaged or of another kind.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        record = read_json(path, f"write it anew with `{command}`")
        if not isinstance(record, dict) or record.get("format") != kind:
            raise DataError(f"{path}: expected a record of the format {kind!r}; write it anew with `{command}`")
        found.append(record)
    if not found:
        raise DataError(f"{folder}: no records (*.json) here; `{command}` writes them")
    return found
