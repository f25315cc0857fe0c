"""GStreamer pipelines: their text everywhere, real ones where some Python on this machine has an OpenCV with GStreamer.

The wheels of opencv-python have none. Debian's python3-opencv has (with gstreamer1.0-plugins-base), so the system's
Python runs framegate's sources in a child process.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest
import rich

import framegate.cuda_kernels
import framegate.runtime
from framegate.runtime.errors import SourceError, UsageError
from framegate.runtime.sources.gstreamer import csi_pipeline, with_sink
from framegate.runtime.sources.open import open_source
from framegate.runtime.sources.options import SourceOptions

HAS_GSTREAMER = "GStreamer:                   YES" in cv2.getBuildInformation()
PROBE = "import cv2, re; assert re.search(r'GStreamer:\\s+YES', cv2.getBuildInformation())"
START = """
import json, sys, threading, time
sys.path.append(sys.argv[1])  # behind the system's packages: only what those lack comes from here
import numpy as np
from framegate.runtime.errors import FramegateError
from framegate.runtime.pixel_format import frame_size, to_bgr
from framegate.runtime.sources.open import open_source
from framegate.runtime.sources.options import SourceOptions

def take(source, count):
    return [frame for _ in range(count) if (frame := source.read()) is not None]

def tell(**facts):
    print(json.dumps(facts))
"""
LIVE = "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=30/1"


@functools.cache
def capable_python() -> str:
    for candidate in (sys.executable, "/usr/bin/python3"):
        try:
            done = subprocess.run([candidate, "-c", PROBE], capture_output=True, timeout=60, check=False)
        except OSError:
            continue
        if done.returncode == 0:
            return candidate
    return ""


def run_child(code: str, tmp_path: Path) -> dict[str, Any]:
    if not capable_python():
        pytest.skip("no Python here has an OpenCV with GStreamer (Debian: python3-opencv)")
    (tmp_path / "framegate").mkdir()
    for room in (framegate.runtime, framegate.cuda_kernels):
        folder = Path(str(room.__file__)).parent
        (tmp_path / "framegate" / room.__name__.rpartition(".")[2]).symlink_to(folder)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    packages = str(Path(str(rich.__file__)).parents[1])
    command = [capable_python(), "-c", START + code, packages]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_a_pipeline_delivers_bgr_and_the_newest_frame(tmp_path: Path) -> None:
    found = run_child(
        f"""
with open_source({LIVE!r}) as source:
    take(source, 5)
    time.sleep(0.5)   # fifteen frames pass by
    frames = take(source, 5)
tell(size=source.frame_size, live=source.live, fps=source.fps, ids=[f.frame_id for f in frames],
     shapes=[f.image.shape for f in frames], different=len({{f.image.tobytes() for f in frames}}),
     state=source.status.state, threads=threading.active_count())
""",
        tmp_path,
    )
    assert found == {
        "size": [320, 240],
        "live": True,
        "fps": 30.0,
        "ids": list(range(5, 10)),
        "shapes": [[240, 320, 3]] * 5,
        "different": 5,
        "state": "closed",
        "threads": 1,
    }


def test_a_pipeline_delivers_nv12_that_shows_the_same(tmp_path: Path) -> None:
    found = run_child(
        f"""
still = {LIVE.replace("ball", "smpte")!r}
with open_source(still, SourceOptions(format="nv12")) as source:
    (ours,) = take(source, 1)
    size = source.frame_size
with open_source(still) as source:
    (theirs,) = take(source, 1)
apart = np.abs(to_bgr(ours).image[:150].astype(int) - theirs.image[:150]).mean()  # above the snow
tell(format=ours.pixel_format, shape=ours.image.shape, size=size, shows=frame_size(ours), apart=float(apart))
""",
        tmp_path,
    )
    assert found.pop("apart") < 6
    assert found == {"format": "nv12", "shape": [360, 320], "size": [320, 240], "shows": [320, 240]}


def test_a_pipeline_that_ends_starts_again_or_is_an_error(tmp_path: Path) -> None:
    found = run_child(
        f"""
short = {LIVE.replace("videotestsrc", "videotestsrc num-buffers=8")!r}
with open_source(short) as source:
    frames = take(source, 12)
    again = source.status.reconnects
with open_source(short, SourceOptions(reconnect=False)) as source:
    try:
        count = len(take(source, 12))
    except FramegateError as error:
        message = str(error)
tell(ids=[f.frame_id for f in frames], again=again, message=message, state=source.status.state)
""",
        tmp_path,
    )
    assert found["ids"] == list(range(12))
    assert found["again"] >= 1
    assert "stopped delivering" in found["message"]
    assert found["state"] == "failed"


def test_a_pipeline_that_changes_size_is_seen_to(tmp_path: Path) -> None:
    found = run_child(
        """
from framegate.runtime.health.check import CameraHealth
pipeline = ("videotestsrc num-buffers=20 pattern=snow ! video/x-raw,width=320,height=240 ! videoscale ! capsfilter "
            "caps=video/x-raw,width=320,height=240 ! c. concat name=c "
            "videotestsrc num-buffers=20 pattern=snow ! video/x-raw,width=160,height=120 ! c. c. ! videoconvert "
            "! video/x-raw,format=BGR ! appsink sync=false")
with open_source(pipeline, SourceOptions(reconnect=False)) as source:
    health = CameraHealth(source.frame_size)
    reasons = [[str(r) for r in tuple(health.check(f.image))] for f in take(source, 40)]
tell(reasons=reasons)
""",
        tmp_path,
    )
    # Snow is no good picture, whatever its size.
    assert ["WRONG_SIZE" in reasons for reasons in found["reasons"]] == [False] * 20 + [True] * 20


def test_a_pipeline_that_cannot_run_says_how_to_find_out(tmp_path: Path) -> None:
    found = run_child(
        """
messages = []
for uri in ("videotestsrc ! nosuchelement", "csi://0"):
    try:
        open_source(uri, SourceOptions(read_timeout_s=2.0))
    except FramegateError as error:
        messages.append(str(error))
tell(messages=messages)
""",
        tmp_path,
    )
    assert "does not run; `gst-launch-1.0 videotestsrc ! nosuchelement" in found["messages"][0]
    assert "csi://0 does not run; `gst-launch-1.0 nvarguscamerasrc" in found["messages"][1]


SILENT = """
import cv2, os
reads, writes = os.pipe()
pipeline = (f"fdsrc fd={reads} blocksize=12288 ! rawvideoparse width=64 height=64 format=bgr framerate=30/1 "
            "! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false")
speaks = threading.Event()

def send():
    while True:
        speaks.wait()
        os.write(writes, os.urandom(12288))
        time.sleep(0.02)

def until(holds):
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)

threading.Thread(target=send, daemon=True).start()
before = threading.active_count()
"""


def test_a_pipeline_that_falls_silent_breaks_off_and_comes_back(tmp_path: Path) -> None:
    found = run_child(
        SILENT
        + """
speaks.set()
source = open_source(pipeline, SourceOptions(read_timeout_s=0.6))
frames = take(source, 5)
speaks.clear()
reader = threading.Thread(target=lambda: frames.extend(iter(source.read, None)))
reader.start()
until(lambda: source.status.state == "reconnecting")
held = len(frames)
first = source.status.error
time.sleep(1.2)
more, last, threads = len(frames) - held, source.status.error, threading.active_count()
speaks.set()
until(lambda: len(frames) >= held + 5)
reconnects, state = source.status.reconnects, source.status.state
source.close()
reader.join(20)
until(lambda: threading.active_count() == before)
tell(first=first, more=more, last=last, extra=threads - before, reconnects=reconnects, state=state,
     ids=[f.frame_id for f in frames] == list(range(len(frames))),
     old=tuple(map(int, cv2.__version__.split(".")[:2])) < (4, 7))
""",
        tmp_path,
    )
    assert "delivered nothing for 0.6 s" in found["first"] or not found["old"]
    assert "is silent, and OpenCV" in found["last"] or not found["old"]
    assert found["more"] == 0
    assert found["extra"] <= 2  # the reader, and the one that cannot be called off
    assert (found["reconnects"], found["state"], found["ids"]) == (1, "open", True)


def test_a_pipeline_that_is_silent_from_the_start_is_an_error_and_the_process_ends(tmp_path: Path) -> None:
    found = run_child(
        SILENT
        + """
begun = time.monotonic()
try:
    with open_source(pipeline, SourceOptions(read_timeout_s=0.6, reconnect=False)) as source:
        take(source, 1)
except FramegateError as error:
    tell(message=str(error))
""",
        tmp_path,
    )
    assert "delivered nothing for 0.6 s" in found["message"] or "does not run" in found["message"]


@pytest.mark.skipif(HAS_GSTREAMER, reason="this OpenCV has GStreamer")
@pytest.mark.parametrize("uri", ["csi://0", "gst://videotestsrc", "videotestsrc ! video/x-raw,width=640"])
def test_without_gstreamer_the_message_says_what_to_do(uri: str) -> None:
    with pytest.raises(SourceError, match=r"needs GStreamer, and this OpenCV .* was built without it.*python3-opencv"):
        open_source(uri)


def test_the_csi_pipeline() -> None:
    wishes = SourceOptions(size=(1920, 1080), fps=29.97, exposure_ms=5)
    assert csi_pipeline("csi://1", "1", wishes) == (
        'nvarguscamerasrc sensor-id=1 aelock=true exposuretimerange="5000000 5000000" '
        "! video/x-raw(memory:NVMM),width=1920,height=1080,framerate=29970/1000,format=NV12 "
        "! nvvidconv ! video/x-raw,format=NV12 ! appsink drop=true max-buffers=1 sync=false"
    )
    assert "width=1280,height=720,framerate=30/1" in csi_pipeline("csi://0", "0", SourceOptions())


def test_a_sink_is_added_only_where_there_is_none() -> None:
    own = "videotestsrc ! videoconvert ! video/x-raw,format=BGR ! appsink"
    assert with_sink(own, None) == (own, False)
    assert with_sink("a ! b", None) == (
        "a ! b ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false",
        False,
    )
    assert with_sink("a ! b", "nv12")[1]


@pytest.mark.parametrize(
    ("uri", "options", "says"),
    [
        ("csi://x", SourceOptions(), "expected csi://0"),
        ("csi://", SourceOptions(), "expected csi://0"),
        ("csi://0?format=mjpeg", SourceOptions(), "delivers nv12, not mjpeg"),
        ("csi://0?speed=3", SourceOptions(), "unknown parameter 'speed'"),
        ("csi://0", SourceOptions(buffers=4), "has no buffers"),
        ("gst://", SourceOptions(), "needs a pipeline behind it"),
        ("a ! b", SourceOptions(size=(640, 480)), "has no size"),
        ("a ! b", SourceOptions(format="yuyv"), "not yuyv"),
    ],
)
def test_wrong_wishes_are_wrong_usage(uri: str, options: SourceOptions, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        open_source(uri, options)
