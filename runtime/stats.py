"""Counters and latency percentiles of a running pipeline, in constant memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from framegate.runtime.frame_result import is_fixed
from framegate.runtime.verdict import Prediction, Reason

OBJECTS = "objects"
"""Name under which the verdicts on moving objects are counted."""
_MOST_NAMES = 64
"""Names that are counted one by one: what a giver of regions calls objects, and fixed regions beside them."""
_LOWEST_NS = 1_000.0
_STEP = math.log(1.005)
_BUCKETS = 4_200  # 1 us to more than 1,000 s in steps of 0.5 %


class LatencyHistogram:
    """Durations in logarithmic buckets 0.5 % wide, so that a day of frames needs 34 kB. The maximum is exact."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BUCKETS, np.int64)
        self.count = 0
        self.max_ns = 0
        self.sum_ns = 0

    def add(self, duration_ns: int) -> None:
        """Count one duration; below 1 us counts as 1 us."""
        index = int(math.log(max(duration_ns, _LOWEST_NS) / _LOWEST_NS) / _STEP)
        self._counts[min(index, _BUCKETS - 1)] += 1
        self.count += 1
        self.sum_ns += duration_ns
        self.max_ns = max(self.max_ns, duration_ns)

    def percentile_ms(self, percent: float) -> float:
        """The smallest duration that at least ``percent`` % of all do not exceed, in ms; NaN if there are none."""
        if not self.count:
            return math.nan
        rank = max(1, math.ceil(self.count * percent / 100))
        index = int(np.searchsorted(np.cumsum(self._counts), rank))
        middle = _LOWEST_NS * math.exp((index + 0.5) * _STEP)
        return min(middle, self.max_ns) / 1e6

    def below_s(self, ends: Sequence[float]) -> tuple[list[int], int, float]:
        """How many durations were at most so long, how many there are, and their sum in seconds.

        Args:
            ends: In seconds, ascending. A bucket counts with its middle, so that the ends are 0.25 % blurred.
        """
        counts = np.cumsum(self._counts)  # a copy: another thread goes on counting
        index = [min(max(int(math.log(end * 1e9 / _LOWEST_NS) / _STEP - 0.5), 0), _BUCKETS - 1) for end in ends]
        return [int(counts[each]) for each in index], int(counts[-1]), self.sum_ns / 1e9

    def summary(self) -> dict[str, float]:
        """p50, p99, p99.9 and max in milliseconds."""
        return {
            "p50_ms": self.percentile_ms(50),
            "p99_ms": self.percentile_ms(99),
            "p99.9_ms": self.percentile_ms(99.9),
            "max_ms": self.max_ns / 1e6 if self.count else math.nan,
        }


@dataclass
class StreamStats:
    """Counts of one region of interest.

    Attributes:
        evaluated: Verdicts given.
        accepted: ACCEPT verdicts.
        reasons: Reason -> rejected verdicts that had it (one verdict can have several).
        labels: Label -> accepted verdicts with it.
        drift_alarms: How often DRIFT began.
        drifting: The last verdict had the reason DRIFT.
    """

    evaluated: int = 0
    accepted: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    drift_alarms: int = 0
    drifting: bool = False

    @property
    def coverage(self) -> float:
        """Accepted / evaluated, NaN before the first verdict."""
        return self.accepted / self.evaluated if self.evaluated else math.nan

    def record(self, prediction: Prediction) -> None:
        """Count one verdict."""
        self.evaluated += 1
        if prediction.accepted_when_decided:
            self.accepted += 1
            self.labels[prediction.candidate] += 1
        else:
            self.reasons.update(reason.value for reason in prediction.decided_reasons)
        drifting = Reason.DRIFT in prediction.decided_reasons
        self.drift_alarms += drifting and not self.drifting
        self.drifting = drifting


class Tracks(Protocol):
    """What became of the tracks: `framegate.runtime.regions.tracks.TrackCounts`."""

    begun: int
    used: int
    ended: int
    jumped: int
    waits: Counter[int]


@dataclass
class ObjectStats:
    """What is counted where regions move.

    Attributes:
        tracks: What became of the tracks; None where nothing is followed.
        scene: Of the frames as a whole: the camera check, and whether it was known where objects are.
        left_out: Why boxes have no verdict -> how many.
        called: What the giver calls an object -> verdicts on those, without fixed regions.
        used: The same of the accepted ones.
        empty: Frames without an object, whatever regions stand beside.
    """

    tracks: Tracks | None = None
    scene: StreamStats = field(default_factory=StreamStats)
    left_out: Counter[str] = field(default_factory=Counter)
    called: Counter[str] = field(default_factory=Counter)
    used: Counter[str] = field(default_factory=Counter)
    empty: int = 0

    def record(self, prediction: Prediction) -> None:
        """Count what an object is called, and whether it may be used."""
        name = prediction.found.detected if prediction.found else ""
        if name and (name in self.called or len(self.called) < _MOST_NAMES):
            self.called[name] += 1
            self.used[name] += prediction.accepted_when_decided

    def to_json(self) -> dict[str, Any]:
        """A record of plain JSON values."""
        tracks = self.tracks
        waits = sorted(tracks.waits.items()) if tracks else []
        return {
            "frames_without_objects": self.empty,
            "frames_rejected_as_a_whole": dict(self.scene.reasons),
            "left_out": dict(self.left_out),
            "called": {name: {"verdicts": count, "accepted": self.used[name]} for name, count in self.called.items()},
            "tracks": tracks
            and {
                "begun": tracks.begun,
                "used": tracks.used,
                "ended": tracks.ended,
                "jumped": tracks.jumped,
                "frames_to_first_accept": {str(frames): count for frames, count in waits},
            },
        }

    def lines(self) -> list[str]:
        """The same for people."""
        scene = ", ".join(f"{name} {count}" for name, count in self.scene.reasons.most_common()) or "none"
        lines = [f"frames without objects: {self.empty}; frames rejected as a whole: {scene}"]
        if self.left_out:
            parts = ", ".join(f"{name} {count}" for name, count in self.left_out.most_common())
            lines.append(f"boxes WITHOUT a verdict: {parts}")
        if self.called:
            parts = ", ".join(f"{name} {count} ({self.used[name]} used)" for name, count in self.called.most_common())
            lines.append(f"found as: {parts}")
        if self.tracks and self.tracks.begun:
            waits = sorted(self.tracks.waits.elements())
            median = f", the first time on frame {waits[len(waits) // 2]} of the track (median)" if waits else ""
            lines.append(
                f"tracks: {self.tracks.begun}, {self.tracks.used} of them used at least once{median}; "
                f"{self.tracks.jumped} jumped and were started anew"
            )
        lines.append("objects that the detector missed are in none of these figures")
        return lines


class PipelineStats:
    """What a pipeline has done so far. Written by its worker; reading while it runs may be one frame behind.

    Attributes:
        captured: Frames that the source delivered: `frames` + `dropped` + `waiting`.
        dropped: Frames overwritten by newer ones before they were evaluated.
        unread: Results overwritten because the consumer was too slow (real time only), or given after `stop`.
        frames: Frames evaluated.
        silences: Reason -> how often a silence was reported in place of verdicts; those are no frames.
        streams: Name of region -> its counts; moving objects are counted together, as `OBJECTS`.
        objects: What is counted where regions move.
        latency: Capture to verdict.
        engine: The bare engine call within it.
        calibrated_coverage: Share of the calibration images that would be accepted, NaN if unknown: what `coverage`
            would be on frames like them.
    """

    def __init__(self, streams: tuple[str, ...], calibrated_coverage: float = math.nan) -> None:
        self.captured = 0
        self.dropped = 0
        self.unread = 0
        self.frames = 0
        self.silences: Counter[str] = Counter()
        self.streams = {name: StreamStats() for name in streams}
        self.objects = ObjectStats()
        self.calibrated_coverage = calibrated_coverage
        self.latency = LatencyHistogram()
        self.engine = LatencyHistogram()

    def record(
        self,
        predictions: tuple[Prediction, ...],
        scene: Prediction | None = None,
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        """Count the verdicts on one frame.

        Args:
            predictions: Of its regions or objects.
            scene: With moving regions, see `framegate.runtime.frame_result.FrameResult`.
            left_out: The same.
        """
        self.frames += 1
        if scene is not None:
            self._record_objects(predictions, scene, left_out or {})
            return
        for prediction in predictions:
            self.streams[prediction.stream].record(prediction)
            self.latency.add(prediction.decided_ns - prediction.captured_ns)
            if prediction.engine_ns:
                self.engine.add(prediction.engine_ns)

    def _record_objects(
        self, predictions: tuple[Prediction, ...], scene: Prediction, left_out: Mapping[str, int]
    ) -> None:
        """Their names change from frame to frame: they are counted together, and a frame's times once."""
        counts = self.objects
        counts.scene.record(scene)
        counts.left_out.update(left_out)
        counts.empty += all(map(is_fixed, predictions))
        self.streams.setdefault(OBJECTS, StreamStats())
        for prediction in predictions:
            self._object_stream(prediction).record(prediction)
        self.latency.add(scene.decided_ns - scene.captured_ns)
        engine_ns = max((prediction.engine_ns for prediction in predictions), default=0)
        if engine_ns:
            self.engine.add(engine_ns)

    def _object_stream(self, prediction: Prediction) -> StreamStats:
        """Where a verdict is counted: fixed regions keep their names."""
        name = prediction.stream
        if not is_fixed(prediction):
            self.objects.record(prediction)
            return self.streams[OBJECTS]
        if name not in self.streams and len(self.streams) >= _MOST_NAMES:
            return self.streams[OBJECTS]
        return self.streams.setdefault(name, StreamStats())

    @property
    def waiting(self) -> int:
        """Frames that were delivered and are not judged yet, or never will be because the pipeline was stopped."""
        return self.captured - self.frames - self.dropped

    @property
    def evaluated(self) -> int:
        """Verdicts given, over all regions."""
        return sum(stream.evaluated for stream in self.streams.values())

    @property
    def accepted(self) -> int:
        """ACCEPT verdicts, over all regions."""
        return sum(stream.accepted for stream in self.streams.values())

    @property
    def rejected_by_reason(self) -> Counter[str]:
        """Reason -> verdicts that had it, over all regions."""
        return sum((stream.reasons for stream in self.streams.values()), Counter())

    @property
    def coverage(self) -> float:
        """Accepted / evaluated, NaN before the first verdict."""
        return self.accepted / self.evaluated if self.evaluated else math.nan

    def drift_line(self) -> str:
        """Which regions have drifted from the calibration, and how much is accepted against how much was."""
        drifted = [
            f"{name} ({'still, ' if stream.drifting else ''}{stream.reasons[Reason.DRIFT.value]} verdicts, "
            f"{stream.drift_alarms} {'alarm' if stream.drift_alarms == 1 else 'alarms'})"
            for name, stream in self.streams.items()
            if stream.drift_alarms
        ]
        line = f"drift: {', '.join(drifted) or 'none'}"
        if self.evaluated and math.isfinite(self.calibrated_coverage):
            line += f"; coverage {self.coverage:.1%} of {self.evaluated}, {self.calibrated_coverage:.1%} calibrated"
        return line

    def to_json(self) -> dict[str, Any]:
        """A record of plain JSON values; NaN becomes null."""

        def clean(values: dict[str, float]) -> dict[str, float | None]:
            return {name: round(value, 4) if math.isfinite(value) else None for name, value in values.items()}

        return {
            "captured": self.captured,
            "dropped": self.dropped,
            "unread": self.unread,
            "waiting": self.waiting,
            "silences": dict(self.silences),
            "frames": self.frames,
            "evaluated": self.evaluated,
            "accepted": self.accepted,
            "rejected_by_reason": dict(self.rejected_by_reason),
            **clean({"calibrated_coverage": self.calibrated_coverage}),
            "capture_to_verdict": clean(self.latency.summary()),
            "engine": clean(self.engine.summary()),
            **({"objects": self.objects.to_json()} if self.objects.scene.evaluated else {}),
            "streams": {
                name: {
                    "evaluated": stream.evaluated,
                    "accepted": stream.accepted,
                    **clean({"coverage": stream.coverage}),
                    "rejected_by_reason": dict(stream.reasons),
                    "accepted_labels": dict(stream.labels),
                    "drift_alarms": stream.drift_alarms,
                    "drifting": stream.drifting,
                }
                for name, stream in self.streams.items()
            },
        }

    def __str__(self) -> str:
        reasons = ", ".join(f"{name} {count}" for name, count in self.rejected_by_reason.most_common()) or "none"
        latency = self.latency.summary()
        return (
            f"{self.captured} captured, {self.dropped} dropped, {self.evaluated} verdicts: {self.accepted} accepted, "
            f"rejected: {reasons}; capture to verdict p50 {latency['p50_ms']:.2f} p99 {latency['p99_ms']:.2f} "
            f"p99.9 {latency['p99.9_ms']:.2f} max {latency['max_ms']:.2f} ms; {self.drift_line()}"
        )
