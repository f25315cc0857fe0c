"""``--show`` in a real window, where there can be one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time

import cv2
import numpy as np
import pytest

from framegate.camera_demo.window import no_verdict
from framegate.runtime.cli.main import main

SOURCE = "synthetic://?width=320&height=240&fps=25"
GUI = re.search(r"^\s*GUI:\s*(\S+)", cv2.getBuildInformation(), re.MULTILINE)
WINDOWED = GUI is not None and GUI.group(1) != "NONE"
needs_windows = pytest.mark.skipif(not WINDOWED, reason="this OpenCV has no windows (pip install opencv-python)")


@pytest.fixture(scope="module")
def display():
    """This session's display, or one that nobody sees."""
    if shutil.which("xdotool") is None:
        pytest.skip("no xdotool to press keys with (apt-get install xdotool)")
    if os.environ.get("DISPLAY"):
        yield os.environ["DISPLAY"]
        return
    if shutil.which("Xvfb") is None:
        pytest.skip("no display, and no Xvfb to make one (apt-get install xvfb)")
    read, write = os.pipe()
    command = ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x800x24"]
    server = subprocess.Popen(command, pass_fds=[write], stderr=subprocess.DEVNULL)
    os.close(write)
    with os.fdopen(read) as answer:
        yield f":{answer.readline().strip()}"
    server.terminate()
    server.wait()


@pytest.fixture
def shown(display, start_demo, tiny_bundle, tmp_path, monkeypatch):
    """A demo with a window: (demo, the window's number, the file it records)."""
    monkeypatch.setenv("DISPLAY", display)
    video = tmp_path / "out.mp4"
    demo = start_demo(SOURCE, "--bundle", str(tiny_bundle), "--show", "--record", str(video))
    deadline = time.monotonic() + 30
    while not (found := xdotool("search", "--name", "q or Escape ends")):
        assert time.monotonic() < deadline, "no window"
        time.sleep(0.2)
    time.sleep(1)
    return demo, found.split()[-1], video


def xdotool(*words):
    return subprocess.run(["xdotool", *words], capture_output=True, text=True, check=False).stdout.strip()


def close_politely(window):
    """Ask the window to close, as the cross in its corner does."""
    xlib = pytest.importorskip("Xlib.display", reason="python-xlib is not installed")
    from Xlib.protocol.event import ClientMessage

    with_server = xlib.Display()
    target = with_server.create_resource_object("window", int(window))
    words = [with_server.intern_atom("WM_DELETE_WINDOW"), 0, 0, 0, 0]
    target.send_event(
        ClientMessage(window=target, client_type=with_server.intern_atom("WM_PROTOCOLS"), data=(32, words))
    )
    with_server.sync()
    with_server.close()


@needs_windows
@pytest.mark.parametrize("how", ["q", "Escape", "close"])
def test_a_key_or_closing_the_window_ends_the_demo(shown, how):
    demo, window, video = shown
    if how == "close":
        close_politely(window)
    else:
        xdotool("key", "--window", window, how)
    code, said = demo.end(None)
    assert code == 0
    assert "the window was closed" in said
    assert "Traceback" not in said
    assert cv2.VideoCapture(str(video)).read()[0]


@needs_windows
def test_a_window_stays_alive_while_the_camera_is_away(shown, viewer):
    demo, window, _ = shown
    client = viewer(demo.address)
    client.press("kill")
    client.until(lambda c: c.state.get("silent_ms", 0) > 1500)
    client.close()
    xdotool("key", "--window", window, "q")
    assert demo.end(None)[0] == 0


@needs_windows
def test_the_end_of_the_source_closes_the_window(display, tiny_bundle, capsys, monkeypatch):
    monkeypatch.setenv("DISPLAY", display)
    words = ["--once", "--show", "--port", "0", "--bundle", str(tiny_bundle), "--backend", "onnxruntime"]
    assert main(["demo", f"{SOURCE}&frames=8", *words]) == 0
    assert "the source has ended" in capsys.readouterr().err


@pytest.mark.parametrize("display_name", ["", ":4321"])
def test_without_windows_or_display_it_says_what_to_do(tiny_bundle, capsys, monkeypatch, display_name):
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", display_name)
    assert main(["demo", SOURCE, "--bundle", str(tiny_bundle), "--port", "0", "--show"]) == 2
    out, err = capsys.readouterr()
    assert "use the page" in err.splitlines()[-1]
    assert "http://" not in out


def test_a_picture_without_a_live_verdict_is_dark_and_crossed_out():
    image = np.full((240, 320, 3), 200, np.uint8)
    dark = no_verdict(image)
    assert dark.shape == image.shape
    assert (image == 200).all()
    assert dark[10, 160].max() < 100
    assert dark[2, 2].tolist() != dark[10, 160].tolist()  # the cross
    assert (dark == 255).any()  # the words
