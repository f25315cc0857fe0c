"""Files of people: what is taken, what is refused and with which words, and that a decoder's end is only its own."""

from __future__ import annotations

import http.client
import json
import struct
import subprocess
import sys

import cv2
import pytest

from framegate.camera_demo import own_file
from framegate.camera_demo.own_file import BROKEN, MOST_FILE_BYTES, Judge, OwnFiles, kind_of
from framegate.camera_demo.viewers import Viewers
from framegate.camera_demo.web_app import make_app
from framegate.camera_demo.web_server import WebServer, listen


@pytest.mark.parametrize(
    ("beginning", "ending", "words"),
    [
        (b"\xff\xd8\xff\xe0" + bytes(12), ".jpg", ""),
        (b"\x89PNG\r\n\x1a\n" + bytes(8), ".png", ""),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 ", ".webp", ""),
        (b"RIFF\x10\x00\x00\x00AVI LIST", ".avi", ""),
        (b"\x00\x00\x00\x18ftypmp42\x00\x00\x00\x00", ".mp4", ""),
        (b"\x1a\x45\xdf\xa3" + bytes(12), ".mkv", ""),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "", "HEIC"),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", "", "expected a picture"),
        (b"#EXTM3U\n/etc/pas", "", "neither a picture"),
        (b"ffconcat version", "", "neither a picture"),
        (b"<svg xmlns='http", "", "neither a picture"),
        (b"", "", "empty"),
        (b"\x00", "", "neither"),
    ],
)
def test_only_what_has_a_signature_meets_a_decoder(beginning, ending, words):
    found, why = kind_of(beginning)
    assert found == ending
    assert words in why


@pytest.fixture
def serve():
    """A server that takes files: (judge or None, token) to its port."""
    running = []

    def start(judge, token=None):
        files = None if judge is None else OwnFiles(judge)
        app = make_app(Viewers(), lambda seen: {}, lambda name, severity: None, token, own_files=files)
        server = WebServer(app, listen("127.0.0.1", 0))
        server.start()
        running.append(server)
        return server.address[1]

    yield start
    for server in running:
        server.stop()


def bring(port, data, query="", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", "/own" + query, data, {"Host": f"127.0.0.1:{port}", **headers})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def records(body):
    found = []
    while body:
        (length,) = struct.unpack_from(">I", body)
        (head,) = struct.unpack_from(">I", body, 4)
        found.append(json.loads(body[8 : 8 + head]))
        body = body[4 + length :]
    return found


NOBODY = Judge("nowhere.bundle", "openvino", "int8")


def test_who_may_not_is_told_why(serve):
    port = serve(None)
    status, body = bring(port, b"x")
    assert status == 403
    assert b"--own-files" in body
    port = serve(NOBODY, "secret")
    assert bring(port, b"x")[0] == 403
    assert bring(port, b"x", "?token=secret", Origin="http://evil.example")[0] == 403
    assert bring(port, b"x", "?token=secret")[0] == 200


def test_size_kind_and_pace_are_limited(serve, monkeypatch):
    monkeypatch.setattr("framegate.camera_demo.web_app._OWN_AT_ONCE", 3.0)
    monkeypatch.setattr("framegate.camera_demo.web_app._OWN_PER_S", 1e-9)
    port = serve(NOBODY)
    status, body = bring(port, b"", **{"Content-Length": str(MOST_FILE_BYTES + 1)})
    assert (status, b"larger than 32 MiB" in body) == (413, True)
    status, body = bring(port, b"", **{"Content-Length": "many"})
    assert status in (400, 413)
    status, body = bring(port, b"GIF89a" + bytes(3_000_000))  # far more than any other request may bring
    assert status == 200
    assert "neither a picture" in records(body)[0]["refused"]
    assert bring(port, b"x")[0] == 200
    assert bring(port, b"x")[0] == 429


def test_fault_the_deciding_process_dies_and_nothing_is_left(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(own_file.tempfile, "tempdir", str(tmp_path))
    port = serve(NOBODY)  # it cannot open this bundle: one sentence
    (record,) = records(bring(port, b"\xff\xd8\xff" + bytes(100))[1])
    assert "nowhere" in record["refused"]
    monkeypatch.setattr(own_file.sys, "executable", "/bin/false")  # as one that a file made crash
    assert records(bring(port, b"\xff\xd8\xff" + bytes(100))[1]) == [{"refused": BROKEN}]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("deed", ["mmap.mmap(-1, 3 * 2**30)", "open('left', 'wb', 0).write(b'x')"])
def test_fault_the_deciding_process_takes_neither_memory_without_end_nor_a_byte_of_the_disk(deed, tmp_path):
    script = f"""
import mmap, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error that can be seen in place of the process's end
from framegate.camera_demo.own_file_process import limit
mmap.mmap(-1, 3 * 2**30).close()  # what the machine itself allows
limit()
mmap.mmap(-1, 2**28).close()  # room for a picture
try:
    {deed}
except (MemoryError, OSError) as error:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "refused\n", done.stderr


@pytest.mark.slow
def test_pictures_and_clips_are_judged_as_the_command_line_does(serve, tiny_bundle, tmp_path, blue_scene):
    port = serve(Judge(str(tiny_bundle), "openvino", "fp32"))
    picture = cv2.imencode(".png", blue_scene(0))[1].tobytes()
    about, frame, end = records(bring(port, picture)[1])
    assert about["clip"] is False
    assert frame["regions"][0]["whole"]
    assert end == {"judged": 1, "cut": ""}
    (_, refused) = records(bring(port, picture[: len(picture) // 2])[1])
    assert "cannot be decoded" in refused["refused"]
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 25, blue_scene(0).shape[1::-1])
    for k in range(6):
        writer.write(blue_scene(k))
    writer.release()
    found = records(bring(port, clip.read_bytes())[1])
    assert [record["frame"] for record in found[1:-1]] == list(range(6))
    assert found[-1]["judged"] == 6
