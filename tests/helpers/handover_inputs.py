"""What tests/fuzz makes of an input, and what must hold for the receivers in Python whatever the input is."""

from __future__ import annotations

from repository import ROOT

from framegate.runtime.handover.message import AUTHENTICATED_BYTES, NO_TRACK, PLAIN_BYTES
from framegate.runtime.handover.objects import ObjectsReceiver
from framegate.runtime.handover.protection import protect
from framegate.runtime.handover.reading import MS, Fault, State
from framegate.runtime.handover.receiver import Receiver, ReceiverConfig

FUZZ = ROOT / "tests/fuzz"
CORPUS = [path.read_bytes() for path in sorted((FUZZ / "corpus").iterdir())]
KEY = bytes(16)
HARMLESS = (Fault.NONE, Fault.MISSED, Fault.NEW_EPOCH, Fault.NEW_TRACK)


def config(flags: int) -> dict[str, object]:
    key = {"key": KEY} if flags & 1 else {}
    return {"data_id": 0x101, "clock_domain": 9 if flags & 2 else 0, "quiet_ns": 100 * MS, **key}


def messages(data: bytes):
    """What handover_fuzz.c makes of an input: times and bytes."""
    flags, place, now = data[0], 1, 1000 * MS
    while place + 2 <= len(data):
        now += data[place] * 2 * MS
        raw = data[place + 2 : place + 2 + data[place + 1]]
        place += 2 + len(raw)
        if flags & 4 and len(raw) in (PLAIN_BYTES, AUTHENTICATED_BYTES):
            key = KEY if len(raw) == AUTHENTICATED_BYTES else None
            counter, data_id = int.from_bytes(raw[2:4], "big"), int.from_bytes(raw[4:8], "big")
            raw = protect(raw[12:PLAIN_BYTES], counter, data_id, key)
        yield now, raw


def require_safe_objects(objects: ObjectsReceiver, now: int, bad: bool, data_id: int) -> None:
    """A list is whole only if the scene says so and no slot is bad; every object in it is good, and of the present.

    Args:
        objects: It was fed a message just now.
        now: When.
        bad: Something was wrong with it.
        data_id: Of the stream that it names.
    """
    seen = objects.verdict(now)
    assert not seen.whole or (seen.scene.usable and seen.agrees and not bad)
    for each in seen.objects:
        assert each.slot in (1, 2)
        assert each.track != NO_TRACK
        assert now <= each.reading.ends_ns
    before, after = objects.verdict(now - 1), objects.verdict(now + 500 * MS + 1)
    assert not before.whole
    assert not after.whole
    assert not after.objects
    # To a reader whose clock stands before a message its slot says nothing; the others were heard of before.
    fed = objects.data_ids.index(data_id) if data_id in objects.data_ids and not bad else None
    assert fed not in [each.slot for each in before.objects]


def require_safe(data: bytes) -> None:
    """Feed an input to the receivers; nothing is usable that should not be.

    Raises:
        AssertionError: Something is.
    """
    receiver = Receiver(ReceiverConfig(**config(data[0])))
    scene = 0x101 if data[0] & 8 else 0x100
    objects = ObjectsReceiver(ReceiverConfig(**{**config(data[0]), "data_id": scene}), 2)
    for now, raw in messages(data):
        fault = receiver.feed(raw, now)
        reading = receiver.verdict(now)
        assert not (reading.usable and fault not in HARMLESS)
        for when in (now - 1, -(2**63), now + 500 * MS + 1, 2**63 - 1):
            assert not receiver.verdict(when).usable
        if reading.usable:
            assert reading.state is State.USABLE
            assert reading.message.accepted
            assert reading.message.reasons == 0
            assert reading.class_id < reading.message.classes
            assert receiver.good >= 3
        receiver.release(now)
        fault = objects.feed(raw, now)
        require_safe_objects(objects, now, fault not in HARMLESS, int.from_bytes(raw[4:8], "big"))
        objects.release(now)
    assert receiver.received - receiver.good <= sum(receiver.faults.values())
