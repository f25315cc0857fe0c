"""From the pixels of a region to scores and signals: preprocessing, one engine, the monitor."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from framegate.runtime.backends.base import Backend, FrameBackend, StartedBackend
from framegate.runtime.bundle import Bundle
from framegate.runtime.calibration import Calibration
from framegate.runtime.errors import BundleError, UsageError
from framegate.runtime.preprocess import Preprocessor
from framegate.runtime.scores import FrameScores, frame_scores
from framegate.runtime.stage_clock import ENGINE, HEALTH, PREPROCESS, StageClock
from framegate.runtime.verdict import NV12, Image

_WARM_UP = 5


class Scored(NamedTuple):
    """What the network and its monitor say about one region.

    Attributes:
        scores: See `framegate.runtime.scores.FrameScores`.
        signals: Name -> value; empty without a monitor.
        engine_ns: Duration of the engine's call; on a GPU, from the start to the result, whatever was done meanwhile.
    """

    scores: FrameScores
    signals: Mapping[str, float]
    engine_ns: int


class Scorer:
    """Scores regions with one engine, which it binds and warms up. Not thread-safe.

    Args:
        bundle: The model.
        backend: A loaded engine.
        precision: Which model of the bundle runs, for messages.
        calibration: Its temperature and threshold; None: 1 and none.
        gpu_preprocess: Give the camera's pixels to the engine, which resizes and scores them, too.

    Attributes:
        preprocessor: Turns crops into the engine's input.
        temperature: Logits are divided by it.

    Raises:
        BundleError: Labels and logits, or the monitor and the network's second output, do not fit.
        UsageError: Preprocessing on the GPU was asked for, and the engine runs on the CPU.
    """

    def __init__(
        self, bundle: Bundle, backend: Backend, precision: str, calibration: Calibration | None, gpu_preprocess: bool
    ) -> None:
        if backend.classes != len(bundle.labels):
            raise BundleError(f"bundle {bundle.path}: {len(bundle.labels)} labels, but {backend.classes} logits")
        self.backend = backend
        self.preprocessor = Preprocessor(bundle.preprocess)
        self.temperature = calibration.temperature if calibration else 1.0
        self._threshold = calibration.threshold if calibration else math.nan
        self._monitor = bundle.monitor
        self._frames_on: FrameBackend | None = None
        self._frames_bound: tuple[int, int, str] | None = None
        if gpu_preprocess:
            if not isinstance(backend, FrameBackend):
                raise UsageError(f"preprocessing on the GPU was asked for, {backend.engine} runs on the CPU")
            self._frames_on = backend  # bound to the size of the first frame, and warmed up then
            return
        backend.bind(self.preprocessor.tensor)
        if self._monitor:
            found = 0 if backend.pooled is None else backend.pooled.shape[1]
            if found != self._monitor.size:
                raise BundleError(
                    f"bundle {bundle.path}: its monitor reads {self._monitor.size} values, the {precision} network "
                    f"gives {found}; export the bundle again"
                )
        for _ in range(_WARM_UP):
            frame_scores(backend.infer(), self.temperature)

    @property
    def backend(self) -> Backend:
        """The engine. One that is put in its place must be bound to the same tensor."""
        return self._backend

    @backend.setter
    def backend(self, backend: Backend) -> None:
        self._backend = backend
        self._in_steps = backend if isinstance(backend, StartedBackend) else None

    @property
    def takes_nv12(self) -> bool:
        """Whether whole NV12 frames go to the GPU as they are; elsewhere they are converted, once a frame."""
        return self._frames_on is not None

    def __call__(
        self, crop: Image, pixel_format: str, meanwhile: Callable[[], object], stages: StageClock | None
    ) -> Scored:
        """Score one region.

        Args:
            crop: Its pixels, usable (`framegate.runtime.health.check.unusable`).
            pixel_format: BGR, or NV12 where `takes_nv12`.
            meanwhile: Called once; a GPU computes meanwhile. On a CPU it is called after the resize, which has brought
                the frame's pixels nearer.
            stages: Learns how long preprocessing, the call and the engine took.

        Raises:
            BackendError: The engine failed. It may raise anything else, too.
        """
        if self._frames_on is not None:
            return self._on_gpu(self._frames_on, crop, pixel_format, meanwhile, stages)
        self.preprocessor(crop)
        in_steps, began = self._in_steps, time.perf_counter_ns()
        if in_steps is not None:
            in_steps.start()
        _mark(stages, PREPROCESS)
        meanwhile()
        _mark(stages, HEALTH)
        if in_steps is not None:
            logits = in_steps.finish()
        else:
            began = time.perf_counter_ns()
            logits = self.backend.infer()
        engine_ns = time.perf_counter_ns() - began  # the scores are not the engine's
        _mark(stages, ENGINE)
        return Scored(frame_scores(logits, self.temperature), self._signals(), engine_ns)

    def _on_gpu(
        self,
        backend: FrameBackend,
        crop: Image,
        pixel_format: str,
        meanwhile: Callable[[], object],
        stages: StageClock | None,
    ) -> Scored:
        rows, width = crop.shape[:2]
        height = rows * 2 // 3 if pixel_format == NV12 else rows
        if (width, height, pixel_format) != self._frames_bound:
            backend.bind_frames(self.preprocessor.spec, width, height, self.temperature, self._threshold, pixel_format)
            self._frames_bound = (width, height, pixel_format)
        started = time.perf_counter_ns()
        backend.submit(crop)
        _mark(stages, PREPROCESS)
        meanwhile()
        _mark(stages, HEALTH)
        scores = backend.result()
        engine_ns = time.perf_counter_ns() - started
        _mark(stages, ENGINE)
        return Scored(scores, self._signals(), engine_ns)

    def _signals(self) -> Mapping[str, float]:
        """What the monitor says about the frame that the engine has just seen."""
        if self._monitor is None:
            return {}
        pooled = self.backend.pooled
        if pooled is None:
            return dict.fromkeys(self._monitor.signals, math.nan)
        return self._monitor(pooled[0])


def _mark(stages: StageClock | None, stage: int) -> None:
    if stages is not None:
        stages.mark(stage)
