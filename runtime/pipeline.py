"""Capture, judge, publish: three threads, and only the newest frame counts.

    capture thread --one-slot mailbox--> worker thread --bounded results--> the consumer (whoever iterates)

A slow engine never makes the camera wait (frames are dropped and counted); a slow consumer never makes the engine
wait (unread results are overwritten and counted). For files that must be processed completely, ``lossless`` turns
both into waiting.
"""

from __future__ import annotations

import gc
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from framegate.runtime.channel import Channel
from framegate.runtime.errors import FramegateError, UsageError
from framegate.runtime.pixel_format import to_bgr
from framegate.runtime.policy.stream import Policy
from framegate.runtime.roi import Roi, require_inside
from framegate.runtime.session import Session
from framegate.runtime.sources.base import Source
from framegate.runtime.stats import PipelineStats
from framegate.runtime.verdict import Frame, Image, Prediction

_RESULTS_HELD = 64


@dataclass(frozen=True, slots=True)
class FrameResult:
    """All verdicts on one frame.

    Attributes:
        predictions: One per region, in the order given.
        image: The frame's pixels, as BGR, if the pipeline keeps them (``keep_frames``), else None.
        name: The frame's file name, if it has one.
    """

    predictions: tuple[Prediction, ...]
    image: Image | None
    name: str


class Pipeline:
    """Runs a source through a session. Use as a context manager and iterate over its predictions.

    Args:
        source: Where frames come from; closed at the end.
        session: Judges them; used by the worker thread alone while the pipeline runs.
        rois: Regions to classify; None means the whole frame.
        deadline_ms: A verdict older than this at publication is LATE, in milliseconds; None sets no deadline.
        lossless: Wait instead of dropping frames or results (files that must be processed completely).
        keep_frames: Hand the pixels on to the consumer (`results`).
        policy: Debounce, warm-up and drift of every region; None takes the session's.
        spin_us: How long the worker looks for the next frame before it sleeps, in microseconds: waking costs tens of
            them. 0, the default, leaves the processor to others. See `framegate.runtime.realtime`.

    Raises:
        UsageError: A region reaches outside the frame, the deadline is not positive, or the spinning is negative.

    Iterating raises SourceError after the last verdict if the source broke off.
    """

    def __init__(
        self,
        source: Source,
        session: Session,
        *,
        rois: tuple[Roi, ...] | None = None,
        deadline_ms: float | None = None,
        lossless: bool = False,
        keep_frames: bool = False,
        policy: Policy | None = None,
        spin_us: float = 0.0,
    ) -> None:
        if not (math.isfinite(spin_us) and spin_us >= 0):
            raise UsageError(f"spin_us is {spin_us}; expected microseconds, 0 or more")
        if deadline_ms is not None and not deadline_ms > 0:
            raise UsageError(f"deadline is {deadline_ms} ms; expected a positive number")
        self._rois = rois or (Roi.whole(),)
        if source.frame_size is not None:
            require_inside(self._rois, source.frame_size)
        self._source = source
        self._session = session
        self._deadline_ns = None if deadline_ms is None else int(deadline_ms * 1e6)
        self._keep = keep_frames
        self._mailbox: Channel[Frame] = Channel(1, overwrite=not lossless, spin_us=spin_us)
        self._results: Channel[FrameResult] = Channel(_RESULTS_HELD, overwrite=not lossless)
        self._health = session.camera_health(source.frame_size, source.fixed_size)
        # A folder of photographs is no sequence: what one shows says nothing about the next.
        self._streams = tuple(session.stream_policy(policy, sequence=source.fixed_size) for _ in self._rois)
        self._reset_drift = threading.Event()
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._entered = False
        coverage = session.calibration.coverage if session.calibration else math.nan
        self.stats = PipelineStats(tuple(roi.name for roi in self._rois), coverage)

    def __enter__(self) -> Pipeline:
        self._entered = True
        # What exists now lives as long as the pipeline: frozen, it no longer costs collections in the hot loop.
        gc.collect()
        gc.freeze()
        for name, work in (("framegate-capture", self._capture), ("framegate-worker", self._work)):
            thread = threading.Thread(target=work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop capturing, let the worker finish its frame, close the source. Verdicts already given stay readable."""
        self._mailbox.close()
        self._source.close()
        if threading.current_thread() not in self._threads:
            # A worker waiting for room in a full result channel is let go only after the channel is closed.
            self._results.close()
            for thread in self._threads:
                thread.join(timeout=5.0)
            if self._threads:
                gc.unfreeze()
            self._threads.clear()

    def __iter__(self) -> Iterator[Prediction]:
        for result in self.results():
            yield from result.predictions

    def results(self) -> Iterator[FrameResult]:
        """Results frame by frame, until the source ends or the pipeline is stopped.

        Raises:
            UsageError: The pipeline was not entered with ``with``, so nothing runs that could give a result.
            FramegateError: After the last result, if the source broke off.
        """
        if not self._entered:
            raise UsageError("a pipeline runs inside its with block only: with Pipeline(...) as pipeline: ...")
        while (result := self._results.take()) is not None:
            yield result
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    @property
    def worker_id(self) -> int | None:
        """The operating system's number of the thread that judges, for its core and priority; None before it runs."""
        return self._threads[1].native_id if self._threads else None

    @property
    def capture_id(self) -> int | None:
        """The same of the thread that reads the source."""
        return self._threads[0].native_id if self._threads else None

    def reset_drift(self) -> None:
        """End every drift alarm and forget its evidence, from the next frame on; can be called from any thread.

        For a camera or scene that was changed on purpose. An alarm whose cause lasts comes back.
        """
        self._reset_drift.set()

    def _capture(self) -> None:
        try:
            while (frame := self._source.read()) is not None:
                self.stats.captured += 1
                if not self._mailbox.put(frame):
                    break
                self.stats.dropped = self._mailbox.overwritten
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, see results()
            self._fail(error)
        finally:
            self._mailbox.close()

    def _work(self) -> None:
        try:
            while (frame := self._mailbox.take()) is not None:
                if self._reset_drift.is_set():
                    self._reset_drift.clear()
                    for policy in self._streams:
                        policy.reset()
                if self._keep and not self._session.scorer.takes_nv12:
                    frame = _viewable(frame)  # converted here, once, for the network and for people
                predictions = self._session.frame_judge.judge(
                    frame, self._rois, self._health, self._deadline_ns, self._streams
                )
                result = FrameResult(predictions, _viewable(frame).image if self._keep else None, frame.name)
                # Counted only if it can be read: after stop() the statistics and the read verdicts agree.
                if not self._results.put(result):
                    break
                self.stats.record(predictions)
                self.stats.unread = self._results.overwritten
                self._session.recover()
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, see results()
            self._fail(error)
        finally:
            self._mailbox.close()
            self._results.close()

    def _fail(self, error: BaseException) -> None:
        if self._failure is None or not isinstance(self._failure, FramegateError):
            self._failure = error


def _viewable(frame: Frame) -> Frame:
    """The frame as BGR; one that cannot be converted stays as it is, and is rejected as BAD_INPUT."""
    try:
        return to_bgr(frame)
    except ValueError:
        return frame
