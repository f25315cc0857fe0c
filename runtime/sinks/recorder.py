"""Writes recordings beside the stream: a slow disk, a full one or a broken encoder holds no verdict up."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from framegate.runtime.channel import Channel
from framegate.runtime.console import to_stderr
from framegate.runtime.errors import FramegateError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.sinks.base import FLUSH_S, Sink

_HELD = 64
"""Results waiting to be written: 2.5 s at 25 frames per second."""
_HELD_SMALL = 4096
"""The same without pictures."""
STUCK_S = 10.0
"""A sink that does nothing for so long while it is waited for is given up."""


class Recorder:
    """Writes results to sinks, each in a thread of its own. Use as a context manager, or call `close`.

    A sink that fails is closed, reported once, and left out from then on; the others and whoever gives results notice
    nothing.

    Args:
        sinks: Where to; each is closed at the end.
        lossless: Make the giver wait while too many results wait for a sink, instead of leaving out the oldest.
        report: Takes one sentence about a sink that failed; called from its thread.
    """

    def __init__(self, sinks: Sequence[Sink], *, lossless: bool, report: Callable[[str], None] = to_stderr) -> None:
        self._tracks = [_Track(sink, lossless, report) for sink in sinks]

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def failed(self) -> bool:
        """Whether a recording is not what it should be."""
        return any(track.failure is not None for track in self._tracks)

    def failure_of(self, path: Path) -> str | None:
        """Why a file is no longer written; None while it is, or if there is no such file."""
        return next((track.failure for track in self._tracks if track.sink.path == path), None)

    def put(self, result: FrameResult) -> None:
        """Take one result; several threads may."""
        small: FrameResult | None = None
        for track in self._tracks:
            if not (result.has_frame or track.sink.takes_silence):
                continue
            if track.sink.takes_pictures:
                track.put(result)
            else:
                small = small or replace(result, image=None)
                track.put(small)

    def close(self) -> None:
        """Write what waits and finish the sinks; can be called twice. Says which recordings lack frames."""
        for track in self._tracks:
            track.close()
        for track in self._tracks:
            track.join()

    def to_json(self) -> list[dict[str, object]]:
        """How every recording went, as plain JSON values."""
        return [
            {
                "file": str(track.sink.path),
                "frames": track.written,
                "left_out": track.left_out,
                "failed": track.failure,
            }
            for track in self._tracks
        ]


class _Track:
    """One sink, what waits for it, and the thread that writes it."""

    def __init__(self, sink: Sink, lossless: bool, report: Callable[[str], None]) -> None:
        self.sink = sink
        self.written = 0
        self.failure: str | None = None
        self._report = report
        self._steps = 0
        self._flush_s: float = getattr(sink, "flush_s", FLUSH_S)  # a sink need not say
        self._closed = False
        self._waiting: Channel[FrameResult] = Channel(
            _HELD if sink.takes_pictures else _HELD_SMALL, overwrite=not lossless
        )
        self._failing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"framegate-record-{sink.path.name}", daemon=True)
        self._thread.start()

    @property
    def left_out(self) -> int:
        """Results that were not written because writing was slower than the stream."""
        return self._waiting.overwritten

    def put(self, result: FrameResult) -> None:
        """Take one result; without effect after a failure."""
        steps = self._steps
        while not self._waiting.put(result, timeout=STUCK_S) and not self._waiting.closed:
            if self._steps == steps:
                self._fail(self._stuck())
            steps = self._steps

    def close(self) -> None:
        """No more results will come."""
        self._waiting.close()

    def join(self) -> None:
        """Wait until the sink is finished, as long as it does something."""
        if self._closed:
            return
        self._closed = True
        steps, since = self._steps, time.monotonic()
        while self._thread.is_alive() and self.failure is None:
            self._thread.join(0.05)
            if self._steps != steps:
                steps, since = self._steps, time.monotonic()
            elif time.monotonic() - since > STUCK_S:
                self._fail(self._stuck())
        if self.failure is None and self.left_out:
            self._report(
                f"framegate: {self.sink.path} lacks {self.left_out} frames: writing was slower than the stream"
            )

    def _stuck(self) -> str:
        return (
            f"recording {self.sink.path}: writing has stood still for {STUCK_S:g} s, so it is left as it is; its first "
            f"{self.written} frames were handed over"
        )

    def _run(self) -> None:
        flush_at = time.monotonic() + self._flush_s
        try:
            while (result := self._waiting.take(max(0.0, flush_at - time.monotonic()))) or not self._waiting.finished:
                if result is not None:
                    self.sink.write(result)
                    self.written += 1
                if time.monotonic() >= flush_at:
                    self.sink.flush()
                    flush_at = time.monotonic() + self._flush_s
                self._steps += 1
            self.sink.close()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the stream goes on
            self._fail(str(error) if isinstance(error, FramegateError) else self._unexpected(error))
            with contextlib.suppress(BaseException):
                self.sink.close()

    def _unexpected(self, error: BaseException) -> str:
        return f"recording {self.sink.path}: {type(error).__name__}: {error}; it is left as it is"

    def _fail(self, why: str) -> None:
        """Take no more results, and say so, once."""
        with self._failing:
            if self.failure is not None:
                return
            running = not self._waiting.closed
            self.failure = why
            self._waiting.close()
            while self._waiting.take() is not None:  # pictures that nobody will write
                pass
        self._report(f"framegate: {why}{'; judging goes on' if running else ''}")
