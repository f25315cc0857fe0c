"""The verdicts on the objects of one frame: where they are, one engine call for all, and what each track shows.

`ObjectJudge.judge` is the way of a frame with objects, to be read downwards; what happens to a single one is that of
`framegate.runtime.frame_judge`.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.certificate import Certifier
from framegate.runtime.errors import UsageError
from framegate.runtime.frame_judge import OVERWRITTEN, FrameJudge, fault, whole_numbers, witness
from framegate.runtime.health.check import CameraHealth, unusable
from framegate.runtime.policy.debounce import Debouncer
from framegate.runtime.policy.rules import judge_age
from framegate.runtime.policy.stream import Policy, StreamPolicy
from framegate.runtime.policy.track import TrackRule
from framegate.runtime.region_judge import Judged
from framegate.runtime.regions.base import MAX_OBJECTS, Box, Found, RegionGiver
from framegate.runtime.regions.batch_scorer import BatchScorer
from framegate.runtime.regions.intake import Taken, describe, take
from framegate.runtime.regions.label_map import LabelMap
from framegate.runtime.regions.tracker import Tracker
from framegate.runtime.regions.tracks import TrackMemory, TrackState
from framegate.runtime.roi import FULL
from framegate.runtime.scorer import Scored
from framegate.runtime.verdict import NEVER_NS, NO_FINDINGS, Findings, FoundObject, Frame, Prediction, Reason

DEFAULT_RULE = TrackRule(1, 1, 3)
"""Three equal accepted labels: the rule that uses a track soonest without a wrong one among the calibration tracks of
hybrid-gtsrb (benchmarks/results/tracks)."""
_AT_ONCE = TrackRule()
_NOTHING = Taken((), (), {})
_NO_POLICY = Policy()
_APART = 1_000_000
"""Added to the tracker's numbers where a giver has numbers of its own, too."""


@dataclass(frozen=True)
class Objects:
    """What a pipeline that judges moving regions needs.

    Attributes:
        giver: Says where they are.
        most: Objects of a frame that are judged at most, 1 to `MAX_OBJECTS`; what is beyond is counted.
        tracker: Gives objects their numbers where the giver does not; None follows only those with a number.
        rule: When a track may be used. An object that nobody follows is never used under a rule that asks for more
            than its one frame.
        labels: Which of the classifier's labels go with what the giver calls an object; None compares nothing.
    """

    giver: RegionGiver
    most: int = MAX_OBJECTS
    tracker: Tracker | None = None
    rule: TrackRule = _AT_ONCE
    labels: LabelMap | None = None

    def __post_init__(self) -> None:
        """Check the number.

        Raises:
            UsageError: It is out of range.
        """
        if not 1 <= self.most <= MAX_OBJECTS:
            raise UsageError(f"--max-objects {self.most}: expected 1 to {MAX_OBJECTS}")


class ObjectVerdicts(NamedTuple):
    """What was decided about one frame.

    Attributes:
        scene: Whether the frame could be looked at: the camera check and the giver of regions. It has no label.
        predictions: One for each object, the surest first.
        left_out: Why boxes have no verdict -> how many.
    """

    scene: Prediction
    predictions: tuple[Prediction, ...]
    left_out: dict[str, int]


class ObjectJudge:
    """Judges the objects of the frames of one stream, in the order of capture. Not thread-safe.

    Args:
        bundle: The classifier, for what it takes.
        frame_judge: Decides about single regions.
        scorer: Runs the classifier on all objects of a frame.
        objects: Where they are, and how they are followed.
        memory: Of the stream's tracks.
        certifier: Certifies what would be accepted; None: no certificate is required.
        policy: Of the stream. What a frame as a whole is rejected for waits and is held for the stream, not for each
            track: a track that begins under a camera that is known to be bad shall not begin to count anew.

    Attributes:
        memory: See above.
    """

    def __init__(
        self,
        bundle: Bundle,
        frame_judge: FrameJudge,
        scorer: BatchScorer,
        objects: Objects,
        memory: TrackMemory,
        certifier: Certifier | None = None,
        policy: Policy = _NO_POLICY,
    ) -> None:
        self.memory = memory
        self._certifier = certifier
        self._depth = bundle.preprocess.depth
        self._labels = bundle.labels
        self._judge = frame_judge
        self._scorer = scorer
        self._objects = objects
        self._has_numbers = False
        # The time of capture is judged once a frame, for all objects.
        self._time = StreamPolicy(Policy(drift=False), None)
        self._debouncer = Debouncer(policy.debounce)
        self._warms_up = policy.warm_up > 0

    def judge(self, frame: Frame, health: CameraHealth, deadline_ns: int | None = None) -> ObjectVerdicts:
        """Judge every object of one frame.

        Args:
            frame: The frame.
            health: Camera health of its stream.
            deadline_ns: See `FrameJudge.judge`.
        """
        frame, numbers = whole_numbers(frame)
        camera = numbers or health.admit(frame.image, frame.pixel_format)
        first = witness(frame.image)
        shown, unreadable = (None, NO_FINDINGS) if camera else self._judge.readable(frame, ())
        camera = camera or unreadable
        if shown is not None:
            health.begin(frame.image, frame.pixel_format)  # another core counts while the detector computes
        taken, unknown = (_NOTHING, NO_FINDINGS) if shown is None else self._look(shown)
        alone, started, broken = ([], [], NO_FINDINGS) if shown is None else self._start(shown, taken)
        # Before an engine on the CPU computes: behind it this would run cold, and here the check goes on beside it.
        tracks, lost = self._tracks(taken, frame)
        known = [_named(k, taken, track) for k, track in enumerate(tracks)]
        if shown is not None:  # once a frame; a GPU computes meanwhile
            camera = health.inspect(frame.image, frame.pixel_format)
        scored, failed = self._finish(started) if not broken else ([], broken)
        if shown is not None and witness(frame.image) != first:
            unknown = {**unknown, Reason.BAD_INPUT: OVERWRITTEN}
        camera = self._time.decide({**camera, **unknown}, {}, math.nan, frame.captured_ns, frame_id=frame.frame_id)
        counted = camera
        if self._debouncer.has_rules:
            counted = {reason: camera.get(reason, "") for reason in self._debouncer.decide(tuple(camera))}
        by_box = dict(zip(started, scored, strict=False))
        common = {**camera, **lost}
        judged = [
            self._decide(
                frame,
                {**common, **box.against, **alone[k], **(failed if not alone[k] and k not in by_box else NO_FINDINGS)},
                by_box.get(k),
                box,
                tracks[k],
                camera,
                counted,
            )
            for k, box in enumerate(taken.boxes)
        ]
        if shown is not None and self._certifier is not None:
            certified = self._certified(self._certifier, shown, taken, tracks, judged)
            # The certificate's network must have seen the pixels that the classifier saw.
            judged = certified if witness(frame.image) == first else [_overwritten(each) for each in judged]
        self._note_use(tracks, judged)
        # The scene never waits: that no object was found on a bad picture says nothing.
        return self._stamp(frame, {**camera, **counted}, taken, known, judged, deadline_ns)

    def _look(self, shown: Frame) -> tuple[Taken, Findings]:
        """Where the objects are; nowhere, and why, if that is not known."""
        objects = self._objects
        try:
            # What was converted, from NV12 say, is no part of the frame, whose pixels are compared afterwards.
            pixels = shown.image.view()
            pixels.setflags(write=False)
            found: Found = objects.giver.find(replace(shown, image=pixels))
            if found.problem:
                return _NOTHING, found.problem
            height, width = shown.image.shape[:2]
            return take(found.boxes, width, height, objects.most), NO_FINDINGS
        except Exception as error:  # noqa: BLE001 - a user's function or a detector may raise anything
            return _NOTHING, {Reason.NO_REGIONS: f"{objects.giver.name} failed: {type(error).__name__}: {error}"}

    def _start(self, shown: Frame, taken: Taken) -> tuple[list[Findings], list[int], Findings]:
        """Start the engine on all objects that can be classified.

        Returns:
            What speaks against each object alone; the numbers of those that were started; why none could be.
        """
        alone: list[Findings] = []
        crops = []
        started = []
        for k, (x, y, width, height) in enumerate(taken.pixels):
            crop = shown.image[y : y + height, x : x + width]
            problem = unusable(crop, self._depth)
            alone.append({Reason.BAD_INPUT: problem} if problem else NO_FINDINGS)
            if not problem:
                crops.append(crop)
                started.append(k)
        if not crops:
            return alone, [], NO_FINDINGS
        try:
            self._scorer.start(crops)
        except Exception as error:  # noqa: BLE001 - an engine may raise anything; it must end in REJECT
            return alone, [], fault(error)
        return alone, started, NO_FINDINGS

    def _finish(self, started: list[int]) -> tuple[list[Scored], Findings]:
        if not started:
            return [], NO_FINDINGS
        try:
            return self._scorer.finish(), NO_FINDINGS
        except Exception as error:  # noqa: BLE001 - see `_start`
            return [], fault(error)

    def _tracks(self, taken: Taken, frame: Frame) -> tuple[Sequence[TrackState | None], Findings]:
        """The track of each object, None for one that is not followed; and why none can be, if the tracker failed."""
        try:
            return self._follow(taken, frame), NO_FINDINGS
        except Exception as error:  # noqa: BLE001 - a tracker of any library may raise anything
            why = f"the tracker failed: {type(error).__name__}: {error}"
            return (None,) * len(taken.boxes), {Reason.UNCONFIRMED: why}

    def _follow(self, taken: Taken, frame: Frame) -> list[TrackState | None]:
        # Below 0 are the numbers of fixed regions; of a giver it is none, as trackers write it (-1).
        numbers = [box.track if box.track is None or box.stream or box.track >= 0 else None for box in taken.boxes]
        self._has_numbers |= any(number is not None and number >= 0 for number in numbers)
        unknown = [k for k, number in enumerate(numbers) if number is None]
        tracker = self._objects.tracker
        if tracker is not None:
            boxes, pixels = [taken.boxes[k] for k in unknown], [taken.pixels[k] for k in unknown]
            for k, number in zip(unknown, tracker.update(boxes, pixels, frame.frame_id), strict=True):
                numbers[k] = int(number) + _APART * self._has_numbers if int(number) >= 0 else None
        self.memory.end_unseen(frame.frame_id)
        # A number that two objects of a frame have says of neither which it is: they would confirm each other.
        for number in [number for number, times in Counter(numbers).items() if times > 1 and number is not None]:
            self.memory.end(number)
            numbers = [None if each == number else each for each in numbers]
        seen = (
            None if number is None else self.memory.see(number, pixels, frame.frame_id, box.stream)
            for number, pixels, box in zip(numbers, taken.pixels, taken.boxes, strict=True)
        )
        return list(seen)

    def _decide(
        self,
        frame: Frame,
        findings: Findings,
        scored: Scored | None,
        box: Box,
        track: TrackState | None,
        camera: Findings,
        counted: Findings,
    ) -> Judged:
        """Every reason to reject one object: what was found so far, the labels, the network, its track.

        Args:
            frame: Of which it is.
            findings: What was found so far.
            scored: What the network said; None only with findings.
            box: What the giver said.
            track: None if it is not followed.
            camera: What was found about the frame as a whole.
            counted: What counts of that after the debounce of the stream; the same object if there is none.
        """
        labels = self._objects.labels
        if scored is not None and labels is not None and scored.scores.finite:
            findings = {**findings, **labels.judge(box.label, self._labels[scored.scores.argmax])}
        judged = self._judge.regions.decide(findings, scored, None if track is None else track.policy, frame)
        if counted is not camera:
            # The stream's debounce decides about the frame's reasons, not about what the giver holds against this box.
            own = {r: text for r, text in judged.findings.items() if r not in camera or r in box.against}
            judged = judged._replace(findings={**counted, **own})
        unconfirmed = self._unconfirmed(judged, track)
        if unconfirmed:
            why = "; ".join(filter(None, (judged.detail, *unconfirmed.values())))
            return judged._replace(findings={**judged.findings, **unconfirmed}, detail=why)
        return judged

    def _certified(
        self,
        certifier: Certifier,
        shown: Frame,
        taken: Taken,
        tracks: Sequence[TrackState | None],
        judged: Sequence[Judged],
    ) -> list[Judged]:
        """Certify what nothing else speaks against; what was certified of a track before counts if that was asked."""
        found = []
        for one, track, (x, y, width, height) in zip(judged, tracks, taken.pixels, strict=True):
            label = one.scored.scores.argmax
            known = certifier.demand.once and track is not None and track.certified == label
            if one.findings or known:
                found.append(one)
                continue
            crop = np.ascontiguousarray(shown.image[y : y + height, x : x + width])
            certificate, against = certifier.decide(crop, label)
            detail = "; ".join(filter(None, (one.detail, *against.values())))
            found.append(
                one._replace(findings=dict(against), found=tuple(against), detail=detail, certificate=certificate)
            )
        return found

    def _note_use(self, tracks: Sequence[TrackState | None], judged: Sequence[Judged]) -> None:
        for track, one in zip(tracks, judged, strict=True):
            if track is not None and not one.findings:
                self.memory.used(track)
                if one.certificate is not None:  # only now: a frame that was overwritten meanwhile certifies no track
                    track.certified = one.scored.scores.argmax

    def _unconfirmed(self, judged: Judged, track: TrackState | None) -> Findings:
        """UNCONFIRMED, unless the rule is fulfilled; of an object that nobody follows every frame is its first one."""
        if track is not None:
            return track.gate.decide(not judged.findings, judged.candidate)
        if judged.findings:
            return NO_FINDINGS
        if self._warms_up:
            return {Reason.WARMING_UP: "nobody follows this object, and a warm-up needs a track"}
        if self._objects.rule.delay == 0:
            return NO_FINDINGS
        return {Reason.UNCONFIRMED: f"nobody follows this object, and the rule {self._objects.rule} needs a track"}

    def _stamp(
        self,
        frame: Frame,
        camera: Findings,
        taken: Taken,
        known: Sequence[tuple[str, FoundObject]],
        judged: Sequence[Judged],
        deadline_ns: int | None,
    ) -> ObjectVerdicts:
        """One clock stamp for everything that was decided about the frame."""
        decided_ns = time.monotonic_ns()
        late = judge_age(decided_ns - frame.captured_ns, deadline_ns)
        end_ns = NEVER_NS if deadline_ns is None else frame.captured_ns + deadline_ns
        prediction = self._judge.regions.prediction
        predictions = tuple(
            prediction(frame, stream, one, late, decided_ns, end_ns, found)
            for (stream, found), one in zip(known, judged, strict=True)
        )
        nan = math.nan
        detail = "; ".join(filter(None, (*camera.values(), describe(taken.left_out))))
        scene = Prediction(
            frame.frame_id, FULL, (*camera, *late), "", nan, nan, nan, nan, nan, nan, frame.captured_ns, decided_ns,
            detail=detail, valid_until_ns=end_ns,
        )  # fmt: skip
        return ObjectVerdicts(scene, predictions, taken.left_out)


def _named(place: int, taken: Taken, track: TrackState | None) -> tuple[str, FoundObject]:
    """The stream that an object's verdict belongs to, and what is known of it before it is classified."""
    box, pixels = taken.boxes[place], taken.pixels[place]
    if box.stream or track is None:
        found = FoundObject(pixels, box.label, box.score, fixed=bool(box.stream), scores=box.scores)
        number = None if track is None else track.number
    else:
        number = track.number
        found = FoundObject(pixels, box.label, box.score, number, track.age, scores=box.scores)
    return box.stream or (f"object-{place}" if number is None else f"track-{number}"), found


def _overwritten(judged: Judged) -> Judged:
    """What was decided about pixels that are not there any more."""
    detail = "; ".join(filter(None, (judged.detail, OVERWRITTEN)))
    return judged._replace(findings={**judged.findings, Reason.BAD_INPUT: OVERWRITTEN}, detail=detail)
