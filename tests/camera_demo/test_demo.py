"""The demo as a process: what it streams, its buttons, its ends."""

from __future__ import annotations

import re
import signal
import socket
import struct
import threading
import time
import urllib.error
import urllib.request

import cv2
import numpy as np
import pytest
from recordings import frames_in, small_disk, verdict_lines

from framegate.camera_demo.shipped import BOXES, CLIP
from framegate.runtime.cli.main import main

SOURCE = "synthetic://?width=320&height=240&fps=25"


@pytest.fixture(scope="module")
def demo(tiny_bundle, demo_process):
    demo = demo_process(
        SOURCE, "--bundle", str(tiny_bundle), "--roi", "left=0,0,160,240", "--roi", "right=160,0,160,240"
    )
    yield demo
    code, said = demo.end()
    assert code == 130
    assert "Traceback" not in said


@pytest.fixture(scope="module")
def watching(demo, viewer):
    """One viewer for all tests: a demo opens 32 pages at once, and then one a second."""
    client = viewer(demo.address)
    yield client
    client.close()


@pytest.fixture
def client(watching):
    """It has just seen something, and no button is pressed."""
    watching.picture, watching.state, watching.image = {}, {}, None
    watching.until(lambda c: c.picture and c.state)
    yield watching
    watching.press("none")
    watching.state = {}
    watching.until(lambda c: c.state and c.state["faults"]["pressed"] == [])


def test_a_picture_comes_with_the_verdicts_on_it(client):
    client.until(lambda c: c.image is not None and c.about)
    assert client.image.shape == (240, 320, 3)
    assert [region["name"] for region in client.picture["regions"]] == ["left", "right"]
    assert client.picture["regions"][1]["box"] == [0.5, 0.0, 0.5, 1.0]
    for region in client.picture["regions"]:
        assert region["accepted"] == (not region["reasons"])
    assert client.about["charts"][0] == {
        "title": "Entropy (nats)",
        "low": None,
        "high": 0.5,
        "signal": "entropy",
        "caption": "How unsure the network is. Above the line: not used.",
    }
    first = client.picture["frame"]
    client.until(lambda c: c.picture["frame"] > first + 5)


def test_counters_histogram_and_charts_are_those_of_the_pipeline(client):
    client.until(lambda c: c.state.get("samples_seen", 0) > 10 and c.state["latency"]["bars"])
    counters, latency = client.state["counters"], client.state["latency"]
    assert counters["verdicts"] >= 2 * 10
    assert counters["captured"] * 2 >= counters["verdicts"] >= counters["accepted"]
    assert sum(latency["bars"]) == latency["frames"]
    assert 0 < latency["p50_ms"] <= latency["p99_ms"]
    assert client.state["source"]["state"] == "open"
    assert client.state["drift"].startswith("drift:")
    # A viewer that stays gets only what is new.
    seen = client.state["samples_seen"]
    client.take()
    client.until(lambda c: c.state["samples_seen"] > seen)
    assert len(client.state["samples"]) <= client.state["samples_seen"] - seen


@pytest.mark.parametrize(
    ("button", "reason"), [("black", "BLACK"), ("freeze", "FROZEN"), ("blur", "BLURRED"), ("size", "WRONG_SIZE")]
)
def test_a_fault_is_seen_and_goes_again(client, button, reason):
    client.until(lambda c: c.picture and "FROZEN" not in c.reasons() and c.picture["frame"] > 15)
    client.press(button, 4)
    client.until(lambda c: all(reason in region["reasons"] for region in c.picture["regions"]))
    client.until(lambda c: c.state["faults"]["pressed"] == [button])
    assert dict(client.state["reasons"])[reason] > 0
    client.until(lambda c: any(reason in shown["reasons"] for shown in c.state["thumbnails"]))
    client.press(button, 4)
    client.until(lambda c: reason not in c.reasons() and c.state["faults"]["pressed"] == [])


def test_noise_and_fog_reach_the_picture(client):
    client.until(lambda c: c.image is not None)
    clean = float(client.image.std())
    client.press("fog", 5)
    client.until(lambda c: float(c.image.std()) < 0.6 * clean)
    client.press("none")
    client.until(lambda c: float(c.image.std()) > 0.8 * clean)


def test_a_killed_camera_is_silent_and_comes_back_where_it_was(client):
    client.until(lambda c: c.picture)
    reconnects = client.state.get("source", {"reconnects": 0})["reconnects"]
    client.press("kill")
    client.until(lambda c: c.state["source"]["state"] == "reconnecting" and c.state["silent_ms"] > 500)
    captured, last = client.state["counters"]["captured"], client.picture["frame"]
    client.until(lambda c: c.state["silent_ms"] > 900)
    assert client.state["counters"]["captured"] == captured
    client.press("kill")
    client.until(lambda c: c.picture["frame"] > last and c.state["source"]["state"] == "open")
    assert client.state["source"]["reconnects"] == reconnects + 1
    number, client.state = client.picture["frame"], {}
    client.until(lambda c: c.state)
    assert number < client.state["counters"]["captured"]  # numbered on, without a gap


def test_a_slow_engine_is_late(client):
    client.press("slow")
    client.until(lambda c: c.picture and all("LATE" in region["reasons"] for region in c.picture["regions"]))
    client.press("none")
    client.until(lambda c: "LATE" not in c.reasons())


def test_a_viewer_that_stalls_holds_nobody_up(demo, client, viewer):
    stalled = viewer(demo.address, confirm=False)
    client.until(lambda c: c.picture)
    first = client.picture["frame"]
    client.until(lambda c: c.picture["frame"] > first + 40)
    got = 0
    while stalled.waits(0.5) and got < 10:
        got += 1
    assert got <= 3
    # It is given the newest picture when it goes on, not the ones in between.
    stalled.confirm = True
    for _ in range(got):
        stalled.socket.send('"shown"')
    client.until(lambda c: c.picture["frame"] > first + 45)
    stalled.until(lambda c: c.picture["frame"] > first + 30)
    stalled.close()


@pytest.mark.parametrize(
    "message",
    [
        "{",
        "[]",
        "7",
        b"\x00\xff",
        "[" * 250,
        '{"press": "nonsense", "severity": 3}',
        '{"press": "fog", "severity": 9}',
        '{"press": "fog", "severity": 1e999}',
        '{"press": "fog", "severity": NaN}',
    ],
)
def test_a_message_that_is_none_of_the_page_ends_that_viewer_only(demo, viewer, client, message):
    from websockets.exceptions import ConnectionClosed

    bad = viewer(demo.address)
    bad.socket.send(message)
    with pytest.raises(ConnectionClosed) as caught:
        bad.until(lambda c: False)
    assert caught.value.rcvd.code == 1008
    client.picture = {}
    client.until(lambda c: c.picture)


def shake_hands(address):
    """A stream opened by hand: the socket after the server's answer."""
    host, port = re.search(r"//(.*):(\d+)/", address).groups()
    raw = socket.create_connection((host, int(port)), timeout=20)
    raw.sendall(
        f"GET /stream HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    assert raw.recv(12) == b"HTTP/1.1 101"
    return raw


@pytest.mark.parametrize("last", [b"", b"\x00\x01 no frame of the protocol", b"\x81\xfe\xff\xff"])
def test_a_viewer_that_vanishes_or_sends_garbage_disturbs_nobody(demo, client, last):
    raw = shake_hands(demo.address)
    raw.recv(500)  # in the middle of a message
    if last:
        raw.sendall(last)
        while raw.recv(65536):  # the server ends it
            pass
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # gone without a farewell
    raw.close()
    client.picture = {}
    client.until(lambda c: c.picture)


def test_the_page_and_its_files_come_from_here_alone(demo):
    for name, kind in (("", "text/html"), ("page/demo.js", "text/javascript"), ("page/demo.css", "text/css")):
        with urllib.request.urlopen(demo.address + name, timeout=20) as answer:
            assert answer.headers["Content-Type"].startswith(kind)
            assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
            text = answer.read().decode()
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in text
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(demo.address + "page/../board.py", timeout=20)
    assert caught.value.code == 404


def test_a_clip_that_ends_says_so_and_leaves_no_thread(tiny_bundle, capsys):
    before = set(threading.enumerate())
    assert (
        main(
            [
                "demo",
                SOURCE + "&frames=8",
                "--once",
                "--bundle",
                str(tiny_bundle),
                "--port",
                "0",
                "--backend",
                "onnxruntime",
            ]
        )
        == 0
    )
    assert "the source has ended" in capsys.readouterr().err
    assert {thread.name for thread in set(threading.enumerate()) - before} == set()


def test_viewers_are_told_why_it_ends_and_a_recording_is_whole(start_demo, viewer, tiny_bundle, tmp_path):
    video = tmp_path / "out.mp4"
    demo = start_demo(SOURCE, "--bundle", str(tiny_bundle), "--record", str(video))
    client = viewer(demo.address)
    client.until(lambda c: c.picture and c.picture["frame"] > 10)
    demo.process.send_signal(signal.SIGTERM)
    client.until(lambda c: c.ended)
    assert client.ended == "the demo was ended"
    code, said = demo.end(None)
    assert code == 143
    assert "Traceback" not in said
    assert frames_in(video) > 5


@pytest.mark.parametrize(
    ("name", "number"), [("out.mp4", signal.SIGINT), ("out.mcap", signal.SIGTERM), ("out.mp4", signal.SIGHUP)]
)
def test_a_recording_is_finished_however_often_the_demo_is_ended(
    start_demo, viewer, tiny_bundle, tmp_path, name, number
):
    if name.endswith("mcap"):
        pytest.importorskip("mcap")
    demo = start_demo(SOURCE, "--bundle", str(tiny_bundle), "--record", str(tmp_path / name))
    client = viewer(demo.address)
    client.until(lambda c: c.picture and c.picture["frame"] > 10)
    for _ in range(100):  # somebody who is impatient
        if demo.process.poll() is None:
            demo.process.send_signal(number)
        time.sleep(0.01)
    code, said = demo.end(None)
    assert code == 128 + number
    assert "Traceback" not in said
    assert "the demo was ended" in said
    assert frames_in(tmp_path / name) > 5


def test_fault_disk_full_the_demo_goes_on_and_its_exit_code_says_so(tiny_bundle, tmp_path, capsys):
    with small_disk(tmp_path / "disk", 100) as disk:
        video, jsonl = disk / "out.mp4", tmp_path / "v.jsonl"
        source = SOURCE + "&frames=120"
        outputs = ["--record", str(video), "--jsonl", str(jsonl)]
        code = main(["demo", source, "--once", "--bundle", str(tiny_bundle), "--port", "0", *outputs])
        said = capsys.readouterr().err
        assert code == 1
        assert f"video {video}: writing failed (No space left on device)" in said
        assert "the source has ended" in said
        assert len(verdict_lines(jsonl)) > frames_in(video) + 20


def test_two_demos_do_not_take_each_others_port(start_demo, tiny_bundle, capsys):
    first = start_demo(SOURCE, "--bundle", str(tiny_bundle))
    port = re.search(r":(\d+)/", first.address).group(1)
    assert main(["demo", SOURCE, "--bundle", str(tiny_bundle), "--port", port]) == 1
    assert f"port {port} on 127.0.0.1 is in use, perhaps by another demo" in capsys.readouterr().err
    assert first.end()[0] == 130


def test_a_source_that_breaks_off_ends_with_its_message(start_demo, viewer, tiny_bundle, tmp_path):
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (320, 240))
    rng = np.random.default_rng(0)
    for _ in range(60):
        writer.write(rng.integers(0, 255, (240, 320, 3), np.uint8))
    writer.release()
    with clip.open("r+b") as file:
        file.truncate(clip.stat().st_size // 2)
    demo = start_demo(str(clip), "--bundle", str(tiny_bundle))
    client = viewer(demo.address)
    client.until(lambda c: c.ended)
    assert "broke off after frame" in client.ended
    code, said = demo.end(None)
    assert code == 1
    assert "broke off after frame" in said


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["no-such.mp4"], 1, "there is no such file"),
        (["/dev/video99"], 1, "/dev/video99"),
        ([SOURCE, "--port", "70000"], 2, "expected 0 to 65535"),
        ([SOURCE, "--host", "no.such.host.invalid"], 2, "no such name or address"),
        ([SOURCE, "--deadline-ms", "0"], 2, "positive"),
        ([SOURCE, "--roi", "0,0,4000,10"], 2, "reaches outside"),
        ([SOURCE, "--record", "out.gif"], 2, "use .mp4, .mkv, .avi or .mcap"),
        ([SOURCE, "--record", "/no/such/folder/out.mcap"], 1, "cannot be written"),
        ([SOURCE, "--bundle", "no.bundle"], 1, "no.bundle"),
    ],
)
def test_wrong_usage_is_one_line_and_leaves_no_thread(tiny_bundle, capsys, arguments, code, words):
    port = [] if "--port" in arguments else ["--port", "0"]
    bundle = [] if "--bundle" in arguments else ["--bundle", str(tiny_bundle)]
    before = set(threading.enumerate())
    assert main(["demo", *arguments, *bundle, *port, "--backend", "onnxruntime"]) == code
    out, err = capsys.readouterr()
    assert words in err.splitlines()[-1]
    assert "http://" not in out
    assert {thread.name for thread in set(threading.enumerate()) - before} == set()


def test_a_port_in_use_is_said_before_anything_is_opened(tiny_bundle, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["demo", "no-such.mp4", "--bundle", str(tiny_bundle), "--port", str(port)]) == 1
    said = capsys.readouterr().err
    assert f"port {port} on 127.0.0.1 is in use" in said
    assert "--port 0" in said


def test_without_a_source_it_plays_the_clip_of_the_repository(start_demo, viewer):
    demo = start_demo()
    client = viewer(demo.address)
    client.until(lambda c: c.about and c.picture)
    assert client.about["model"] == "hybrid-cifar10"
    assert client.about["source"] == "highway_1280x720_25fps.mp4"
    # Sky and road stay where they are, the cars move and have tracks; LATE is the fault of a busy machine.
    shown = {region["name"]: region for region in client.picture["regions"]}
    assert "HIGH_SCORE" in shown.pop("sky")["reasons"]
    assert "HIGH_SCORE" in shown.pop("road")["reasons"]
    assert shown
    assert all(re.fullmatch(r"([A-Z] · )?track-\d+", name) and each["detected"] for name, each in shown.items()), shown
    client.until(lambda c: any(each["accepted"] and each["label"] == "automobile" for each in c.picture["regions"]))
    assert client.about["moving"]
    client.close()


def test_regions_beside_objects_have_lines_of_their_own(start_demo, viewer):
    demo = start_demo(str(CLIP), "--objects", str(BOXES), "--roi", "sky=0.2,0.0,0.2,0.3")
    client = viewer(demo.address)
    client.until(lambda c: c.about and c.picture)
    assert client.about["regions"] == ["sky", "object A", "object B", "object C"]
    assert "sky" in [region["name"] for region in client.picture["regions"]]
    client.close()


def test_other_machines_need_the_token_that_was_printed(start_demo, viewer, tiny_bundle):
    demo = start_demo(SOURCE, "--bundle", str(tiny_bundle), "--host", "0.0.0.0")
    port, token = re.search(r":(\d+)/\?token=(\S+)", demo.address).groups()
    assert len(token) >= 20
    address = f"http://127.0.0.1:{port}/"
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(address + "?token=wrong", timeout=20)
    assert caught.value.code == 403
    client = viewer(address + "?token=" + token)
    client.until(lambda c: c.picture)
    client.close()
