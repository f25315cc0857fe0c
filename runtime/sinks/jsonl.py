"""Verdicts as JSON lines: one object per region and frame, written the moment it is known."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from framegate.runtime.frame_result import FrameResult
from framegate.runtime.sinks.base import FLUSH_S
from framegate.runtime.sinks.record_file import RecordFile

BEATS = 3
"""Heartbeats in a deadline: so many can be missing before a reader must take the sender for dead."""
SHORTEST_BEAT_S = 0.01


class JsonLinesSink:
    """Appends every prediction of a result as one line; where objects are judged, a line on the whole frame before.

    The lines of a frame are handed to the operating system by one call, without waiting for more. A process that is
    killed within that call can leave the last line cut off; a reader leaves out a last line that does not end in a line
    feed. Every other line is whole, also on a full disk.

    With a heartbeat there is a line at least so often, whatever camera and engine do: ``{"heartbeat": 17, "at_ns": ...,
    "every_ms": ..., "process": ...}``, its number, the monotonic time, the longest time to the next line, and a number
    that is another one after every start. A reader that hears nothing for longer does not use what it heard before.

    Args:
        path: File to create, or a named pipe; an existing file is replaced. ``-`` is the standard output.
        beat_s: Longest time between two lines in seconds; None, for files that nobody waits for, has no heartbeat.

    Raises:
        SinkError: The file cannot be created, or a line cannot be written.
    """

    takes_silence = True
    takes_pictures = False

    def __init__(self, path: str | Path, beat_s: float | None = None) -> None:
        self.path = Path(path)
        self.flush_s = FLUSH_S if beat_s is None else max(beat_s, SHORTEST_BEAT_S)
        self._beats = None if beat_s is None else 0
        self._process = int.from_bytes(os.urandom(6), "little")
        self._file = RecordFile(self.path, "verdicts")
        self._lines = 0

    def write(self, result: FrameResult) -> None:
        """Write the verdicts on one frame."""
        records = []
        for prediction in result.verdicts:
            record = result.to_scene_json() if prediction is result.scene else prediction.to_json()
            if result.name:
                record["file"] = result.name
            records.append(record)
        self._append(records)

    def flush(self) -> None:
        """Write a heartbeat, if there shall be any."""
        if self._beats is not None:
            beat = {"heartbeat": self._beats, "at_ns": time.monotonic_ns()}
            self._append([beat | {"every_ms": round(self.flush_s * 1e3, 3), "process": self._process}])
            self._beats += 1

    def close(self) -> None:
        """Close the file; can be called twice."""
        self._file.close()

    def _append(self, records: list[dict[str, object]]) -> None:
        text = "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records)
        self._file.append(text.encode(), f"the {self._lines} lines before it are kept")
        self._lines += len(records)
