"""From the pixels of a region to scores and signals: preprocessing, one engine, the monitor."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from framegate.runtime.backends.base import Backend, CpuBackend, infer
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.engine_check import EngineCheck, some_of
from framegate.runtime.errors import BackendError, BundleError, UsageError
from framegate.runtime.native.answer import BoundAnswer, bound_answer
from framegate.runtime.native.fast_path import ANSWERED, FINITE, FastPath, Looked
from framegate.runtime.preprocess import Preprocessor
from framegate.runtime.scores import FrameScores, Tensor, class_probabilities, frame_scores, not_finite
from framegate.runtime.stage_clock import ENGINE, SCORES, StageClock
from framegate.runtime.verdict import NV12, DenseRegion, Image

_WARM_UP = 5
_NO_SIGNALS: Mapping[str, float] = {}
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
        if gpu_preprocess and not backend.takes_frames:
            raise UsageError(f"preprocessing on the GPU was asked for, {backend.engine} runs on the CPU")
        super().__init__(bundle, backend, precision)
        self.preprocessor = Preprocessor(bundle.preprocess)
        self.temperature = calibration.temperature if calibration else 1.0
        self.probabilities = False
        self.takes_nv12 = False
        self._monitor = bundle.monitor
        self._bound_frames: tuple[int, int, str] | None = None
        self._shape = (1, len(bundle.labels))
        self._sample = some_of(self.preprocessor.tensor)
        """What is compared of the input: every so many numbers, across all channels and rows."""
        self._shown = b""
        self._last_logits: Tensor | None = None
        self._seen: Tensor | None = None
        self._bound: BoundAnswer | None = None
        backend.bind(self.preprocessor.tensor)  # first: a network that was compiled before need not be read then
        if backend.classes != len(bundle.labels):
            raise BundleError(f"bundle {bundle.path}: {len(bundle.labels)} labels, but {backend.classes} logits")
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
        # An engine that preprocesses is asked as well, before it is bound to the size of the first frame.
        self.takes_nv12 = gpu_preprocess

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
        began = time.perf_counter_ns()
        self.backend.start(crop if self.takes_nv12 else None)
        self._started_ns = time.perf_counter_ns() - began

    def ask(self) -> None:
        """See `EngineCheck.ask`; one that preprocesses takes frames of the camera's size, and is not asked again."""
        if self.takes_nv12:
            return
        if self._bound is not None:
            self._new.take_over(self._bound)
        super().ask()
        if self._bound is not None:
            self._new.hand_over(self._bound)

    def _answer_to(self, image: Image) -> tuple[Tensor, bytes, bytes]:
        self.preprocessor(image)
        logits = infer(self.backend)
        return logits[0], self._sample.tobytes(), logits.tobytes()

    @property
    def bound(self) -> BoundAnswer | None:
        """What looks at the engine's answers in one call; None where that is done step by step, or not yet."""
        return self._bound

    def finish(self, stages: StageClock | None = None) -> Scored:
        """Wait for the engine, and score what it says.

        Args:
            stages: Records how long the wait and the scores took.

        Raises:
            BackendError: The engine failed. It may raise anything else, too.
        """
        logits, engine_ns = self._waited(stages)
        return self._scored(logits, engine_ns, stages)

    def finish_fast(self, fast: FastPath, stages: StageClock | None = None) -> tuple[Looked | Scored, int]:
        """`finish` of a region that was begun on this fast path, in place of `start`.

        Args:
            fast: It looks at the answer, if the answer is where it looks.
            stages: See `finish`.

        Returns:
            What was seen there, of which `scored_of` makes what `finish` gives; or that at once. And how long the
            engine took, in ns.

        Raises:
            BackendError: The engine failed. It may raise anything else, too.
        """
        began = time.perf_counter_ns()
        logits = self.backend.finish()
        engine_ns = time.perf_counter_ns() - began
        if stages is not None:
            stages.mark(ENGINE)
        if logits is not self._seen or fast.answer is not self._bound or self.probabilities:
            return self._scored(logits, engine_ns, stages), engine_ns
        found = fast.look(self.temperature)
        if not found.said & ANSWERED:
            self._require_computed(self.preprocessor.tensor, logits.tobytes())
            return self._scored(logits, engine_ns, stages), engine_ns
        if stages is not None:
            stages.mark(SCORES)
        return found, engine_ns

    def scored_of(self, found: Looked | Scored, engine_ns: int) -> Scored:
        """What `finish` gives, of what `finish_fast` gave."""
        if isinstance(found, Scored):
            return found
        scores = FrameScores(*found[1:6]) if found.said & FINITE else not_finite()
        signals = _NO_SIGNALS if self._monitor is None else self._monitor.signals_at(found.shift, found.pooled)
        return Scored(scores, signals, engine_ns)

    def _scored(self, logits: Tensor, engine_ns: int, stages: StageClock | None) -> Scored:
        """What an answer says. It may raise what `finish` does."""
        bound = self._bound if logits is self._seen else self._bind_answer(logits)
        if bound is None:
            if not self.takes_nv12:
                self._shown = self._sample.tobytes()
            self._require_new_answer(logits)
            scores, signals = self.backend.scores or frame_scores(logits, self.temperature), self._signals()
        else:
            scores, signals = self._look(bound)
        probabilities = class_probabilities(logits, self.temperature) if self.probabilities and scores.finite else ()
        scored = Scored(scores, signals, engine_ns, probabilities)
        if stages is not None:
            stages.mark(SCORES)
        return scored

    def _bind_answer(self, logits: Tensor) -> BoundAnswer | None:
        """What looks at the answer in one call: an engine on the CPU writes the same array again and again.

        None, and everything step by step, for the first frame and for an array that is not the one of before.
        """
        if self._bound is not None:
            self._new.take_over(self._bound)
        self._seen, self._bound = None, None
        if logits is not self._last_logits:
            self._last_logits = logits
            return None
        self._seen = logits
        if self.backend.scores is None and not self.takes_nv12 and self._fits(logits):
            head = None if self._monitor is None else self._monitor.head
            self._bound = bound_answer(logits, self._sample, self.backend.pooled, head)
        if self._bound is not None:
            self._new.hand_over(self._bound)
        return self._bound

    def _look(self, bound: BoundAnswer) -> tuple[FrameScores, Mapping[str, float]]:
        """Scores and signals of the answer that the engine has just written.

        Raises:
            BackendError: It is the answer to an earlier question.
        """
        finite = bound(self.temperature)
        if finite is None:
            self._require_computed(self.preprocessor.tensor, bound.logits.tobytes())
            finite = bound(self.temperature)
        best, probability, entropy, margin, energy, shift = bound.found
        scores = FrameScores(int(best), probability, entropy, margin, energy) if finite else not_finite()
        if self._monitor is None or bound.pooled is None:
            return scores, _NO_SIGNALS
        return scores, self._monitor.signals_at(shift, bound.pooled.tobytes())

    def _require_new_answer(self, logits: Tensor) -> None:
        """Refuse an output of another shape, and the answer to an earlier question.

        Raises:
            BackendError: The logits cannot be those of this region.
        """
        if not self._fits(logits):
            raise BackendError(
                f"{self.backend.engine} gave {logits.dtype} logits of shape {logits.shape}, "
                f"expected float32 {self._shape}"
            )
        answer = logits.tobytes()
        if self._new.is_old(self._shown, answer):
            self._require_computed(self.preprocessor.tensor, answer)
            self._new.remember(self._shown, answer)

    def still_computes(self, question: Tensor, answer: bytes) -> bool:
        """See `EngineCheck.still_computes`; an engine that preprocesses is not asked."""
        if self.takes_nv12 or not super().still_computes(question, answer):
            return False
        if self._bound is not None:
            self._bound.forget()
        return True

    def _fits(self, logits: Tensor) -> bool:
        return logits.shape == self._shape and logits.dtype == np.float32

    def _bind_frames(self, crop: Image, pixel_format: str) -> None:
        """Bind the engine to frames of this size, where it is bound to others."""
        rows, width = crop.shape[:2]
        height = rows * 2 // 3 if pixel_format == NV12 else rows
        if (width, height, pixel_format) == self._bound_frames:
            return
        spec = self.preprocessor.spec
        self._bound_frames = None  # if it fails, the engine is bound to nothing, and the former size is asked for anew
        self.backend.bind_frames(spec, width, height, self.temperature, pixel_format)
        self._bound_frames = (width, height, pixel_format)

    def _signals(self) -> Mapping[str, float]:
        """What the monitor says about the frame that the engine has just seen."""
        if self._monitor is None:
            return _NO_SIGNALS
        pooled = self.backend.pooled
        if pooled is None:
            return dict.fromkeys(self._monitor.signals, math.nan)
        return self._monitor(pooled[0])
