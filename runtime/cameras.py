"""Several cameras in one process: a pipeline for each, and the network's weights once.

source front -> Pipeline (session)           -> results --.
source rear  -> Pipeline (session.another()) -> results ---> one consumer, which is told whose they are
source left  -> Pipeline (session.another()) -> results --'

No camera waits for another one: each has threads, a session, an input and a memory of its own. A camera that cannot be
opened, breaks off or hangs gives no frames, and once per deadline a REJECT with NO_FRAME says so.
"""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from framegate.runtime.console import to_stderr
from framegate.runtime.errors import FramegateError, UsageError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.pipeline import RESULTS_HELD, Pipeline, default_deadline_ms
from framegate.runtime.roi import Roi
from framegate.runtime.session import Session
from framegate.runtime.sources.base import Source
from framegate.runtime.sources.live import FIRST_DELAY_S, LONGEST_DELAY_S
from framegate.runtime.stats import PipelineStats
from framegate.runtime.verdict import Frame, Prediction, Reason

_JOIN_S = 6.0


def stream_name(camera: str, region: str) -> str:
    """The name of a region of one of several cameras: in verdicts, recordings and streams of the hand-over."""
    return f"{camera}/{region}"


@dataclass(frozen=True)
class Camera:
    """One camera.

    Attributes:
        name: What people call it.
        open: Opens its source; called in a thread of the camera's own, and again if it fails.
        rois: Its regions; empty: the whole frame.
    """

    name: str
    open: Callable[[], Source]
    rois: tuple[Roi, ...] = ()

    @property
    def regions(self) -> tuple[Roi, ...]:
        """The regions under names that no other camera has, see `stream_name`."""
        return tuple(replace(roi, name=stream_name(self.name, roi.name)) for roi in self.rois or (Roi.whole(),))


class Cameras:
    """Runs cameras side by side. Use as a context manager, once.

    Args:
        cameras: One or more, with different names.
        session: Judges the first one; the others get `Session.another`.
        take: Told every result, in a thread of the camera that it comes from; it must not wait.
        deadline_ms: Of every camera; None takes the default of its source.
        keep_frames: Hand the pixels on, see `Pipeline`.
        again: Open a source again that could not be opened or broke off; False ends that camera.
        told: Told every result before `take`, by the thread that made it, see `Pipeline.tell`: a sender.

    Attributes:
        failures: Camera -> why it ended early.

    Raises:
        UsageError: There is no camera, or two have one name.
        BackendError: An engine cannot be opened once more.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        session: Session,
        take: Callable[[Camera, FrameResult], None],
        *,
        deadline_ms: float | None = None,
        keep_frames: bool = False,
        again: bool = True,
        told: Callable[[FrameResult], None] | None = None,
    ) -> None:
        names = [camera.name for camera in cameras]
        if not cameras or len(set(names)) != len(names):
            raise UsageError(f"cameras {', '.join(names) or '(none)'}: each needs a name of its own")
        self.failures: dict[str, FramegateError] = {}
        self._tracks = tuple(
            _Track(camera, session if index == 0 else session.another(), take, deadline_ms, keep_frames, again, told)
            for index, camera in enumerate(cameras)
        )

    def __enter__(self) -> Cameras:
        for track in self._tracks:
            track.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End all cameras, side by side; can be called twice, and from any thread."""
        for track in self._tracks:
            track.stop()
        self.wait(_JOIN_S)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until all cameras have ended; False if they have not in time.

        Args:
            timeout_s: Longest wait in seconds; None waits for ever.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        for track in self._tracks:
            track.join(None if until is None else max(0.0, until - time.monotonic()))
        self.failures.update((each.camera.name, each.failure) for each in self._tracks if each.failure is not None)
        return not any(track.runs for track in self._tracks)

    def latest(self, camera: str, region: str | None = None) -> Prediction:
        """The newest verdict on a region of a camera, or a REJECT that says why there is none. Never waits.

        Args:
            camera: Its name.
            region: The region's own name; None where there is only one.

        Raises:
            UsageError: There is no such camera or region.
        """
        return self._track(camera).latest(region)

    def pipeline(self, camera: str) -> Pipeline | None:
        """The pipeline that a camera has now; None while its source is not open."""
        return self._track(camera).pipeline

    def stats(self) -> dict[str, PipelineStats]:
        """Camera -> what its last pipeline has done so far; without the cameras that never opened."""
        return {each.camera.name: each.last.stats for each in self._tracks if each.last is not None}

    def _track(self, camera: str) -> _Track:
        for track in self._tracks:
            if track.camera.name == camera:
                return track
        raise UsageError(
            f"there is no camera {camera!r}; there are {', '.join(each.camera.name for each in self._tracks)}"
        )


class _GoesOn(Source):
    """A source whose frames' numbers go on behind those of the one before, as they do in a camera that reconnects.

    A receiver of the hand-over refuses a frame that is not newer than the last one: with numbers that begin anew it
    would stay closed until they have come as far as before.

    Args:
        source: It.
        first: The smallest number that was not given yet.

    Attributes:
        next_id: The same, now.
    """

    def __init__(self, source: Source, first: int) -> None:
        self.name, self.live, self.fps = source.name, source.live, source.fps
        self.frame_size, self.fixed_size = source.frame_size, source.fixed_size
        for name, otherwise in (("hands_over", False), ("length", None), ("status", self.status)):
            setattr(self, name, getattr(source, name, otherwise))  # a source need not derive from ours
        self.next_id = first
        self._source = source
        self._shift: int | None = None

    def read(self) -> Frame | None:
        """See `Source.read`."""
        frame = self._source.read()
        if frame is None:
            return None
        try:
            number = operator.index(frame.frame_id)
        except TypeError:  # it is BAD_INPUT
            return frame
        if self._shift is None:  # a camera may count on by itself
            self._shift = max(0, self.next_id - number)
        if self._shift:
            frame = replace(frame, frame_id=number + self._shift)
        self.next_id = max(self.next_id, number + self._shift + 1)
        return frame

    def close(self) -> None:
        """See `Source.close`."""
        self._source.close()


class _Track:
    """One camera, its threads, and what it says while its source is not open."""

    def __init__(
        self,
        camera: Camera,
        session: Session,
        take: Callable[[Camera, FrameResult], None],
        deadline_ms: float | None,
        keep_frames: bool,
        again: bool,
        told: Callable[[FrameResult], None] | None,
    ) -> None:
        self.camera = camera
        self.pipeline: Pipeline | None = None
        self.last: Pipeline | None = None
        self.failure: FramegateError | None = None
        self._session, self._take = session, take
        self._deadline_ms, self._keep, self._again = deadline_ms, keep_frames, again
        self._told = told
        self._stopped = threading.Event()
        self._why = "the camera has not been opened yet"
        self._next_id = 0
        self._opening = threading.Event()
        self._threads = (
            threading.Thread(target=self._run, name=f"framegate-camera-{camera.name}", daemon=True),
            threading.Thread(target=self._report_no_source, name=f"framegate-silence-{camera.name}", daemon=True),
        )

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self._threads[0].is_alive()

    def start(self) -> None:
        self._opening.set()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._opening.set()
        pipeline = self.pipeline
        if pipeline is not None:
            threading.Thread(target=pipeline.stop, daemon=True).start()

    def join(self, timeout_s: float | None) -> None:
        if self._threads[0].ident is not None:
            self._threads[0].join(timeout_s)

    def latest(self, region: str | None) -> Prediction:
        regions = self.camera.regions
        name = regions[0].name if region is None and len(regions) == 1 else stream_name(self.camera.name, region or "")
        if name not in [roi.name for roi in regions]:
            own = ", ".join(roi.name for roi in self.camera.rois or (Roi.whole(),))
            raise UsageError(f"latest of camera {self.camera.name}: name one of its regions, {own}")
        pipeline = self.pipeline
        if pipeline is not None:
            return pipeline.latest(name)
        return Prediction.without_frame(name, Reason.NO_FRAME, self._why, time.monotonic_ns())

    def _run(self) -> None:
        delay_s = FIRST_DELAY_S
        while not self._stopped.is_set():
            try:
                judged = self._one_source()
                if not self._stopped.is_set() and judged is not None:  # a clip that has ended
                    self._why = "the source has ended"
                    break
            except FramegateError as error:
                known, self._why = self._why, str(error)
                # To open it again would not correct a wrong region or option.
                if not self._again or isinstance(error, UsageError):
                    self.failure = error
                    break
                if known != self._why and not self._stopped.is_set():
                    to_stderr(f"framegate: camera {self.camera.name}: {error}; trying again")
                delay_s = FIRST_DELAY_S if self._worked() else min(2 * delay_s, LONGEST_DELAY_S)
            except BaseException as error:  # noqa: BLE001 - one camera's bug must not be another's silence
                self.failure = FramegateError(f"camera {self.camera.name}: {type(error).__name__}: {error}")
                self._why = str(self.failure)
                break
            finally:
                self.pipeline = None
                self._opening.set()
            self._stopped.wait(delay_s)
        if self.failure is None:  # a camera that failed for good reports NO_FRAME until somebody stops it
            self._stopped.set()
        self._opening.set()

    def _worked(self) -> bool:
        return self.last is not None and bool(self.last.stats.frames)

    def _one_source(self) -> int | None:
        """Open the source and judge it to its end. Returns the number of frames; None if it was stopped before.

        Raises:
            FramegateError: It cannot be opened, or it broke off.
        """
        source = self.camera.open()
        if self._stopped.is_set():
            source.close()
            return None
        try:
            source = numbered = _GoesOn(source, self._next_id)
            pipeline = Pipeline(
                source,
                self._session,
                rois=self.camera.regions,
                deadline_ms=self._deadline_ms,
                lossless=not source.live,
                keep_frames=self._keep,
                results_held=RESULTS_HELD,
            )
        except BaseException:
            source.close()
            raise
        if self._told is not None:
            pipeline.tell(self._told)
        with pipeline:
            self.last = self.pipeline = pipeline
            self._opening.clear()
            if self._stopped.is_set():
                return None
            try:
                for result in pipeline.results():
                    self._take(self.camera, result)
            finally:
                self._next_id = numbered.next_id
        return pipeline.stats.frames

    def _report_no_source(self) -> None:
        """Give REJECT with NO_FRAME once per deadline while the source is not open; later its pipeline does so."""
        pause_s = (self._deadline_ms or default_deadline_ms(None)) / 1e3
        while True:
            self._opening.wait()
            if self._stopped.wait(pause_s):
                return
            if self.pipeline is not None or not self._opening.is_set():
                continue
            now = time.monotonic_ns()
            said = (Prediction.without_frame(roi.name, Reason.NO_FRAME, self._why, now) for roi in self.camera.regions)
            result = FrameResult(tuple(said), None, "")
            if self._told is not None:
                self._told(result)
            self._take(self.camera, result)
