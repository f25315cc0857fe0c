"""The message: one verdict on one object in 144 bytes; the layout is docs/handover.md's table.

`encode` and `decode` are each other's inverse; what a message says is believed only by
`framegate.runtime.handover.receiver`.
"""

from __future__ import annotations

import math
import struct
from typing import Any, Final, NamedTuple

from framegate.runtime.handover.protection import HEADER, MAC_BYTES, protected
from framegate.runtime.verdict import NO_FRAME_ID, Prediction, Reason

MAGIC: Final = 0x46475644
VERSION: Final = 1
PLAIN_BYTES: Final = 144
AUTHENTICATED_BYTES: Final = PLAIN_BYTES + MAC_BYTES
VERDICT, HEARTBEAT, SCENE = 1, 2, 3
"""Kinds of message. A scene says whether a frame with moving objects could be looked at; it has no class."""
ACCEPT, REJECT = 0x5A, 0xA5
AUTHENTICATED: Final = 1
"""Bit of the flags."""
NO_CLASS = NO_TRACK = 0xFFFFFFFF
LATEST_NS: Final = 2**61 - 1
"""The largest time that a message may hold, 73 years: sums and differences of times fit into 64 bits."""
NO_CERTIFICATE, LINF, L2, PATCH = 0, 1, 2, 3
"""Kinds of certificate."""
_CERTIFICATES = {"linf": LINF, "l2": L2, "patch": PATCH}
CERTIFICATE_NAMES: Final = {kind: name for name, kind in _CERTIFICATES.items()}
NOTHING = bytes(8)
"""As bundle: not known. As calibration: not calibrated."""

BODY = struct.Struct(">IBBBBIQqqqqqQQIIfffIfI8s8sII")
"""What follows the 12 bytes of the header."""
_WHOLE = struct.Struct(HEADER.format + BODY.format[1:])
_LARGEST_FLOAT = 3.4028234663852886e38

_WORDS: Final = {
    "BAD_INPUT": 0,
    "WRONG_SIZE": 1,
    "BLACK": 2,
    "SATURATED": 3,
    "LOW_CONTRAST": 4,
    "BLURRED": 5,
    "NOISY": 6,
    "COLOUR_LOST": 7,
    "TORN": 8,
    "FROZEN": 9,
    "STALE_FRAME": 10,
    "WARMING_UP": 11,
    "NOT_FINITE": 12,
    "HIGH_SCORE": 13,
    "ACTIVATION_SHIFT": 14,
    "DRIFT": 15,
    "NOT_CALIBRATED": 16,
    "LATE": 17,
    "EXPIRED": 18,
    "NO_FRAME": 19,
    "BACKEND_FAULT": 20,
    "NOT_CERTIFIED": 21,
    "NO_REGIONS": 22,
    "NO_AGREEMENT": 23,
    "UNCONFIRMED": 24,
    "NO_OBJECT": 25,
    "LEFT_OUT": 26,
}
"""The registry of bits; docs/handover.md and framegate_verdict.h hold the same. A bit is never given away again."""
REASON_BITS: Final = {reason: _WORDS[reason.value] for reason in Reason if reason.value in _WORDS}
"""Of the reasons that this version can give."""
NO_OBJECT: Final = 1 << _WORDS["NO_OBJECT"]
"""Of a slot for objects: there is none in it on this frame."""
LEFT_OUT: Final = 1 << _WORDS["LEFT_OUT"]
"""Of a scene: it has objects that are in no slot."""
OTHER_BIT: Final = 63
"""For a reason that the registry does not know: it rejects all the same."""
_NAMES = {bit: word for word, bit in _WORDS.items()}


class VerdictMessage(NamedTuple):
    """What one message says. Times are of the sender's monotonic clock, in nanoseconds.

    A tuple, because one is made for each message at either end, and nothing is made as quickly.

    Attributes:
        epoch: Of the sender's start; larger at every start.
        sent_ns: When the message was made.
        accepted: ACCEPT or REJECT; False for a heartbeat.
        kind: `VERDICT`, `HEARTBEAT` or `SCENE`.
        region: Index of the region, from 0; number of the slot, from 1; of a scene how many slots there are.
        frame_id: At the source; -1 if there was no frame.
        captured_ns: When the picture was taken.
        decided_ns: When the verdict was ready.
        valid_until_ns: When it ends, at most `LATEST_NS`.
        clock_domain: Names the clock; 0 if it is not known.
        reasons: Bits of `REASON_BITS`; 0 exactly if accepted.
        class_id: Index of the label; `NO_CLASS` if there is none.
        classes: Number of labels.
        confidence: In [0, 1]; NaN if there is none.
        score: Higher is less trustworthy.
        threshold: Accepted only if score <= threshold.
        certificate_kind: `NO_CERTIFICATE`, `LINF`, `L2` or `PATCH`.
        certificate_radius: In 255ths of the pixel range, or in pixels for a patch; 0 without a certificate.
        drops: Frames without a message between the last message's frame and this one's.
        bundle: First 8 bytes of the bundle's digest.
        calibration: First 8 bytes of the calibration's hash; `NOTHING` if not calibrated.
        track: Of a region that follows an object; `NO_TRACK` if it does not.
        objects: Of a scene: how many slots hold an object on this frame; else 0.
    """

    epoch: int
    sent_ns: int
    accepted: bool = False
    kind: int = VERDICT
    region: int = 0
    frame_id: int = NO_FRAME_ID
    captured_ns: int = 0
    decided_ns: int = 0
    valid_until_ns: int = 0
    clock_domain: int = 0
    reasons: int = 0
    class_id: int = NO_CLASS
    classes: int = 0
    confidence: float = math.nan
    score: float = math.nan
    threshold: float = math.nan
    certificate_kind: int = NO_CERTIFICATE
    certificate_radius: float = 0.0
    drops: int = 0
    bundle: bytes = NOTHING
    calibration: bytes = NOTHING
    track: int = NO_TRACK
    objects: int = 0

    @property
    def reason_names(self) -> tuple[str, ...]:
        """The reasons' words, in the order of their bits; one that is not known is ``BIT_n``."""
        return reason_names(self.reasons)


def reason_bits(reasons: tuple[Reason, ...]) -> int:
    """The bits of reasons; one that has none sets `OTHER_BIT`, so that no reason is lost."""
    bits = 0
    for reason in reasons:
        bits |= 1 << REASON_BITS.get(reason, OTHER_BIT)
    return bits


def reason_names(bits: int) -> tuple[str, ...]:
    """The words of reason bits, in the order of the bits."""
    return tuple(_NAMES.get(bit, "OTHER" if bit == OTHER_BIT else f"BIT_{bit}") for bit in range(64) if bits >> bit & 1)


def _float32(value: float) -> float:
    """A number that fits into binary32: what is too large becomes an infinity, any NaN the one without a payload."""
    if -_LARGEST_FLOAT <= value <= _LARGEST_FLOAT:
        return value
    return math.copysign(math.inf, value) if value == value else math.nan


def encode(message: VerdictMessage, counter: int, data_id: int, key: bytes | None = None) -> bytes:
    """The bytes of a message.

    Args:
        message: What it says.
        counter: Of the stream, 0 to 65535.
        data_id: Of the stream, 32 bits.
        key: Of the authentication, 16 to 64 bytes; None sends without a code.

    Raises:
        struct.error: A number is out of its field's range.
    """
    return pack(counter, data_id, key, *message)


def pack(
    counter: int,
    data_id: int,
    key: bytes | None,
    epoch: int,
    sent_ns: int,
    accepted: bool,
    kind: int,
    region: int,
    frame_id: int,
    captured_ns: int,
    decided_ns: int,
    valid_until_ns: int,
    clock_domain: int,
    reasons: int,
    class_id: int,
    classes: int,
    confidence: float,
    score: float,
    threshold: float,
    certificate_kind: int,
    certificate_radius: float,
    drops: int,
    bundle: bytes,
    calibration: bytes,
    track: int,
    objects: int,
) -> bytes:
    """`encode` for the fields of a `VerdictMessage`, in their order, one by one: what a sender does for each verdict.

    Raises:
        struct.error: A number is out of its field's range.
    """
    # The sum is finite only if all of them are: then none needs a look of its own.
    if not -_LARGEST_FLOAT <= abs(confidence) + abs(score) + abs(threshold) <= _LARGEST_FLOAT:
        confidence, score, threshold = _float32(confidence), _float32(score), _float32(threshold)
    if certificate_radius != 0:
        certificate_radius = _float32(certificate_radius)
    # All in one call, the header among it; the CRC's place is filled in when everything else is known.
    whole = _WHOLE.pack(
        AUTHENTICATED_BYTES if key else PLAIN_BYTES,
        counter,
        data_id,
        0,
        MAGIC,
        VERSION,
        kind,
        ACCEPT if accepted else REJECT,
        AUTHENTICATED if key else 0,
        region,
        epoch,
        frame_id,
        captured_ns,
        decided_ns,
        valid_until_ns,
        sent_ns,
        clock_domain,
        reasons,
        class_id,
        classes,
        confidence,
        score,
        threshold,
        certificate_kind,
        certificate_radius,
        drops,
        bundle,
        calibration,
        track,
        objects,
    )
    return protected(whole, key)


class Envelope(NamedTuple):
    """The bytes around a message's content, as they were found.

    Attributes:
        length: Length field.
        counter: Of the stream.
        data_id: Of the stream.
        known: Whether magic, version and flags are those of this version.
        verdict: The byte that says ACCEPT or REJECT; anything else is neither.
        authenticated: Whether a code follows.
    """

    length: int
    counter: int
    data_id: int
    known: bool
    verdict: int
    authenticated: bool


def decode(data: bytes) -> tuple[Envelope, VerdictMessage]:
    """What some bytes say, without believing any of it: no check but that there are enough of them.

    Raises:
        struct.error: There are fewer than 144 bytes.
    """
    length, counter, data_id, _ = HEADER.unpack_from(data, 0)
    (
        magic,
        version,
        kind,
        verdict,
        flags,
        region,
        epoch,
        frame_id,
        captured_ns,
        decided_ns,
        valid_until_ns,
        sent_ns,
        clock_domain,
        reasons,
        class_id,
        classes,
        confidence,
        score,
        threshold,
        certificate_kind,
        certificate_radius,
        drops,
        bundle,
        calibration,
        track,
        objects,
    ) = BODY.unpack_from(data, HEADER.size)
    known = magic == MAGIC and version == VERSION and flags in (0, AUTHENTICATED) and (objects == 0 or kind == SCENE)
    envelope = Envelope(length, counter, data_id, known, verdict, bool(flags & AUTHENTICATED))
    return envelope, VerdictMessage(
        epoch,
        sent_ns,
        verdict == ACCEPT,
        kind,
        region,
        frame_id,
        captured_ns,
        decided_ns,
        valid_until_ns,
        clock_domain,
        reasons,
        class_id,
        classes,
        confidence,
        score,
        threshold,
        certificate_kind,
        certificate_radius,
        drops,
        bundle,
        calibration,
        track,
        objects,
    )


def contradiction(envelope: Envelope, message: VerdictMessage) -> str:
    """What in a message's content contradicts itself; empty if nothing does. Comparisons are such that NaN fails."""
    m = message
    if m.kind not in (VERDICT, HEARTBEAT, SCENE) or envelope.verdict not in (ACCEPT, REJECT):
        return "kind or verdict is not one that exists"
    low = min(m.captured_ns, m.decided_ns, m.valid_until_ns, m.sent_ns)
    high = max(m.captured_ns, m.decided_ns, m.valid_until_ns, m.sent_ns)
    if m.frame_id < NO_FRAME_ID or not 0 <= low <= high <= LATEST_NS:
        return "a frame id or time is out of range"
    if not (m.certificate_kind <= PATCH and 0 <= m.certificate_radius <= _LARGEST_FLOAT):
        return "the certificate is not one that exists"
    if m.accepted != (m.reasons == 0):
        return "an accepted verdict has reasons, or a rejected one has none"
    if m.kind == SCENE:
        return _why_no_scene(m)
    return _why_not_acceptable(m) if m.accepted else ""


def _why_no_scene(m: VerdictMessage) -> str:
    if m.class_id != NO_CLASS or m.track != NO_TRACK:
        return "a scene with a class or a track"
    if not m.objects <= m.region:
        return "a scene with more objects than slots"
    return "accepted without a frame" if m.accepted and m.frame_id == NO_FRAME_ID else ""


def _why_not_acceptable(m: VerdictMessage) -> str:
    if m.kind != VERDICT or m.frame_id == NO_FRAME_ID:
        return "accepted without a frame"
    if not m.class_id < m.classes:
        return "accepted without a class"
    if not 0 <= m.confidence <= 1:
        return "accepted with a confidence that is none"
    if not -_LARGEST_FLOAT <= m.score <= m.threshold <= _LARGEST_FLOAT:
        return "accepted with a score above its threshold"
    return ""


Fields = tuple[Any, ...]
"""Those of a `VerdictMessage`, in their order; a plain tuple is made more quickly."""


def fields_of(
    prediction: Prediction,
    epoch: int,
    sent_ns: int,
    clock_domain: int,
    class_ids: dict[str, int],
    kind: int = VERDICT,
    region: int = 0,
    drops: int = 0,
    bundle: bytes = NOTHING,
    calibration: bytes = NOTHING,
    more: int = 0,
    objects: int = 0,
) -> Fields:
    """What a message says about a prediction, as it stands at the time of sending: one that has ended is EXPIRED.

    Args:
        prediction: The verdict.
        epoch: Of the sender.
        sent_ns: Now, of the sender's monotonic clock.
        clock_domain: Of the sender.
        class_ids: Index of each label of the bundle.
        kind: `VERDICT`, `HEARTBEAT` or `SCENE`.
        region: Index of the region, number of the slot, or how many slots there are.
        drops: Frames without a message since the last one.
        bundle: First 8 bytes of the digest.
        calibration: First 8 bytes of the calibration's hash.
        more: Bits of further reasons to reject, which no `Reason` stands for.
        objects: Of a scene: how many slots hold one.
    """
    reasons, ends_ns = prediction.decided_reasons, prediction.valid_until_ns
    if not reasons and sent_ns > ends_ns:
        reasons = (Reason.EXPIRED,)
    class_id = class_ids.get(prediction.candidate, NO_CLASS)
    if class_id == NO_CLASS and not (reasons or more or kind == SCENE):
        reasons = (Reason.BAD_INPUT,)  # a label that the bundle does not have cannot be handed over
    bits = (reason_bits(reasons) if reasons else 0) | more
    plain = bits != 0 or prediction.certificate is None
    certificate_kind, certificate_radius = (NO_CERTIFICATE, 0.0) if plain else certificate_of(prediction)
    return (
        epoch,
        sent_ns,
        not bits,
        kind,
        region,
        prediction.frame_id,
        prediction.captured_ns,
        prediction.decided_ns,
        ends_ns if ends_ns <= LATEST_NS else LATEST_NS,
        clock_domain,
        bits,
        class_id,
        len(class_ids),
        prediction.confidence,
        prediction.score,
        prediction.threshold,
        certificate_kind,
        certificate_radius,
        drops if drops <= 0xFFFFFFFF else 0xFFFFFFFF,
        bundle,
        calibration,
        NO_TRACK if prediction.found is None else track_of(prediction),
        objects,
    )


def certificate_of(prediction: Prediction) -> tuple[int, float]:
    """Kind and radius of what was certified; `NO_CERTIFICATE` unless the prediction carries one that holds."""
    found = prediction.certificate
    if found is None or not found.margin >= found.tau or found.kind not in _CERTIFICATES:
        return NO_CERTIFICATE, 0.0
    return _CERTIFICATES[found.kind], float(found.budget)


def track_of(prediction: Prediction) -> int:
    """Number of the object's track; `NO_TRACK` for a region that follows none."""
    track = getattr(getattr(prediction, "found", None), "track", None)
    return track if track is not None and 0 <= track < NO_TRACK else NO_TRACK
