"""What is written beside the page, in a thread of its own: a slow disk or encoder must not make the page late."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from framegate.runtime.channel import Channel
from framegate.runtime.command_run import Sink
from framegate.runtime.pipeline import FrameResult

_HELD = 64
"""Results waiting to be written: 2.5 s at 25 frames per second."""


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
