"""What travels through the runtime: a frame on its way in, a prediction with its verdict on the way out."""

from __future__ import annotations

import enum
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from framegate.runtime.errors import ExpiredVerdict, RejectedFrame, UsageError

Image = npt.NDArray[Any]
"""A camera image. Usable ones are (height, width, 3) uint8 BGR; anything else is judged BAD_INPUT.
A network for grey input also takes (height, width) uint8."""
BGR, NV12 = "bgr", "nv12"
"""Pixel formats of a frame; `framegate.runtime.pixel_format` describes NV12 and converts it."""


class Verdict(str, enum.Enum):
    """May downstream logic use the prediction of this frame?"""

    ACCEPT = "ACCEPT"
    REJECT = "REJECT"

    __str__ = str.__str__

    def __bool__(self) -> bool:
        """True for ACCEPT only: ``if prediction.verdict:`` must not be true for the word REJECT."""
        return self is Verdict.ACCEPT


class Reason(str, enum.Enum):
    """Why a frame was rejected. A rejected frame has at least one."""

    BAD_INPUT = "BAD_INPUT"
    """Not an 8-bit three-channel image, or too small to classify."""
    WRONG_SIZE = "WRONG_SIZE"
    """The frame's size differs from the size of the stream."""
    BLACK = "BLACK"
    """Practically no light reaches the sensor, or the signal is lost."""
    SATURATED = "SATURATED"
    """Most of the frame is at the end of the sensor's range: glare, or an exposure that failed."""
    LOW_CONTRAST = "LOW_CONTRAST"
    """A covered or dirty lens, or some thick fog: hardly any difference between light and dark."""
    BLURRED = "BLURRED"
    """Far less detail than this camera showed before, or than was calibrated."""
    NOISY = "NOISY"
    """Far more pixel noise or compression damage than this camera showed before, or than was calibrated."""
    COLOUR_LOST = "COLOUR_LOST"
    """A colour channel is missing or stuck."""
    TORN = "TORN"
    """Parts of the frame come from another time, or are missing."""
    FROZEN = "FROZEN"
    """The content repeats a recent frame, whatever its timestamp says."""
    STALE_FRAME = "STALE_FRAME"
    """The time of capture or the frame's number does not advance: it is not later than that of a frame seen before."""
    WARMING_UP = "WARMING_UP"
    """Too few frames have been seen to judge this stream."""
    NOT_FINITE = "NOT_FINITE"
    """The network's output holds NaN or an infinity."""
    HIGH_SCORE = "HIGH_SCORE"
    """The score is above the calibrated threshold: the network is too unsure."""
    ACTIVATION_SHIFT = "ACTIVATION_SHIFT"
    """A signal from inside the network, or the input, lies outside the range of the calibration frames."""
    DRIFT = "DRIFT"
    """The stream as a whole no longer looks like the calibration frames; what was promised for them does not hold."""
    NOT_CALIBRATED = "NOT_CALIBRATED"
    """No threshold was calibrated for this backend and precision."""
    LATE = "LATE"
    """The frame was older than the deadline when its verdict was ready, or judging it takes longer than that."""
    EXPIRED = "EXPIRED"
    """The verdict was read after its end (`Prediction.valid_until_ns`): it says nothing about the present any more."""
    NO_FRAME = "NO_FRAME"
    """No frame came within the deadline, or none has come yet."""
    NO_REGIONS = "NO_REGIONS"
    """It is not known where the objects of this frame are: the detector failed, or its boxes did not come."""
    NO_AGREEMENT = "NO_AGREEMENT"
    """Detector and classifier give the object names that exclude each other."""
    UNCONFIRMED = "UNCONFIRMED"
    """Too few frames of this track were accepted with the same label (`framegate.runtime.policy.track`)."""
    NOT_CERTIFIED = "NOT_CERTIFIED"
    """A certificate was required, and an attack within its budget could have made this label."""
    BACKEND_FAULT = "BACKEND_FAULT"
    """The engine raised an error on this frame."""

    __str__ = str.__str__  # the plain word in logs, on every version of Python


Findings = Mapping[Reason, str]
"""Reasons to reject, in the order in which they were found, each with a sentence for people (which may be empty). Empty
exactly when there is no reason against the frame."""
NO_FINDINGS: Findings = {}


@dataclass(frozen=True, slots=True)
class Frame:
    """One image from a source.

    Attributes:
        frame_id: Counts from 0 in the order of capture, without gaps at the source.
        captured_ns: Monotonic time of capture in nanoseconds (`time.monotonic_ns`).
        image: The pixels.
        name: File name for images from a folder, else empty.
        pixel_format: What the array of pixels means, `BGR` (also grey, 16 bits and the like) or `NV12`.
    """

    frame_id: int
    captured_ns: int
    image: Image
    name: str = ""
    pixel_format: str = BGR


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was certified about one label (`framegate.runtime.certificate`).

    Attributes:
        kind: ``patch`` or ``linf``.
        budget: Side of the patch in the region's own pixels, or levels of 255.
        tau: The label is certified if the margin is at least this.
        margin: Of the label. For ``patch`` the least mean log-probability of the views that cover a place; for
            ``linf`` how far its logit lies above the others, -inf if the certificate's network says another label.
    """

    kind: str
    budget: int
    tau: float
    margin: float

    def to_json(self) -> dict[str, Any]:
        """A record of plain JSON values."""
        return {"kind": self.kind, "budget": self.budget, "tau": _number(self.tau), "margin": _number(self.margin)}


NEVER_NS = 2**63 - 1
"""As `Prediction.valid_until_ns`: the verdict is on a picture, not on the present, and has no end."""
NO_FRAME_ID = -1
"""As `Prediction.frame_id`: the verdict is on the absence of frames."""
NO_CLASS = -1
"""As `Prediction.candidate_id`: the network said nothing."""


@dataclass(frozen=True, slots=True)
class FoundObject:
    """What is known of an object before it is classified.

    Attributes:
        box: x, y, width and height of the part that lies on the frame, in whole pixels.
        detected: What the giver of regions calls it, empty if nothing: for displays, **never for decisions**.
        detection_score: How sure the giver is, in [0, 1]; NaN if it does not say.
        track: Its number, the same on every frame; None if it is not followed.
        age: Frames since the track began, from 1; 0 if it is not followed.
        fixed: It is a region with a name of its own, judged beside the objects.
        scores: What the detector's own scores say about the box, by name; empty if there is none.
    """

    box: tuple[int, int, int, int]
    detected: str = ""
    detection_score: float = math.nan
    track: int | None = None
    age: int = 0
    fixed: bool = False
    scores: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A record of plain JSON values."""
        return {
            "box": list(self.box),
            "detected": self.detected or None,
            "detection_score": _number(self.detection_score),
            "track": self.track,
            "track_age": self.age or None,
            **{name: _number(value) for name, value in self.scores.items()},
        }


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: == on arrays has no single truth value
class DenseRegion:
    """What a dense network says about the pixels of one region.

    Attributes:
        usable_share: Usable pixels / all pixels of the region, in [0, 1].
        shares: Label -> share of the region's pixels that are usable and have it; those that none has are left out.
        box: x, y, width and height of the region in the network's map.
        mask: (H, W) bool of the whole map, True where a pixel is usable; the promise is about the region alone.
        candidates: (H, W) int64 label numbers of all pixels, -1 where there is none: for displays, **never for
            decisions**; see `Prediction.pixels`.
    """

    usable_share: float
    shares: Mapping[str, float]
    box: tuple[int, int, int, int]
    mask: np.ndarray[Any, Any]
    candidates: np.ndarray[Any, Any]

    def to_json(self) -> dict[str, Any]:
        """A record of plain JSON values: the shares, without the mask."""
        return {
            "usable_share": _number(self.usable_share),
            "shares": {name: _number(share) for name, share in self.shares.items()},
        }


@dataclass(frozen=True, slots=True)
class Prediction:
    """The verdict on one region of one frame, with everything it was based on.

    A verdict has an end. `accepted`, `reasons`, `verdict`, `label`, `class_id`, `probabilities` and the truth value ask
    the clock each time: after `valid_until_ns` they are those of a rejected prediction. What was decided stays in
    `decided_reasons`.

    Attributes:
        frame_id: The frame's number at its source; `NO_FRAME_ID` if there was no frame.
        stream: Name of the region of interest.
        decided_reasons: Why it was rejected when it was decided; empty exactly when it was accepted then. For records
            and displays, **never for decisions**.
        candidate: The most probable label, also of a rejected frame: for logs and displays, **never for decisions**;
            empty if there is none.
        confidence: Calibrated probability of the candidate, in [0, 1], NaN if there is none.
        entropy: Softmax entropy after temperature scaling, in nats.
        margin: Probability of the best label minus that of the second, in [0, 1].
        energy: Negative log-sum-exp energy; lower is more familiar.
        score: The number that was compared; higher is less trustworthy.
        threshold: Accepted if score <= threshold; NaN if not calibrated.
        captured_ns: Monotonic time of capture.
        decided_ns: Monotonic time when all verdicts on the frame were ready.
        valid_until_ns: Monotonic time after which the verdict must not be used; `NEVER_NS` without a deadline.
        engine_ns: How long the engine's two calls took (start, finish), without what was done between them; 0 if it
            was not called.
        detail: One sentence for people, e.g. the engine's error; usually empty.
        signals: What the bundle's monitor says: name -> value, NaN if it cannot be said; empty without a monitor.
        found_reasons: What this frame alone was rejected for, before the policy of its stream added reasons, or let one
            wait or last: for records, **never for decisions**.
        found: Where the object is, and what the giver of regions says about it; None for a fixed region.
        certificate: What was certified; None if no certificate was required of this frame, or nothing came of it. It
            proves nothing about a rejected frame.
        candidate_id: Number of the candidate among the bundle's labels, from 0; `NO_CLASS` if there is none. **Never
            for decisions**, see `candidate`.
        candidate_probabilities: Calibrated probability of every class, in the order of the bundle's labels, also of a
            rejected frame: **never for decisions**. Empty unless they were asked for (``probabilities=True``) and the
            network said something.
        dense: What a dense network says about the region's pixels; None for classifiers.
        promised_for: What the bundle's promise is about: ``a random frame``, ``a random frame of a random new track``;
            empty if nothing is promised. It says nothing about this frame alone.
    """

    frame_id: int
    stream: str
    decided_reasons: tuple[Reason, ...]
    candidate: str
    confidence: float
    entropy: float
    margin: float
    energy: float
    score: float
    threshold: float
    captured_ns: int
    decided_ns: int
    engine_ns: int = 0
    detail: str = ""
    signals: Mapping[str, float] = field(default_factory=dict)
    valid_until_ns: int = NEVER_NS
    found_reasons: tuple[Reason, ...] = ()
    found: FoundObject | None = None
    certificate: Certificate | None = None
    candidate_id: int = NO_CLASS
    candidate_probabilities: tuple[float, ...] = ()
    dense: DenseRegion | None = None
    promised_for: str = ""

    @classmethod
    def without_frame(cls, stream: str, reason: Reason, detail: str, now_ns: int) -> Prediction:
        """The verdict on a region while there is nothing to judge: REJECT, with the reason why."""
        nan = math.nan
        return cls(NO_FRAME_ID, stream, (reason,), "", nan, nan, nan, nan, nan, nan, now_ns, now_ns, detail=detail)

    @property
    def expired(self) -> bool:
        """Whether the verdict's end has passed."""
        return not time.monotonic_ns() <= self.valid_until_ns

    @property
    def accepted(self) -> bool:
        """True if downstream logic may use `label` now."""
        return not self.decided_reasons and not self.expired

    def __bool__(self) -> bool:
        """The same as `accepted`, so that no rejected prediction is true."""
        return self.accepted

    @property
    def accepted_when_decided(self) -> bool:
        """Whether it was accepted when it was decided: for records and displays, **never for decisions**."""
        return not self.decided_reasons

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Why it must not be used now; empty exactly when it may be."""
        return self.decided_reasons or ((Reason.EXPIRED,) if self.expired else ())

    @property
    def verdict(self) -> Verdict:
        """ACCEPT or REJECT, now."""
        return Verdict.ACCEPT if self.accepted else Verdict.REJECT

    @property
    def label(self) -> str:
        """The label, if it may be used now.

        Raises:
            ExpiredVerdict: It was accepted, and is too old.
            RejectedFrame: The frame was rejected.
        """
        self._require_accepted("label")
        return self.candidate

    @property
    def class_id(self) -> int:
        """The number of the label among the bundle's labels (`Session.classes`), from 0, if it may be used now.

        Raises:
            ExpiredVerdict: It was accepted, and is too old.
            RejectedFrame: The frame was rejected.
            UsageError: The prediction was made by hand, without a number.
        """
        self._require_accepted("class_id")
        if self.candidate_id == NO_CLASS:  # -1 would index the last class
            raise UsageError(f"frame {self.frame_id} ({self.stream}): this prediction was made without a class number")
        return self.candidate_id

    @property
    def probabilities(self) -> tuple[float, ...]:
        """The calibrated probability of every class, in the order of the bundle's labels, if they may be used now.

        Raises:
            ExpiredVerdict: It was accepted, and is too old.
            RejectedFrame: The frame was rejected.
            UsageError: They were not asked for (``Session.open(..., probabilities=True)``).
        """
        self._require_accepted("probabilities")
        if not self.candidate_probabilities:
            raise UsageError(
                f"frame {self.frame_id} ({self.stream}): probabilities were not asked for; open the session with "
                "probabilities=True"
            )
        return self.candidate_probabilities

    @property
    def pixels(self) -> np.ndarray[Any, Any]:
        """(rows, columns) label numbers of the region's usable pixels, -1 everywhere else, if they may be used now.

        Raises:
            ExpiredVerdict: It was accepted, and is too old.
            RejectedFrame: The frame was rejected.
            UsageError: The network is none that labels pixels.
        """
        self._require_accepted("pixels")
        if self.dense is None:
            raise UsageError(
                f"frame {self.frame_id} ({self.stream}): the bundle holds no dense network, it has a label"
            )
        x, y, width, height = self.dense.box
        inside = np.s_[y : y + height, x : x + width]
        return np.where(self.dense.mask[inside], self.dense.candidates[inside], NO_CLASS)

    def _require_accepted(self, wanted: str) -> None:
        """Let nothing be read of what must not be used now.

        Raises:
            ExpiredVerdict: It was accepted, and is too old.
            RejectedFrame: The frame was rejected.
        """
        if self.decided_reasons:
            why = ", ".join(reason.value for reason in self.decided_reasons)
            raise RejectedFrame(
                f"frame {self.frame_id} ({self.stream}) was rejected: {why}; check .accepted before using .{wanted}"
            )
        if self.expired:
            late = (time.monotonic_ns() - self.valid_until_ns) / 1e6
            raise ExpiredVerdict(
                f"the verdict on frame {self.frame_id} ({self.stream}) ended {late:.1f} ms ago; take the newest one "
                f"(Pipeline.latest), and check .accepted before using .{wanted}"
            )

    @property
    def latency_ms(self) -> float:
        """Capture to verdict in milliseconds; 0 where there was no frame."""
        return (self.decided_ns - self.captured_ns) / 1e6

    def to_json(self) -> dict[str, Any]:
        """What was decided, as a record of plain JSON values; what is not a finite number becomes null."""
        return {
            "frame_id": None if self.frame_id == NO_FRAME_ID else self.frame_id,
            "stream": self.stream,
            "verdict": (Verdict.REJECT if self.decided_reasons else Verdict.ACCEPT).value,
            "reasons": [reason.value for reason in self.decided_reasons],
            "candidate": self.candidate or None,
            "candidate_id": None if self.candidate_id == NO_CLASS else self.candidate_id,
            "confidence": _number(self.confidence),
            "entropy": _number(self.entropy),
            "margin": _number(self.margin),
            "energy": _number(self.energy),
            "score": _number(self.score),
            "threshold": _number(self.threshold),
            "captured_ns": self.captured_ns,
            "decided_ns": self.decided_ns,
            "valid_until_ns": None if self.valid_until_ns == NEVER_NS else self.valid_until_ns,
            "latency_ms": round(self.latency_ms, 4),
            "engine_ms": round(self.engine_ns / 1e6, 4),
            "detail": self.detail or None,
            "promised_for": self.promised_for or None,
            **({} if self.found is None else self.found.to_json()),
            **({} if self.dense is None else self.dense.to_json()),
            **({} if self.certificate is None else {"certificate": self.certificate.to_json()}),
            **({"signals": {name: _number(each) for name, each in self.signals.items()}} if self.signals else {}),
            **(
                {"candidate_probabilities": [_number(each) for each in self.candidate_probabilities]}
                if self.candidate_probabilities
                else {}
            ),
        }


class _WhenRead:
    """In place of a field's own descriptor: what was set, if it can be called, is called when it is read first."""

    def __init__(self, slot: Any) -> None:
        self._slot = slot

    def __get__(self, prediction: Prediction | None, owner: type) -> Any:
        if prediction is None:
            return self
        value = self._slot.__get__(prediction, owner)
        if callable(value):
            value = value()
            self._slot.__set__(prediction, value)
        return value

    def __set__(self, prediction: Prediction, value: object) -> None:
        self._slot.__set__(prediction, value)


setattr(Prediction, "detail", _WhenRead(Prediction.__dict__["detail"]))  # noqa: B010 - mypy knows it as a text


class _Draft:
    """A prediction before it is frozen: the same fields, which can still be set."""

    __slots__ = tuple(each.name for each in fields(Prediction))


def prediction_of(
    *,
    frame_id: int,
    stream: str,
    decided_reasons: tuple[Reason, ...],
    candidate: str,
    confidence: float,
    entropy: float,
    margin: float,
    energy: float,
    score: float,
    threshold: float,
    captured_ns: int,
    decided_ns: int,
    engine_ns: int,
    detail: str | Callable[[], str],
    signals: Mapping[str, float],
    valid_until_ns: int,
    found_reasons: tuple[Reason, ...],
    found: FoundObject | None,
    certificate: Certificate | None,
    candidate_id: int,
    candidate_probabilities: tuple[float, ...],
    dense: DenseRegion | None,
    promised_for: str,
) -> Prediction:
    """`Prediction` of a frame, made in a seventh of the time: a frozen class sets every field by a call of its own.

    ``detail`` may also be what puts the sentence together when somebody reads it.
    """
    made: Any = _Draft()
    made.frame_id = frame_id
    made.stream = stream
    made.decided_reasons = decided_reasons
    made.candidate = candidate
    made.confidence = confidence
    made.entropy = entropy
    made.margin = margin
    made.energy = energy
    made.score = score
    made.threshold = threshold
    made.captured_ns = captured_ns
    made.decided_ns = decided_ns
    made.engine_ns = engine_ns
    made.detail = detail
    made.signals = signals
    made.valid_until_ns = valid_until_ns
    made.found_reasons = found_reasons
    made.found = found
    made.certificate = certificate
    made.candidate_id = candidate_id
    made.candidate_probabilities = candidate_probabilities
    made.dense = dense
    made.promised_for = promised_for
    made.__class__ = Prediction  # the same fields in the same places: from now on it is one, and frozen
    frozen: Prediction = made
    return frozen


def _number(value: float) -> float | None:
    return float(np.float32(value)) if math.isfinite(value) else None
