"""A session: one bundle in one engine, judging frames."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from framegate.runtime.backend import Backend, RecoverableBackend
from framegate.runtime.bundle import Bundle
from framegate.runtime.calibration import Calibration
from framegate.runtime.console import tell
from framegate.runtime.engine_choice import open_engine
from framegate.runtime.errors import BackendError
from framegate.runtime.health import NOTHING, CameraHealth, Findings, unusable
from framegate.runtime.health_thresholds import HealthThresholds
from framegate.runtime.monitor import Signals
from framegate.runtime.pixel_format import to_bgr
from framegate.runtime.policy import judge_age, judge_limits, judge_score
from framegate.runtime.preprocess import Preprocessor
from framegate.runtime.roi import Roi
from framegate.runtime.scorer import Scored, Scorer
from framegate.runtime.scores import not_finite
from framegate.runtime.stage_clock import POLICY, SCORES, StageClock
from framegate.runtime.stream_policy import Policy, StreamPolicy
from framegate.runtime.verdict import BGR, NV12, Frame, Image, Prediction, Reason

_NONE: Mapping[str, float] = {}


class Session:
    """Judges frames with one model. Not thread-safe: one thread at a time.

    Attributes:
        bundle: The opened bundle.
        backend: The engine, bound to this session's input buffer.
        precision: Which model of the bundle runs.
        calibration: Its threshold; None rejects every frame with NOT_CALIBRATED.
        preprocessor: Turns crops into the engine's input.
        scorer: Turns regions into scores.
        policy: What several frames together decide, unless a pipeline is given another.
        health_thresholds: Limits of the camera-health check.
        stages: Set to a clock, it learns how long each stage of every frame took; None costs nothing.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        precision: str,
        calibration: Calibration | None,
        *,
        camera: bool = True,
        gpu_preprocess: bool = False,
        policy: Policy | None = None,
        health: HealthThresholds | None = None,
    ) -> None:
        self.bundle = bundle
        self.precision = precision
        self.calibration = calibration
        self.scorer = Scorer(bundle, backend, precision, calibration, gpu_preprocess)
        self._may_recover = True
        self._depth = bundle.preprocess.depth
        self._grey = bundle.preprocess.colour == "grey"
        self._coloured: Image | None = None
        self._converted: Image | None = None
        self.health_thresholds = health or HealthThresholds()
        self._health = self.camera_health(fixed_size=camera)
        self.policy = policy or Policy()
        self.stages: StageClock | None = None
        # Unrelated images are judged each for itself, so that a verdict never depends on the order of calls.
        self._streams = (self.stream_policy(),) if camera else None
        self._whole = (Roi.whole(),)
        self._frames = 0
        self._threshold = calibration.threshold if calibration else math.nan
        self._score_name = calibration.score if calibration else "entropy"
        self._limits = tuple(limit for limit in calibration.limits if limit.frames == 1) if calibration else ()

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle,
        backend: str = "auto",
        precision: str | None = None,
        threads: int | None = None,
        *,
        camera: bool = True,
        gpu_preprocess: bool = False,
        policy: Policy | None = None,
        health: HealthThresholds | None = None,
    ) -> Session:
        """Open a bundle in an engine.

        Args:
            bundle: Folder ``NAME.bundle``, or an opened bundle.
            backend: ``auto`` (the fastest that can run; says which), ``tensorrt``, ``tensorrt-rtx``, ``openvino`` or
                ``onnxruntime``. A named backend never falls back to another.
            precision: ``fp32``, ``fp16`` or ``int8``; None takes the backend's fastest.
            threads: CPU threads of the engine; None leaves it to the engine.
            camera: Frames given to `infer` come from one camera: a repeated frame is FROZEN, a changed size is
                WRONG_SIZE. False for unrelated images.
            gpu_preprocess: Give the camera's pixels to a TensorRT backend, which resizes and scores them, too. Its
                resize does not round to 8 bits as the CPU's does, on which thresholds are calibrated: compare the
                verdicts first.
            policy: Debounce, warm-up and drift; None rejects and accepts at once, and watches for drift.
            health: Limits of the camera-health check, e.g. from a calibration run of this camera; None: the defaults,
                and what a stream's first frames show.

        Raises:
            BundleError: The bundle is missing, damaged or unknown.
            BackendError: The engine is not installed or refuses the model.
            UsageError: The backend's name is unknown.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        engine, name, chosen = open_engine(opened, backend, precision, threads)
        session = cls(
            opened,
            engine,
            chosen,
            opened.calibration(name, chosen),
            camera=camera,
            gpu_preprocess=gpu_preprocess,
            policy=policy,
            health=health,
        )
        if backend == "auto":
            tell(f"framegate: {session.describe()}")
        return session

    @property
    def backend(self) -> Backend:
        """The engine. One that is put in its place must be bound to `preprocessor`'s tensor."""
        return self.scorer.backend

    @backend.setter
    def backend(self, backend: Backend) -> None:
        self.scorer.backend = backend

    @property
    def preprocessor(self) -> Preprocessor:
        """Turns crops into the engine's input."""
        return self.scorer.preprocessor

    def describe(self) -> str:
        """Model, engine and promise in one line."""
        running = f"{self.bundle.name} on {self.backend.engine}, {self.precision}"
        if self.calibration is None:
            return f"{running}; NOT CALIBRATED: every frame will be rejected"
        other = "" if self.calibration.engine == self.backend.engine else f"; calibrated on {self.calibration.engine}"
        return f"{running}; {self.calibration.promise()}{other}"

    def stream_policy(self, policy: Policy | None = None, *, sequence: bool = True) -> StreamPolicy:
        """A fresh memory for one region of a stream.

        Args:
            policy: None takes the session's.
            sequence: The frames follow each other in time; False for unrelated images.
        """
        return StreamPolicy(policy or self.policy, self.calibration, sequence=sequence)

    def camera_health(self, frame_size: tuple[int, int] | None = None, fixed_size: bool = True) -> CameraHealth:
        """A camera check with this session's limits and a fresh memory for one stream.

        Args:
            frame_size: (width, height) that every frame must have; None: the first usable frame decides.
            fixed_size: False for unrelated images.
        """
        return CameraHealth(frame_size, fixed_size, self.health_thresholds, grey=self._grey, volume=self._depth > 1)

    def reset_drift(self) -> None:
        """End the drift alarm of the frames given to `infer`; a pipeline has its own `Pipeline.reset_drift`."""
        for policy in self._streams or ():
            policy.reset()

    def infer(self, image: Image, frame_id: int | None = None, captured_ns: int | None = None) -> Prediction:
        """Judge one whole image.

        Args:
            image: (height, width, 3) uint8 BGR; for a grey network also (height, width) uint8. A volume is one such
                image, its slices one below the other.
            frame_id: The frame's number; None counts the calls from 0.
            captured_ns: Monotonic time of capture in ns (`time.monotonic_ns`); None means now. A frame of a camera
                that is not newer than the one before is a STALE_FRAME.

        Returns:
            A prediction whose `label` can be read only if it was accepted. This method does not raise on bad images
            or engine faults: they are rejected with a reason.
        """
        number = self._frames if frame_id is None else frame_id
        self._frames += 1
        frame = Frame(number, time.monotonic_ns() if captured_ns is None else captured_ns, image)
        return self.judge(frame, self._whole, self._health, streams=self._streams)[0]

    def judge(
        self,
        frame: Frame,
        rois: tuple[Roi, ...],
        health: CameraHealth,
        deadline_ns: int | None = None,
        streams: tuple[StreamPolicy, ...] | None = None,
    ) -> tuple[Prediction, ...]:
        """Judge every region of one frame, in order; one prediction for each.

        Args:
            frame: The frame; ``health`` must be the one of its stream.
            rois: Regions to classify.
            health: Camera health of the stream, with its memory of recent frames (`camera_health`).
            deadline_ns: Older verdicts are LATE; None sets no deadline.
            streams: The policy of each region, with its memory of the stream; None judges the frame alone.
        """
        stages = self.stages
        if stages is not None:
            stages.begin(frame.captured_ns)
        found: Findings | None = None

        def look() -> Findings:
            nonlocal found
            if found is None:
                found = health.inspect(frame.image, frame.pixel_format)
            return found

        shown: Frame | None = None
        refused = health.admit(frame.image, frame.pixel_format)
        if refused[0]:
            found = refused
        else:
            try:
                shown = self._readable(frame, rois)
            except Exception as error:  # noqa: BLE001 - whatever a strange image provokes must end in REJECT
                found = (Reason.BAD_INPUT,), f"the frame cannot be converted: {error}"
        policies: tuple[StreamPolicy | None, ...] = streams or (None,) * len(rois)
        predictions = tuple(
            self._judge_region(frame, shown, roi, look, deadline_ns, policy)
            for roi, policy in zip(rois, policies, strict=True)
        )
        if stages is not None:
            stages.end(frame.frame_id)
        return predictions

    def _readable(self, frame: Frame, rois: tuple[Roi, ...]) -> Frame:
        """The frame as the preprocessing takes it."""
        if frame.pixel_format != BGR and not (self.takes_nv12 and all(roi.is_whole for roi in rois)):
            frame = to_bgr(frame, self._converted)
            self._converted = frame.image
        return self._with_three_channels(frame) if self._grey else frame

    def _with_three_channels(self, frame: Frame) -> Frame:
        """A grey frame as BGR with equal channels; any other one as it is."""
        image: object = frame.image
        if not (isinstance(image, np.ndarray) and image.ndim == 2 and image.dtype == np.uint8 and image.size):
            return frame
        self._coloured = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR, dst=self._coloured)
        return replace(frame, image=self._coloured)

    @property
    def takes_nv12(self) -> bool:
        """Whether whole NV12 frames go to the GPU as they are; elsewhere `judge` converts them, once a frame."""
        return self.scorer.takes_nv12

    def recover(self) -> None:
        """Start a backend again that failed for good: once in the session's life, so that a broken GPU stays out.

        Frames in between are rejected with BACKEND_FAULT, and all later ones if it fails again.
        """
        backend = self.backend
        # The quick question first: this is asked after every frame.
        if not getattr(backend, "fault", "") or not isinstance(backend, RecoverableBackend) or not self._may_recover:
            return
        self._may_recover = False
        tell(f"framegate: {backend.engine} failed ({backend.fault}); starting it again, once")
        try:
            backend.reinitialise()
        except Exception as error:  # noqa: BLE001 - whatever it is, the backend stays faulted and every frame rejected
            tell(f"framegate: it does not start again, every frame will be rejected: {error}")
            return
        tell(f"framegate: {backend.engine} runs again")

    def _crop(self, frame: Frame, roi: Roi) -> tuple[Image | None, str]:
        """The region's pixels, and why they cannot be classified."""
        if frame.pixel_format == NV12:  # only whole ones come this far, and the camera check has seen them
            return frame.image, ""
        crop = roi.crop(frame.image)
        return crop, f"region {roi.name!r} reaches outside the frame" if crop is None else unusable(crop, self._depth)

    def _score(self, frame: Frame, roi: Roi, look: Callable[[], Findings]) -> tuple[Scored | None, Findings]:
        """What the network says about a region, or why it says nothing."""
        try:
            crop, problem = self._crop(frame, roi)
            if problem or crop is None:
                return None, ((Reason.BAD_INPUT,), problem)
            return self.scorer(crop, frame.pixel_format, look, self.stages), ((), "")
        except BackendError as error:
            return None, ((Reason.BACKEND_FAULT,), str(error))
        except Exception as error:  # noqa: BLE001 - an engine may raise anything; it must end in REJECT
            return None, ((Reason.BACKEND_FAULT,), f"{type(error).__name__}: {error}")

    def _judge_region(
        self,
        frame: Frame,
        shown: Frame | None,
        roi: Roi,
        look: Callable[[], Findings],
        deadline_ns: int | None,
        policy: StreamPolicy | None,
    ) -> Prediction:
        """The verdict on one region.

        Args:
            frame: As it came.
            shown: As the network takes it; None if it must not see it.
            roi: The region.
            look: The camera check of the whole frame, which is done once.
            deadline_ns: See `judge`.
            policy: Of the region's stream.
        """
        scored, (failed, problem) = (None, NOTHING) if shown is None else self._score(shown, roi, look)
        found, detail = look()
        stages = self.stages
        if stages is not None:
            stages.mark(SCORES)
        reasons, detail = found + failed, problem or detail
        scores, signals, engine_ns = scored or (not_finite(), _NONE, 0)
        score, candidate = math.nan, ""
        values: Mapping[str, float] = _NONE
        if scored is not None:
            values = signals.beside(scores.values()) if isinstance(signals, Signals) else scores.values()
            score = values.get(self._score_name, math.nan)
            shifted, why = judge_limits(values, self._limits)
            reasons += judge_score(score, scores.finite, self.calibration) + shifted
            detail = detail or why
            candidate = self.bundle.labels[scores.argmax] if scores.finite else ""
        elif not reasons:
            raise AssertionError("no scores and no reason")  # pragma: no cover - the branches above exclude it
        if policy is not None:
            reasons = policy.decide(reasons, values, score, frame.captured_ns)
        published_ns = time.monotonic_ns()
        if stages is not None:
            stages.mark(POLICY, published_ns)
        return Prediction(
            frame_id=frame.frame_id,
            stream=roi.name,
            reasons=reasons + judge_age(published_ns - frame.captured_ns, deadline_ns),
            candidate=candidate,
            confidence=scores.max_probability,
            entropy=scores.entropy,
            margin=scores.margin,
            energy=scores.energy,
            score=score,
            threshold=self._threshold,
            captured_ns=frame.captured_ns,
            published_ns=published_ns,
            engine_ns=engine_ns,
            detail=detail,
            signals=signals,
        )
