"""OpenCV's real V4L2 code over an emulated driver (v4l2_emulator.c), and over a v4l2loopback device where there is one.

The emulator is preloaded, hence the child processes. It answers for /dev/full.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from repository import HELPERS

from framegate.runtime.sources.open import open_source
from framegate.runtime.sources.options import SourceOptions
from framegate.runtime.sources.synthetic import SyntheticSource, read_frame_number

HANG = 60.0
START = """
import json, os, threading, time
from pathlib import Path
from framegate.runtime.errors import FramegateError
from framegate.runtime.sources.camera import CameraSource
from framegate.runtime.sources.options import SourceOptions
from framegate.runtime.sources.synthetic import read_frame_number

def camera(**options):
    return CameraSource("/dev/full", SourceOptions(**options))

def is_now(how):
    Path(os.environ["V4L2_CONTROL"]).write_text(how)

def take(source, count):
    return [frame for _ in range(count) if (frame := source.read()) is not None]

def shown(frames):
    return [read_frame_number(frame.image) for frame in frames]

def age_ms(frame):
    return (time.monotonic_ns() - frame.captured_ns) / 1e6

def refusal(**options):
    try:
        camera(**options).close()
    except FramegateError as error:
        return str(error)

def tell(**facts):
    print(json.dumps({**facts, "threads": threading.active_count()}))
"""


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not Path("/usr/include/linux/videodev2.h").exists():
        pytest.skip("the emulated camera needs a C compiler and the kernel's headers")
    library = tmp_path_factory.mktemp("emulator") / "v4l2_emulator.so"
    source = HELPERS / "v4l2_emulator.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    with SyntheticSource(320, 240, realtime=False) as pattern:
        frames = [pattern.read() for _ in range(8)]
    assert frames[7] is not None
    cv2.imwrite(str(library.with_suffix(".jpg")), frames[7].image)
    return library


def start_child(emulator: Path, tmp_path: Path, code: str, **settings: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "LD_PRELOAD": str(emulator),
        "V4L2_CONTROL": str(tmp_path / "control"),
        "V4L2_JPEG": str(emulator.with_suffix(".jpg")),
        **settings,
    }
    command = [sys.executable, "-c", START + code]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def run_child(emulator: Path, tmp_path: Path, code: str, **settings: str) -> tuple[dict[str, Any], str]:
    (tmp_path / "control").write_text("ok")
    child = start_child(emulator, tmp_path, code, **settings)
    try:
        said, told = child.communicate(timeout=HANG)
    finally:
        child.kill()
    assert child.returncode == 0, told
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    assert found.pop("threads") == 1
    return found, told


def test_formats_sizes_buffers_and_exposure_reach_the_driver(emulator: Path, tmp_path: Path) -> None:
    found, told = run_child(
        emulator,
        tmp_path,
        """
facts = {}
for name, options in {
    "plain": {}, "yuyv": {"format": "yuyv", "size": (320, 240), "fps": 30.0}, "nv12": {"format": "nv12", "buffers": 3},
    "mjpeg": {"format": "mjpeg", "size": (320, 240)}, "exposed": {"exposure_ms": 5, "skip": 3},
}.items():
    with camera(**options) as source:
        frames = take(source, 6)
        facts[name] = [source.frame_size, source.fps, frames[0].pixel_format, frames[0].image.shape, shown(frames)]
tell(**facts)
""",
    )
    for name, facts in found.items():
        numbers = np.array(facts.pop())
        assert set(np.diff(numbers)) <= ({0} if name == "mjpeg" else {1, 2}), numbers  # 2: this machine was busy
    assert found == {
        "plain": [[640, 480], 30.0, "bgr", [480, 640, 3]],
        "yuyv": [[320, 240], 30.0, "bgr", [240, 320, 3]],
        "nv12": [[640, 480], 30.0, "nv12", [720, 640]],
        "mjpeg": [[320, 240], 30.0, "bgr", [240, 320, 3]],
        "exposed": [[640, 480], 30.0, "bgr", [480, 640, 3]],
    }
    assert "control auto 1\ncontrol exposure 50\n" in told
    assert "buffers 1\n" in told
    assert "buffers 3\n" in told


def test_capture_times_are_the_drivers_where_they_can_be_believed(emulator: Path, tmp_path: Path) -> None:
    found, _ = run_child(
        emulator,
        tmp_path,
        """
facts = {}
with camera() as source:
    for how in ("ok", "late", "realtime", "unstamped", "ok"):
        is_now(how)
        take(source, 2)
        (frame,) = take(source, 1)
        facts[how] = [age_ms(frame), source.status.timestamps]
tell(**facts)
""",
    )
    sources = {how: facts[1] for how, facts in found.items()}
    assert sources == {"ok": "driver", "late": "driver", "realtime": "arrival", "unstamped": "arrival"}
    assert found["ok"][0] >= 20
    assert found["late"][0] >= 300
    assert found["realtime"][0] >= 0


def test_a_camera_that_is_unplugged_comes_back(emulator: Path, tmp_path: Path) -> None:
    found, told = run_child(
        emulator,
        tmp_path,
        """
source = camera(skip=0)
before = take(source, 5)
is_now("gone")
later = []
reader = threading.Thread(target=lambda: later.extend(iter(source.read, None)))
reader.start()
while source.status.state != "reconnecting":
    time.sleep(0.01)
held = len(later)
time.sleep(0.9)
meanwhile, error = len(later) - held, source.status.error
is_now("ok")
while len(later) < held + 5:
    time.sleep(0.01)
age, state, reconnects = age_ms(later[-1]), source.status.state, source.status.reconnects
source.close()
reader.join(20)
frames = before + later
tell(meanwhile=meanwhile, error=error, state=state, reconnects=reconnects, ids=[f.frame_id for f in frames][:10],
     age=age, stamps=source.status.timestamps,
     forwards=all(a.captured_ns < b.captured_ns for a, b in zip(frames, frames[1:])))
""",
    )
    assert found["meanwhile"] == 0
    assert "camera /dev/full" in found["error"]
    assert "No such device" in found["error"]
    assert (found["state"], found["reconnects"], found["ids"]) == ("open", 1, list(range(10)))
    assert found["stamps"] == "driver"  # which are 20 ms old here
    assert 20 <= found["age"] < 800  # less than the time it was away
    assert found["forwards"]
    assert "trying to reconnect, no frames meanwhile" in told
    assert "delivers again" in told


def test_a_silent_camera_breaks_off(emulator: Path, tmp_path: Path) -> None:
    found, _ = run_child(
        emulator,
        tmp_path,
        """
source = camera(reconnect=False)
take(source, 3)
is_now("silent")
try:
    take(source, 3)
except FramegateError as error:
    tell(message=str(error), state=source.status.state)
source.close()
""",
        OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT="1",
    )
    assert "stopped delivering" in found["message"]
    assert found["state"] == "failed"


def test_a_damaged_jpeg_is_bad_input_and_not_completed_with_the_one_before(emulator: Path, tmp_path: Path) -> None:
    picture = emulator.with_suffix(".jpg").read_bytes()
    larger = cv2.imencode(".jpg", np.full((480, 640, 3), 99, np.uint8))[1].tobytes()
    pictures = {
        "whole": picture,
        "half": picture[: len(picture) // 2],
        "empty": b"",
        "noise": os.urandom(5000),
        "padded": picture + bytes(3000),
        "larger": larger,
    }
    for name, data in pictures.items():
        (tmp_path / f"{name}.jpg").write_bytes(data)
    found, _ = run_child(
        emulator,
        tmp_path,
        """
folder = Path(os.environ["V4L2_JPEG"]).parent
facts = {}
with camera(format="mjpeg", size=(320, 240), reconnect=False) as source:
    for name in ("whole", "half", "empty", "noise", "padded", "larger"):
        (folder / "now.tmp").write_bytes((folder / f"{name}.jpg").read_bytes())
        (folder / "now.tmp").rename(folder / "now.jpg")
        take(source, 1)
        (frame,) = take(source, 1)
        facts[name] = [frame.image.shape, shown([frame])[0] if frame.image.size else None]
tell(**facts)
""",
        V4L2_JPEG=str(tmp_path / "now.jpg"),
    )
    damaged = [[0, 0, 3], None]
    assert found.pop("larger")[0] == [480, 640, 3]
    good = [[240, 320, 3], 7]
    assert found == {"whole": good, "half": damaged, "empty": damaged, "noise": damaged, "padded": good}


def test_a_camera_that_another_process_uses_is_refused_until_that_ends(emulator: Path, tmp_path: Path) -> None:
    (tmp_path / "control").write_text("ok")
    first = start_child(
        emulator,
        tmp_path,
        """
with camera() as source:
    take(source, 3)
    print("streaming", flush=True)
    input()
""",
    )
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == "streaming\n"
        found, _ = run_child(emulator, tmp_path, "tell(busy=refusal())")
        assert "another program may be using it" in found["busy"]
        first.communicate("\n", timeout=HANG)
        assert first.returncode == 0
        found, _ = run_child(emulator, tmp_path, "tell(busy=refusal())")
        assert found["busy"] is None
    finally:
        first.kill()


def test_what_a_camera_does_not_do_is_refused(emulator: Path, tmp_path: Path) -> None:
    found, _ = run_child(
        emulator,
        tmp_path,
        """
facts = {"size": refusal(size=(1920, 1080)), "fps": refusal(fps=60.0)}
is_now("fixed")
facts |= {"format": refusal(format="nv12"), "exposure": refusal(exposure_ms=5)}
is_now("busy")
facts["busy"] = refusal()
is_now("gone")
facts["gone"] = refusal()
tell(**facts)
""",
    )
    assert "size 1920x1080 was asked for, the camera offers 640x480; `v4l2-ctl" in found["size"]
    assert "fps 60 was asked for, the camera offers 30" in found["fps"]
    assert "format NV12 was asked for, the camera offers YUYV" in found["format"]
    assert "exposure_ms 5 was asked for" in found["exposure"]
    assert "another program may be using it" in found["busy"]
    assert "No such device" in found["gone"]


def _loopback() -> str:
    for name in Path("/sys/class/video4linux").glob("*/name"):
        if "dummy" in name.read_text().lower() or "loopback" in name.read_text().lower():
            return f"/dev/{name.parent.name}"
    return ""


def _why_no_loopback() -> str:
    release = platform.release()
    modules = Path("/lib/modules") / release
    if any(modules.rglob("v4l2loopback.ko*")):
        return "v4l2loopback is installed and not loaded: modprobe v4l2loopback"
    found = "has no module v4l2loopback" if modules.is_dir() else "cannot load modules: /lib/modules has none for it"
    return f"no v4l2loopback device, and this kernel ({release}) {found}"


@pytest.mark.skipif(not _loopback(), reason=_why_no_loopback())
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_a_loopback_device() -> None:
    send = [
        "ffmpeg",
        "-loglevel",
        "error",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "bgr24",
        "-s",
        "640x480",
        "-r",
        "30",
        "-i",
        "-",
    ]
    send += ["-f", "v4l2", "-pix_fmt", "yuyv422", _loopback()]
    sender = subprocess.Popen(send, stdin=subprocess.PIPE)
    assert sender.stdin is not None
    pipe, enough = sender.stdin, threading.Event()

    def feed() -> None:
        with SyntheticSource() as pattern:
            for frame in iter(pattern.read, None):
                if enough.is_set() or frame is None:
                    return
                pipe.write(frame.image.tobytes())

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        enough.wait(1.0)
        with open_source(_loopback(), SourceOptions(size=(640, 480), format="yuyv")) as source:
            numbers = [read_frame_number(frame.image) for _ in range(20) if (frame := source.read()) is not None]
        assert numbers == sorted(set(numbers))
        assert len(numbers) == 20
    finally:
        enough.set()
        feeder.join(HANG)
        sender.kill()
        sender.wait(HANG)
