"""A session: one bundle in one engine, judging frames."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from framegate.runtime.backend import BACKENDS, Backend, choose_backend, load_backend
from framegate.runtime.bundle import Bundle
from framegate.runtime.calibration import Calibration
from framegate.runtime.console import tell
from framegate.runtime.errors import BackendError, BundleError
from framegate.runtime.health import ROW_STEP, CameraHealth, unusable
from framegate.runtime.policy import judge_age, judge_score
from framegate.runtime.preprocess import Preprocessor
from framegate.runtime.roi import Roi
from framegate.runtime.scores import frame_scores
from framegate.runtime.verdict import Frame, Image, Prediction, Reason

_WARM_UP = 5
_NO_ENGINE = (Reason.BAD_INPUT, Reason.WRONG_SIZE)


class Session:
    """Judges frames with one model. Not thread-safe: one thread at a time.

    Attributes:
        bundle: The opened bundle.
        backend: The engine, bound to this session's input buffer.
        precision: Which model of the bundle runs.
        calibration: Its threshold; None rejects every frame with NOT_CALIBRATED.
        preprocessor: Turns crops into the engine's input.
    """

    def __init__(
        self, bundle: Bundle, backend: Backend, precision: str, calibration: Calibration | None, *, camera: bool = True
    ) -> None:
        if backend.classes != len(bundle.labels):
            raise BundleError(f"bundle {bundle.path}: {len(bundle.labels)} labels, but {backend.classes} logits")
        self.bundle = bundle
        self.backend = backend
        self.precision = precision
        self.calibration = calibration
        self.preprocessor = Preprocessor(bundle.preprocess)
        backend.bind(self.preprocessor.tensor)
        self._depth = bundle.preprocess.depth
        self._row_step = 1 if self._depth > 1 else ROW_STEP
        self._grey = bundle.preprocess.colour == "grey"
        self._coloured: Image | None = None
        self._health = CameraHealth(fixed_size=camera)
        self._whole = (Roi.whole(),)
        self._frames = 0
        self._temperature = calibration.temperature if calibration else 1.0
        self._threshold = calibration.threshold if calibration else math.nan
        for _ in range(_WARM_UP):
            frame_scores(backend.infer(), self._temperature)

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle,
        backend: str = "auto",
        precision: str | None = None,
        threads: int | None = None,
        *,
        camera: bool = True,
    ) -> Session:
        """Open a bundle in an engine.

        Args:
            bundle: Folder ``NAME.bundle``, or an opened bundle.
            backend: ``auto`` (the fastest installed one; says which), ``openvino`` or ``onnxruntime``. A named
                backend never falls back to another.
            precision: ``fp32`` or ``int8``; None takes the backend's fastest.
            threads: CPU threads of the engine; None leaves it to the engine.
            camera: Frames given to `infer` come from one camera: a repeated frame is FROZEN, a changed size is
                WRONG_SIZE. False for unrelated images.

        Raises:
            BundleError: The bundle is missing, damaged or unknown.
            BackendError: The engine is not installed or refuses the model.
            UsageError: The backend's name is unknown.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        name = choose_backend(backend)
        chosen = precision or opened.default_precision(BACKENDS[name].default_precision)
        engine = load_backend(name, opened.model_path(chosen), threads)
        session = cls(opened, engine, chosen, opened.calibration(name, chosen), camera=camera)
        if backend == "auto":
            tell(f"framegate: {session.describe()}")
        return session

    def describe(self) -> str:
        """Model, engine and promise in one line."""
        running = f"{self.bundle.name} on {self.backend.engine}, {self.precision}"
        if self.calibration is None:
            return f"{running}; NOT CALIBRATED: every frame will be rejected"
        other = "" if self.calibration.engine == self.backend.engine else f"; calibrated on {self.calibration.engine}"
        return f"{running}; {self.calibration.promise()}{other}"

    def infer(self, image: Image, frame_id: int | None = None, captured_ns: int | None = None) -> Prediction:
        """Judge one whole image.

        Args:
            image: (height, width, 3) uint8 BGR; for a grey network also (height, width) uint8. A volume is one such
                image, its slices one below the other.
            frame_id: The frame's number; None counts the calls from 0.
            captured_ns: Monotonic time of capture in ns (`time.monotonic_ns`); None means now.

        Returns:
            A prediction whose `label` can be read only if it was accepted. This method does not raise on bad images
            or engine faults: they are rejected with a reason.
        """
        number = self._frames if frame_id is None else frame_id
        self._frames += 1
        frame = Frame(number, time.monotonic_ns() if captured_ns is None else captured_ns, image)
        return self.judge(frame, self._whole, self._health)[0]

    def judge(
        self, frame: Frame, rois: tuple[Roi, ...], health: CameraHealth, deadline_ns: int | None = None
    ) -> tuple[Prediction, ...]:
        """Judge every region of one frame, in order; one prediction for each.

        Args:
            frame: The frame; ``health`` must be the one of its stream.
            rois: Regions to classify.
            health: Camera health of the stream, with its memory of recent frames.
            deadline_ns: Older verdicts are LATE; None sets no deadline.
        """
        try:
            if self._grey:
                frame = self._with_three_channels(frame)
            reasons, detail = health.check(frame.image, self._row_step)
        except Exception as error:  # noqa: BLE001 - whatever a strange image provokes must end in REJECT
            reasons, detail = (Reason.BAD_INPUT,), f"health check failed: {error}"
        return tuple(self._judge_region(frame, roi, reasons, detail, deadline_ns) for roi in rois)

    def _with_three_channels(self, frame: Frame) -> Frame:
        """A grey frame as BGR with equal channels; any other one as it is."""
        image: object = frame.image
        if not (isinstance(image, np.ndarray) and image.ndim == 2 and image.dtype == np.uint8 and image.size):
            return frame
        self._coloured = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR, dst=self._coloured)
        return replace(frame, image=self._coloured)

    def _judge_region(
        self, frame: Frame, roi: Roi, reasons: tuple[Reason, ...], detail: str, deadline_ns: int | None
    ) -> Prediction:
        engine_ns, scores = 0, None
        if not any(reason in _NO_ENGINE for reason in reasons):
            crop = roi.crop(frame.image)
            problem = f"region {roi.name!r} reaches outside the frame" if crop is None else unusable(crop, self._depth)
            if problem or crop is None:
                reasons, detail = (*reasons, Reason.BAD_INPUT), problem
            else:
                try:
                    self.preprocessor(crop)
                    started = time.perf_counter_ns()
                    logits = self.backend.infer()
                    engine_ns = time.perf_counter_ns() - started
                    scores = frame_scores(logits, self._temperature)
                except BackendError as error:
                    reasons, detail = (*reasons, Reason.BACKEND_FAULT), str(error)
                except Exception as error:  # noqa: BLE001 - an engine may raise anything; it must end in REJECT
                    reasons, detail = (*reasons, Reason.BACKEND_FAULT), f"{type(error).__name__}: {error}"
        candidate, confidence, entropy, margin, energy = "", math.nan, math.nan, math.nan, math.nan
        if scores is not None:
            _, confidence, entropy, margin, energy = scores
            reasons += judge_score(entropy, scores.finite, self.calibration)
            candidate = self.bundle.labels[scores.argmax] if scores.finite else ""
        elif not reasons:
            raise AssertionError("no scores and no reason")  # pragma: no cover - the branches above exclude it
        published_ns = time.monotonic_ns()
        return Prediction(
            frame_id=frame.frame_id,
            stream=roi.name,
            reasons=reasons + judge_age(published_ns - frame.captured_ns, deadline_ns),
            candidate=candidate,
            confidence=confidence,
            entropy=entropy,
            margin=margin,
            energy=energy,
            score=entropy,
            threshold=self._threshold,
            captured_ns=frame.captured_ns,
            published_ns=published_ns,
            engine_ns=engine_ns,
            detail=detail,
        )
