"""What the page shows beside the picture: the pipeline's own numbers, and a short memory of them."""

from __future__ import annotations

import base64
import itertools
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from framegate.camera_demo.fault_panel import FaultPanel
from framegate.camera_demo.own_file import CLIP_S, MOST_FILE_BYTES
from framegate.camera_demo.picture import thumbnail
from framegate.camera_demo.region_slots import RegionSlots
from framegate.camera_demo.timeline import REASONS, SECONDS, Timeline
from framegate.runtime.cli.options import source_record
from framegate.runtime.console import plain
from framegate.runtime.dense.spec import promise_of
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.monitor import ENTROPY, SHIFT
from framegate.runtime.pipeline import Pipeline
from framegate.runtime.roi import Roi
from framegate.runtime.session import Session
from framegate.runtime.sinks.picture import number
from framegate.runtime.sources.base import Source
from framegate.runtime.verdict import Prediction
from framegate.runtime.words import WORDS

REMEMBERED = 500
"""Frames in the charts and the histogram: 20 s at 25 frames per second."""
_THUMBNAILS = 6
_STREAMS_KNOWN = 64
_THUMBNAIL_S = 1.0
"""At least so long between two thumbnails of a region."""
_EDGES_MS = tuple(0.5 * 2 ** (k / 2) for k in range(23))
"""Edges of the bars of the histogram: 0.5 ms to 1024 ms, two to an octave."""
_CHARTS = 3
"""Beside that of the score."""
_ENERGY = "energy"
_TITLES = {SHIFT: "Activation shift (log odds)", _ENERGY: "Energy of the logits"}
_SHOWS = {
    "entropy": "How unsure the network is.",
    SHIFT: "How unusual it looks inside the network.",
    _ENERGY: "How unfamiliar the picture looks.",
}
"""Signal -> what it shows; see `_caption` for what that means."""


def _caption(signal: str, low: float | None, high: float | None) -> str:
    shows = _SHOWS.get(
        signal,
        "How evenly the network's features are used." if signal.startswith(ENTROPY) else "How unsure the network is.",
    )
    if low is not None and high is not None:
        return f"{shows} Outside the lines: not used."
    if high is not None:
        return f"{shows} Above the line: not used."
    return f"{shows} Below the line: not used." if low is not None else f"{shows} It decides nothing here."


@dataclass(frozen=True)
class Chart:
    """One strip chart.

    Attributes:
        signal: Name of the signal; the calibrated score for the first one.
        title: What people read.
        low: Accepted from here on; None if there is no such limit.
        high: Accepted up to here; see ``low``.
        caption: What it shows and what it means, one sentence or two short ones.
    """

    signal: str
    title: str
    low: float | None
    high: float | None
    caption: str = ""


def _as_text(value: Any) -> Any:
    """The same record with every string as `plain` text: a page shows control characters as badly as a terminal."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, Mapping):
        return {key: _as_text(each) for key, each in value.items()}
    return [_as_text(each) for each in value] if isinstance(value, list | tuple) else value


def charts_of(session: Session) -> tuple[Chart, ...]:
    """The calibrated score with its threshold; then what the bundle's monitor says, limited signals first."""
    calibration = session.calibration
    score = calibration.score if calibration else "entropy"
    threshold = calibration.threshold if calibration else None
    unit = " (nats)" if score == "entropy" else ""
    charts = [
        Chart(score, f"{score.replace('_', ' ')}{unit}".capitalize(), None, threshold, _caption(score, None, threshold))
    ]
    limits = {limit.signal: limit for limit in reversed(calibration.limits if calibration else ()) if limit.frames == 1}
    signals = session.bundle.monitor.signals if session.bundle.monitor else ()
    taps = [name for name in signals if name.startswith(ENTROPY)]
    # Of the taps those with a limit, else the deepest one: seven curves would show nothing.
    shown = [name for name in signals if name == SHIFT or name in limits] + taps[-1:] + [_ENERGY] * (_ENERGY in limits)
    for name in itertools.islice(dict.fromkeys(shown), _CHARTS):
        limit = limits.get(name)
        title = _TITLES.get(name, f"Activation entropy, {name.removeprefix(ENTROPY)}")
        low, high = (limit.low, limit.high) if limit else (None, None)
        charts.append(Chart(name, title, low, high, _caption(name, low, high)))
    return tuple(charts)


class Board:
    """Takes results and tells viewers about them. `saw` belongs to one thread, `record` to any.

    Args:
        pipeline: Gives the counters.
        session: Names the engine, its threshold and limits.
        source: For how it is doing.
        panel: For what is pressed.
        rois: The regions that are always there.
        deadline_ms: The pipeline's.
        stale_ms: Without a verdict for so long the page says DO NOT USE by itself.
        notice: Asked for a line about the pressed faults.
        moving: Whether there are objects that move, too.
        own_files: Whether people may have files of their own judged, see `framegate.camera_demo.own_file`.

    Attributes:
        slots: Which region is on which line of the charts.
        timeline: The last two minutes.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        session: Session,
        source: Source,
        panel: FaultPanel,
        rois: tuple[Roi, ...],
        deadline_ms: float,
        stale_ms: float,
        notice: Callable[[], str],
        moving: bool = False,
        own_files: bool = False,
    ) -> None:
        self._pipeline = pipeline
        self._source = source
        self._panel = panel
        self._rois = rois
        self._notice = notice
        self._charts = charts_of(session)
        self._nothing = [None] * len(self._charts)
        self.slots = RegionSlots([roi.name for roi in rois], moving)
        self.timeline = Timeline(rois, self.slots.title)
        self._samples: deque[list[Any]] = deque(maxlen=REMEMBERED)
        self._latencies: deque[float] = deque(maxlen=REMEMBERED)
        self._seen = 0
        self._lock = threading.Lock()
        self._thumbnails: deque[dict[str, Any]] = deque(maxlen=_THUMBNAILS)
        self._shown: dict[str, tuple[tuple[str, ...], float]] = {}
        self._last_ns: int | None = None
        self._started_ns = time.monotonic_ns()
        calibration = session.calibration
        self._about = _as_text(
            {
                "source": Path(source.name).name if os.path.isfile(source.name) else source.name,
                "model": session.bundle.name,
                "engine": f"{session.scorer.backend.engine}, {session.precision}",
                "promise": promise_of(session.bundle, calibration)
                if calibration
                else "not calibrated: every frame is rejected",
                "regions": self.slots.names,
                "moving": moving,
                "whole": not moving and all(roi.is_whole for roi in rois),
                "deadline_ms": deadline_ms,
                "fps": source.fps,
                "remembered": REMEMBERED,
                "stale_ms": stale_ms,
                "charts": [vars(chart) for chart in self._charts],
                "has_monitor": session.bundle.monitor is not None,
                "buttons": [vars(button) for button in panel.buttons],
                "coverage": number(calibration.coverage) if calibration else None,
                "words": {reason.value: list(words) for reason, words in WORDS.items()},
                "reasons": [reason.value for reason in REASONS],
                "run": self.timeline.run,
                "kept_s": SECONDS,
                "never": sorted(session.policy.counter_examples),
                "own_files": {"clip_s": CLIP_S, "most_bytes": MOST_FILE_BYTES} if own_files else None,
            }
        )

    def saw(self, result: FrameResult) -> None:
        """Remember one frame."""
        predictions = result.predictions
        self._last_ns = time.monotonic_ns()
        self._latencies.append(max(each.latency_ms for each in result.verdicts))
        lines = self.slots.place(predictions)
        sample: list[Any] = [self._nothing] * len(self.slots.names)
        for each in predictions:
            if each.stream in lines:
                sample[lines[each.stream]] = self._values(each)
        with self._lock:  # together: a viewer is given the samples after the last one that it has
            self._samples.append(sample)
            self.timeline.saw(result)
            self._seen += 1
        for prediction, roi in zip(predictions, result.rois(self._rois), strict=True):
            self._keep_rejected(prediction, roi, result)
        if len(self._shown) > _STREAMS_KNOWN:  # tracks that have ended
            present = {each.stream for each in predictions}
            self._shown = {name: shown for name, shown in self._shown.items() if name in present}

    def record(self, seen: int) -> dict[str, Any]:
        """Everything that is not part of a single picture, as plain JSON values.

        Args:
            seen: How many samples the viewer has; 0 for one who has just come, who gets everything.
        """
        stats, status = self._pipeline.stats, self._source.status
        with self._lock:
            total, samples = self._seen, list(self._samples)
            notes = self.timeline.notes(total - seen)
        since = self._started_ns if self._last_ns is None else self._last_ns
        objects = stats.objects
        return {
            **({"about": self._about} if not seen else {}),
            "objects": [plain(line) for line in objects.lines()] if objects.scene.evaluated else [],
            "samples_seen": total,
            "samples": samples[max(0, len(samples) - (total - seen)) :],
            "notes": notes,
            "now_ms": self.timeline.now_ms,
            "kept": {"pictures": self.timeline.pictures, "bytes": self.timeline.held_bytes},
            "silent_ms": (time.monotonic_ns() - since) // 1_000_000,
            "source": _as_text(source_record(self._source) | {"state": status.state}),
            "counters": {
                "captured": stats.captured,
                "dropped": stats.dropped,
                "verdicts": stats.evaluated,
                "accepted": stats.accepted,
            },
            "reasons": self._reasons(),
            "drift": plain(stats.drift_line()),
            "drifting": [plain(name) for name, stream in stats.streams.items() if stream.drifting],
            "latency": self._latency(),
            "thumbnails": list(self._thumbnails),
            "faults": self._panel.record() | {"notice": plain(self._notice())},
        }

    def _values(self, prediction: Prediction) -> list[float | None]:
        """What the charts show of one region."""
        values = {_ENERGY: prediction.energy, **prediction.signals}
        rest = [number(values.get(chart.signal, math.nan)) for chart in self._charts[1:]]
        return [number(prediction.score), *rest]

    def _reasons(self) -> list[tuple[str, int]]:
        """Reason -> verdicts that had it, the most frequent first."""
        found: dict[str, int] = {}
        for stream in self._pipeline.stats.streams.values():
            for name, count in dict(stream.reasons).items():  # a copy: the worker goes on counting
                found[name] = found.get(name, 0) + count
        return sorted(found.items(), key=lambda item: -item[1])

    def _latency(self) -> dict[str, Any]:
        """The histogram of the remembered frames with its percentiles, and those since the start."""
        recent = np.array(list(self._latencies))
        overall = self._pipeline.stats.latency
        if not len(recent):
            return {"bars": [], "edges_ms": _EDGES_MS}
        clipped = np.clip(recent, _EDGES_MS[0], _EDGES_MS[-1] * 0.999)
        low, high = np.percentile(recent, (50, 99), method="inverted_cdf")
        return {
            "edges_ms": _EDGES_MS,
            "bars": np.histogram(clipped, _EDGES_MS)[0].tolist(),
            "frames": len(recent),
            "p50_ms": number(float(low)),
            "p99_ms": number(float(high)),
            "all_p50_ms": number(overall.percentile_ms(50)),
            "all_p99_ms": number(overall.percentile_ms(99)),
        }

    def _keep_rejected(self, prediction: Prediction, roi: Roi, result: FrameResult) -> None:
        """A thumbnail when a region is rejected for other reasons than before: the change is what is worth seeing."""
        reasons = tuple(reason.value for reason in prediction.decided_reasons)
        was, shown_at = self._shown.get(roi.name, ((), -math.inf))
        now = time.monotonic()
        if not reasons:
            self._shown[roi.name] = ((), shown_at)
            return
        if reasons == was or now - shown_at < _THUMBNAIL_S:
            return
        self._shown[roi.name] = (reasons, now)
        same = [each for each in self._thumbnails if (each["region"], each["reasons"]) == (plain(roi.name), reasons)]
        for each in same:  # a region between two thresholds would fill the row by itself
            self._thumbnails.remove(each)
        self._thumbnails.append(
            {
                "frame": prediction.frame_id,
                "region": plain(roi.name),
                "reasons": reasons,
                "jpeg": base64.b64encode(thumbnail(result.image, roi)).decode(),
            }
        )
