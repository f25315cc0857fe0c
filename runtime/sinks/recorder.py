"""What is written beside the page, in a thread of its own: a slow disk or encoder must not make the page late."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from framegate.runtime.channel import Channel
from framegate.runtime.errors import UsageError
from framegate.runtime.pipeline import FrameResult
from framegate.runtime.roi import Roi
from framegate.runtime.sinks.base import Sink
from framegate.runtime.sinks.mcap_file import McapSink
from framegate.runtime.sinks.rerun_file import RerunSink
from framegate.runtime.sinks.video import OverlayVideoSink

_HELD = 64
"""Results waiting to be written: 2.5 s at 25 frames per second."""


def require_format(record: Path | None) -> None:
    """Refuse a file whose ending says no format.

    Raises:
        UsageError: It is none of ``.mp4``, ``.avi`` and ``.mcap``.
    """
    if record is not None and record.suffix.lower() not in (".mp4", ".avi", ".mcap"):
        raise UsageError(f"--record {record}: the ending decides the format; use .mp4, .avi or .mcap")


def open_sinks(record: Path | None, rerun: Path | None, rois: tuple[Roi, ...], fps: float | None) -> list[Sink]:
    """The files to be written.

    Args:
        record: ``.mp4``, ``.avi`` or ``.mcap``.
        rerun: ``.rrd``.
        rois: The pipeline's regions.
        fps: Of the source, None if it has none.

    Raises:
        UsageError: The package for it is missing.
        SinkError: A file cannot be written.
    """
    sinks: list[Sink] = []
    if record is not None and record.suffix.lower() == ".mcap":
        sinks.append(McapSink(record, rois))
    elif record is not None:
        sinks.append(OverlayVideoSink(record, rois, fps))
    if rerun is not None:
        sinks.append(RerunSink(rerun, rois))
    return sinks


class Recorder:
    """Writes results to sinks, beside whoever gives them.

    Args:
        sinks: Where to; each is closed at the end.
        lossless: Make the giver wait while too many results wait here, instead of leaving out the oldest.
    """

    def __init__(self, sinks: Sequence[Sink], *, lossless: bool) -> None:
        self._sinks = sinks
        self._waiting: Channel[FrameResult] = Channel(_HELD, overwrite=not lossless)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name="framegate-demo-recorder", daemon=True)
        self._thread.start()

    @property
    def missing(self) -> int:
        """Results that were left out, because writing was slower than the stream."""
        return self._waiting.overwritten

    def put(self, result: FrameResult) -> None:
        """Take one result.

        Raises:
            SinkError: An earlier one could not be written.
        """
        if not self._waiting.put(result):
            self._raise()

    def close(self) -> None:
        """Write what waits, and finish the sinks.

        Raises:
            SinkError: Something could not be written, and nobody was told yet.
        """
        self._waiting.close()
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _write(self) -> None:
        try:
            while (result := self._waiting.take()) is not None:
                for sink in self._sinks:
                    sink.write(result)
        except BaseException as error:  # noqa: BLE001 - handed to whoever gives results
            self._failure = error
        self._waiting.close()
        for sink in self._sinks:
            try:
                sink.close()
            except BaseException as error:  # noqa: BLE001 - the others are closed all the same
                self._failure = self._failure or error
