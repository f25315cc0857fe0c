"""One stream under measurement: frames in memory, fed at once or at a camera's pace, and what came of them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from framegate.runtime.errors import SourceError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.pipeline import RESULTS_HELD, Pipeline
from framegate.runtime.session import Session
from framegate.runtime.sources.base import BaseSource, Source
from framegate.runtime.sources.open import open_source
from framegate.runtime.sources.options import SourceOptions
from framegate.runtime.stage_clock import StageClock
from framegate.runtime.verdict import BGR, Frame, Image, Reason

HELD = 55
"""Most frames kept in memory; more than the 32 that camera health remembers, or the repetition would be FROZEN."""


def read_frames(uri: str, options: SourceOptions | None = None, count: int = HELD) -> list[Image]:
    """The first frames of a source, decoded, as BGR of one size.

    Raises:
        SourceError: There is no such source, it gives no frame, or frames of several sizes.
        UsageError: Its parameters or options are wrong.
    """
    from framegate.runtime.pixel_format import to_bgr

    images: list[Image] = []
    with open_source(uri, options, realtime=False) as source:
        while len(images) < count and (frame := source.read()) is not None:
            # Live sources may reuse their buffer.
            images.append(np.array(frame.image if frame.pixel_format == BGR else to_bgr(frame).image, order="C"))
    if not images:
        raise SourceError(f"source {uri!r}: it gave no frame, so there is nothing to measure with")
    sizes = {image.shape for image in images}
    if len(sizes) > 1:
        raise SourceError(
            f"source {uri!r}: its frames have {len(sizes)} sizes; a latency needs frames of one size, as a camera has"
        )
    return images


class FrameFeed(BaseSource):
    """Frames in memory, in a circle; delivered when granted.

    Args:
        images: (height, width, 3) uint8 BGR, all of one size.
        fps: Pace of the frames granted together, the first of them at once; None delivers each at once.

    A frame is stamped at delivery, like a camera's without a driver's timestamp. A late reader does not slow the
    pace: frames come when they are due, so a slow engine is not asked less often than a fast one.

    Attributes:
        images: As given.
        lateness_ns: How long after they were due frames were delivered: the waking of the capture thread.
    """

    def __init__(self, images: Sequence[Image], fps: float | None = None) -> None:
        height, width = images[0].shape[:2]
        self.hands_over = True  # nobody writes into them
        super().__init__("benchmark", live=True, frame_size=(width, height), fps=fps)
        self.images = images
        self.lateness_ns: list[int] = []
        self._granted = 0
        self._condition = threading.Condition()
        self._due = 0

    def grant(self, count: int) -> None:
        """Deliver so many more frames."""
        with self._condition:
            self._granted += count
            self._condition.notify_all()

    def close(self) -> None:
        """See `Source.close`."""
        super().close()
        with self._condition:
            self._condition.notify_all()

    def _produce(self, frame_id: int) -> Frame | None:
        with self._condition:
            if not self._granted:
                self._due = 0
            self._condition.wait_for(lambda: self._granted or self._closed.is_set())
            self._granted -= 1
        if self.fps is not None:
            self._due = self._due or time.monotonic_ns()
            while (ahead := self._due - time.monotonic_ns()) > 0 and not self._closed.wait(ahead / 1e9):
                pass
        now = time.monotonic_ns()
        if self.fps is not None:
            self.lateness_ns.append(now - self._due)
            self._due += round(1e9 / self.fps)
        return Frame(frame_id, now, self.images[frame_id % len(self.images)])


@dataclass
class Samples:
    """What was measured of the counted frames of one stream, in nanoseconds.

    Attributes:
        frame_ids: Their numbers.
        captured_ns: Monotonic time of capture.
        verdict_ns: Capture to verdict.
        hand_over_ns: Verdict ready to consumer has it.
        engine_ns: The engine's call.
        fed: Frames that the source delivered meanwhile; those beyond the counted were dropped.
        deadline_misses: Verdicts that were LATE.
        accepted: ACCEPT verdicts.
        reasons: Why the others were rejected.
    """

    frame_ids: list[int] = field(default_factory=list)
    captured_ns: list[int] = field(default_factory=list)
    verdict_ns: list[int] = field(default_factory=list)
    hand_over_ns: list[int] = field(default_factory=list)
    engine_ns: list[int] = field(default_factory=list)
    fed: int = 0
    deadline_misses: int = 0
    accepted: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, result: FrameResult, received_ns: int) -> None:
        """Count a result that the consumer got at this monotonic time."""
        prediction = result.predictions[0]
        self.frame_ids.append(prediction.frame_id)
        self.captured_ns.append(prediction.captured_ns)
        self.verdict_ns.append(prediction.decided_ns - prediction.captured_ns)
        self.hand_over_ns.append(received_ns - prediction.decided_ns)
        self.engine_ns.append(prediction.engine_ns)
        self.deadline_misses += Reason.LATE in prediction.decided_reasons
        self.accepted += prediction.accepted_when_decided
        self.reasons.update(reason.value for reason in prediction.decided_reasons)

    @property
    def dropped(self) -> int:
        """Frames that were delivered and never judged."""
        return self.fed - len(self.frame_ids)


class BenchStream:
    """A pipeline on one stream, measured in blocks. Use as a context manager.

    Args:
        session: Judges the frames; it gets a clock for its stages.
        source: A `FrameFeed`, or any other source, which then has its own pace.
        capacity: Most frames whose stages are kept, warm-up included.
        deadline_ms: Older verdicts are LATE; None sets no deadline.
        spin_us: How long the worker looks for the next frame before it sleeps.
    """

    def __init__(
        self,
        session: Session,
        source: Source,
        capacity: int,
        *,
        deadline_ms: float | None = None,
        spin_us: float = 0.0,
    ) -> None:
        self.source = source
        self._feed = source if isinstance(source, FrameFeed) else None
        self._judge = session.frame_judge
        self._clock = session.frame_judge.stages = StageClock(capacity)
        self.pipeline = Pipeline(source, session, deadline_ms=deadline_ms, spin_us=spin_us, results_held=RESULTS_HELD)
        self._results: Iterator[FrameResult] = self.pipeline.results()
        self._fed = 0
        self.samples = Samples()
        self._clocked: Samples | None = None

    def __enter__(self) -> BenchStream:
        self.pipeline.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.pipeline.stop()

    def clock(self, runs: bool) -> None:
        """Let the clock of the stages run for the next frames, which are then no `samples`, or stop it.

        Without this call it always runs. To read it costs a small network's frame up to a twentieth of its time.
        """
        if self._clocked is None:
            self._clocked, self._plain = Samples(), self.samples
        self._judge.stages = self._clock if runs else None
        self.samples = self._clocked if runs else self._plain

    def run(self, settle: int, count: int) -> None:
        """Judge ``settle`` frames that are not counted, then ``count`` that are.

        Raises:
            SourceError: The source ended or broke off.
        """
        first = self._fed + settle
        last = first + count - 1
        self._fed = last + 1
        if self._feed is None:
            first, last = self._own_pace(settle, count)
        elif self._feed.fps is None:
            for _ in range(settle + count):
                self._feed.grant(1)
                self._take(first)
        else:
            self._feed.grant(settle + count)
            while self._take(first) < last:
                pass
        self.samples.fed += last - first + 1

    def _own_pace(self, settle: int, count: int) -> tuple[int, int]:
        begun = self._take(None)  # whatever is there now
        first = begun + settle + 1
        while (last := self._take(first)) < first + count - 1:
            pass
        return first, last

    def _take(self, first_counted: int | None) -> int:
        # A silence is no frame: the benchmark asks for frames one by one, and may take its time.
        result = next((each for each in self._results if each.has_frame), None)
        received_ns = time.monotonic_ns()
        if result is None:
            raise SourceError(f"source {self.source.name}: it ended before enough frames were measured")
        number = result.predictions[0].frame_id
        if first_counted is not None and number >= first_counted:
            self.samples.add(result, received_ns)
        return number

    @property
    def stages_ns(self) -> npt.NDArray[np.int64]:
        """(counted frames, stages) durations in ns; where `clock` was called, of the frames that it ran for."""
        samples = self.samples if self._clocked is None else self._clocked
        return self._clock.durations_ns[np.searchsorted(self._clock.frame_ids, samples.frame_ids)]
