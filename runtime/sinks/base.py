"""What takes predictions and frames: the interface of every sink."""

from __future__ import annotations

from typing import Protocol

from framegate.runtime.pipeline import FrameResult


class Sink(Protocol):
    """Takes results as they come."""

    takes_silence: bool
    """Whether reports of silence (`FrameResult.has_frame` is False) are for it, too; a video has no picture of them."""

    def write(self, result: FrameResult) -> None:
        """Take one result.

        Raises:
            SinkError: It cannot be written.
        """

    def close(self) -> None:
        """Finish; can be called twice."""
