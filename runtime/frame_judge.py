"""The verdicts on one frame: what the camera check, the network and the policy say, put together."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import cv2
import numpy as np

from framegate.runtime.bundle import Bundle
from framegate.runtime.calibration import Calibration
from framegate.runtime.errors import BackendError
from framegate.runtime.health.check import NOTHING, CameraHealth, Findings, unusable
from framegate.runtime.monitor import Signals
from framegate.runtime.pixel_format import to_bgr
from framegate.runtime.policy.rules import judge_age, judge_limits, judge_score
from framegate.runtime.policy.stream import StreamPolicy
from framegate.runtime.roi import Roi
from framegate.runtime.scorer import Scored, Scorer
from framegate.runtime.scores import not_finite
from framegate.runtime.stage_clock import POLICY, SCORES, StageClock
from framegate.runtime.verdict import BGR, NV12, Frame, Image, Prediction, Reason

_NONE: Mapping[str, float] = {}


class FrameJudge:
    """Judges frames with one engine. Not thread-safe.

    Args:
        bundle: The model, for its labels and what it takes.
        scorer: Runs it.
        calibration: Its threshold and limits; None rejects every frame with NOT_CALIBRATED.

    Attributes:
        stages: Set to a clock, it learns how long each stage of every frame took; None costs nothing.
    """

    def __init__(self, bundle: Bundle, scorer: Scorer, calibration: Calibration | None) -> None:
        self.stages: StageClock | None = None
        self._labels = bundle.labels
        self._scorer = scorer
        self._calibration = calibration
        self._depth = bundle.preprocess.depth
        self._grey = bundle.preprocess.colour == "grey"
        self._coloured: Image | None = None
        self._converted: Image | None = None
        self._threshold = calibration.threshold if calibration else math.nan
        self._score_name = calibration.score if calibration else "entropy"
        self._limits = tuple(limit for limit in calibration.limits if limit.frames == 1) if calibration else ()

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
            health: Camera health of the stream, with its memory of recent frames (`Session.camera_health`).
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
        if frame.pixel_format != BGR and not (self._scorer.takes_nv12 and all(roi.is_whole for roi in rois)):
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
            return self._scorer(crop, frame.pixel_format, look, self.stages), ((), "")
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
            reasons += judge_score(score, scores.finite, self._calibration) + shifted
            detail = detail or why
            candidate = self._labels[scores.argmax] if scores.finite else ""
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
