"""Verdicts as JSON lines: one object per region and frame, written the moment it is known."""

from __future__ import annotations

import json
from pathlib import Path

from framegate.runtime.pipeline import FrameResult
from framegate.runtime.sinks.record_file import RecordFile


class JsonLinesSink:
    """Appends every prediction of a result as one line; where objects are judged, a line on the whole frame before.

    The lines of a frame are handed to the operating system by one call, without waiting for more. A process that is
    killed within that call can leave the last line cut off; a reader leaves out a last line that does not end in a line
    feed. Every other line is whole, also on a full disk.

    Args:
        path: File to create, or a named pipe; an existing file is replaced.

    Raises:
        SinkError: The file cannot be created, or a line cannot be written.
    """

    takes_silence = True
    takes_pictures = False

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = RecordFile(self.path, "verdicts")
        self._lines = 0

    def write(self, result: FrameResult) -> None:
        """Write the verdicts on one frame."""
        lines = []
        for prediction in result.verdicts:
            record = prediction.to_json()
            if prediction is result.scene:
                record["objects"], record["left_out"] = len(result.predictions), dict(result.left_out)
            if result.name:
                record["file"] = result.name
            lines.append(json.dumps(record, separators=(",", ":")) + "\n")
        self._file.append("".join(lines).encode(), f"the {self._lines} lines before it are kept")
        self._lines += len(lines)

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Close the file; can be called twice."""
        self._file.close()
