"""The policy of one stream: what several frames together say about the present one.

    reasons of this frame -> time -> windows of signals -> warm-up -> drift -> debounce -> reasons that count

Every step but the last only adds reasons, and the last never removes a hard one
(`framegate.runtime.policy.debounce.HARD`). Deadlines are judged after the policy, at publication.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.errors import UsageError
from framegate.runtime.policy.debounce import BLIND, Debounce, Debouncer, check_rule
from framegate.runtime.policy.drift import BLOCK, SCENE_BLOCKS, DriftAlarm
from framegate.runtime.policy.window import Windows
from framegate.runtime.verdict import Findings, Reason


@dataclass(frozen=True)
class Policy:
    """What the user may decide about a stream's verdicts. The default rejects at once and accepts at once.

    Attributes:
        debounce: Reason -> its rule; hard reasons take only a K.
        warm_up: The first so many usable frames of a stream are WARMING_UP.
        drift: Whether a stream that no longer looks like the calibration frames is rejected with DRIFT.
        scene_frames: About how many frames the scenes of the stream last, whose frames resemble each other; the drift
            alarm then takes `framegate.runtime.policy.drift.SCENE_BLOCKS` scenes as one piece of evidence. 0: not said.
        counter_examples: Names of regions that are known to show nothing that the network was trained on, such as
            the sky of a demonstration: that they are unlike the calibration is no news, so their drift is not watched.
            Their frames are judged like any other.
    """

    debounce: Mapping[Reason, Debounce] = field(default_factory=dict)
    warm_up: int = 0
    drift: bool = True
    scene_frames: int = 0
    counter_examples: frozenset[str] = frozenset()

    @property
    def drift_block(self) -> int:
        """Frames that the drift alarm takes as one piece of evidence."""
        return max(BLOCK, SCENE_BLOCKS * self.scene_frames)

    def __post_init__(self) -> None:
        """Check the rules.

        Raises:
            UsageError: A hard reason shall wait, one that the policy does not judge shall be debounced, or ``warm_up``
                is not a whole number >= 0.
        """
        for reason, rule in self.debounce.items():
            check_rule(reason, rule)
        for name, value in (("warm-up is", self.warm_up), ("scenes are", self.scene_frames)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise UsageError(f"{name} {value!r} frames; expected a whole number, 0 or more")


class StreamPolicy:
    """Decides about one region of one stream, frame by frame, in the order of capture. Not thread-safe.

    Args:
        policy: The user's rules.
        calibration: Its windowed limits, coverage and score quantiles; None: frames are rejected with NOT_CALIBRATED
            by the caller, and only time, warm-up and debounce are judged here.
        sequence: Frames follow each other in time. False for unrelated images: no windows, warm-up or debounce, whose
            meaning is a stream; time of capture and drift are judged all the same.

    Attributes:
        drift: The alarm, None without calibration or if the policy does not want one.
        may_wait: Reasons with which a frame may be accepted all the same, until they last.
    """

    def __init__(self, policy: Policy, calibration: Calibration | None, *, sequence: bool = True) -> None:
        self.drift = DriftAlarm(calibration, policy.drift_block) if calibration and policy.drift else None
        windows = Windows(calibration.limits if calibration and sequence else ())
        self._windows = windows if windows.frames else None
        self._unseen = policy.warm_up if sequence else 0
        self._debouncer = Debouncer(policy.debounce if sequence else {})
        self._debounces = self._debouncer.has_rules
        self.may_wait = self._debouncer.may_wait
        self._latest_ns: int | None = None
        self._latest_id: int | None = None

    def decide(
        self,
        findings: Findings,
        values: Mapping[str, float],
        score: float,
        captured_ns: int,
        now_ns: int | None = None,
        frame_id: int | None = None,
    ) -> Findings:
        """The reasons that count for a frame; empty exactly when it may be used.

        Args:
            findings: What this frame alone was rejected for.
            values: Signal -> value; empty if the network gave no output.
            score: The calibrated score, NaN if there is none.
            captured_ns: Monotonic time of capture in ns.
            now_ns: The present on the same clock; None asks the clock.
            frame_id: The frame's number; None does not judge it.
        """
        alone = tuple(findings)
        reasons = alone
        if not self._is_next(captured_ns, time.monotonic_ns() if now_ns is None else now_ns, frame_id):
            reasons += (Reason.STALE_FRAME,)
        if self.reads_values:
            reasons = self._judge_past(reasons, values)
        # A stale frame is no new evidence; what the windows added is not part of the calibrated coverage.
        if self.drift is not None:
            fresh = Reason.STALE_FRAME not in reasons
            if self.drift.saw(alone, score) if fresh and values else self.drift.alarm:
                reasons += (Reason.DRIFT,)
        # The promise counts what breaks a single-frame limit as rejected: only a shift seen by a window may wait.
        if self._debounces:
            reasons = self._debouncer.decide(reasons, tuple(each for each in alone if each is Reason.ACTIVATION_SHIFT))
        return findings if reasons == alone else {reason: findings.get(reason, "") for reason in reasons}

    @property
    def reads_values(self) -> bool:
        """Whether `decide` needs the values themselves; otherwise only whether there are any."""
        return self._windows is not None or self._unseen > 0

    def _judge_past(self, reasons: tuple[Reason, ...], values: Mapping[str, float]) -> tuple[Reason, ...]:
        """What the windows and the warm-up say, added to the reasons so far."""
        shows_scene = bool(values) and BLIND.isdisjoint(reasons)
        if self._windows is not None and values and (shows_scene or Reason.NOT_FINITE in reasons):
            within = self._windows.hold(values)
            if not within and Reason.ACTIVATION_SHIFT not in reasons:
                reasons += (Reason.ACTIVATION_SHIFT,)
        if self._unseen > 0:
            reasons += (Reason.WARMING_UP,)
            self._unseen -= shows_scene
        return reasons

    def ignore_drift(self) -> None:
        """Watch for drift no longer: the region is a counter-example."""
        self.drift = None

    def reset(self) -> None:
        """End a drift alarm and forget its evidence, after the camera or its scene was changed on purpose."""
        if self.drift is not None:
            self.drift.reset()

    def _is_next(self, captured_ns: int, now_ns: int, frame_id: int | None) -> bool:
        """Whether the frame and its number are newer than every earlier one, and the frame not from the future."""
        if captured_ns > now_ns:
            return False  # not remembered: it would make every later frame stale
        if self._latest_ns is not None and captured_ns <= self._latest_ns:
            return False
        if frame_id is not None:
            if self._latest_id is not None and frame_id <= self._latest_id:
                return False
            self._latest_id = frame_id
        self._latest_ns = captured_ns
        return True
