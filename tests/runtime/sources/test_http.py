"""Motion JPEG over HTTP from real servers on this machine: killed, stalled, garbled, restarted."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from framegate.runtime.errors import SourceError
from framegate.runtime.health.check import CameraHealth, unusable
from framegate.runtime.pipeline import Pipeline
from framegate.runtime.session import Session
from framegate.runtime.sources.base import Source
from framegate.runtime.sources.open import open_source
from framegate.runtime.sources.options import SourceOptions
from framegate.runtime.sources.synthetic import SyntheticSource, read_frame_number
from framegate.runtime.verdict import Frame, Prediction, Reason

HANG = 20.0
QUICK = SourceOptions(open_timeout_s=1.0, read_timeout_s=0.8)
Answer = Callable[["Handler"], None]


def pictures(count: int, width: int = 320, height: int = 240) -> list[bytes]:
    with SyntheticSource(width, height, frames=count, realtime=False) as source:
        frames = [frame for frame in iter(source.read, None) if frame is not None]
    return [cv2.imencode(".jpg", frame.image)[1].tobytes() for frame in frames]


PICTURES = pictures(60)
LARGER = pictures(10, 640, 480)
WIDE = pictures(12, 1280, 960)


class Handler(http.server.BaseHTTPRequestHandler):
    answer: Answer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        with contextlib.suppress(OSError):  # the other side has hung up
            type(self).answer(self)

    def begin(self, kind: str = "multipart/x-mixed-replace; boundary=frame") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()

    def send(self, picture: bytes, length: bool = True, pause_s: float = 0.01) -> None:
        size = b"Content-Length: %d\r\n" % len(picture) if length else b""
        self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n" + size + b"\r\n" + picture + b"\r\n")
        time.sleep(pause_s)


class Server:
    """Answers every request with `answer`; `kill` cuts all connections, as a power failure would."""

    def __init__(self, answer: Answer, port: int = 0) -> None:
        self.handler = type("Answering", (Handler,), {"answer": staticmethod(answer)})
        self.connections: list[socket.socket] = []
        server = self

        class Remembering(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self) -> tuple[socket.socket, Any]:
                connection, address = super().get_request()
                server.connections.append(connection)
                return connection, address

        self.server = Remembering(("127.0.0.1", port), self.handler)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}/stream"

    def kill(self) -> None:
        self.server.shutdown()
        self.thread.join(HANG)
        self.server.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[Server] = []

    def start(answer: Answer, port: int = 0) -> Server:
        servers.append(Server(answer, port))
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Of the source's; a server's threads that still write end with their connection."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + HANG
    while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left


def endless(handler: Handler) -> None:
    handler.begin()
    for k in range(1500):
        handler.send(PICTURES[k % len(PICTURES)])


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + HANG
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def trickle(handler: Handler) -> None:
    for _ in range(40):
        handler.wfile.write(b"x")
        time.sleep(0.05)


def read_all(source: Source, into: list[Frame]) -> None:
    """Until it ends or breaks off; what came before is kept."""
    while (frame := source.read()) is not None:
        into.append(frame)


def take(source: Source, count: int) -> list[Frame]:
    frames = [frame for _ in range(count) if (frame := source.read()) is not None]
    assert len(frames) == count
    return frames


def shown(frames: list[Frame]) -> list[int]:
    return [read_frame_number(frame.image) for frame in frames]


@pytest.mark.parametrize("length", [True, False], ids=["with lengths", "without lengths"])
def test_pictures_arrive_in_order_and_are_numbered_without_gaps(serve: Serve, length: bool) -> None:
    def answer(handler: Handler) -> None:
        handler.begin()
        for picture in PICTURES:
            handler.send(picture, length)

    with open_source(serve(answer).uri, QUICK) as source:
        assert (source.live, source.frame_size, source.status.state) == (True, (320, 240), "open")
        before = time.monotonic_ns()
        frames = take(source, 20)
    seen = shown(frames)
    assert seen == sorted(set(seen))
    assert seen[-1] == 19 + source.status.skipped
    assert [frame.frame_id for frame in frames] == list(range(20))
    assert all(before <= frame.captured_ns <= time.monotonic_ns() for frame in frames[1:])
    assert source.status.state == "closed"


@pytest.mark.parametrize("way", ["chunked", "boundary behind"])
def test_every_picture_arrives_whatever_the_server_sends_around_it(serve: Serve, way: str) -> None:
    """A reader that waits for the next chunk, or boundary, finds a newer picture each time and shows none of them."""
    assert len(WIDE[0]) > 1 << 16  # more than a reader asks for at a time, and than may stand before the first boundary

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        if way == "chunked":
            handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for picture in WIDE:
            part = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture) + picture + b"\r\n"
            if way == "chunked":
                part = b"--frame\r\n" + part
                handler.wfile.write(b"%x\r\n" % len(part) + part + b"\r\n")
            else:
                handler.wfile.write(part + b"--frame\r\n")
            time.sleep(0.05)

    with open_source(serve(answer).uri, SourceOptions(reconnect=False)) as source:
        frames: list[Frame] = []
        with pytest.raises(SourceError, match="broke off: the server closed it"):
            read_all(source, frames)
    assert len(frames) + source.status.skipped == len(WIDE)
    assert len(frames) >= len(WIDE) * 2 // 3
    assert shown(frames) == sorted(set(shown(frames)))


def test_a_late_reader_gets_the_newest_picture(serve: Serve) -> None:
    sent, read = threading.Event(), threading.Event()

    def answer(handler: Handler) -> None:
        handler.begin()
        for picture in PICTURES[:31]:
            handler.send(picture, pause_s=0)
        sent.set()
        read.wait(HANG)  # the stream goes on until then, however late the reader is

    # A busy machine may take its time to open it; opened anew, the server would begin anew.
    with open_source(serve(answer).uri, SourceOptions(open_timeout_s=HANG, read_timeout_s=HANG)) as source:
        take(source, 1)
        assert sent.wait(HANG)
        time.sleep(0.1)
        (late,) = take(source, 1)
        read.set()
        assert read_frame_number(late.image) == 30
        assert source.status.skipped >= 20


def test_a_picture_that_waited_while_nobody_read_is_as_old_as_it_may_be(serve: Serve) -> None:
    sent, go_on = threading.Event(), threading.Event()

    def answer(handler: Handler) -> None:
        handler.begin()
        for picture in PICTURES[:3]:
            handler.send(picture, pause_s=0.02)
        sent.set()
        go_on.wait(HANG)
        for picture in PICTURES[10:13]:
            handler.send(picture, pause_s=0.05)

    with open_source(serve(answer).uri, SourceOptions(open_timeout_s=2.0, read_timeout_s=2.0)) as source:
        first = source.read()
        assert first is not None
        assert sent.wait(HANG)
        time.sleep(0.5)  # held up: a picture waits meanwhile
        asked = time.monotonic_ns()
        (late,) = take(source, 1)
        assert read_frame_number(late.image) == 2
        assert first.captured_ns < late.captured_ns < asked - 300_000_000
        go_on.set()
        for frame in take(source, 2):
            assert (time.monotonic_ns() - frame.captured_ns) < 200_000_000 or read_frame_number(frame.image) < 12
            assert frame.captured_ns > asked
    assert source.status.timestamps == "arrival"


def test_a_killed_server_gives_no_frames_until_it_is_back(serve: Serve) -> None:
    server = serve(endless)
    with open_source(server.uri, QUICK) as source:
        take(source, 5)
        server.kill()
        frames: list[Frame | None] = []
        reader = threading.Thread(target=lambda: frames.extend(iter(lambda: source.read(), None)))
        reader.start()
        deadline = time.monotonic() + HANG
        while source.status.state != "reconnecting" and time.monotonic() < deadline:
            time.sleep(0.01)
        held = len(frames)  # those that were still in the socket
        time.sleep(0.8)  # at least one attempt fails
        assert len(frames) == held
        assert "nothing listens at 127.0.0.1" in source.status.error
        serve(endless, server.port)
        while len(frames) < held + 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (source.status.state, source.status.reconnects) == ("open", 1)
        source.close()
        reader.join(HANG)
        assert not reader.is_alive()
    received = [frame for frame in frames if frame is not None]
    assert [frame.frame_id for frame in received] == list(range(5, 5 + len(received)))


def test_no_verdict_while_the_server_is_away(serve: Serve, tiny_bundle: Path, blue_scene: Callable[[int], Any]) -> None:
    blues = [cv2.imencode(".jpg", blue_scene(k))[1].tobytes() for k in range(60)]  # more than the check remembers

    def blue(handler: Handler) -> None:
        handler.begin()
        for picture in blues * 10:
            handler.send(picture, pause_s=0.02)

    server = serve(blue)
    source = open_source(server.uri, QUICK)
    verdicts: list[Prediction] = []
    with Pipeline(source, Session.open(tiny_bundle, "onnxruntime", threads=1), deadline_ms=2000) as pipeline:
        consumer = threading.Thread(target=lambda: verdicts.extend(pipeline))
        consumer.start()
        until(lambda: sum(verdict.accepted for verdict in verdicts) >= 10)
        server.kill()
        until(lambda: source.status.state == "reconnecting")
        time.sleep(0.1)  # for the frame that was being judged
        given = len(verdicts)
        time.sleep(0.6)
        assert len(verdicts) == given
        serve(blue, server.port)
        until(lambda: any(verdict.accepted for verdict in verdicts[given:]))
        server.kill()
        time.sleep(0.1)
    consumer.join(HANG)
    assert not consumer.is_alive()
    assert source.status.reconnects >= 1


def test_a_recording_is_not_taken_for_a_live_stream(serve: Serve, tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 30, (320, 240))
    for picture in PICTURES[:20]:
        writer.write(cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR))
    writer.release()

    def answer(handler: Handler) -> None:
        first = int((handler.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        data = (tmp_path / "a.mp4").read_bytes()
        handler.send_response(206)
        handler.send_header("Content-Type", "video/mp4")
        handler.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(data) - first))
        handler.end_headers()
        handler.wfile.write(data[first:])

    with pytest.raises(SourceError, match="a recording, not a live stream; download it"):
        open_source(serve(answer).uri, QUICK)


def test_without_reconnection_a_break_is_an_error(serve: Serve) -> None:
    def answer(handler: Handler) -> None:
        handler.begin()
        for picture in PICTURES[:5]:
            handler.send(picture)

    with open_source(serve(answer).uri, SourceOptions(reconnect=False)) as source:
        with pytest.raises(SourceError, match="broke off: the server closed it"):
            list(iter(source.read, None))
        assert source.status.state == "failed"
        with pytest.raises(SourceError, match="broke off"):
            source.read()


@pytest.mark.parametrize(
    ("rest", "says"),
    [
        (lambda handler: time.sleep(1.5), r"nothing for 0\.8 s"),
        (lambda handler: trickle(handler), r"no whole picture for 0\.8"),
        (lambda handler: handler.wfile.write(os.urandom(1 << 20)), "not motion JPEG|broke off"),
        (
            lambda handler: handler.wfile.write(b"--frame\r\nContent-Length: 999999999\r\n\r\n" + bytes(100_000)),
            "more than 64 MiB",
        ),
    ],
    ids=["stalled", "trickling", "garbage", "bomb"],
)
def test_a_stream_that_goes_wrong_is_left_and_opened_again(serve: Serve, rest: Any, says: str) -> None:
    visits: list[int] = []

    def answer(handler: Handler) -> None:
        handler.begin()
        visits.append(1)
        for picture in PICTURES[:3] if len(visits) == 1 else PICTURES:
            handler.send(picture)
        rest(handler)

    with open_source(serve(answer).uri, QUICK) as source:
        frames = take(source, 10)
        assert source.status.reconnects == 1
        assert re.search(says, source.status.error)
    assert [frame.frame_id for frame in frames] == list(range(10))


def test_a_chunk_whose_size_never_ends_is_silence(serve: Serve) -> None:
    """Some proxy that hangs sends a byte now and then, but nothing of a picture."""

    def answer(handler: Handler) -> None:
        handler.protocol_version = "HTTP/1.1"
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        part = b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + PICTURES[0] + b"\r\n"
        handler.wfile.write(b"%x\r\n" % len(part) + part + b"\r\n")
        time.sleep(0.05)
        handler.wfile.write(b"10;")
        with contextlib.suppress(OSError):
            for _ in range(60):
                handler.wfile.write(b"x")
                time.sleep(0.1)

    with open_source(serve(answer).uri, replace(QUICK, reconnect=False)) as source:
        take(source, 1)
        begun = time.monotonic()
        with pytest.raises(SourceError, match=r"no whole picture for 0\.8"):
            source.read()
        assert time.monotonic() - begun < 4


def test_a_damaged_picture_is_bad_input_and_not_half_the_one_before(serve: Serve) -> None:
    turn = threading.Semaphore(1)

    def answer(handler: Handler) -> None:
        handler.begin()
        for k, picture in enumerate(PICTURES[:12]):
            turn.acquire(timeout=HANG)  # one at a time: none is left out for a newer one
            bad = {5: picture[: len(picture) // 2], 6: b"", 7: os.urandom(5000)}
            handler.send(bad.get(k, picture), pause_s=0)

    frames: list[Frame] = []
    with open_source(serve(answer).uri, SourceOptions(read_timeout_s=HANG)) as source:
        for _ in range(12):
            frames += take(source, 1)
            turn.release()
    assert [bool(unusable(frame.image)) for frame in frames] == [k in (5, 6, 7) for k in range(12)]


def test_another_size_in_mid_stream_is_the_wrong_size(serve: Serve) -> None:
    turn = threading.Semaphore(1)

    def answer(handler: Handler) -> None:
        handler.begin()
        for picture in [*PICTURES[:5], *LARGER[5:8], *PICTURES[8:12]]:
            turn.acquire(timeout=HANG)
            handler.send(picture, pause_s=0)

    reasons: list[tuple[Reason, ...]] = []
    with open_source(serve(answer).uri, SourceOptions(read_timeout_s=HANG)) as source:
        health = CameraHealth(source.frame_size, source.fixed_size)
        for _ in range(12):
            reasons += [tuple(health.check(frame.image)) for frame in take(source, 1)]
            turn.release()
    assert [Reason.WRONG_SIZE in why for why in reasons] == [k in (5, 6, 7) for k in range(12)]


def test_close_ends_a_read_that_waits_for_a_dead_server(serve: Serve) -> None:
    server = serve(endless)
    source = open_source(server.uri, QUICK)
    take(source, 1)
    server.kill()
    results: list[Frame | None] = []
    thread = threading.Thread(target=lambda: results.extend(iter(source.read, None)))
    thread.start()
    time.sleep(0.5)
    source.close()
    thread.join(HANG)
    assert not thread.is_alive()
    assert source.read() is None


def _status(code: int) -> Answer:
    return lambda handler: handler.send_error(code)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (_status(404), "the server answers 404 .*is the path right"),
        (_status(401), "401 .*give user and password"),
        (_status(503), "503 .*busy"),
        (lambda handler: handler.begin("text/html"), "a web page .*not a stream"),
        (lambda handler: handler.begin("image/jpeg"), "a single picture"),
        (lambda handler: (handler.begin(), time.sleep(1.2)), r"nothing for 0\.8 s|the server closed it"),
        (lambda handler: (handler.begin("video/unknown"), handler.wfile.write(os.urandom(9999))), "no video could be"),
        (lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n"), "does not speak HTTP"),
        (lambda handler: time.sleep(1.3), "no answer from 127.0.0.1"),
    ],
    ids=["404", "401", "503", "page", "picture", "silent", "noise", "ssh", "mute"],
)
def test_what_is_no_stream_is_refused_with_the_reason(serve: Serve, answer: Any, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        open_source(serve(answer).uri, QUICK)


def test_nobody_listens_and_unknown_hosts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(SourceError, match=f"nothing listens at 127.0.0.1:{port}; is the camera or server running"):
        open_source(f"http://127.0.0.1:{port}/", QUICK)
    with pytest.raises(SourceError, match=r"nothing listens at 127\.0\.0\.1"):
        open_source(f"rtsp://127.0.0.1:{port}/", QUICK)
    with pytest.raises(SourceError, match="there is no host in it"):
        open_source("rtsp:///stream", QUICK)
    with pytest.raises(SourceError, match="expected http://host:port/path"):
        open_source("http://host:70000/", QUICK)


def test_passwords_are_used_and_never_shown(serve: Serve) -> None:
    wanted = "Basic " + base64.b64encode(b"me:s3cret/word").decode()

    def answer(handler: Handler) -> None:
        if handler.headers.get("Authorization") != wanted:
            handler.send_response(401)
            handler.send_header("WWW-Authenticate", 'Basic realm="camera"')
            handler.end_headers()
            return
        endless(handler)

    server = serve(answer)
    with open_source(f"http://me:s3cret%2Fword@127.0.0.1:{server.port}/x", QUICK) as source:
        take(source, 2)
        assert source.name == f"http://me:***@127.0.0.1:{server.port}/x"
    with pytest.raises(SourceError, match="401") as caught:
        open_source(f"http://me:wr0ng@127.0.0.1:{server.port}/x", QUICK)
    assert "wr0ng" not in str(caught.value)


def test_digest_authentication(serve: Serve) -> None:
    def hashed(*words: str) -> str:
        return hashlib.md5(":".join(words).encode()).hexdigest()

    def answer(handler: Handler) -> None:
        given = dict(re.findall(r'(\w+)="?([^",]+)', handler.headers.get("Authorization") or ""))
        known = hashed("me", "camera", "s3cret"), "once", given.get("nc", ""), given.get("cnonce", ""), "auth"
        if given.get("response") != hashed(*known, hashed("GET", "/stream")):
            handler.send_response(401)
            handler.send_header("WWW-Authenticate", 'Digest realm="camera", nonce="once", qop="auth"')
            handler.end_headers()
            return
        endless(handler)

    with open_source(serve(answer).uri.replace("//", "//me:s3cret@"), QUICK) as source:
        assert [frame.frame_id for frame in take(source, 2)] == [0, 1]


def test_https_needs_a_trusted_certificate(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    server = serve(endless)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.server.socket = context.wrap_socket(server.server.socket, server_side=True, do_handshake_on_connect=False)
    uri = server.uri.replace("http://", "https://")
    with pytest.raises(SourceError, match=r"is not trusted .*self.signed certificate.*SSL_CERT_FILE"):
        open_source(uri, QUICK)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with open_source(uri, QUICK) as source:
        assert shown(take(source, 5))[0] >= 0
        assert source.frame_size == (320, 240)


def test_another_video_than_motion_jpeg_goes_through_ffmpeg(serve: Serve, tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "a.ts"), cv2.VideoWriter.fourcc(*"MPG2"), 30, (320, 240))
    assert writer.isOpened()
    for picture in PICTURES:
        writer.write(cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR))
    writer.release()
    data = (tmp_path / "a.ts").read_bytes()

    def answer(handler: Handler) -> None:
        handler.begin("video/mp2t")
        for at in range(0, len(data), 188 * 20):
            handler.wfile.write(data[at : at + 188 * 20])
            time.sleep(2.0 * 188 * 20 / len(data))

    options = SourceOptions(open_timeout_s=4.0, read_timeout_s=2.0, reconnect=False)
    with open_source(serve(answer).uri, options) as source:
        assert (source.live, source.frame_size) == (True, (320, 240))
        frames: list[Frame] = []
        with pytest.raises(SourceError, match="broke off"):
            read_all(source, frames)
    seen = np.array(shown(frames))
    assert set(np.diff(seen)) == {1}
    assert len(seen) >= 20
    assert source.status.state == "failed"


def test_warm_up_flip_and_rate_on_a_stream(serve: Serve) -> None:
    options = SourceOptions(flip="180", skip=3, fps=20, open_timeout_s=1.0, read_timeout_s=0.8)
    server = serve(endless)
    with open_source(server.uri, options) as source:
        frames = take(source, 6)
        turned = [cv2.rotate(frame.image, cv2.ROTATE_180) for frame in frames]
        numbers = [read_frame_number(image) for image in turned]
        assert numbers[0] >= 3
        periods = np.diff([frame.captured_ns for frame in frames])
        assert periods.mean() >= 0.9e9 / 20
        assert periods.min() >= 0.4e9 / 20
        assert source.status.skipped >= 3
        assert [frame.frame_id for frame in frames] == list(range(6))
