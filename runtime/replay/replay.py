"""Decide a recorded drive again: from the recorded scores, by the same rules, with another threshold or calibration.

    recorded verdict -> reasons that no calibration gives (camera check, engine, time)  \
                     -> scores and signals -> rules with the other calibration           -> policy -> verdict

The network does not run and no picture is needed. What is decided with the recording's own calibration must be what was
recorded; `Replay.unlike` counts where it is not, because the recorder left out frames, say.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.errors import DataError, UsageError
from framegate.runtime.mcap_messages import Contents
from framegate.runtime.policy.rules import judge_limits, judge_score
from framegate.runtime.policy.stream import StreamPolicy
from framegate.runtime.replay.recording import METADATA, Recording, number
from framegate.runtime.roi import FULL
from framegate.runtime.stats import OBJECTS
from framegate.runtime.verdict import NO_CLASS, NO_FRAME_ID, Reason

TOPIC = "/verdict/"
OF_CALIBRATION = frozenset((Reason.NOT_FINITE, Reason.NOT_CALIBRATED, Reason.HIGH_SCORE, Reason.ACTIVATION_SHIFT))
"""What the network's output is rejected for; every other reason of a frame alone stays as it was."""
_OTHER = 1 << 30
"""Stands for the number of any label that has no threshold of its own."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded verdict.

    Attributes:
        region: Its region.
        frame_id: `NO_FRAME_ID` for a report of silence.
        captured_ns: Monotonic time of the recording process.
        decided_ns: The same.
        reasons: Why it was rejected.
        found: What the frame alone was rejected for.
        values: Scores and signals; empty if the network gave no output.
        candidate: The most probable label, empty if there is none.
    """

    region: str
    frame_id: int
    captured_ns: int
    decided_ns: int
    reasons: tuple[Reason, ...]
    found: tuple[Reason, ...]
    values: Mapping[str, float]
    candidate: str


@dataclass(frozen=True, slots=True)
class Change:
    """A verdict that would have been another one.

    Attributes:
        verdict: As recorded.
        score: By the other calibration.
        reasons: Why it would have been rejected; empty if it would have been accepted.
    """

    verdict: Recorded
    score: float
    reasons: tuple[Reason, ...]

    def to_json(self) -> dict[str, object]:
        """As a record of plain JSON values."""
        return {
            "region": self.verdict.region,
            "frame_id": self.verdict.frame_id,
            "captured_ns": self.verdict.captured_ns,
            "candidate": self.verdict.candidate or None,
            "score": self.score if math.isfinite(self.score) else None,
            "recorded": [reason.value for reason in self.verdict.reasons],
            "replayed": [reason.value for reason in self.reasons],
        }


@dataclass
class RegionReplay:
    """What became of one region.

    Attributes:
        verdicts: Recorded verdicts on frames.
        silences: Recorded reports of silence; they stay what they are.
        accepted: Accepted as recorded.
        accepted_now: Accepted by the other calibration.
        reasons: Reason -> verdicts rejected for it by the other calibration.
        changes: Verdicts that turn from ACCEPT to REJECT or back.
    """

    verdicts: int = 0
    silences: int = 0
    accepted: int = 0
    accepted_now: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    changes: list[Change] = field(default_factory=list)


@dataclass
class Replay:
    """A drive, decided again.

    Attributes:
        recording: What the recording says about itself.
        calibration: By which it was decided again.
        regions: Name -> what became of it.
        unlike: Verdicts that the recording's own calibration does not reproduce.
        broken_off: Why the recording ends before its end; empty if it is whole.
    """

    recording: Recording
    calibration: Calibration | None
    regions: dict[str, RegionReplay]
    unlike: int = 0
    broken_off: str = ""

    @property
    def verdicts(self) -> int:
        """Recorded verdicts on frames, in all regions."""
        return sum(region.verdicts for region in self.regions.values())

    def to_json(self) -> dict[str, object]:
        """As a record of plain JSON values."""
        return {
            "bundle": self.recording.bundle,
            "bundle_digest": self.recording.digest,
            "calibration": self.recording.key,
            "threshold": {
                "recorded": self.recording.calibration and self.recording.calibration.threshold,
                "replayed": self.calibration and self.calibration.threshold,
            },
            "broken_off": self.broken_off or None,
            "not_reproduced": self.unlike,
            "regions": {
                name: {
                    "verdicts": region.verdicts,
                    "silences": region.silences,
                    "accepted": {"recorded": region.accepted, "replayed": region.accepted_now},
                    "reasons": dict(region.reasons.most_common()),
                    "changes": [change.to_json() for change in region.changes],
                }
                for name, region in self.regions.items()
            },
        }


class Judge:
    """Decides the verdicts of one region with one calibration, in the order of the recording."""

    def __init__(self, recording: Recording, calibration: Calibration | None) -> None:
        self._calibration = calibration
        self._score = calibration.score if calibration else "entropy"
        self._limits = tuple(limit for limit in calibration.limits if limit.frames == 1) if calibration else ()
        self._classes = {each.label: each.class_id for each in calibration.classes} if calibration else {}
        self._policy = StreamPolicy(recording.policy, calibration, sequence=recording.sequence)

    def decide(self, verdict: Recorded) -> tuple[float, tuple[Reason, ...]]:
        """The score and the reasons; see `framegate.runtime.frame_judge.FrameJudge`."""
        score, values = math.nan, verdict.values
        findings = {reason: "" for reason in verdict.found if not values or reason not in OF_CALIBRATION}
        if values:
            score = values.get(self._score, math.nan)
            finite = Reason.NOT_FINITE not in verdict.found
            # Numbers of labels are not recorded; those of labels without a threshold of their own do not matter.
            class_id = self._classes.get(verdict.candidate, _OTHER) if verdict.candidate else NO_CLASS
            findings |= judge_score(score, finite, self._calibration, class_id)
            findings |= judge_limits(values, self._limits)
        reasons = tuple(
            self._policy.decide(
                findings, values, score, verdict.captured_ns, verdict.decided_ns, frame_id=verdict.frame_id
            )
        )
        return score, reasons + ((Reason.LATE,) if Reason.LATE in verdict.reasons else ())


def replay(path: Path, recording: Recording, calibration: Calibration | None) -> Replay:
    """Decide a recording again.

    Args:
        path: ``.mcap`` file that ``framegate run --record`` wrote.
        recording: What it says about itself (`read_recording`).
        calibration: By which to decide; `require_applicable` says whether it can be.

    Raises:
        DataError: The file cannot be read, or a verdict in it is garbled.
    """
    found = Replay(recording, calibration, {roi.name: RegionReplay() for roi in recording.rois})
    judges = {name: (Judge(recording, recording.calibration), Judge(recording, calibration)) for name in found.regions}
    for verdict in _verdicts(path, found):
        region = found.regions[verdict.region]
        if verdict.frame_id == NO_FRAME_ID:
            region.silences += 1
            continue
        before, after = judges[verdict.region]
        found.unlike += set(before.decide(verdict)[1]) != set(verdict.reasons)
        score, reasons = after.decide(verdict)
        region.verdicts += 1
        region.accepted += not verdict.reasons
        region.accepted_now += not reasons
        region.reasons.update(reason.value for reason in reasons)
        if bool(reasons) != bool(verdict.reasons):
            region.changes.append(Change(verdict, score, reasons))
    return found


def require_applicable(recording: Recording, calibration: Calibration, what: str) -> None:
    """Refuse a calibration by which recorded scores cannot be judged.

    Args:
        recording: The drive.
        calibration: The other calibration.
        what: Where it comes from, for the message.

    Raises:
        UsageError: It is for another network, or for scores at another temperature.
    """
    own = recording.calibration
    temperature = own.temperature if own else 1.0
    if own and calibration.model_sha256 != own.model_sha256:
        raise UsageError(
            f"{what} is for the network {calibration.model_sha256[:12]}..., the recording was made with "
            f"{own.model_sha256[:12]}...; give a calibration of that network"
        )
    if calibration.temperature != temperature:
        raise UsageError(
            f"{what} has the temperature {calibration.temperature:g}, the recorded scores have {temperature:g}, and "
            "scores at another temperature need the logits, which are not recorded: judge the frames themselves again"
        )


def read_recording(path: Path) -> Recording:
    """What a recording says about itself.

    Raises:
        UsageError: The package mcap is not installed.
        DataError: It cannot be read, or was not made by ``framegate run --record``.
    """
    contents = Contents(path)
    try:
        metadata = contents.read_metadata(METADATA)
        if METADATA in metadata:
            return Recording.from_metadata(metadata[METADATA])
    except DataError as error:
        raise DataError(f"recording {error if str(path) in str(error) else f'{path}: {error}'}") from error
    if contents.broken_off:
        raise DataError(
            f"recording {path}: it broke off, or is damaged, before it says under which calibration it was made; "
            "nothing of it can be decided again"
        )
    raise DataError(
        f"recording {path}: it does not say under which calibration it was made, as those of older versions do not; "
        "record the drive again"
    )


def _verdicts(path: Path, found: Replay) -> Iterator[Recorded]:
    """The verdicts up to the end or to where the file breaks off, which ``found`` is told."""
    contents = Contents(path)
    for message in contents.messages(lambda topic: topic.startswith(TOPIC)):
        yield _recorded(path, message.topic[len(TOPIC) :], message.data, found.regions)
    found.broken_off = contents.broken_off


def _recorded(path: Path, region: str, data: bytes, regions: Mapping[str, RegionReplay]) -> Recorded:
    if region not in regions and region in (FULL, OBJECTS):
        raise DataError(
            f"recording {path}: its verdicts are on objects that move, which replay does not decide again; framegate "
            "drives index makes a table of it, and framegate drives what-if decides that again"
        )
    if region not in regions:
        raise DataError(f"recording {path}: there is a verdict on {region!r}, which is no region of it")
    try:
        record: dict[str, Any] = json.loads(data)
        evidence = record["evidence"]
        return Recorded(
            region,
            NO_FRAME_ID if record["frame_id"] is None else int(record["frame_id"]),
            int(record["captured_ns"]),
            int(record["decided_ns"]),
            tuple(Reason(each) for each in record["reasons"]),
            tuple(Reason(each) for each in evidence["found"]),
            {str(name): number(value) for name, value in evidence["values"].items()},
            str(record["candidate"] or ""),
        )
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise DataError(f"recording {path}: a verdict on {region!r} lacks or garbles {error}") from error
