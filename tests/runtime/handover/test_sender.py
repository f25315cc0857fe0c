from __future__ import annotations

import itertools
import os
import signal
import threading
import time

import pytest

from framegate.runtime.errors import RejectedFrame, SourceError, UsageError
from framegate.runtime.handover import (
    Fault,
    Identity,
    Receiver,
    ReceiverConfig,
    Sender,
    State,
    open_incoming,
    open_outgoing,
    this_clock,
)
from framegate.runtime.handover.message import HEARTBEAT, VERDICT, decode
from framegate.runtime.handover.reading import MS
from framegate.runtime.handover.sender import calibration_id
from framegate.runtime.verdict import Prediction, Reason

IDENTITY = Identity(("cat", "dog"), b"bundle-1", b"calibr-1")
ID = 0x101
NAMES = (f"local://test-{number}" for number in itertools.count())


def prediction(frame_id: int, stream: str = "road", reasons: tuple[Reason, ...] = (), valid_s: float = 10.0):
    now = time.monotonic_ns()
    numbers = {"confidence": 0.9, "entropy": 0.1, "margin": 0.8, "energy": -1.0, "score": 0.1, "threshold": 0.3}
    times = {"captured_ns": now - 1000, "decided_ns": now, "valid_until_ns": now + int(valid_s * 1e9)}
    return Prediction(frame_id, stream, reasons, "dog", **numbers, **times)


class Ends:
    """A sender and what it sent."""

    def __init__(self, *streams: tuple[str, int], **options) -> None:
        name = next(NAMES)
        self.incoming = open_incoming(name)
        self.sender = Sender([open_outgoing(name)], streams or [("road", ID)], IDENTITY, **options)

    def taken(self):
        return [decode(data) for data, _ in self.incoming.waiting()]


def slow_limits(**changes) -> ReceiverConfig:
    """Nothing here depends on how busy the machine is."""
    times = dict.fromkeys(("alive_ns", "max_age_ns", "period_ns", "transit_ns"), 60_000 * MS)
    return ReceiverConfig(ID, clock_domain=this_clock(), shortest_period_ns=0, **{**times, **changes})


def test_predictions_arrive_and_become_usable():
    ends = Ends(heartbeat_s=None)
    receiver = Receiver(slow_limits(bundle=b"bundle-1", calibration=b"calibr-1", classes=2), ("cat", "dog"))
    for frame_id in range(3):
        assert not receiver.verdict()
        ends.sender.send_all([prediction(frame_id)])
        for data, arrival_ns in ends.incoming.waiting():
            assert receiver.feed(data, arrival_ns) is Fault.NONE
    reading = receiver.verdict()
    assert reading
    assert (reading.label, reading.class_id, reading.state) == ("dog", 1, State.USABLE)
    assert reading.describe() == "USABLE"
    ends.sender.send(prediction(3, reasons=(Reason.BLACK,)))
    for data, arrival_ns in ends.incoming.waiting():
        receiver.feed(data, arrival_ns)
    with pytest.raises(RejectedFrame, match="REJECTED, BLACK"):
        _ = receiver.verdict().label


def test_each_message_counts_one_up_and_is_later_than_the_one_before():
    ends = Ends(heartbeat_s=None)
    for frame_id in range(20):
        ends.sender.send(prediction(frame_id))
    envelopes, messages = zip(*ends.taken(), strict=True)
    assert [each.counter for each in envelopes] == list(range(20))
    assert all(one.sent_ns < other.sent_ns for one, other in itertools.pairwise(messages))
    assert {each.epoch for each in messages} == {ends.sender.epoch}


def test_the_counter_begins_again_after_65535():
    ends = Ends(heartbeat_s=None)
    ends.sender._streams["road"].counter = 65534
    for frame_id in range(2):
        ends.sender.send(prediction(frame_id))
    assert [envelope.counter for envelope, _ in ends.taken()] == [65535, 0]


def test_frames_without_a_message_are_counted():
    ends = Ends(heartbeat_s=None)
    for frame_id in (0, 1, 5, 6):
        ends.sender.send(prediction(frame_id))
    assert [message.drops for _, message in ends.taken()] == [0, 0, 3, 0]


def test_a_later_start_has_a_larger_epoch():
    epochs = [Ends(heartbeat_s=None).sender.epoch for _ in range(5)]
    assert epochs == sorted(set(epochs))


def test_every_region_is_a_stream_of_its_own():
    ends = Ends(("road", 7), ("sky", 8), heartbeat_s=None)
    ends.sender.send_all([prediction(0), prediction(0, "sky"), prediction(1, "sky")])
    found = [(envelope.data_id, envelope.counter, message.region) for envelope, message in ends.taken()]
    assert found == [(7, 0, 0), (8, 0, 1), (8, 1, 1)]
    with pytest.raises(UsageError, match="no stream 'sea' here; there are road, sky"):
        ends.sender.send(prediction(0, "sea"))


def test_a_verdict_that_has_ended_is_sent_as_expired():
    ends = Ends(heartbeat_s=None)
    ends.sender.send(prediction(0, valid_s=-1.0))
    ((_, message),) = ends.taken()
    assert message.reason_names == ("EXPIRED",)


def test_silence_is_filled_with_heartbeats():
    ends = Ends(heartbeat_s=0.02)
    with ends.sender:
        ends.sender.send(prediction(0))
        until = time.monotonic() + 10
        found = []
        while len(found) < 4 and time.monotonic() < until:
            found += ends.taken()
            time.sleep(0.01)
    kinds = [message.kind for _, message in found]
    assert kinds[0] in (VERDICT, HEARTBEAT)
    assert kinds.count(HEARTBEAT) >= 3
    assert not any(message.accepted for _, message in found if message.kind == HEARTBEAT)
    receiver = Receiver(slow_limits())
    for data in found:
        assert data[1].reasons or data[1].accepted
    assert receiver.verdict().usable is False


def test_a_sender_that_ends_says_so():
    ends = Ends(heartbeat_s=None)
    with ends.sender:
        ends.sender.send(prediction(0))
    messages = [message for _, message in ends.taken()]
    assert messages[0].accepted
    assert [message.reason_names for message in messages[1:]] == [("NO_FRAME",)] * 3
    assert all(message.kind == VERDICT for message in messages)
    ends.sender.send(prediction(1))  # after the end: nothing
    ends.sender.close()
    assert ends.taken() == []


def test_messages_of_many_threads_stay_in_order():
    ends = Ends(heartbeat_s=0.01)
    threads = [threading.Thread(target=lambda: [ends.sender.send(prediction(k)) for k in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ends.sender.close()
    counters = [envelope.counter for envelope, _ in ends.taken()]
    assert counters == list(range(len(counters)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_fault_a_forked_child_says_no_goodbye_in_the_parents_name():
    """Its counters would be those of the parent's next messages, and nobody in it lets go of the lock."""
    incoming = open_incoming("udp://127.0.0.1:0")
    sender = Sender([open_outgoing(f"udp://127.0.0.1:{incoming.port}")], [("road", ID)], IDENTITY, heartbeat_s=None)
    with sender._sending:
        child = os.fork()
        if child == 0:
            signal.alarm(5)  # ends it
            sender.close()
            os._exit(0)
    assert os.waitpid(child, 0) == (child, 0)
    assert incoming.receive(0.05) is None
    sender.send(prediction(1))
    assert incoming.receive(5) is not None
    sender.close()
    incoming.close()


def test_a_receiver_that_is_not_there_holds_nobody_up():
    out = open_outgoing("udp://127.0.0.1:9")
    with Sender([out], [("road", ID)], IDENTITY, heartbeat_s=None) as sender:
        for frame_id in range(100):
            sender.send(prediction(frame_id))
        assert sender.sent == 100


@pytest.mark.parametrize("streams", [[], [("a", 1), ("a", 2)], [("a", 1), ("b", 1)], [("a", -1)], [("a", 2**32)]])
def test_streams_that_cannot_be_told_apart_are_refused(streams):
    with pytest.raises(UsageError, match="data id"):
        Sender([], streams, IDENTITY)


def test_no_calibration_is_zeros():
    assert calibration_id(None) == bytes(8)


def test_udp_carries_bytes_and_says_when_they_came():
    incoming = open_incoming("udp://127.0.0.1:0")
    out = open_outgoing(f"udp://127.0.0.1:{incoming.port}")
    before = time.monotonic_ns()
    out.send(b"one")
    out.send(b"two")
    first, second = incoming.receive(5), incoming.receive(5)
    assert (first[0], second[0]) == (b"one", b"two")
    assert before < first[1] <= second[1] <= time.monotonic_ns()
    assert incoming.receive(0) is None
    assert incoming.receive(0.01) is None
    out.close()
    incoming.close()


def test_a_port_in_use_and_a_foreign_address_are_one_sentence():
    incoming = open_incoming("udp://127.0.0.1:0")
    with pytest.raises(SourceError, match=r"cannot listen there .*is another receiver running"):
        open_incoming(f"udp://127.0.0.1:{incoming.port}")
    with pytest.raises(SourceError, match="cannot listen there"):
        open_incoming("udp://192.0.2.77:47800")
    incoming.close()


@pytest.mark.parametrize(
    "url",
    ["", "47800", "127.0.0.1:47800", "tcp://127.0.0.1:1", "udp://", "udp://127.0.0.1", "udp://h:99999", "local://"],
)
def test_an_address_that_is_none_is_one_sentence(url):
    with pytest.raises(UsageError, match=r"expected|unknown transport"):
        open_incoming(url)


@pytest.mark.parametrize("call", [Sender.heartbeat, Sender.close, lambda sender: sender.send(prediction(1))])
def test_fault_a_signal_handler_calls_a_sender_that_it_has_interrupted(call, monkeypatch):
    """It would wait for ever for the very thread that it has interrupted."""
    ends, asked = Ends(heartbeat_s=None), []
    putting = ends.sender.outgoing[0].send

    def interrupted(data):
        with pytest.raises(UsageError, match="signal handler"):
            call(ends.sender)
        asked.append(len(data))
        return putting(data)

    monkeypatch.setattr(ends.sender.outgoing[0], "send", interrupted)
    ends.sender.send(prediction(0))
    monkeypatch.undo()
    ends.sender.send(prediction(1))
    ends.sender.close()
    assert asked
    assert [message.frame_id for _, message in ends.taken()][:2] == [0, 1]
