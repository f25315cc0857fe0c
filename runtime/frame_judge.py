"""The verdicts on one frame: what the camera check, the network and the policy say, put together.

`FrameJudge.judge` is the way of a frame, to be read downwards.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import cv2
import numpy as np

from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.certificate import Certifier
from framegate.runtime.dense.scorer import DenseScorer
from framegate.runtime.errors import BackendError
from framegate.runtime.health.check import CameraHealth, unusable
from framegate.runtime.native.fast_path import GOOD, ORDINARY, WITHIN, FastPath, Looked, fast_path_for
from framegate.runtime.pixel_format import to_bgr
from framegate.runtime.policy.rules import judge_age
from framegate.runtime.policy.stream import StreamPolicy
from framegate.runtime.region_judge import Judged, RegionJudge
from framegate.runtime.roi import Roi
from framegate.runtime.scorer import Scored, Scorer
from framegate.runtime.stage_clock import ENGINE, HEALTH, POLICY, PREPROCESS, StageClock
from framegate.runtime.verdict import (
    BGR,
    NEVER_NS,
    NO_FINDINGS,
    NO_FRAME_ID,
    NV12,
    Findings,
    Frame,
    Image,
    Prediction,
    Reason,
)

_WITNESSES, _GRID = 211, 8
"""How many numbers of an array `witness` takes (a prime, so that they do not lie in one column); and, of an array that
is not contiguous, how many pixels along its shorter side."""
OVERWRITTEN = "somebody wrote into the frame while it was judged"
"""Of a frame that is not what was handed over any more."""


class Together(Protocol):
    """Scores several regions of a frame in one engine call (`framegate.runtime.regions.batch_scorer`).

    Attributes:
        most: How many regions at most.
    """

    most: int

    def start(self, crops: Sequence[Image]) -> None:
        """Start on usable crops. It may raise anything."""

    def finish(self) -> list[Scored]:
        """What the network says about each. It may raise anything."""


class FrameJudge:
    """Judges frames with one engine. Not thread-safe.

    Args:
        bundle: The model, for its labels and what it takes.
        scorer: Runs it.
        calibration: Its threshold and limits; None rejects every frame with NOT_CALIBRATED.
        certifier: Certifies every label that has no other reason against it; None: no certificate is required.

    Attributes:
        stages: Set to a clock, it learns how long each stage of every frame took; None costs nothing.
        regions: Decides about each region.
        together: Judges as many regions as it takes in one engine call; None: each has a call of its own.
    """

    def __init__(
        self,
        bundle: Bundle,
        scorer: Scorer | DenseScorer,
        calibration: Calibration | None,
        certifier: Certifier | None = None,
    ) -> None:
        self.stages: StageClock | None = None
        self.together: Together | None = None
        self.regions = RegionJudge(bundle, calibration)
        self._scorer = scorer
        self._certifier = certifier
        self._depth = bundle.preprocess.depth
        self._whole = bundle.dense is not None  # a dense network is shown the whole frame, whatever the region
        self._grey = bundle.preprocess.colour == "grey"
        self._usable: tuple[int, ...] = ()  # the shape of a region that the network can be shown
        self._fast: FastPath | None = None
        self._fast_for: tuple[Roi, ...] = ()
        self._coloured: Image | None = None
        self._converted: Image | None = None

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
            deadline_ns: Frames that are older when the last region is decided are LATE, in all regions, because no
                verdict is handed over before the last one; None sets no deadline.
            streams: The policy of each region, with its memory of the stream; None judges the frame alone.
        """
        frame, numbers = self._taken(frame)
        stages, fast = self.stages, self._fast
        if fast is not None and not numbers and self._begins_fast(fast, frame, rois, health):
            return self._judge_fast(fast, frame, rois, health, deadline_ns, streams)
        camera = numbers or health.admit(frame.image, frame.pixel_format)
        shown_first = witness(frame.image)
        shown, unreadable = (None, NO_FINDINGS) if camera else self.readable(frame, rois)
        camera = camera or unreadable
        if shown is not None and self.together is not None and len(rois) == self.together.most:
            judged = self._judge_together(self.together, frame, shown, rois, health, shown_first, streams)
            return self._stamp(frame, rois, judged, deadline_ns)
        inspected = shown is None  # the camera check skips a frame that no network is shown
        # Another core may check the frame meanwhile; its result is fetched when the network has computed.
        late = not inspected and health.begin(frame.image, frame.pixel_format) and not self._scorer.computes_beside
        judged = []
        if late and self._fast is None:
            self._bind_fast_path(frame, rois, health)
        for roi, policy in zip(rois, streams or (None,) * len(rois), strict=True):
            failed = NO_FINDINGS if shown is None else self._start(shown, roi)
            if stages is not None:
                stages.mark(PREPROCESS)
            if not (inspected or late):  # once a frame; a GPU computes meanwhile
                camera, inspected = self._inspect(health, frame), True
            scored = None
            if shown is not None and not failed:
                scored, failed = self._finish()
            if not inspected:
                camera, inspected = self._inspect(health, frame), True
            certificate = None
            # A soft reason may wait, and a frame that is accepted with it must be certified like any other.
            passes = not failed and (policy.may_wait.issuperset(camera) if policy is not None else not camera)
            if self._certifier is not None and shown is not None and scored is not None and passes:
                certificate, failed = self.regions.certify(self._certifier, shown, roi, scored)
            # What the camera check and the networks saw must still be what was handed over.
            if shown is not None and witness(frame.image) != shown_first:
                failed = {**failed, Reason.BAD_INPUT: OVERWRITTEN}
            found = self.regions.decide({**camera, **failed}, scored, policy, frame)
            judged.append(found if certificate is None else found._replace(certificate=certificate))
            if stages is not None:
                stages.mark(POLICY)
        return self._stamp(frame, rois, judged, deadline_ns)

    def _taken(self, frame: Frame) -> tuple[Frame, Findings]:
        """The frame with whole numbers, see `whole_numbers`; its stages begin."""
        frame, numbers = whole_numbers(frame)
        if self.stages is not None:
            self.stages.begin(frame.captured_ns)
        return frame, numbers

    def _begins_fast(self, fast: FastPath, frame: Frame, rois: tuple[Roi, ...], health: CameraHealth) -> bool:
        """Begin a frame on the fast path, if it is like those that it is for."""
        try:
            if rois is self._fast_for and health is fast.check and not self._scorer.wrong and fast.begin(frame):
                return True
        except Exception:  # noqa: BLE001 - step by step will meet the same, and say it
            health.forget_begun()
        self._fast = None  # another one is looked for
        return False

    def _judge_fast(
        self,
        fast: FastPath,
        frame: Frame,
        rois: tuple[Roi, ...],
        health: CameraHealth,
        deadline_ns: int | None,
        streams: tuple[StreamPolicy, ...] | None,
    ) -> tuple[Prediction, ...]:
        """`judge` of a frame that was begun on the fast path: the same steps, in the same order."""
        stages, policy = self.stages, streams[0] if streams else None
        if stages is not None:
            stages.mark(PREPROCESS)
        scorer = self._scorer
        assert isinstance(scorer, Scorer)  # `_bind_fast_path` asked
        found: Looked | Scored | None = None
        engine_ns, failed = 0, NO_FINDINGS
        try:
            found, engine_ns = scorer.finish_fast(fast, stages)
        except Exception as error:  # noqa: BLE001 - see `_start`
            failed = fault(error)
        if fast.answer is not scorer.bound:  # the engine writes another array now
            self._fast = None
        camera = self._found_good(health) if fast.said & GOOD else self._inspect(health, frame)
        seen = None if fast.said | WITHIN != ORDINARY or isinstance(found, Scored) else found
        made = None
        if seen is not None:
            made = self.regions.ordinary(seen, engine_ns, frame, rois[0], deadline_ns, policy)
        if made is not None:
            if stages is not None:
                stages.mark(POLICY, made.decided_ns)
                stages.end(frame.frame_id)
            return (made,)
        # What the camera check and the network saw must still be what was handed over.
        if not fast.unchanged:
            failed = {**failed, Reason.BAD_INPUT: OVERWRITTEN}
        scored = None if found is None else scorer.scored_of(found, engine_ns)
        within = bool(fast.said & WITHIN)
        judged = self.regions.decide({**camera, **failed}, scored, policy, frame, within_limits=within)
        return self._stamp(frame, rois, (judged,), deadline_ns)

    def _bind_fast_path(self, frame: Frame, rois: tuple[Roi, ...], health: CameraHealth) -> None:
        """Find the fast path for frames like this one, which was judged step by step, and nothing raised."""
        scorer, image = self._scorer, frame.image
        if type(rois) is not tuple:
            return  # a list may name another region in the next frame, and is still the same list
        if len(rois) != 1 or frame.pixel_format != BGR or not isinstance(scorer, Scorer) or self._certifier is not None:
            return
        box = rois[0].pixels(image.shape[1], image.shape[0])
        crop = rois[0].crop(image)
        if box is None or crop is None or unusable(crop, self._depth):
            return
        self._fast = fast_path_for(image, box, health, scorer.preprocessor.compiled, scorer.bound, self.regions.limits)
        self._fast_for = rois

    def _judge_together(
        self,
        together: Together,
        frame: Frame,
        shown: Frame,
        rois: tuple[Roi, ...],
        health: CameraHealth,
        shown_first: bytes,
        streams: tuple[StreamPolicy, ...] | None,
    ) -> list[Judged]:
        """`judge`, all regions in one engine call. What is wrong with the engine is then wrong for all of them."""
        stages = self.stages
        health.begin(frame.image, frame.pixel_format)
        crops: list[Image] = []
        alone: list[Findings] = []
        for roi in rois:
            crop = roi.crop(shown.image)
            problem = (
                unusable(crop, self._depth) if crop is not None else f"region {roi.name!r} reaches outside the frame"
            )
            alone.append({Reason.BAD_INPUT: problem} if problem else NO_FINDINGS)
            if crop is not None and not problem:
                crops.append(crop)
        failed, scored = NO_FINDINGS, []
        try:
            if crops:
                together.start(crops)
            if stages is not None:
                stages.mark(PREPROCESS)
            scored = together.finish() if crops else []
        except Exception as error:  # noqa: BLE001 - see `_start`
            failed = fault(error)
        if stages is not None:
            stages.mark(ENGINE)
        camera = self._inspect(health, frame)
        # What the camera check and the network saw must still be what was handed over.
        if witness(frame.image) != shown_first:
            failed = {**failed, Reason.BAD_INPUT: OVERWRITTEN}
        answers = iter(scored)
        policies: Sequence[StreamPolicy | None] = streams or (None,) * len(rois)
        judged: list[Judged] = []
        for unshown, policy in zip(alone, policies, strict=True):
            answer = None if unshown else next(answers, None)
            judged.append(self.regions.decide({**camera, **unshown, **failed}, answer, policy, frame))
        if stages is not None:
            stages.mark(POLICY)
        return judged

    def _stamp(
        self, frame: Frame, rois: tuple[Roi, ...], judged: Sequence[Judged], deadline_ns: int | None
    ) -> tuple[Prediction, ...]:
        """One clock stamp for all regions of a frame."""
        stages, decided_ns = self.stages, time.monotonic_ns()
        overdue = judge_age(decided_ns - frame.captured_ns, deadline_ns)
        end_ns = NEVER_NS if deadline_ns is None else frame.captured_ns + deadline_ns
        pairs = zip(rois, judged, strict=True)
        made = [self.regions.prediction(frame, roi.name, each, overdue, decided_ns, end_ns) for roi, each in pairs]
        if stages is not None:
            stages.mark(POLICY, decided_ns)
            stages.end(frame.frame_id)
        return tuple(made)

    def _found_good(self, health: CameraHealth) -> Findings:
        """`_inspect` of a frame that compiled code has found good."""
        health.saw_good()
        if self.stages is not None:
            self.stages.mark(HEALTH)
        return NO_FINDINGS

    def _inspect(self, health: CameraHealth, frame: Frame) -> Findings:
        found = health.inspect(frame.image, frame.pixel_format)
        if self.stages is not None:
            self.stages.mark(HEALTH)
        return found

    def readable(self, frame: Frame, rois: tuple[Roi, ...]) -> tuple[Frame | None, Findings]:
        """The frame as the preprocessing takes it; None, and why, if it cannot be converted."""
        try:
            if frame.pixel_format != BGR and not (self._scorer.takes_nv12 and all(roi.is_whole for roi in rois)):
                frame = to_bgr(frame, self._converted)
                self._converted = frame.image
            return (self._with_three_channels(frame) if self._grey else frame), NO_FINDINGS
        except Exception as error:  # noqa: BLE001 - whatever a strange image provokes must end in REJECT
            return None, {Reason.BAD_INPUT: f"the frame cannot be converted: {error}"}

    def _with_three_channels(self, frame: Frame) -> Frame:
        """A grey frame as BGR with equal channels; any other one as it is."""
        image: object = frame.image
        if not (isinstance(image, np.ndarray) and image.ndim == 2 and image.dtype == np.uint8 and image.size):
            return frame
        self._coloured = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR, dst=self._coloured)
        return replace(frame, image=self._coloured)

    def _start(self, frame: Frame, roi: Roi) -> Findings:
        """Start the network on a region; empty, or why it cannot be."""
        try:
            # NV12 comes this far only as whole frames, which `CameraHealth.admit` has accepted.
            crop = frame.image if self._whole or frame.pixel_format == NV12 else roi.crop(frame.image)
            if crop is None:
                return {Reason.BAD_INPUT: f"region {roi.name!r} reaches outside the frame"}
            if frame.pixel_format == BGR and not (crop.shape == self._usable and crop.dtype == np.uint8):
                if problem := unusable(crop, self._depth):
                    return {Reason.BAD_INPUT: problem}
                self._usable = crop.shape
            self._scorer.start(crop, frame.pixel_format)
        except Exception as error:  # noqa: BLE001 - an engine may raise anything; it must end in REJECT
            return fault(error)
        return NO_FINDINGS

    def _finish(self) -> tuple[Scored | None, Findings]:
        """What the network says about the region that was started; None, and why, if it says nothing."""
        try:
            return self._scorer.finish(self.stages), NO_FINDINGS
        except Exception as error:  # noqa: BLE001 - see `_start`
            return None, fault(error)


def whole_numbers(frame: Frame) -> tuple[Frame, Findings]:
    """The frame with a number and a time that can be compared; BAD_INPUT where they were none (NaN, a text)."""
    if type(frame.frame_id) is int and type(frame.captured_ns) is int:
        return frame, NO_FINDINGS
    try:
        number, captured = operator.index(frame.frame_id), operator.index(frame.captured_ns)
    except TypeError:
        found = f"frame_id is {frame.frame_id!r}, captured_ns is {frame.captured_ns!r}; expected whole numbers"
        return replace(frame, frame_id=NO_FRAME_ID, captured_ns=time.monotonic_ns()), {Reason.BAD_INPUT: found}
    return replace(frame, frame_id=number, captured_ns=captured), NO_FINDINGS


def witness(image: Image) -> bytes:
    """Some hundred numbers of the image: if they have changed, somebody wrote into it. Empty if it is no array."""
    if not isinstance(image, np.ndarray) or not image.size:
        return b""
    if image.flags.c_contiguous or image.ndim < 2:
        step = max(1, image.size // _WITNESSES)
        return image.reshape(-1)[:: step if step % 3 else step - 1].tobytes()  # a multiple of 3: of one channel only
    step = max(1, min(image.shape[:2]) // _GRID)
    return image[::step, ::step].tobytes()


def fault(error: Exception) -> Findings:
    """An engine's error as a reason."""
    return {Reason.BACKEND_FAULT: str(error) if isinstance(error, BackendError) else f"{type(error).__name__}: {error}"}
