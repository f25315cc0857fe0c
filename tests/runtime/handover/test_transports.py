"""One suite for every transport: what docs/transports.md says of all of them holds for each.

A transport whose package is missing is skipped, with the line that installs it.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest
from transports import PACKAGES, address_of, free_port

from framegate.runtime.errors import FramegateError, SinkError, SourceError, UsageError
from framegate.runtime.handover.base import TRANSPORTS, open_incoming, open_outgoing, parse_address
from framegate.runtime.handover.json_lines import JsonLinesIncoming, JsonLinesOutgoing
from framegate.runtime.handover.message import PLAIN_BYTES

LONGEST_S = 2.0
"""A sender that waits for its receiver waits for ever; a busy machine takes its time."""
KINDS = sorted(TRANSPORTS)


@contextlib.contextmanager
def ends(kind, tmp_path):
    """Both ends of a transport, which have found each other."""
    address = address_of(kind, tmp_path)
    with contextlib.ExitStack() as stack:
        incoming = stack.enter_context(contextlib.closing(open_incoming(address)))
        outgoing = stack.enter_context(contextlib.closing(open_outgoing(address)))
        meet(outgoing, incoming)
        yield outgoing, incoming


def meet(outgoing, incoming, within_s=10.0):
    until = time.monotonic() + within_s
    while True:
        outgoing.send(b"hello")
        if incoming.receive(0.05) is not None:
            break
        assert time.monotonic() < until, "the two ends do not find each other"
    while incoming.receive(0.1) is not None:
        pass


def messages(number):
    return [bytes([k % 256]) * PLAIN_BYTES for k in range(number)]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def test_messages_arrive_whole_and_in_order_with_the_time_of_their_arrival(kind, tmp_path):
    sent = [*messages(20), bytes(range(256))[:160], b"x", b"\0" * PLAIN_BYTES, b"\n\r\n\xff" * 36]
    with ends(kind, tmp_path) as (outgoing, incoming):
        found = []
        for data in sent:
            before = time.monotonic_ns()
            outgoing.send(data)
            received = incoming.receive(2.0)
            assert received is not None
            found.append(received[0])
            assert before <= received[1] <= time.monotonic_ns()
        assert found == sent
        assert all(isinstance(each, bytes) for each in found)
        assert outgoing.unsent == 0
        assert incoming.receive(0) is None


def test_all_that_waits_is_read_at_once_the_oldest_first(kind, tmp_path):
    with ends(kind, tmp_path) as (outgoing, incoming):
        for data in messages(30):
            outgoing.send(data)
            time.sleep(0.001)
        time.sleep(0.1)
        assert [data for data, _ in incoming.waiting()] == messages(30)
        assert list(incoming.waiting()) == []


def test_who_waits_for_as_long_as_it_takes_gets_what_comes(kind, tmp_path):
    with ends(kind, tmp_path) as (outgoing, incoming):
        threading.Timer(0.05, outgoing.send, (b"at last",)).start()
        received = incoming.receive(1e7)  # more milliseconds than the system counts at once
        assert received is not None
        assert received[0] == b"at last"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timer that sends signals")
def test_waiting_ends_in_time_while_a_timer_of_the_program_interrupts_it_more_often(kind, tmp_path):
    """A consumer that waits for longer than its timeout does not brake."""
    came = []

    def tick(*_):
        came.append(None)
        if len(came) >= 300:  # three seconds: whoever still waits is let go
            signal.setitimer(signal.ITIMER_REAL, 0)

    before = signal.signal(signal.SIGALRM, tick)
    try:
        with ends(kind, tmp_path) as (_, incoming):
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
            begun = time.monotonic()
            assert incoming.receive(0.1) is None
            assert 0.05 <= time.monotonic() - begun < 1.0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert came


def test_waiting_for_a_message_ends_when_it_comes_or_in_time(kind, tmp_path):
    with ends(kind, tmp_path) as (outgoing, incoming):
        begun = time.monotonic()
        assert incoming.receive(0.2) is None
        assert 0.15 <= time.monotonic() - begun < 1.0
        begun = time.monotonic()
        assert incoming.receive(0) is None
        assert time.monotonic() - begun < 0.1
        timer = threading.Timer(0.1, outgoing.send, [b"late"])
        timer.start()
        received = incoming.receive(5.0)
        timer.join()
        assert received is not None
        assert received[0] == b"late"
        assert time.monotonic() - begun < 3.0


def test_a_sender_never_waits_for_a_receiver_that_is_not_there_or_does_not_read(kind, tmp_path):
    address = address_of(kind, tmp_path)
    with contextlib.closing(open_outgoing(address)) as outgoing:
        longest = flood(outgoing, 1000)
        assert longest < LONGEST_S
        incoming = open_incoming(address)
        meet(outgoing, incoming) if kind != "jsonl" else None
        assert flood(outgoing, 2000) < LONGEST_S
        incoming.close()
        assert flood(outgoing, 100) < LONGEST_S
        assert outgoing.unsent >= 0


def flood(outgoing, number):
    """Sends; returns the longest time that one message took, in seconds."""
    longest, data = 0.0, bytes(PLAIN_BYTES)
    for _ in range(number):
        begun = time.monotonic()
        outgoing.send(data)
        longest = max(longest, time.monotonic() - begun)
    return longest


def test_what_a_flood_leaves_is_bounded_and_the_newest_comes_through_afterwards(kind, tmp_path):
    with ends(kind, tmp_path) as (outgoing, incoming):
        flood(outgoing, 5000)  # more than wait for a receiver at most
        time.sleep(0.3)
        for _ in range(20):
            if not list(incoming.waiting()):
                break
        time.sleep(0.2)
        list(incoming.waiting())
        outgoing.send(b"newest")
        received = incoming.receive(2.0)
        assert received is not None
        assert received[0] == b"newest"


def test_both_ends_can_be_closed_twice_and_a_closed_sender_sends_nothing(kind, tmp_path):
    with ends(kind, tmp_path) as (outgoing, incoming):
        outgoing.close()
        outgoing.close()
        outgoing.send(b"after")
        assert outgoing.unsent == 1
        assert incoming.receive(0.1) is None
        incoming.close()
        incoming.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(PACKAGES))
def test_a_process_that_breaks_off_without_closing_its_ends_ends_all_the_same(kind, tmp_path):
    lines = (
        "from framegate.runtime.handover import open_incoming, open_outgoing",
        f"ends = [each({address_of(kind, tmp_path)!r}) for each in (open_incoming, open_outgoing)]",
        "while ends[0].receive(0.05) is None: ends[1].send(bytes(144))",
        "raise SystemExit(7)",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], check=False, timeout=60)
    assert done.returncode == 7


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("kind", list(PACKAGES))
def test_both_ends_of_one_process_close_while_messages_flow(kind, tmp_path, first):
    address = address_of(kind, tmp_path)
    both = open_incoming(address), open_outgoing(address)
    ended = threading.Event()

    def shout() -> None:
        while not ended.is_set():
            both[1].send(bytes(144))

    shouting = threading.Thread(target=shout, daemon=True)
    shouting.start()
    assert both[0].receive(20) is not None
    for end in (both[first], both[1 - first]):
        closing = threading.Thread(target=end.close, daemon=True)
        closing.start()
        closing.join(20)
        assert not closing.is_alive()
    ended.set()
    shouting.join(20)
    assert not shouting.is_alive()


def test_a_pipe_with_a_high_number_is_one_like_any_other():
    """A process with a thousand files open."""
    lowest = 1024
    with contextlib.ExitStack() as stack:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        if limits[1] != resource.RLIM_INFINITY and limits[1] <= lowest + 2:
            pytest.skip("no process here may have so many files open")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], lowest + 64), limits[1]))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        reader, writer = os.pipe()
        high = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, lowest) for each in (reader, writer)]
        for each in (reader, writer):
            os.close(each)
        incoming, outgoing = JsonLinesIncoming(high[0], "in"), JsonLinesOutgoing(high[1], "out")
        assert incoming.receive(0) is None
        outgoing.send(b"message")
        received = incoming.receive(1)
        assert received is not None
        assert received[0] == b"message"
        outgoing.close()
        assert incoming.receive(0.01) is None
        incoming.close()


@pytest.mark.parametrize("kind", [each for each in KINDS if each not in ("udp", "jsonl")])
def test_several_receivers_hear_the_same(kind, tmp_path):
    with ends(kind, tmp_path) as (outgoing, first), contextlib.closing(open_incoming(outgoing.name)) as second:
        meet(outgoing, second)
        list(first.waiting())
        outgoing.send(b"both")
        assert [each.receive(2.0)[0] for each in (first, second)] == [b"both", b"both"]


def test_a_receiver_that_comes_back_hears_again(kind, tmp_path):
    with ends(kind, tmp_path) as (outgoing, incoming):
        incoming.close()
        outgoing.send(b"nobody hears this")
        with contextlib.closing(open_incoming(outgoing.name)) as again:
            meet(outgoing, again)


def test_ends_leave_no_file_open(kind, tmp_path):
    with ends(kind, tmp_path):
        pass
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with ends(kind, tmp_path):
            pass
    time.sleep(0.2)
    assert len(os.listdir("/proc/self/fd")) <= before + 2


@pytest.mark.parametrize(
    ("text", "error", "why"),
    [
        ("carrier-pigeon://roof", UsageError, "unknown transport"),
        ("127.0.0.1:47800", UsageError, "unknown transport|no address"),
        ("udp://127.0.0.1", UsageError, "expected a host and a port"),
        ("udp://127.0.0.1:1?fast=1", UsageError, "there is no option 'fast'"),
        ("udp://239.1.1.1:47800", UsageError, "multicast group"),
        ("udp://192.0.2.1:47800", SourceError, "has this machine that address"),
        ("udp://cam..local:47800", (SourceError, SinkError), "no host can have this name"),
        ("udp://é..:47800", (SourceError, SinkError), "no host can have this name"),
        ("multicast://cam..local:47800", UsageError, "expected a group"),
        ("multicast://239.1.1.1:47800?interface=é..", UsageError, "no IPv4 address"),
        ("multicast://10.0.0.1:47800", UsageError, "expected a group"),
        ("multicast://239.1.1.1", UsageError, "expected a group"),
        ("multicast://239.1.1.1:47800?interface=eth0", UsageError, "no IPv4 address"),
        ("multicast://239.1.1.1:47800?interface=192.0.2.1", (SourceError, SinkError), "cannot be used"),
        ("multicast://239.1.1.1:47800?hops=many", UsageError, "expected 0"),
        ("jsonl://file", UsageError, "expected jsonl"),
        ("jsonl:///no/such/pipe", (SourceError, SinkError), "mkfifo"),
        ("jsonl:///etc/hostname", UsageError, "no named pipe"),
        ("zenoh://", UsageError, "key expression"),
        ("zenoh://a?config=/no/such.json5", UsageError, "cannot be read"),
        ("zenoh://a?config=/etc/hostname", UsageError, "no configuration"),
        ("zenoh://a?listen=nowhere", UsageError, "cannot be used"),
        ("zenoh://a?listen=tcp/192.0.2.1:7447", (SourceError, SinkError), "cannot open"),
        ("ros2://no such topic", UsageError, "no name of a topic"),
    ],
)
def test_an_address_that_cannot_be_used_is_said_in_one_sentence(text, error, why):
    package, line = PACKAGES.get(text.partition(":")[0], (None, ""))
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: {line}")
    for opener in (open_incoming, open_outgoing):
        if text.startswith("udp://192.0.2.1") and opener is open_outgoing:
            continue  # one can send to anybody
        with pytest.raises(error, match=why) as found:
            opener(text)
        assert "\n" not in str(found.value)


def test_a_port_in_use_is_said(tmp_path):
    first = open_incoming(f"udp://127.0.0.1:{free_port()}")
    with contextlib.closing(first), pytest.raises(SourceError, match="is another receiver running"):
        open_incoming(first.name)


@pytest.mark.parametrize("kind", list(PACKAGES))
def test_a_missing_package_is_named_with_the_line_that_installs_it(kind, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for opener in (open_incoming, open_outgoing):
        with pytest.raises(UsageError, match="pip install"):
            opener(f"{kind}://a/b")


def listening() -> set[tuple[str, str]]:
    """Local addresses of all UDP sockets, and of the listening TCP ones, of this process's network."""
    found = set()
    for name, state in (("tcp", "0A"), ("tcp6", "0A"), ("udp", None), ("udp6", None)):
        with open(f"/proc/net/{name}", encoding="ascii") as table:
            for row in list(table)[1:]:
                fields = row.split()
                if state is None or fields[3] == state:
                    found.add((name, fields[1]))
    return found


@pytest.mark.parametrize("kind", [each for each in KINDS if each != "ros2"])
def test_nothing_listens_off_loopback_unless_asked(kind, tmp_path):
    """ROS 2 is left out: where its participants listen is said by the environment (docs/transports.md)."""
    before = listening()
    with ends(kind, tmp_path):
        new = listening() - before
    groups = ("5646FFEF", "E00000E0")  # the multicast test's, and Zenoh's scouting, which were joined on loopback
    for name, where in new:
        host = where.rpartition(":")[0]
        assert host == "0100007F" or host in groups or (kind == "zenoh" and name == "udp"), (name, where)


def test_every_transport_is_taken_apart_as_an_address():
    for kind in KINDS:
        assert parse_address(f"{kind}://a/b?c=d").options == {"c": "d"}
        with pytest.raises(FramegateError, match="no option 'c'"):
            parse_address(f"{kind}://a/b?c=d").require_options("e")
