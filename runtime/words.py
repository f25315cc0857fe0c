"""Every reason in plain words: one table for the page, the annotated video and whoever else shows verdicts."""

from __future__ import annotations

from typing import NamedTuple

from framegate.runtime.verdict import Reason


class Words(NamedTuple):
    """What people read in place of a reason's code.

    Attributes:
        short: At most 20 characters: for a label in a picture or beside a bar.
        sentence: What happened, without a full stop.
    """

    short: str
    sentence: str


WORDS: dict[Reason, Words] = {
    Reason.BAD_INPUT: Words("no usable picture", "this is not a picture that can be judged"),
    Reason.WRONG_SIZE: Words("other size", "the picture has another size than the stream"),
    Reason.BLACK: Words("black picture", "no light reaches the camera, or there is no signal"),
    Reason.SATURATED: Words("overexposed", "most of the picture is too bright: glare, or a wrong exposure"),
    Reason.LOW_CONTRAST: Words("no contrast", "a covered or dirty lens, or thick fog: light and dark hardly differ"),
    Reason.BLURRED: Words("blurred", "far less detail than this camera showed before"),
    Reason.NOISY: Words("noisy", "far more noise than this camera showed before"),
    Reason.COLOUR_LOST: Words("colour lost", "a colour of the camera is missing or stuck"),
    Reason.TORN: Words("torn picture", "parts of the picture are missing, or are from another time"),
    Reason.FROZEN: Words("frozen picture", "the camera repeats a picture that it has shown before"),
    Reason.STALE_FRAME: Words("clock stands still", "the time of capture or the frame's number does not advance"),
    Reason.WARMING_UP: Words("warming up", "too few frames have been seen so far"),
    Reason.NOT_FINITE: Words("no number", "the network gave no number"),
    Reason.HIGH_SCORE: Words("unsure", "the network is unsure: its score is above the calibrated threshold"),
    Reason.ACTIVATION_SHIFT: Words("unusual inside", "what happens inside the network is unlike the calibration"),
    Reason.DRIFT: Words("stream has drifted", "the stream as a whole is no longer like the calibration"),
    Reason.NOT_CALIBRATED: Words("not calibrated", "there is no threshold for this engine"),
    Reason.LATE: Words("too late", "the verdict was ready only after the deadline"),
    Reason.EXPIRED: Words("out of date", "the verdict was read after its end"),
    Reason.NO_FRAME: Words("no picture comes", "no frame came within the deadline"),
    Reason.NO_REGIONS: Words("objects unknown", "it is not known where the objects are"),
    Reason.NO_AGREEMENT: Words("names disagree", "detector and classifier say different things"),
    Reason.UNCONFIRMED: Words("not yet confirmed", "too few frames of this object agreed so far"),
    Reason.NOT_CERTIFIED: Words("not certified", "an attack could have made this label"),
    Reason.BACKEND_FAULT: Words("engine failed", "the engine raised an error or gave a wrong answer"),
}
"""Reason -> its words."""


def short(reason: Reason) -> str:
    """The short words of a reason; its code, should there be none."""
    words = WORDS.get(reason)
    return reason.value if words is None else words.short
