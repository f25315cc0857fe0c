"""RTSP and MPEG-TS from real servers (GStreamer's RTSP server, ffmpeg), killed, stopped and started again.

Skipped where they are not installed; on Debian: apt-get install ffmpeg python3-gi gir1.2-gst-rtsp-server-1.0
gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from repository import HELPERS

from framegate.runtime.errors import SourceError
from framegate.runtime.health.check import CameraHealth
from framegate.runtime.pipeline import Pipeline
from framegate.runtime.session import Session
from framegate.runtime.sources.open import open_source
from framegate.runtime.sources.options import SourceOptions
from framegate.runtime.sources.synthetic import SyntheticSource, read_frame_number
from framegate.runtime.verdict import Frame, Prediction, Reason

HANG = 30.0
SYSTEM_PYTHON = "/usr/bin/python3"
OPTIONS = SourceOptions(open_timeout_s=4.0, read_timeout_s=1.0)


@functools.cache
def missing() -> str:
    """What the RTSP tests need and this machine has not."""
    if shutil.which("ffmpeg") is None:
        return "ffmpeg is not installed"
    question = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst; Gst.init(None); "
    question += "assert all(map(Gst.ElementFactory.find, ('udpsrc', 'tsdemux', 'h264parse', 'rtph264pay')))"
    try:
        subprocess.run([SYSTEM_PYTHON, "-c", question], check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return "GStreamer's RTSP server with its Python bindings is not installed"
    return ""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, blue_scene: Callable[[int], Any]) -> Path:
    """Five seconds of a blue scene with the frame's number along the top; every frame differs."""
    path = tmp_path_factory.mktemp("clip") / "blue.avi"
    writer = open_writer(path, 320, 240)
    with SyntheticSource(320, 240, frames=150, realtime=False) as source:
        for frame in iter(source.read, None):
            assert frame is not None
            image = blue_scene(frame.frame_id)
            image[:16] = frame.image[:16]
            writer.write(image)
    writer.release()
    return path


def open_writer(path: Path, width: int, height: int) -> cv2.VideoWriter:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, (width, height))
    assert writer.isOpened()
    return writer


def h264(folder: Path, width: int, height: int, first: int, count: int, every: int = 10) -> bytes:
    """Numbered frames of the test pattern, a key frame every so many, as a bare H.264 stream."""
    path = folder / f"{width}x{height}-{first}.avi"
    writer = open_writer(path, width, height)
    with SyntheticSource(width, height, frames=first + count, realtime=False) as source:
        for frame in iter(source.read, None):
            assert frame is not None
            if frame.frame_id >= first:
                writer.write(frame.image)
    writer.release()
    command = ["ffmpeg", "-loglevel", "error", "-i", str(path), "-pix_fmt", "yuv420p", "-c:v", "libx264"]
    command += ["-preset", "ultrafast", "-tune", "zerolatency", "-g", str(every), "-f", "h264", "-"]
    return subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class RtspServer:
    def __init__(self, clip: Path, port: int, *login: str) -> None:
        if missing():
            pytest.skip(missing())
        self.uri = f"rtsp://127.0.0.1:{port}/test"
        self.port, self.clip = port, clip
        script = str(HELPERS / "rtsp_server.py")
        command = [SYSTEM_PYTHON, script, str(port), str(clip), *login]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "serving\n"

    def signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)  # ffmpeg is in the same group

    def kill(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
            self.process.wait(HANG)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def restarted(self, clip: Path | None = None) -> RtspServer:
        return RtspServer(clip or self.clip, self.port)


@pytest.fixture
def server(clip: Path) -> Iterator[RtspServer]:
    server = RtspServer(clip, free_port())
    try:
        until(lambda: opens(server.uri), "the server serves")
        yield server
    finally:
        server.kill()


def opens(uri: str) -> bool:
    try:
        open_source(uri, OPTIONS).close()
    except SourceError:
        return False
    return True


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + HANG
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    until(lambda: set(threading.enumerate()) <= before, "no thread is left")


def test_rtsp_frames_are_consecutive_and_fresh(server: RtspServer) -> None:
    with open_source(server.uri, OPTIONS) as source:
        assert (source.live, source.frame_size, source.fps) == (True, (320, 240), 30.0)
        frames = [frame for _ in range(45) if (frame := source.read()) is not None]
        assert source.status.timestamps == "stream"
    seen = np.array([read_frame_number(frame.image) for frame in frames])
    assert set(np.diff(seen) % 150) == {1}
    assert [frame.frame_id for frame in frames] == list(range(45))
    # What had queued up while the stream was recognised is gone: afterwards frames come at the rate of the stream.
    assert frames[-1].captured_ns - frames[0].captured_ns > 0.8 * 44 / 30 * 1e9


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_no_verdict_while_the_server_is_away(server: RtspServer, tiny_bundle: Path, how: int) -> None:
    session = Session.open(tiny_bundle, "onnxruntime", threads=1)
    source = open_source(server.uri, OPTIONS)
    verdicts: list[Prediction] = []
    with Pipeline(source, session, deadline_ms=2000) as pipeline:
        consumer = threading.Thread(target=lambda: verdicts.extend(pipeline))
        consumer.start()
        until(lambda: sum(verdict.accepted for verdict in verdicts) >= 10, "the stream is accepted")
        server.signal(how)
        until(lambda: source.status.state == "reconnecting", "the loss is noticed")
        time.sleep(0.1)  # for the frame that was being judged
        given = len(verdicts)
        time.sleep(1.5)
        assert len(verdicts) == given
        assert source.status.state == "reconnecting"
        if how == signal.SIGKILL:
            server.kill()
            back = server.restarted()
            server.process = back.process  # for the fixture to end
        else:
            server.signal(signal.SIGCONT)
        until(lambda: any(verdict.accepted for verdict in verdicts[given:]), "it is accepted again")
        assert source.status.reconnects == 1
    consumer.join(HANG)
    assert not consumer.is_alive()
    assert [verdict.frame_id for verdict in verdicts] == sorted({verdict.frame_id for verdict in verdicts})
    assert source.status.state == "closed"


def test_a_server_that_comes_back_with_another_size_is_the_wrong_size(server: RtspServer, tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "wide.avi", 400, 240)
    with SyntheticSource(400, 240, frames=60, realtime=False) as pattern:
        for frame in iter(pattern.read, None):
            assert frame is not None
            writer.write(frame.image)
    writer.release()
    with open_source(server.uri, OPTIONS) as source:
        health = CameraHealth(source.frame_size, source.fixed_size)
        frame = source.read()
        assert frame is not None
        assert Reason.WRONG_SIZE not in tuple(health.check(frame.image))
        server.kill()
        killed_ns = time.monotonic_ns()
        server.process = server.restarted(tmp_path / "wide.avi").process
        while source.status.reconnects == 0:
            frame = source.read()
        assert frame is not None
        assert killed_ns < frame.captured_ns <= time.monotonic_ns()
        assert frame.image.shape == (240, 400, 3)
        assert Reason.WRONG_SIZE in tuple(health.check(frame.image))


def test_rtsp_says_what_is_wrong(server: RtspServer) -> None:
    with pytest.raises(SourceError, match=r"the server answers 404 .*is the path right"):
        open_source(server.uri + "x", OPTIONS)


def test_rtsp_passwords_are_used_and_never_shown(clip: Path) -> None:
    server = RtspServer(clip, free_port(), "me:s3cret")
    try:
        right = server.uri.replace("//", "//me:s3cret@")
        until(lambda: opens(right), "the server serves")
        with open_source(right, OPTIONS) as source:
            assert source.name == server.uri.replace("//", "//me:***@")
            assert source.read() is not None
        with pytest.raises(SourceError, match=r"401 .*give user and password"):
            open_source(server.uri, OPTIONS)
        with pytest.raises(SourceError, match="did not take the one in the address") as caught:
            open_source(server.uri.replace("//", "//me:wr0ng@"), OPTIONS)
        assert "wr0ng" not in str(caught.value)
    finally:
        server.kill()


def test_what_does_not_speak_rtsp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for _ in range(2):  # FFmpeg's connection and the question afterwards
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                    connection.recv(1000)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(SourceError, match="does not speak RTSP"):
            open_source(f"rtsp://127.0.0.1:{listener.getsockname()[1]}/x", SourceOptions(open_timeout_s=1.0))
        thread.join(HANG)


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps"])
def test_a_server_that_says_nothing(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        uri = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/x"
        with pytest.raises(SourceError, match=r"no answer from 127\.0\.0\.1"):
            open_source(uri, SourceOptions(open_timeout_s=0.5, read_timeout_s=0.5))


def test_rtsps_to_something_without_tls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"RTSP/1.0 400 Bad Request\r\n\r\n")
                    connection.recv(1000)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(SourceError, match="does not speak TLS"):
            open_source(f"rtsps://127.0.0.1:{listener.getsockname()[1]}/x", SourceOptions(open_timeout_s=1.0))
        thread.join(HANG)


def test_an_opencv_that_would_mix_two_pictures_reads_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "__version__", "4.12.0")
    with pytest.raises(SourceError, match=r"needs OpenCV 4\.13 or newer.*rtspsrc location=rtsp://me:\*\*\*@camera/x"):
        open_source("rtsp://me:s3cret@camera/x")
    with pytest.raises(SourceError, match=r"needs OpenCV 4\.13 or newer.*opencv-python-headless$"):
        open_source("udp://127.0.0.1:5000")


def test_udp_says_what_is_wrong() -> None:
    quick = SourceOptions(open_timeout_s=0.3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        with pytest.raises(SourceError, match=f"another program listens at 127.0.0.1:{port}; is a second framegate"):
            open_source(f"udp://127.0.0.1:{port}", quick)
    with pytest.raises(SourceError, match=r"nothing that is a video arrived within 0\.3 s; does the sender run"):
        open_source(f"udp://127.0.0.1:{port}", quick)
    with pytest.raises(SourceError, match=rf"not an address of this machine.*udp://0\.0\.0\.0:{port}"):
        open_source(f"udp://192.0.2.7:{port}", quick)
    with pytest.raises(SourceError, match="there is no port in it"):
        open_source("udp://127.0.0.1", quick)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize(("first", "second"), [((320, 240), (640, 480)), ((640, 480), (320, 240))], ids=["up", "down"])
def test_a_size_that_changes_within_a_session_is_scaled_and_not_seen(
    tmp_path: Path, first: tuple[int, int], second: tuple[int, int]
) -> None:
    """What OpenCV does, written down: nobody is told, but every picture is whole and the newest one."""
    (tmp_path / "both.h264").write_bytes(h264(tmp_path, *first, 0, 40) + h264(tmp_path, *second, 40, 40))
    port = free_port()
    send = ["ffmpeg", "-loglevel", "error", "-re", "-f", "h264", "-framerate", "30", "-i", str(tmp_path / "both.h264")]
    send += ["-c", "copy", "-f", "mpegts", f"udp://127.0.0.1:{port}?pkt_size=1316"]
    sender = subprocess.Popen(send, stdin=subprocess.DEVNULL)
    try:
        with open_source(f"udp://127.0.0.1:{port}", SourceOptions(read_timeout_s=0.8, reconnect=False)) as source:
            assert source.frame_size == first
            frames: list[Frame] = []
            with pytest.raises(SourceError, match=r"nothing usable|broke off"):
                frames.extend(frame for frame in iter(source.read, None) if frame is not None)
    finally:
        sender.kill()
        sender.wait(HANG)
    assert {frame.image.shape[1::-1] for frame in frames} == {first}
    # Scaled, the strip is 8 or 32 rows high, and legible either way.
    seen = np.array([read_frame_number(frame.image) for frame in frames])
    assert seen[-1] == 79
    assert set(np.diff(seen)) == {1}


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_a_stream_without_a_key_frame_is_not_opened_without_its_size(tmp_path: Path) -> None:
    (tmp_path / "one.h264").write_bytes(h264(tmp_path, 320, 240, 0, 120, every=300))
    command = ["ffmpeg", "-loglevel", "error", "-f", "h264", "-framerate", "30", "-i", str(tmp_path / "one.h264")]
    command += ["-c", "copy", "-f", "mpegts", "-"]
    packets = subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL).stdout
    rest = packets[len(packets) // 2 // 188 * 188 :]  # tables come again every 0.1 s, the key frame does not
    port, enough = free_port(), threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for at in range(0, 1000 * 1316, 1316):
                if enough.wait(0.01):
                    return
                sender.sendto(rest[at % len(rest) :][:1316], ("127.0.0.1", port))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        with pytest.raises(SourceError, match="nothing that is a video arrived"):
            open_source(f"udp://127.0.0.1:{port}", SourceOptions(open_timeout_s=1.0))
    finally:
        enough.set()
        thread.join(HANG)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_mpeg_ts_over_udp_and_a_sender_that_dies(clip: Path) -> None:
    port = free_port()
    send = ["ffmpeg", "-loglevel", "error", "-re", "-stream_loop", "-1", "-i", str(clip), "-pix_fmt", "yuv420p"]
    send += ["-c:v", "mpeg2video", "-q:v", "3", "-g", "5", "-bf", "0", "-f", "mpegts"]
    send += [f"udp://127.0.0.1:{port}?pkt_size=1316"]
    sender = subprocess.Popen(send, stdin=subprocess.DEVNULL)
    try:
        with open_source(f"udp://127.0.0.1:{port}", SourceOptions(read_timeout_s=0.5, reconnect=False)) as source:
            frames = [frame for _ in range(20) if (frame := source.read()) is not None]
            seen = np.array([read_frame_number(frame.image) for frame in frames])
            assert set(np.diff(seen) % 150) == {1}
            sender.kill()
            with pytest.raises(SourceError, match=r"nothing usable for 0\.5 s|broke off"):
                list(iter(source.read, None))
    finally:
        sender.kill()
        sender.wait(HANG)
