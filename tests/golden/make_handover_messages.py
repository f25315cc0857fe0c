"""Writes handover_messages.txt: ``PYTHONPATH=tests/helpers python tests/golden/make_handover_messages.py``.

Only for a new version of the message: the bytes of a version never change.
"""

from __future__ import annotations

import math
from pathlib import Path

from handover_tape import fields

from framegate.runtime.handover.message import (
    HEARTBEAT,
    LATEST_NS,
    LINF,
    NO_CLASS,
    PATCH,
    REASON_BITS,
    SCENE,
    VerdictMessage,
    encode,
)
from framegate.runtime.verdict import Reason

FILE = Path(__file__).parent / "handover_messages.txt"
KEY = bytes(range(32))
HEAD = """\
# Golden messages of the hand-over, version 1 (docs/handover.md). Each: a name; every field, floats as the bits of
# binary32, and whether the content is consistent; the key of the authentication, or -; the bytes. Both implementations
# must read the bytes as these fields and write these bytes again.
"""


def examples() -> dict[str, tuple[VerdictMessage, int, int, bytes | None]]:
    """Name -> message, counter, data id, key."""
    times = {"captured_ns": 1_000_000_000, "decided_ns": 1_004_000_000, "valid_until_ns": 1_100_000_000}
    numbers = {"class_id": 3, "classes": 10, "confidence": 0.96875, "score": 0.125, "threshold": 0.5}
    ids = {"bundle": bytes.fromhex("6c3ea3472bf55113"), "calibration": bytes.fromhex("b017aef297797e81")}
    usual = {"epoch": 1_700_000_000_000_000_000, "sent_ns": 1_004_100_000, "clock_domain": 0x0123456789ABCDEF}
    usual |= {**times, **ids}
    accepted = VerdictMessage(**usual, **numbers, accepted=True, frame_id=41)
    nothing = {**usual, "captured_ns": 1_004_000_000, "valid_until_ns": LATEST_NS}
    every = sum(1 << bit for bit in REASON_BITS.values())
    silence = 1 << REASON_BITS[Reason.NO_FRAME]
    largest = {"epoch": 2**64 - 1, "clock_domain": 2**64 - 1, "frame_id": 2**63 - 1, "region": 2**32 - 1}
    largest |= dict.fromkeys(("sent_ns", "captured_ns", "decided_ns", "valid_until_ns"), LATEST_NS)
    largest |= {"class_id": 2**32 - 2, "classes": 2**32 - 1, "drops": 2**32 - 1, "confidence": 1.0}
    certificate = {"certificate_kind": LINF, "certificate_radius": 2.0, "track": 17, "region": 2, "drops": 3}
    smallest = {"confidence": -0.0, "score": -3.4028234663852886e38, "threshold": 1.401298464324817e-45}
    scene = {"kind": SCENE, "region": 16, "classes": 10}
    return {
        "accepted": (accepted, 7, 0x101, None),
        "accepted, with a code": (accepted, 65535, 0x101, KEY),
        "rejected": (VerdictMessage(**usual, **numbers, frame_id=42, reasons=1 << 13 | 1 << 5), 0, 0x101, None),
        "no frame": (VerdictMessage(**nothing, classes=10, reasons=silence), 1, 0x101, None),
        "heartbeat": (VerdictMessage(**nothing, classes=10, reasons=silence, kind=HEARTBEAT), 2, 0x101, None),
        "every reason": (VerdictMessage(**usual, frame_id=0, reasons=every | 1 << 63), 3, 0xFFFFFFFF, None),
        "certificate": (VerdictMessage(**usual, **numbers, accepted=True, frame_id=43, **certificate), 4, 0, None),
        "patch": (
            VerdictMessage(
                **usual, **numbers, accepted=True, frame_id=44, certificate_kind=PATCH, certificate_radius=5.0
            ),
            5,
            1,
            KEY[:16],
        ),
        "largest": (
            VerdictMessage(**largest, score=0.0, threshold=3.4028234663852886e38, accepted=True),
            65534,
            9,
            None,
        ),
        "smallest": (VerdictMessage(**{**usual, **numbers, **smallest}, accepted=True, frame_id=0), 6, 9, None),
        "scene": (VerdictMessage(**usual, **scene, accepted=True, frame_id=48, objects=2), 11, 0x200, None),
        "inconsistent: more objects than slots": (
            VerdictMessage(**usual, **scene, accepted=True, frame_id=48, objects=17),
            12,
            0x200,
            None,
        ),
        "inconsistent: accepted with NaN": (
            VerdictMessage(**{**usual, **numbers, "score": math.nan}, accepted=True, frame_id=45),
            8,
            9,
            None,
        ),
        "inconsistent: accepted without a class": (
            VerdictMessage(**{**usual, **numbers, "class_id": NO_CLASS}, accepted=True, frame_id=46),
            9,
            9,
            None,
        ),
        "inconsistent: a time before the beginning": (
            VerdictMessage(**{**usual, **numbers, "captured_ns": -(2**63)}, accepted=True, frame_id=47),
            10,
            9,
            None,
        ),
    }


def main() -> None:
    """Write the file."""
    parts = [HEAD]
    for name, (message, counter, data_id, key) in examples().items():
        data = encode(message, counter, data_id, key)
        parts.append(f"\n{name}\n{fields(data)[2:]}\n{key.hex() if key else '-'}\n{data.hex()}\n")
    FILE.write_text("".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
