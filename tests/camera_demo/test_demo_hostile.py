"""The demo with hostile labels and regions, and with a camera whose address holds secrets."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import re
import sys
import threading
import time

import cv2
import pytest
from forked_command import run_forked

from framegate.runtime.sources.synthetic import SyntheticSource

TITLE = "\x1b]0;owned\x07"
SOURCE = "synthetic://?width=320&height=240&fps=25"
SECRET = "S3CRET"
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def strings(value):
    """Every string of a record."""
    if isinstance(value, dict):
        return [each for pair in value.items() for part in pair for each in strings(part)]
    if isinstance(value, list):
        return [each for part in value for each in strings(part)]
    return [value] if isinstance(value, str) else []


def test_the_page_and_a_recording_show_labels_and_regions_as_text(start_demo, viewer, make_bundle, tmp_path):
    reader = pytest.importorskip("mcap.reader")

    def change(manifest):
        manifest["labels"] = [f"<img src=x onerror=alert(1)>{TITLE}", "[/x]\u202e", "a\nb"]
        manifest["name"] = f"<b>{TITLE}"

    video = tmp_path / "out.mcap"
    box = "[/x]<script>alert(1)</script>=0,0,160,240"
    words = ["--bundle", str(make_bundle(change=change)), "--roi", box, "--roi", "b=160,0,160,240"]
    demo = start_demo(SOURCE, *words, "--record", str(video))
    client = viewer(demo.address)
    client.until(lambda c: c.about and c.state["thumbnails"] and c.picture and c.picture["frame"] > 20)
    shown = strings([client.about, client.state, client.picture])
    assert [text for text in shown if _CONTROL.search(text) or "\n" in text] == []
    assert client.about["regions"] == ["[/x]<script>alert(1)</script>", "b"]
    assert client.about["model"] == "<b>\\x1b]0;owned\\x07"
    assert any(region["label"] for region in client.picture["regions"])
    client.close()
    code, said = demo.end()
    assert code == 130
    assert _CONTROL.search(said) is None
    assert "Traceback" not in said
    with video.open("rb") as file:
        topics = {channel.topic for _, channel, _ in reader.make_reader(file).iter_messages()}
    assert "/verdict/[/x]<script>alert(1)</script>" in topics


class Camera(http.server.BaseHTTPRequestHandler):
    """Motion JPEG for who has the password and the token."""

    def log_message(self, format, *words):
        pass

    def do_GET(self):
        given = self.headers.get("Authorization") or ""
        if given != "Basic " + base64.b64encode(f"me:{SECRET}".encode()).decode():
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        assert f"token={SECRET}" in self.path
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        with contextlib.suppress(OSError), SyntheticSource(320, 240, frames=100_000, realtime=True) as source:
            while not self.server.ended.is_set():
                picture = cv2.imencode(".jpg", source.read().image)[1].tobytes()
                head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture)
                self.wfile.write(head + picture + b"\r\n")


@pytest.fixture
def camera():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.daemon_threads = True
    server.ended = threading.Event()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.ended.set()
    server.shutdown()
    server.server_close()


def address_of(camera):
    return f"http://me:{SECRET}@127.0.0.1:{camera.server_port}/live?token={SECRET}&fps=5"


def test_no_secret_of_a_camera_is_on_the_page_or_in_a_recording(start_demo, viewer, camera, tiny_bundle, tmp_path):
    pytest.importorskip("mcap")
    recording = tmp_path / "out.mcap"
    words = ["--bundle", str(tiny_bundle), "--record", str(recording), "--timeout", "0.5"]
    demo = start_demo(address_of(camera), *words)
    client = viewer(demo.address)
    client.until(lambda c: c.about and c.picture and c.picture["frame"] > 5)
    assert client.about["source"] == f"http://me:***@127.0.0.1:{camera.server_port}/live?token=***&fps=5"
    camera.ended.set()  # now it breaks off, and the page says why
    client.until(lambda c: c.state["source"]["error"])
    shown = json.dumps([client.about, client.state, client.picture])
    client.close()
    time.sleep(0.5)
    code, said = demo.end()
    assert code == 130
    assert "trying to reconnect" in said
    assert SECRET not in shown + said
    assert SECRET.encode() not in recording.read_bytes()


def test_no_secret_of_a_camera_is_in_anything_that_a_run_writes(camera, tiny_bundle, tmp_path):
    words = ["--bundle", str(tiny_bundle), "--jsonl", str(tmp_path / "v.jsonl"), "--video", str(tmp_path / "v.mp4")]
    command = [sys.executable, "-m", "framegate.runtime.cli.main", "run", address_of(camera), *words, "--json"]
    threading.Timer(6.0, camera.ended.set).start()
    done = run_forked([*command, "--no-reconnect"], text=True)
    assert done.returncode == 1
    assert f"http://me:***@127.0.0.1:{camera.server_port}/live?token=***&fps=5" in done.stdout
    assert SECRET not in done.stdout + done.stderr
    files = list(tmp_path.iterdir())
    assert len(files) == 2
    for file in files:
        assert file.stat().st_size > 0
        assert SECRET.encode() not in file.read_bytes()
