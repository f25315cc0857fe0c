"""What travels through the runtime: a frame on its way in, a prediction with its verdict on the way out."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from framegate.runtime.errors import RejectedFrame

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
    """Fog, a dirty or covered lens: hardly any difference between light and dark."""
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
    """The time of capture does not advance: it is not later than that of a frame seen before."""
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
    """The frame was older than the deadline when its verdict was ready."""
    BACKEND_FAULT = "BACKEND_FAULT"
    """The engine raised an error on this frame."""

    __str__ = str.__str__  # the plain word in logs, on every version of Python


Findings = Mapping[Reason, str]
"""Reasons to reject, in the order in which they were found, each with a sentence for people (which may be empty). Empty
exactly when nothing speaks against the frame."""
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
class Prediction:
    """The verdict on one region of one frame, with everything it was based on.

    Attributes:
        frame_id: The frame's number at its source.
        stream: Name of the region of interest.
        reasons: Empty exactly when the prediction may be used.
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
        engine_ns: How long the engine's two calls took (start, finish), without what was done between them; 0 if it
            was not called.
        detail: One sentence for people, e.g. the engine's error; usually empty.
        signals: What the bundle's monitor says: name -> value, NaN if it cannot be said; empty without a monitor.
    """

    frame_id: int
    stream: str
    reasons: tuple[Reason, ...]
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

    @property
    def accepted(self) -> bool:
        """True if downstream logic may use `label`."""
        return not self.reasons

    @property
    def verdict(self) -> Verdict:
        """ACCEPT or REJECT."""
        return Verdict.ACCEPT if self.accepted else Verdict.REJECT

    @property
    def label(self) -> str:
        """The label, if it may be used.

        Raises:
            RejectedFrame: The frame was rejected.
        """
        if self.reasons:
            why = ", ".join(reason.value for reason in self.reasons)
            raise RejectedFrame(
                f"frame {self.frame_id} ({self.stream}) was rejected: {why}; check .accepted before using .label"
            )
        return self.candidate

    @property
    def latency_ms(self) -> float:
        """Capture to verdict in milliseconds."""
        return (self.decided_ns - self.captured_ns) / 1e6

    def to_json(self) -> dict[str, Any]:
        """A record of plain JSON values; what is not a finite number becomes null."""
        return {
            "frame_id": self.frame_id,
            "stream": self.stream,
            "verdict": self.verdict.value,
            "reasons": [reason.value for reason in self.reasons],
            "candidate": self.candidate or None,
            "confidence": _number(self.confidence),
            "entropy": _number(self.entropy),
            "margin": _number(self.margin),
            "energy": _number(self.energy),
            "score": _number(self.score),
            "threshold": _number(self.threshold),
            "captured_ns": self.captured_ns,
            "decided_ns": self.decided_ns,
            "latency_ms": round(self.latency_ms, 4),
            "engine_ms": round(self.engine_ns / 1e6, 4),
            "detail": self.detail or None,
            **({"signals": {name: _number(each) for name, each in self.signals.items()}} if self.signals else {}),
        }


def _number(value: float) -> float | None:
    return float(np.float32(value)) if math.isfinite(value) else None
