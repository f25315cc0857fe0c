"""What unknown senders and flooding viewers can make the page's server do: little, and nobody else notices.

Every flood is bounded in number and time, and goes to this machine only.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response
from websockets.exceptions import ConnectionClosed

from framegate.camera_demo import allowance as allowance_module
from framegate.camera_demo import viewers as viewers_module
from framegate.camera_demo import web_app as app_module
from framegate.camera_demo import web_connections as limits
from framegate.camera_demo.allowance import Allowance
from framegate.camera_demo.viewers import SAID_AT_ONCE, Viewers
from framegate.camera_demo.web_app import make_app
from framegate.camera_demo.web_connections import network_of
from framegate.camera_demo.web_server import WebServer, listen

HANDSHAKE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    "Sec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.fixture
def start():
    """Start a server: (its address, the server, what was pressed, the viewers)."""
    running = []

    def make(app=None, token=None):
        viewers, pressed = Viewers(), []
        page = make_app(viewers, lambda seen: {"samples_seen": seen + 1}, lambda *said: pressed.append(said), token)
        server = WebServer(app or page, listen("127.0.0.1", 0))
        server.start()
        running.append((viewers, server))
        return "http://127.0.0.1:{1}/".format(*server.address), server, pressed, viewers

    yield make
    for viewers, server in running:
        viewers.finish("the test is over")
        server.stop()
        assert server.connections == 0
    assert [thread.name for thread in threading.enumerate() if thread.name == "framegate-demo-web"] == []


def connect(server, source=""):
    raw = socket.socket()
    if source:
        raw.bind((source, 0))
    raw.settimeout(10)
    raw.connect(server.address)
    return raw


def ask(server, text, source=""):
    """The whole answer to a request, until the server closes."""
    with connect(server, source) as raw:
        raw.sendall(text.encode())
        return everything(raw)


def everything(raw):
    found = b""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while piece := raw.recv(65536):
            found += piece
    return found.decode()


def page_request(server, path="/"):
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.address[1]}\r\n\r\n"


def is_open(raw):
    """Whether the server has not ended this connection."""
    raw.setblocking(False)
    try:
        while raw.recv(65536):
            pass
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    finally:
        raw.settimeout(10)
    return False


def wait_for(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("count", [200, pytest.param(1100, marks=pytest.mark.long)])
def test_half_a_request_keeps_no_place(start, viewer, monkeypatch, count):
    """200 stayed open for ever; 1,100 took every file that the process may open, so that no clip could start again."""
    monkeypatch.setattr(limits, "HEADER_S", 1.5)
    address, server, _, _ = start()
    before = open_files()
    with contextlib.ExitStack() as stack:
        halves = []
        for number in range(count):
            halves.append(stack.enter_context(connect(server, "127.0.0.2")))
            with contextlib.suppress(ConnectionError):
                halves[-1].sendall(b"GET / HTTP/1.1\r\nHost: 127")
            if number % 100 == 99:
                assert server.connections <= limits.MOST_FROM_ONE
        assert "200 OK" in ask(server, page_request(server))  # while the last ones are still there
        other = viewer(address)
        assert other.take() == "state"
        wait_for(lambda: not any(map(is_open, halves)), 20)
        assert other.take() == "state"
        assert open_files() < before + count + 20  # the sockets of this side, and the one viewer
        other.close()


def open_files():
    return len(os.listdir("/proc/self/fd"))


def test_who_is_too_slow_is_told(start, monkeypatch):
    monkeypatch.setattr(limits, "HEADER_S", 0.3)
    _, server, _, _ = start()
    with connect(server) as raw:
        raw.sendall(b"GET / HT")
        answer = everything(raw)
    assert answer.startswith("HTTP/1.1 408 ")
    assert "no complete request" in answer


def test_a_dripping_request_has_the_same_time_as_a_silent_one(start, monkeypatch):
    monkeypatch.setattr(limits, "HEADER_S", 0.5)
    _, server, _, _ = start()
    began = time.monotonic()
    with connect(server) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nX: ")
        while is_open(raw) and time.monotonic() - began < 8:
            with contextlib.suppress(ConnectionError):
                raw.sendall(b"a")
            time.sleep(0.1)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("pieces", [[b"a"] * 200, [b"a" * 4000] * 20])
def test_a_request_in_too_many_pieces_or_bytes_is_refused(start, pieces):
    _, server, _, _ = start()
    with connect(server) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.sendall(b"GET / HTTP/1.1\r\nX: ")
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                raw.sendall(piece)
                time.sleep(0.005)
        wait_for(lambda: not is_open(raw), limits.HEADER_S - 1)
    assert server.connections == 0


def test_one_answer_a_connection(start):
    _, server, _, _ = start()
    answers = ask(server, page_request(server, "/page/demo.css") * 20)
    assert answers.count("HTTP/1.1 200") == 1
    assert "connection: close" in answers.lower()
    assert "connection: close" in ask(server, page_request(server, "/nowhere")).lower()


def test_an_answer_that_nobody_reads_keeps_no_place(start, monkeypatch):
    monkeypatch.setattr(limits, "ANSWER_S", 0.4)
    monkeypatch.setattr(limits, "CLOSE_S", 0.3)

    async def app(scope, receive, send):
        await Response(bytes(32_000_000))(scope, receive, send)

    _, server, _, _ = start(app)
    with connect(server) as raw:
        raw.sendall(page_request(server).encode())
        wait_for(lambda: server.connections == 1)
        wait_for(lambda: server.connections == 0)


def test_a_viewer_that_stalls_keeps_no_place(start, monkeypatch):
    monkeypatch.setattr(viewers_module, "STALLED_S", 0.4)
    monkeypatch.setattr(limits, "CLOSE_S", 0.3)
    _, server, _, viewers = start()
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(server.address)
        raw.sendall(f"GET /stream HTTP/1.1\r\nHost: 127.0.0.1:{server.address[1]}\r\n{HANDSHAKE}".encode())
        wait_for(lambda: len(viewers) == 1)
        for _ in range(3):
            viewers.offer(bytes(8_000_000))  # more than the buffers of the system take
        wait_for(lambda: len(viewers) == 0)
        wait_for(lambda: server.connections == 0)


def at_any_pace(monkeypatch):
    """Where it is about how many stay, not how fast they come."""
    for name in ("TAKEN", "SERVED", "SERVED_FROM_ONE"):
        monkeypatch.setattr(limits, f"{name}_PER_S", 5000.0)


def test_a_flood_from_one_address_leaves_the_others_their_places(start, viewer, monkeypatch):
    at_any_pace(monkeypatch)
    _, server, _, _ = start()
    with contextlib.ExitStack() as stack:
        slow = stack.enter_context(connect(server, "127.0.0.1"))
        slow.sendall(b"GET / HTTP/1.1\r\n")
        for _ in range(150):
            stack.enter_context(connect(server, "127.0.0.2"))
        wait_for(lambda: server.connections == limits.MOST_FROM_ONE + 1)
        assert is_open(slow)


def test_an_open_page_keeps_its_place_however_many_come(start, viewer, monkeypatch):
    at_any_pace(monkeypatch)
    address, server, _, _ = start()
    client = viewer(address)
    with contextlib.ExitStack() as stack:
        for number in range(300):
            stack.enter_context(connect(server, f"127.0.1.{number % 8 + 1}"))
        wait_for(lambda: server.connections == limits.MOST_CONNECTIONS)
        for _ in range(3):
            assert client.take() == "state"
    client.close()


def test_where_all_places_are_open_pages_a_newcomer_is_told(start, viewer, monkeypatch):
    monkeypatch.setattr(limits, "MOST_FROM_ONE", 3)
    address, server, _, viewers = start()
    clients = [viewer(address) for _ in range(3)]
    wait_for(lambda: len(viewers) == 3)
    answer = ask(server, page_request(server))
    assert answer.startswith("HTTP/1.1 503 ")
    assert "all connections are taken" in answer
    clients.pop().close()
    wait_for(lambda: server.connections == 2)
    assert "200 OK" in ask(server, page_request(server))
    for client in clients:
        client.close()


def test_connections_are_taken_at_a_limited_pace(start, monkeypatch):
    monkeypatch.setattr(limits, "TAKEN_PER_S", 20.0)
    monkeypatch.setattr(limits, "TAKEN_AT_ONCE", 5.0)
    _, server, _, _ = start()
    began = time.monotonic()
    for _ in range(15):
        assert "200 OK" in ask(server, page_request(server, "/page/demo.css"))
    assert time.monotonic() - began >= 0.45  # ten of them had to wait for 50 ms each


def test_who_comes_too_often_is_refused_and_the_others_are_not(start):
    _, server, _, _ = start()
    answers = [ask(server, page_request(server, "/page/demo.css"), "127.0.0.2")[:12] for _ in range(150)]
    served = answers.count("HTTP/1.1 200")
    assert limits.SERVED_FROM_ONE_AT_ONCE <= served < 150
    assert set(answers) <= {"HTTP/1.1 200", "HTTP/1.1 503", ""}
    assert "200 OK" in ask(server, page_request(server))


def test_only_so_many_senders_are_remembered():
    acceptor = limits.Acceptor(lambda connection: connection)
    for number in range(3000):
        acceptor._refused(f"network {number}")
    assert len(acceptor._served_from) == limits._REMEMBERED


def test_few_files_mean_few_connections():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert limits.most_connections() <= soft // 4
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert limits.most_connections() == 64
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def masked(opcode, data):
    return bytes([0x80 | opcode, 0x80 | len(data)]) + bytes(4) + data


SHOWN, PRESS = b'"shown"', json.dumps({"press": "none", "severity": 3}).encode()


@pytest.mark.parametrize(
    ("opcode", "said"), [(1, SHOWN), (1, PRESS), (9, b""), (9, bytes(100)), (10, b""), (2, b"x"), (0, b"x")]
)
def test_a_flooding_viewer_is_left_before_it_costs_anything(start, viewer, opcode, said):
    address, server, pressed, viewers = start()
    client = viewer(address)
    client.take()
    with connect(server) as raw:
        raw.sendall(f"GET /stream HTTP/1.1\r\nHost: 127.0.0.1:{server.address[1]}\r\n{HANDSHAKE}".encode())
        assert b" 101 " in raw.recv(4096)
        wait_for(lambda: len(viewers) == 2)
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                raw.sendall(masked(opcode, said) * 20)
        wait_for(lambda: not is_open(raw))
    wait_for(lambda: len(viewers) == 1)
    assert len(pressed) <= 200  # of 20,000: what fits into one portion of bytes
    assert client.take() == "state"
    client.close()


def say(client, message, times=400):
    """Say it so often, and listen until the server ends it."""
    for _ in range(times):
        client.socket.send(message.decode())
        time.sleep(0.005)
    client.until(lambda c: False)


def test_a_viewer_that_says_too_much_is_told_why(start, viewer):
    address, _, pressed, viewers = start()
    client = viewer(address)
    with pytest.raises(ConnectionClosed) as caught:
        say(client, PRESS)
    assert caught.value.rcvd.code == 1008
    assert "things a second" in caught.value.rcvd.reason
    assert SAID_AT_ONCE <= len(pressed) < 100
    wait_for(lambda: len(viewers) == 0)


def test_confirming_what_was_never_sent_counts_as_talk(start, viewer):
    address, *_ = start()
    client = viewer(address)
    with pytest.raises(ConnectionClosed) as caught:
        say(client, SHOWN)
    assert caught.value.rcvd.code == 1008


def test_a_viewer_that_confirms_all_it_gets_may_say_so(start, viewer):
    address, _, pressed, viewers = start()
    client = viewer(address)
    for number in range(60):
        viewers.offer(len(b"{}").to_bytes(4, "big") + b"{}")
        client.take()
        if number % 10 == 0:
            client.press("none")
        time.sleep(0.01)
    wait_for(lambda: len(pressed) == 6)
    assert len(viewers) == 1
    client.close()


def test_a_long_message_is_refused(start, viewer):
    address, _, pressed, viewers = start()
    client = viewer(address)
    with pytest.raises(ConnectionClosed):
        say(client, json.dumps({"press": "x" * 300, "severity": 3}).encode())
    assert pressed == []
    wait_for(lambda: len(viewers) == 0)


def test_a_button_that_hangs_keeps_no_other_page_waiting(viewer):
    released, viewers = threading.Event(), Viewers()
    app = make_app(viewers, lambda seen: {"samples_seen": seen + 1}, lambda *said: released.wait(20), None)
    server = WebServer(app, listen("127.0.0.1", 0))
    server.start()
    address = "http://127.0.0.1:{1}/".format(*server.address)
    presses, watches = viewer(address), viewer(address)
    presses.press("kill")
    began = time.monotonic()
    for _ in range(4):
        assert watches.take() == "state"
    assert time.monotonic() - began < 5
    released.set()
    presses.close()
    watches.close()
    server.stop()


def test_pages_are_opened_at_a_limited_pace(start, viewer, monkeypatch):
    monkeypatch.setattr(app_module, "_OPENED_AT_ONCE", 3.0)
    monkeypatch.setattr(app_module, "_OPENED_PER_S", 0.001)
    address, _, _, viewers = start()
    clients = [viewer(address) for _ in range(3)]
    for client in clients:
        client.take()
    late = viewer(address)
    with pytest.raises(ConnectionClosed) as caught:
        late.until(lambda c: False)
    assert caught.value.rcvd.code == 1013
    assert len(viewers) == 3
    for client in clients:
        client.close()


@pytest.mark.parametrize("query", ["a=&" * 3000 + "token=secret", "token=" + "x" * 9000, "%00=" * 500])
def test_a_long_address_is_refused_unread(start, query):
    _, server, _, _ = start(token="secret")
    answer = ask(server, page_request(server, f"/?{query}"))
    assert answer.startswith("HTTP/1.1 403 ")
    assert "the token in the address is wrong" in answer
    assert "200 OK" in ask(server, page_request(server, "/?token=secret"))


def test_the_page_can_ask_why_its_stream_is_refused(start):
    """A browser tells a page nothing about a refused web socket; behind a proxy that changes Host, this is the way."""
    _, server, _, _ = start()
    head = f"POST /why HTTP/1.1\r\nHost: 127.0.0.1:{server.address[1]}\r\nContent-Length: 0\r\n"
    foreign = ask(server, f"{head}Origin: http://127.0.0.1:8400\r\n\r\n")
    assert "proxy_set_header Host $http_host" in foreign
    own = ask(server, f"{head}Origin: http://127.0.0.1:{server.address[1]}\r\n\r\n")
    assert own.split("\r\n\r\n")[1] == ""


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("::1", "::2", False),
    ],
)
def test_what_counts_as_one_sender(one, other, same):
    assert (network_of(one) == network_of(other)) == same


@given(
    st.floats(0.5, 100),
    st.floats(1, 50),
    st.lists(st.tuples(st.floats(0, 3), st.floats(0.1, 5)), min_size=1, max_size=60),
)
def test_an_allowance_gives_no_more_than_its_rate(per_second, at_once, steps):
    now = [100.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(allowance_module.time, "monotonic", lambda: now[0])
        allowance = Allowance(per_second, at_once)
        given_out = 0.0
        for pause, amount in steps:
            now[0] += pause
            if allowance.take(amount):
                given_out += amount
                assert given_out <= at_once + per_second * (now[0] - 100.0) + 1e-6
            elif amount <= at_once:  # and not less: after a rest there is enough again
                now[0] += at_once / per_second + 1e-9
                assert allowance.take(amount)
                given_out += amount
