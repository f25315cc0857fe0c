"""Where a frame's time goes, stage by stage, measured on the product's own path.

A `Session` with a clock marks the end of each stage; one without pays for a comparison with None. The stages of a
frame follow each other without gaps, so they add up to what they cover: for one region exactly from capture to the
verdict (`Prediction.decided_ns`).
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

STAGES = ("wait_for_frame", "preprocess", "health", "engine", "scores", "policy")
"""In the order of a frame's way.

``wait_for_frame``: from capture until the session has the frame: the mailbox, the waking of the worker, and what it was
still busy with. ``preprocess``: the conversion of the pixel format, crop, resize, normalise; on a GPU the start of its
work, too. ``health``: the camera check; a GPU computes meanwhile. ``engine``: the engine's call, or what is left of it;
with preprocessing on the GPU that is the whole graph. ``scores``: scores and signals. ``policy``: threshold, limits,
debounce and the verdict's own making.
"""
WAIT, PREPROCESS, HEALTH, ENGINE, SCORES, POLICY = range(len(STAGES))


class StageClock:
    """Durations of the stages of the latest frames; written by the thread that judges, read when it has stopped.

    Args:
        capacity: Frames kept; later ones are not recorded.

    With several regions in a frame, each stage is the sum over the regions.
    """

    def __init__(self, capacity: int) -> None:
        self._table = np.zeros((capacity, len(STAGES)), np.int64)
        self._ids = np.zeros(capacity, np.int64)
        self._row = [0] * len(STAGES)
        self._last = 0
        self.count = 0
        """Frames recorded."""

    def begin(self, captured_ns: int) -> None:
        """A frame captured at this monotonic time is now judged."""
        self._row = [0] * len(STAGES)
        self._last = captured_ns
        self.mark(WAIT)

    def mark(self, stage: int, now_ns: int | None = None) -> None:
        """The stage ends: now, or at this monotonic time."""
        now = time.monotonic_ns() if now_ns is None else now_ns
        self._row[stage] += now - self._last
        self._last = now

    def end(self, frame_id: int) -> None:
        """The frame's verdicts are ready."""
        if self.count < len(self._ids):
            self._table[self.count] = self._row
            self._ids[self.count] = frame_id
            self.count += 1

    @property
    def durations_ns(self) -> npt.NDArray[np.int64]:
        """(frames, stages) durations in ns, in the order of judging."""
        return self._table[: self.count]

    @property
    def frame_ids(self) -> npt.NDArray[np.int64]:
        """(frames,) numbers of the frames."""
        return self._ids[: self.count]
