"""From the pixels of a region to scores and signals: preprocessing, one engine, the monitor."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from framegate.runtime.backends.base import Backend, CpuBackend, infer
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.engine_check import EngineCheck
from framegate.runtime.errors import BackendError, BundleError, UsageError
from framegate.runtime.preprocess import Preprocessor
from framegate.runtime.scores import FrameScores, Tensor, class_probabilities, frame_scores, scores_of_bound
from framegate.runtime.stage_clock import ENGINE, SCORES, StageClock
from framegate.runtime.verdict import NV12, DenseRegion, Image

_WARM_UP = 5
_SAMPLED = 251
"""Numbers of the input that are compared; a prime, so that they do not fall into one column."""
_GRID = 11


class Scored(NamedTuple):
    """What the network and its monitor say about one region.

    Attributes:
        scores: See `framegate.runtime.scores.FrameScores`.
        signals: Name -> value; empty without a monitor.
        engine_ns: How long the engine's two calls took, without what was done between them.
        probabilities: Calibrated probability of every class; empty unless they were asked for.
        dense: What a dense network says about the region's pixels; None for classifiers.
    """

    scores: FrameScores
    signals: Mapping[str, float]
    engine_ns: int
    probabilities: tuple[float, ...] = ()
    dense: DenseRegion | None = None


class Scorer(EngineCheck):
    """Scores regions with one engine, which it binds and warms up. Not thread-safe.

    Args:
        bundle: The model.
        backend: A loaded engine.
        precision: Which model of the bundle runs, for messages.
        calibration: Its temperature; None: 1.
        gpu_preprocess: Give the camera's pixels to the engine, which resizes and scores them, too.

    Attributes:
        backend: The engine. One that is put in its place must be bound to the same input.
        preprocessor: Turns crops into the engine's input.
        temperature: Logits are divided by it.
        wrong: What was wrong with the engine's last known answer; empty while nothing is wrong.
        probabilities: Set to True, every region comes with the probability of each class.
        takes_nv12: Whether whole NV12 frames go to the GPU as they are; elsewhere they are converted, once a frame.

    Raises:
        BackendError: The engine does not give the bundle's known answers.
        BundleError: Labels and logits, or the monitor and the network's second output, do not fit.
        UsageError: Preprocessing on the GPU was asked for, and the engine runs on the CPU.
    """

    def __init__(
        self, bundle: Bundle, backend: Backend, precision: str, calibration: Calibration | None, gpu_preprocess: bool
    ) -> None:
        if backend.classes != len(bundle.labels):
            raise BundleError(f"bundle {bundle.path}: {len(bundle.labels)} labels, but {backend.classes} logits")
        if gpu_preprocess and not backend.takes_frames:
            raise UsageError(f"preprocessing on the GPU was asked for, {backend.engine} runs on the CPU")
        super().__init__(bundle, backend, precision)
        self.preprocessor = Preprocessor(bundle.preprocess)
        self.temperature = calibration.temperature if calibration else 1.0
        self.probabilities = False
        self.takes_nv12 = gpu_preprocess
        self._monitor = bundle.monitor
        self._bound_frames: tuple[int, int, str] | None = None
        self._started_ns = 0
        self._shape = (1, len(bundle.labels))
        flat = self.preprocessor.tensor.reshape(-1)
        self._sample = flat[:: max(1, flat.size // _SAMPLED)]
        """What is compared of the input: every so many numbers, across all channels and rows."""
        self._shown = b""
        self._scored: Tensor | None = None
        self._score: Callable[[float], FrameScores] | None = None
        if gpu_preprocess:
            return  # bound to the size of the first frame, and warmed up then
        backend.bind(self.preprocessor.tensor)
        if self._monitor:
            found = 0 if backend.pooled is None else backend.pooled.shape[1]
            if found != self._monitor.size:
                raise BundleError(
                    f"bundle {bundle.path}: its monitor reads {self._monitor.size} values, the {precision} network "
                    f"gives {found}; export the bundle again"
                )
        for _ in range(_WARM_UP):
            frame_scores(infer(backend), self.temperature)
        self._require_known_answers(precision)

    @property
    def computes_beside(self) -> bool:
        """Whether the engine computes by itself between `start` and `finish`, as a GPU does.

        An engine with `CpuBackend.start`, which does nothing, computes in `finish`.
        """
        return getattr(type(self.backend), "start", None) is not CpuBackend.start

    def start(self, crop: Image, pixel_format: str) -> None:
        """Resize and normalise a region, and start the engine on it.

        Args:
            crop: Its pixels, usable (`framegate.runtime.health.check.unusable`).
            pixel_format: BGR, or NV12 where `takes_nv12`.

        Raises:
            BackendError: The engine failed. It may raise anything else, too.
        """
        if self.wrong:
            raise BackendError(f"{self.backend.engine}: {self.wrong}")
        if self.takes_nv12:
            self._bind_frames(crop, pixel_format)
            self._shown = crop[:: max(1, crop.shape[0] // _GRID), :: max(1, crop.shape[1] // _GRID)].tobytes()
        else:
            self.preprocessor(crop)
            self._shown = self._sample.tobytes()
        began = time.perf_counter_ns()
        self.backend.start(crop if self.takes_nv12 else None)
        self._started_ns = time.perf_counter_ns() - began

    def ask(self) -> None:
        """See `EngineCheck.ask`; an engine that preprocesses is not asked."""
        if not self.takes_nv12:
            super().ask()

    def _answer_to(self, image: Image) -> Tensor:
        self.preprocessor(image)
        logits: Tensor = infer(self.backend)[0]
        return logits

    def finish(self, stages: StageClock | None = None) -> Scored:
        """Wait for the engine, and score what it says.

        Args:
            stages: Records how long the wait and the scores took.

        Raises:
            BackendError: The engine failed. It may raise anything else, too.
        """
        began = time.perf_counter_ns()
        logits = self.backend.finish()
        engine_ns = self._started_ns + time.perf_counter_ns() - began
        if stages is not None:
            stages.mark(ENGINE)
        self._require_new_answer(logits)
        scores = self.backend.scores
        if scores is None:
            scores = self._scores(logits)
        probabilities = class_probabilities(logits, self.temperature) if self.probabilities and scores.finite else ()
        scored = Scored(scores, self._signals(), engine_ns, probabilities)
        if stages is not None:
            stages.mark(SCORES)
        return scored

    def _scores(self, logits: Tensor) -> FrameScores:
        """`frame_scores`; engines on the CPU write the same array again and again."""
        if logits is not self._scored:
            self._scored, self._score = logits, None
            return frame_scores(logits, self.temperature)
        if self._score is None:
            self._score = scores_of_bound(logits) or partial(frame_scores, logits)
        return self._score(self.temperature)

    def _require_new_answer(self, logits: Tensor) -> None:
        """Refuse an output of another shape, and the answer to an earlier question.

        Raises:
            BackendError: The logits cannot be those of this region.
        """
        if logits.shape != self._shape or logits.dtype != np.float32:
            raise BackendError(
                f"{self.backend.engine} gave {logits.dtype} logits of shape {logits.shape}, "
                f"expected float32 {self._shape}"
            )
        self._new.require(self._shown, logits.tobytes())

    def _bind_frames(self, crop: Image, pixel_format: str) -> None:
        """Bind the engine to frames of this size, where it is bound to others."""
        rows, width = crop.shape[:2]
        height = rows * 2 // 3 if pixel_format == NV12 else rows
        if (width, height, pixel_format) == self._bound_frames:
            return
        spec = self.preprocessor.spec
        self.backend.bind_frames(spec, width, height, self.temperature, pixel_format)
        self._bound_frames = (width, height, pixel_format)

    def _signals(self) -> Mapping[str, float]:
        """What the monitor says about the frame that the engine has just seen."""
        if self._monitor is None:
            return {}
        pooled = self.backend.pooled
        if pooled is None:
            return dict.fromkeys(self._monitor.signals, math.nan)
        return self._monitor(pooled[0])
