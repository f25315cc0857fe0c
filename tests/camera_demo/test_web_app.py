"""Who may open the page, and what becomes of a viewer that stalls; over a real server."""

from __future__ import annotations

import http.client
import socket
import threading
import time

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from framegate.camera_demo import viewers as viewers_module
from framegate.camera_demo.addresses import is_loopback
from framegate.camera_demo.viewers import MOST_VIEWERS, Viewers
from framegate.camera_demo.web_app import make_app
from framegate.camera_demo.web_server import WebServer, listen
from framegate.runtime.errors import FramegateError


@pytest.fixture
def serve():
    """Start a server for a token: (viewers, address)."""
    running = []

    def start(token=None):
        viewers = Viewers()
        app = make_app(viewers, lambda seen: {"samples_seen": seen + 1}, lambda name, severity: None, token)
        server = WebServer(app, listen("127.0.0.1", 0))
        server.start()
        running.append((viewers, server))
        return viewers, "http://127.0.0.1:{1}/".format(*server.address)

    yield start
    for viewers, server in running:
        viewers.finish("the test is over")
        server.stop()
    assert [thread.name for thread in threading.enumerate() if thread.name == "framegate-demo-web"] == []


def get(address, path, **headers):
    host = address.split("/")[2]
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.request("GET", path, headers={"Host": host, **headers})
    answer = connection.getresponse()
    status, text = answer.status, answer.read().decode()
    connection.close()
    return status, text


@pytest.mark.parametrize(
    ("host", "is_one"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("192.168.1.2", False), ("", False)],
)
def test_loopback_names(host, is_one):
    assert is_loopback(host) == is_one


def test_the_token_opens_page_and_stream(serve, viewer):
    _, address = serve("secret")
    assert get(address, "/?token=secret")[0] == 200
    client = viewer(address + "?token=secret")
    assert client.take() == "state"
    client.close()


@pytest.mark.parametrize(
    ("query", "words"),
    [("", "lacks its token"), ("?token=", "lacks its token"), ("?token=wrong", "token in the address")],
)
def test_without_the_token_neither_opens(serve, viewer, query, words):
    _, address = serve("secret")
    status, text = get(address, "/" + query)
    assert status == 403
    assert words in text
    assert "framegate demo printed" in text
    with pytest.raises(InvalidStatus) as caught:
        viewer(address + query)
    assert caught.value.response.status_code == 403


@pytest.mark.parametrize("token", [None, "secret"])
def test_a_page_of_somebody_else_may_not_use_it(serve, viewer, token):
    _, address = serve(token)
    query = f"?token={token}" if token else ""
    status, text = get(address, "/" + query, Origin="http://evil.example")
    assert status == 403
    assert "evil.example" in text
    with pytest.raises(InvalidStatus):
        viewer(address + query, origin="http://evil.example")
    own = viewer(address + query, origin=address.rstrip("/"))
    assert own.take() == "state"
    own.close()


def test_another_name_for_this_machine_is_refused_on_loopback(serve):
    _, address = serve()
    status, text = get(address, "/", Host="rebound.example:80")
    assert status == 403
    assert "rebound.example" in text


@pytest.mark.parametrize("headers", [{"Host": "[::1"}, {"Host": ""}, {"Origin": "http://[bad"}, {"Origin": "null"}])
def test_headers_that_are_no_addresses_are_refused(serve, headers):
    _, address = serve()
    assert get(address, "/", **headers)[0] == 403


def test_a_viewer_that_reads_nothing_at_all_is_left(serve, viewer, monkeypatch):
    monkeypatch.setattr(viewers_module, "STALLED_S", 0.4)
    viewers, address = serve()
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = address.split("/")[2].split(":")
        raw.connect((host, int(port)))
        raw.sendall(
            f"GET /stream HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        wait_for(lambda: len(viewers) == 1)
        for _ in range(3):
            viewers.offer(bytes(8_000_000))  # more than the buffers of the system take
        wait_for(lambda: len(viewers) == 0)
        other = viewer(address)
        assert other.take() == "state"
        other.close()


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_viewer_that_confirms_nothing_is_left(serve, viewer, monkeypatch):
    monkeypatch.setattr(viewers_module, "STALLED_S", 0.4)
    viewers, address = serve()
    client = viewer(address, confirm=False)
    with pytest.raises(ConnectionClosed) as caught:
        client.until(lambda c: False)
    assert "confirmed nothing" in caught.value.rcvd.reason
    wait_for(lambda: len(viewers) == 0)


def test_the_mailbox_keeps_the_newest_picture_only(serve, viewer):
    viewers, address = serve()
    client = viewer(address, confirm=False)
    client.take()  # the state: one message on the way
    head = b'{"frame":%d}'
    for number in range(1, 8):
        viewers.offer(len(head % number).to_bytes(4, "big") + head % number)
        time.sleep(0.03)
    assert client.take() == "picture"
    assert client.picture["frame"] == 1
    assert not viewers.waits_for_frame
    client.confirm = True
    client.socket.send('"shown"')
    client.socket.send('"shown"')
    client.until(lambda c: c.picture["frame"] != 1)
    assert client.picture["frame"] == 7
    client.close()


def test_nobody_is_waits_for_frame_where_nobody_watches(serve, viewer):
    viewers, address = serve()
    assert not viewers.waits_for_frame
    client = viewer(address)
    client.until(lambda c: viewers.waits_for_frame)
    client.close()


def test_too_many_viewers_are_turned_away(serve, viewer):
    _, address = serve()
    clients = [viewer(address) for _ in range(MOST_VIEWERS)]
    for client in clients:
        client.take()
    late = viewer(address)
    with pytest.raises(ConnectionClosed) as caught:
        late.until(lambda c: False)
    assert caught.value.rcvd.code == 1013
    for client in clients:
        client.close()


def test_whoever_comes_after_the_end_is_told(serve, viewer):
    viewers, address = serve()
    viewers.finish("the source has ended")
    client = viewer(address)
    client.until(lambda c: c.ended)
    assert client.ended == "the source has ended"


def test_a_port_can_be_taken_once():
    with listen("127.0.0.1", 0) as first, pytest.raises(FramegateError, match="in use"):
        listen("127.0.0.1", first.getsockname()[1])
