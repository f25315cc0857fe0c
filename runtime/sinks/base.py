"""What takes predictions and frames: the interface of every sink."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from framegate.runtime.frame_result import FrameResult

FLUSH_S = 1.0
"""How often a `Recorder` flushes a sink that does not say otherwise, in seconds: what a killed process loses of a
recording at most."""


class Sink(Protocol):
    """Takes results as they come.

    Attributes:
        path: The file that is written.
        takes_silence: Whether reports of silence (`FrameResult.has_frame` is False) are for it, too; a video has no
            picture of them.
        takes_pictures: Whether it needs `FrameResult.image`. Results that wait for a sink that needs none are small.
        flush_s: How often it is flushed, in seconds.
    """

    path: Path
    takes_silence: bool
    takes_pictures: bool
    flush_s: float

    def write(self, result: FrameResult) -> None:
        """Take one result.

        Raises:
            SinkError: It cannot be written. The message says what of the recording is kept.
        """

    def flush(self) -> None:
        """Hand what was taken to the operating system, in a form that can be read although the process is killed.

        Raises:
            SinkError: It cannot be written.
        """

    def close(self) -> None:
        """Finish; can be called twice, and after an error.

        Raises:
            SinkError: It cannot be finished.
        """
