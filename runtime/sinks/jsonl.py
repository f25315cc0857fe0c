"""Verdicts as JSON lines: one object per region and frame, written the moment it is known."""

from __future__ import annotations

import json
from pathlib import Path

from framegate.runtime.errors import SinkError
from framegate.runtime.pipeline import FrameResult


class JsonLinesSink:
    """Appends every prediction of a result as one line; a crash loses nothing that was written.

    Args:
        path: File to create; an existing one is replaced.

    Raises:
        SinkError: The file cannot be created, or a line cannot be written.
    """

    takes_silence = True

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._file = self.path.open("w", encoding="utf-8", buffering=1)  # line buffered
        except OSError as error:
            raise SinkError(f"verdicts {self.path}: cannot be written ({error.strerror})") from error

    def write(self, result: FrameResult) -> None:
        """Write the verdicts on one frame."""
        try:
            for prediction in result.predictions:
                record = prediction.to_json()
                if result.name:
                    record["file"] = result.name
                self._file.write(json.dumps(record, separators=(",", ":")) + "\n")
        except OSError as error:
            raise SinkError(f"verdicts {self.path}: writing failed ({error.strerror}); is the disk full?") from error

    def close(self) -> None:
        """Close the file; can be called twice."""
        try:
            self._file.close()
        except OSError as error:
            raise SinkError(f"verdicts {self.path}: closing failed ({error.strerror}); is the disk full?") from error
