"""Capture, judge, publish: three threads, and only the newest frame counts.

    capture thread --one-slot mailbox--> worker thread --bounded results--> the consumer (whoever iterates)
                                                        <-- watchdog: silence

A slow engine never makes the camera wait (frames are dropped and counted); a slow consumer never makes the engine
wait (unread results are overwritten and counted). For files that must be processed completely, ``lossless`` turns
both into waiting.

A verdict has an end: of a live source it holds for a deadline after capture, and when verdicts stop coming the watchdog
says so (`framegate.runtime.watchdog`).
"""

from __future__ import annotations

import gc
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType

import numpy as np

from framegate.runtime.channel import Channel
from framegate.runtime.console import to_stderr
from framegate.runtime.errors import FramegateError, UsageError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.pixel_format import viewable
from framegate.runtime.policy.stream import Policy
from framegate.runtime.regions.judge import ObjectJudge, Objects
from framegate.runtime.regions.tracks import TrackMemory
from framegate.runtime.roi import FULL, Roi, require_inside
from framegate.runtime.session import Session
from framegate.runtime.sources.base import Source
from framegate.runtime.stats import ObjectStats, PipelineStats
from framegate.runtime.verdict import Frame, Prediction, Reason
from framegate.runtime.watchdog import Watchdog

RESULTS_HELD = 64
"""Results that wait for a consumer who records all of them."""
SHORTEST_DEADLINE_MS = 100.0
DEADLINE_FRAMES = 3
_ASSUMED_FPS, _SLOWEST_FPS = 30.0, 1 / 3600
_LONGEST_DEADLINE_MS = 86_400_000.0
_JOIN_S = 5.0
_CLOSES_GIVER = "framegate-close-regions"


def default_deadline_ms(fps: float | None) -> float:
    """The deadline of a live source for which none was given: three frames, at least 100 ms.

    Args:
        fps: Its rate; None if it does not say, and then 30.
    """
    return max(SHORTEST_DEADLINE_MS, DEADLINE_FRAMES * 1e3 / (_rate(fps) or _ASSUMED_FPS))


def _rate(fps: float | None) -> float | None:
    """A source's frames per second; None if it says none, or some that no camera has (a driver may say NaN)."""
    return fps if fps is not None and _SLOWEST_FPS <= fps < math.inf else None


class Pipeline:
    """Runs a source through a session. Use as a context manager, once, and iterate over its predictions.

    Args:
        source: Where frames come from; closed at the end.
        session: Judges them; it serves this pipeline alone while it runs.
        rois: Regions to classify; None means the whole frame.
        deadline_ms: A frame that is older when its verdicts are ready is LATE, and an accepted prediction can be used
            for so long after capture, in milliseconds. None: `default_deadline_ms` for a live source; for any other
            one no deadline, because its frames do not show the present.
        lossless: Wait instead of dropping frames or results (files that must be processed completely).
        keep_frames: Hand the pixels on to the consumer (`results`).
        policy: Debounce, warm-up and drift of every region; None takes the session's.
        spin_us: How long the worker looks for the next frame before it sleeps, in microseconds: waking costs tens of
            them. 0, the default, leaves the processor to others. See `framegate.runtime.realtime`.
        objects: Judge the objects that move through the frames instead of fixed regions; its giver of regions is closed
            at the end. See `framegate.runtime.regions`.
        results_held: Results that wait for the consumer at most. None: only the newest one of a live source, so that
            nobody acts on an old verdict; `RESULTS_HELD` otherwise. For recorders, which want all of them.

    Attributes:
        deadline_ms: The deadline in force; None if there is none.
        stats: What it has done so far.
        unfinished: Names of threads that did not end when the pipeline was stopped.

    Raises:
        UsageError: A region reaches outside the frame, or the deadline, the spinning or the number of results is no
            number that can be used.

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
        results_held: int | None = None,
        objects: Objects | None = None,
    ) -> None:
        if not (math.isfinite(spin_us) and spin_us >= 0):
            raise UsageError(f"spin_us is {spin_us}; expected microseconds, 0 or more")
        if deadline_ms is not None and not 0 < deadline_ms <= _LONGEST_DEADLINE_MS:
            raise UsageError(f"deadline is {deadline_ms} ms; expected a positive number, at most a day")
        newest_only = source.live and not lossless
        held = (1 if newest_only else RESULTS_HELD) if results_held is None else results_held
        if held < 1:
            raise UsageError(f"results_held is {held}; expected 1 or more")
        if objects is not None and rois:
            raise UsageError("regions and objects were both given; fixed regions beside objects are not judged")
        if objects is None and session.certifier is not None and session.certifier.demand.once:
            raise UsageError("a certificate once a track needs objects that are followed; certify every frame")
        self._rois = session.regions_of(rois)
        if source.frame_size is not None:
            require_inside(self._rois, source.frame_size)
        self._source = source
        self._session = session
        self.deadline_ms = default_deadline_ms(source.fps) if deadline_ms is None and newest_only else deadline_ms
        self._deadline_ns = None if self.deadline_ms is None else int(self.deadline_ms * 1e6)
        self._keep = keep_frames
        self._mailbox: Channel[Frame] = Channel(1, overwrite=not lossless, spin_us=spin_us)
        self._results: Channel[FrameResult] = Channel(held, overwrite=not lossless)
        self._health = session.camera_health(source.frame_size, source.fixed_size)
        # A folder of photographs is no sequence: what one shows says nothing about the next.
        self._streams = tuple(session.stream_policy(policy, sequence=source.fixed_size) for _ in self._rois)
        known_unlike = (policy or session.policy).counter_examples
        for roi, stream in zip(self._rois, self._streams, strict=True):
            if roi.name in known_unlike:
                stream.ignore_drift()
        self._objects = objects
        self._object_judge: ObjectJudge | None = None
        if objects is not None:
            memory = TrackMemory(
                lambda: session.stream_policy(policy, sequence=source.fixed_size),
                objects.rule,
                counter_examples=known_unlike,
            )
            self._object_judge = session.object_judge(objects, memory, policy, sequence=source.fixed_size)
        self._reset_drift = threading.Event()
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._closing: list[threading.Thread] = []
        self._close_failures: list[Exception] = []
        self._stopping: set[int] = set()
        self._entered = False
        self._process: int | None = None
        self._claimed = self._frozen = False
        self._publishing = threading.Lock()
        self._published_ns = 0
        self._judging: tuple[int, int] | None = None
        self._told: Callable[[FrameResult], None] | None = None
        self._latest = self._silence(Reason.NO_FRAME, "the pipeline has not started; it runs inside its with block")
        self._watchdog: Watchdog | None = None
        coverage = session.calibration.coverage if session.calibration else math.nan
        names = tuple(roi.name for roi in self._rois)
        self.stats = PipelineStats(names if objects is None else (), coverage)
        if self._object_judge is not None:
            self.stats.objects = ObjectStats(self._object_judge.memory.counts)
        self.unfinished: tuple[str, ...] = ()

    def __enter__(self) -> Pipeline:
        if self._entered:
            raise UsageError("this pipeline has run already, or runs; make a new one for the next run")
        self._session.claim(self)
        self._entered, self._claimed, self._process = True, True, os.getpid()
        try:
            if self._object_judge is None:
                self._session.judge_together(len(self._rois))
            self._start()
        except BaseException:
            self.stop()  # nobody else will: the block is never entered
            raise
        return self

    def _start(self) -> None:
        # What exists now lives as long as the pipeline: frozen, it no longer costs collections in the hot loop.
        gc.collect()
        gc.freeze()
        self._frozen = True
        self._health.prepare()
        self._published_ns = time.monotonic_ns()
        self._latest = self._silence(Reason.NO_FRAME, "no frame has been judged yet")
        if self._deadline_ns is not None and self._source.live:
            # Between two frames of a slow camera there is no silence, whatever the deadline.
            rate = _rate(self._source.fps)
            limit_ns = self._deadline_ns if rate is None else max(self._deadline_ns, int(1.5e9 / rate))
            self._watchdog = Watchdog(limit_ns, lambda: self._published_ns, lambda: self._judging, self._report_silence)
        for name, work in (("framegate-capture", self._capture), ("framegate-worker", self._work)):
            thread = threading.Thread(target=work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        if self._watchdog is not None:
            self._watchdog.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop capturing, let the worker finish its frame, close the source. Verdicts already given stay readable.

        What does not end within five seconds (a source or an engine that hangs) is named on standard error and in
        `unfinished`. A session whose engine may still be computing, or whose source still be read, stays with it: it
        cannot be used for another stream.

        Raises:
            Exception: What the source, or the giver of regions, raised when it was closed; all else is done by then.
        """
        if self._process not in (None, os.getpid()):
            # A child that was forked: the threads are the parent's, and so is what they may have locked meanwhile.
            self._latest = self._silence(Reason.NO_FRAME, "the pipeline runs in another process")
            return
        thread = threading.get_ident()
        if thread not in self._stopping:  # else a signal handler, which would wait for the call that it has interrupted
            self._stopping.add(thread)
            try:
                self._stop()
            finally:
                self._stopping.discard(thread)

    def _stop(self) -> None:
        if self._watchdog is not None:
            self._watchdog.stop()
        self._mailbox.close()
        if not self._closing:
            self._close_inputs()
        if threading.current_thread() in self._threads:
            return
        if self._mailbox.interrupted or self._results.interrupted:
            return  # a signal handler: the threads end when this one goes on, and the end of the block waits for them
        # A worker waiting for room in a full result channel is let go only after the channel is closed.
        self._results.close()
        until = time.monotonic() + _JOIN_S
        for thread in [*self._threads, *self._closing]:
            if thread.ident is not None:  # else it could not be started
                thread.join(timeout=max(0.0, until - time.monotonic()))
        self._health.close()
        busy = tuple(thread.name for thread in self._threads if thread.is_alive())
        hanging = busy + tuple(thread.name for thread in self._closing if thread.is_alive())
        if self._frozen:
            gc.unfreeze()
            self._frozen = False
        if self._threads:
            self.unfinished = hanging
        for name in hanging:
            known = {"framegate-worker": "the engine", _CLOSES_GIVER: "the giver of regions"}
            what = known.get(name, f"the source {self._source.name}")
            to_stderr(f"framegate: {what} does not answer: the thread {name} did not end within {_JOIN_S:g} s")
        if self._claimed and not busy:
            self._session.release(self)
        self._claimed = False
        self._threads.clear()
        self._latest = self._silence(Reason.NO_FRAME, "the pipeline was stopped")
        if self._close_failures:
            raise self._close_failures.pop(0)

    def _close_inputs(self) -> None:
        """Close source and giver, each in a thread of its own: a driver may wait for ever for its camera.

        Once, also where the pipeline is stopped again: a driver need not bear two threads that close it, and what the
        first `close` raised would be forgotten where `stop` could not wait for it.
        """

        def attempt(close: Callable[[], object]) -> None:
            try:
                close()
            except Exception as error:  # noqa: BLE001 - `stop` raises it when it has ended everything else
                self._close_failures.append(error)

        closes: dict[str, Callable[[], object]] = {"framegate-close": self._source.close}
        if self._objects is not None:
            closes[_CLOSES_GIVER] = self._objects.giver.close
        for name, close in closes.items():
            self._closing.append(threading.Thread(target=attempt, args=(close,), name=name, daemon=True))
            try:
                self._closing[-1].start()
            except RuntimeError:  # no room for another thread, or the interpreter ends
                attempt(close)

    def tell(self, told: Callable[[FrameResult], None]) -> None:
        """Have every result told at once, by the thread that made it, before anybody who iterates gets it.

        For whom every microsecond counts (`framegate.runtime.handover.Sender`): no other thread has to wake up first,
        and a consumer that is slow or asleep delays nothing. Call it before the pipeline is entered.

        Args:
            told: Called by the worker, and by the watchdog for silence; it must not wait. What it raises ends the
                pipeline and comes out of `results`.
        """
        self._told = told

    def __iter__(self) -> Iterator[Prediction]:
        for result in self.results():
            yield from result.predictions

    def results(self) -> Iterator[FrameResult]:
        """Results frame by frame, until the source ends or the pipeline is stopped.

        Raises:
            UsageError: The pipeline was not entered with ``with``, so nothing runs that could give a result.
            FramegateError: After the last result, if the source broke off.
        """
        self._require_running()
        while (result := self._results.take()) is not None:
            yield result
        self._raise_failure()

    def take(self, timeout_s: float) -> FrameResult | None:
        """The next result, or one that says NO_FRAME if none comes in time; None when there will be no more.

        Args:
            timeout_s: Longest wait in seconds, 0 or more.

        Raises:
            UsageError: The pipeline was not entered, or the time is no number of seconds.
            FramegateError: After the last result, if the source broke off.
        """
        self._require_running()
        if not (math.isfinite(timeout_s) and timeout_s >= 0):
            raise UsageError(f"timeout is {timeout_s} s; expected seconds, 0 or more")
        result = self._results.take(timeout_s)
        if result is not None:
            return result
        if self._results.finished:
            self._raise_failure()
            return None
        return FrameResult(self._silence(Reason.NO_FRAME, f"no verdict came within {timeout_s * 1e3:.0f} ms"), None, "")

    def latest(self, region: str | None = None) -> Prediction:
        """The newest verdict on a region, or a REJECT that says why there is none. Never waits.

        Verdicts that wait to be iterated over are not taken. Can be called from any thread.

        Args:
            region: Its name; None where there is only one. With moving regions the name of a track, which is NO_FRAME
                where the newest frame does not show it; None is the scene (`FrameResult.scene`).

        Raises:
            UsageError: There is no such region, or several and none was named.
        """
        if self._object_judge is not None:
            return self._latest_object(region or FULL)
        names = tuple(roi.name for roi in self._rois)
        if region is None and len(names) > 1:
            raise UsageError(f"latest() of {len(names)} regions: name one of {', '.join(names)}")
        if region is not None and region not in names:
            raise UsageError(f"latest({region!r}): there is no such region; there are {', '.join(names)}")
        return self._latest[0 if region is None else names.index(region)]

    def latest_objects(self) -> tuple[Prediction, ...]:
        """The newest verdicts on all objects; empty where the newest frame shows none. Never waits.

        That there are none means nothing while the scene, `latest`, is rejected.
        """
        return tuple(each for each in self._latest if each.found is not None)

    def _latest_object(self, name: str) -> Prediction:
        """The newest verdict on the scene or a track; a REJECT where the newest frame does not show it."""
        newest = self._latest
        for each in newest:
            if each.stream == name:
                return each
        detail = f"the newest frame, {newest[0].frame_id}, does not show {name}"
        return Prediction.without_frame(name, Reason.NO_FRAME, detail, time.monotonic_ns())

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
        owned = getattr(self._source, "hands_over", False)  # a source need not derive from ours
        try:
            while (frame := self._source.read()) is not None:
                self.stats.captured += 1
                if isinstance(frame.image, np.ndarray):
                    if not owned:  # whoever writes into the array again would change what is being judged
                        frame = replace(frame, image=frame.image.copy())
                    frame.image.setflags(write=False)
                idle = self._judging is None
                if not self._mailbox.put(frame):
                    break
                if idle:  # the worker wakes up, and soon asks for the camera check
                    self._health.attend()
                self.stats.dropped = self._mailbox.overwritten
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, see results()
            self._fail(error)
        finally:
            self._mailbox.close()

    def _work(self) -> None:
        try:
            while (frame := self._mailbox.take()) is not None:
                self._judging = (frame.frame_id, time.monotonic_ns())
                self._forget_drift()
                if self._keep and not self._session.scorer.takes_nv12:
                    frame = viewable(frame)  # converted here, once, for the network and for people
                result = self._judge(frame)
                if self._told is not None:  # first: somebody waits for it
                    self._told(result)
                if self._keep:
                    result = replace(result, image=viewable(frame).image)
                self._judging = None
                self.stats.record(result.predictions, result.scene, result.left_out)
                if not self._publish(result):
                    self.stats.unread = self._results.overwritten + 1  # the pipeline was stopped meanwhile
                    break
                self.stats.unread = self._results.overwritten
                self._session.look_after_engine()
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, see results()
            self._fail(error)
        finally:
            self._judging = None
            if self._watchdog is not None:
                self._watchdog.stop()
            self._latest = self._silence(Reason.NO_FRAME, "the source has ended")
            self._mailbox.close()
            self._results.close()

    def _judge(self, frame: Frame) -> FrameResult:
        if self._object_judge is not None:
            scene, predictions, left_out = self._object_judge.judge(frame, self._health, self._deadline_ns)
            return FrameResult(predictions, None, frame.name, scene, left_out)
        judge = self._session.frame_judge.judge
        return FrameResult(judge(frame, self._rois, self._health, self._deadline_ns, self._streams), None, frame.name)

    def _forget_drift(self) -> None:
        """End the drift alarms, if that was asked for meanwhile."""
        if self._reset_drift.is_set():
            self._reset_drift.clear()
            for policy in self._streams:
                policy.reset()
            if self._object_judge is not None:
                self._object_judge.memory.reset_drift()

    def _publish(self, result: FrameResult) -> bool:
        """Hand a result over; False if nobody can read it any more."""
        with self._publishing:
            self._published_ns = time.monotonic_ns()
            self._latest = result.verdicts
        return self._results.put(result)

    def _report_silence(self, reason: Reason, detail: str, stopped: bool) -> None:
        """Called by the watchdog: everybody who reads gets a REJECT."""
        predictions = self._silence(reason, detail)
        with self._publishing:
            self._published_ns = predictions[0].decided_ns
            self._latest = predictions
        result = FrameResult(predictions, None, "")
        if self._told is not None:
            try:
                self._told(result)
            except BaseException as error:  # noqa: BLE001 - handed to the consumer, see results()
                self._fail(error)
                self._mailbox.close()
        self.stats.silences[reason.value] += 1
        if stopped:  # the next frame may come before anybody reads this result
            to_stderr(f"framegate: {detail}")
        self._results.put(result)

    def _silence(self, reason: Reason, detail: str) -> tuple[Prediction, ...]:
        now = time.monotonic_ns()
        return tuple(Prediction.without_frame(roi.name, reason, detail, now) for roi in self._rois)

    def _require_running(self) -> None:
        if not self._entered:
            raise UsageError("a pipeline runs inside its with block only: with Pipeline(...) as pipeline: ...")

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _fail(self, error: BaseException) -> None:
        if self._failure is None or not isinstance(self._failure, FramegateError):
            self._failure = error
