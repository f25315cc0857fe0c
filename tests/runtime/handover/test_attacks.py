"""The receiver under attack: after each fault nothing is usable, and nothing that was changed ever is."""

from __future__ import annotations

import random

import pytest

from framegate.runtime.handover.message import PLAIN_BYTES, VerdictMessage, encode
from framegate.runtime.handover.protection import protect
from framegate.runtime.handover.reading import MS, Fault, State
from framegate.runtime.handover.receiver import Receiver, ReceiverConfig

ID, KEY = 0x101, bytes(range(32))
FRAME = 33 * MS
START = 10**12


class Source:
    """A sender without a network: message n is sent at START + n frames."""

    def __init__(self, epoch: int = 5, key: bytes | None = None, counter: int = 0, **changes) -> None:
        self.epoch, self.key, self.counter, self.changes = epoch, key, counter, changes

    def message(self, n: int, class_id: int = 1) -> bytes:
        sent = START + n * FRAME
        message = VerdictMessage(
            epoch=self.epoch,
            sent_ns=sent,
            accepted=True,
            frame_id=n,
            captured_ns=sent - 10 * MS,
            decided_ns=sent - 1,
            valid_until_ns=sent + 90 * MS,
            clock_domain=9,
            class_id=class_id,
            classes=10,
            confidence=0.9,
            score=0.1,
            threshold=0.2,
            bundle=b"bundle-1",
        )
        return encode(message._replace(**self.changes), (self.counter + n) % 65536, ID, self.key)


def arrival(n: int) -> int:
    return START + n * FRAME + MS // 10


def proven(frames: int = 3, key: bytes = b"", clock_domain: int = 9) -> tuple[Receiver, Source]:
    """A receiver that is usable after some frames."""
    receiver, source = Receiver(ReceiverConfig(ID, key=key, clock_domain=clock_domain)), Source(key=key or None)
    for n in range(frames):
        receiver.feed(source.message(n), arrival(n))
    assert receiver.verdict(arrival(frames - 1)).usable
    return receiver, source


@pytest.mark.parametrize("key", [b"", KEY], ids=["crc", "code"])
def test_every_bit_of_every_byte(key):
    size = len(Source(key=key or None).message(0))
    for bit in range(size * 8):
        receiver, source = proven(key=key)
        data = bytearray(source.message(3))
        data[bit // 8] ^= 1 << bit % 8
        fault = receiver.feed(bytes(data), arrival(3))
        assert fault is (Fault.TRUNCATED if bit // 8 < 2 else Fault.CORRUPTED)
        assert not receiver.verdict(arrival(3)).usable


@pytest.mark.parametrize("seed", range(5))
def test_bursts_of_changed_bytes(seed):
    rng = random.Random(seed)
    for _ in range(100):
        receiver, source = proven()
        data = bytearray(source.message(3))
        first, length = rng.randrange(PLAIN_BYTES), rng.randint(1, 40)
        data[first : first + length] = rng.randbytes(len(data[first : first + length]))
        if bytes(data) != source.message(3):
            assert receiver.feed(bytes(data), arrival(3)) in (Fault.TRUNCATED, Fault.CORRUPTED)
            assert not receiver.verdict(arrival(3)).usable


def test_every_length():
    for size in (*range(PLAIN_BYTES), *range(PLAIN_BYTES + 1, 300), 2048):
        receiver, source = proven()
        data = (source.message(3) + bytes(2048))[:size]
        assert receiver.feed(data, arrival(3)) is Fault.TRUNCATED
        assert not receiver.verdict(arrival(3)).usable


def test_a_code_cannot_be_made_without_the_key():
    """Every byte changed, and the CRC made right again, which needs no secret."""
    for place in range(12, PLAIN_BYTES + 16):
        receiver, source = proven(key=KEY)
        data = bytearray(source.message(3))
        data[place] ^= 0x10
        right = bytearray(protect(bytes(data[12:]), int.from_bytes(data[2:4], "big"), ID))
        assert len(right) == len(data)
        fault = receiver.feed(bytes(right), arrival(3))
        assert fault in (Fault.FORGED, Fault.WRONG_VERSION), place
        assert not receiver.verdict(arrival(3)).usable


@pytest.mark.parametrize("clock_domain", [9, 0], ids=["one clock", "by arrival"])
def test_a_recording_of_the_same_run_played_again(clock_domain):
    receiver, source = proven(20, clock_domain=clock_domain)
    for n in range(20):
        fault = receiver.feed(source.message(n), arrival(20 + n))
        assert fault in (Fault.LATE, Fault.REORDERED, Fault.REPEATED)
        assert not receiver.verdict(arrival(20 + n)).usable


@pytest.mark.parametrize("clock_domain", [9, 0], ids=["one clock", "by arrival"])
def test_a_recording_of_an_earlier_start_played_again_latches(clock_domain):
    receiver = proven(10, clock_domain=clock_domain)[0]
    old = Source(epoch=4)
    for n in range(10):
        assert receiver.feed(old.message(n), arrival(10 + n)) is Fault.WRONG_EPOCH
        assert not receiver.verdict(arrival(10 + n)).usable
    assert receiver.verdict(arrival(20)).state is State.LATCHED


def test_a_message_of_one_whole_turn_of_the_counter_ago():
    receiver, source = proven()
    # The counter of what is expected next, but sent 65,536 messages before it.
    again = Source(counter=3).message(0)
    assert receiver.feed(again, arrival(3)) is Fault.REORDERED
    assert not receiver.verdict(arrival(3)).usable
    assert receiver.feed(source.message(3), arrival(4)) is Fault.NONE


@pytest.mark.parametrize("seed", range(10))
def test_two_senders_with_one_id_are_never_usable_once_both_are_heard(seed):
    rng = random.Random(seed)
    receiver, first = proven()
    second = Source(epoch=6)
    senders, heard = {5: first, 6: second}, set()
    for n in range(3, 60):
        epoch = rng.choice((5, 6)) if n > 4 else {3: 6, 4: 5}[n]
        heard.add(epoch)
        receiver.feed(senders[epoch].message(n), arrival(n))
        if heard == {5, 6}:
            assert not receiver.verdict(arrival(n)).usable
    assert receiver.verdict(arrival(59)).state is State.LATCHED


def test_a_foreign_sender_with_another_bundle_is_never_usable_and_does_not_take_over():
    receiver, source = proven()
    foreign = Source(epoch=9, bundle=b"bundle-2")
    for n in range(3, 10):
        assert receiver.feed(foreign.message(n), arrival(n)) is Fault.WRONG_BUNDLE
        assert not receiver.verdict(arrival(n)).usable
    for n in range(10, 60):
        receiver.feed(source.message(n), arrival(n))
    assert receiver.release(arrival(59))
    for n in range(60, 63):
        receiver.feed(source.message(n), arrival(n))
    assert receiver.verdict(arrival(62)).usable


@pytest.mark.parametrize(
    "changes",
    [
        {"captured_ns": START + 10**10},
        {"decided_ns": START + 10**10},
        {"captured_ns": START + 10**10, "decided_ns": START + 10**10, "sent_ns": START + 10**10},
        {"captured_ns": 2**61 - 1, "decided_ns": 2**61 - 1, "sent_ns": 2**61 - 1, "valid_until_ns": 2**61 - 1},
    ],
)
@pytest.mark.parametrize("clock_domain", [9, 0], ids=["one clock", "by arrival"])
def test_a_clock_in_the_future(changes, clock_domain):
    receiver, _ = proven(clock_domain=clock_domain)
    assert receiver.feed(Source(**changes).message(3), arrival(3)) is Fault.FUTURE
    assert not receiver.verdict(arrival(3)).usable
    assert not receiver.verdict(arrival(3) + 10**10).usable


@pytest.mark.parametrize("name", ["confidence", "score", "threshold", "certificate_radius"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e39, -2.0])
def test_numbers_that_are_none(name, value):
    receiver, _ = proven()
    fault = receiver.feed(Source(**{name: value}).message(3), arrival(3))
    fine = name == "score" and value == -2.0  # a score may have any sign
    assert fault is (Fault.NONE if fine else Fault.INVALID)
    assert receiver.verdict(arrival(3)).usable is fine


def test_signalling_nan_on_the_wire():
    receiver, source = proven()
    data = bytearray(source.message(3))
    for place in (96, 100, 104):
        changed = bytearray(data)
        changed[place : place + 4] = bytes.fromhex("7f800001")
        right = protect(bytes(changed[12:]), 3, ID)
        assert receiver.feed(right, arrival(3)) is Fault.INVALID
    assert not receiver.verdict(arrival(3)).usable


def test_messages_held_up_and_delivered_at_once_say_nothing_about_now():
    receiver, source = proven()
    for n in range(3, 60):  # two seconds of messages, all at the end
        receiver.feed(source.message(n), arrival(60))
        reading = receiver.verdict(arrival(60))
        assert not reading.usable or arrival(60) <= reading.message.valid_until_ns


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_lost_messages_never_make_an_old_verdict_usable(share):
    rng = random.Random(1)
    receiver, source = proven()
    usable = 0
    for n in range(3, 700):
        if rng.random() >= share:
            receiver.feed(source.message(n, class_id=n % 10), arrival(n))
        for late in (0, 10, 30):
            reading = receiver.verdict(arrival(n) + late * MS)
            if reading.usable:
                usable += 1
                assert n - reading.message.frame_id <= 2  # valid for 90 ms after sending
                assert reading.class_id == reading.message.frame_id % 10 or reading.message.frame_id < 3
    assert usable > (0 if share == 0.5 else 900)


@pytest.mark.slow
def test_the_counter_goes_round_and_nothing_happens():
    receiver, source = proven()
    for n in range(3, 66_000):
        assert receiver.feed(source.message(n), arrival(n)) is Fault.NONE
    assert receiver.verdict(arrival(65_999)).usable
    assert (receiver.good, receiver.lost_messages) == (66_000, 0)


def test_a_flood_of_rubbish_between_good_messages_closes_and_is_counted():
    rng = random.Random(2)
    receiver, source = proven()
    for n in range(3, 20):
        for _ in range(50):
            receiver.feed(rng.randbytes(rng.choice((0, 10, 144, 160, 1500))), arrival(n) - 1)
        receiver.feed(source.message(n), arrival(n))
        assert not receiver.verdict(arrival(n)).usable
    assert receiver.good == 20
    assert receiver.received == 20 + 17 * 50


def test_nothing_is_usable_from_a_receiver_that_heard_nothing():
    receiver = Receiver(ReceiverConfig(ID))
    for now in (-(2**63), -1, 0, 1, START, 2**63 - 1):
        assert not receiver.verdict(now).usable
    assert receiver.verdict().describe().startswith("DO NOT USE")
