"""What takes predictions and frames: the interface of every sink."""

from __future__ import annotations

from typing import Protocol

from framegate.runtime.pipeline import FrameResult


class Sink(Protocol):
    """Takes results as they come."""

    def write(self, result: FrameResult) -> None:
        """Take one result.

        Raises:
            SinkError: It cannot be written.
        """

    def close(self) -> None:
        """Finish; can be called twice."""
