"""Annotated videos: whole, or said to be not."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from recordings import fill, frames_in, small_disk

from framegate.runtime.errors import SinkError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.sinks.video import OverlayVideoSink


def noise(seed, size=(240, 320)):
    return FrameResult((), np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8), "")


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("frames", [1, 2, 45])
def test_every_frame_that_was_written_can_be_read(tmp_path, ending, frames):
    path = tmp_path / f"out{ending}"
    sink = OverlayVideoSink(path, (), 25.0)
    for k in range(frames):
        sink.write(noise(k, (240, 320) if k % 5 else (120, 160)))
    sink.close()
    sink.close()
    assert frames_in(path) == frames


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".avi"])
@pytest.mark.parametrize("fps", [0.5, 7.5, 29.97, 240.0])
def test_rates_of_frames(tmp_path, ending, fps):
    path = tmp_path / f"out{ending}"
    sink = OverlayVideoSink(path, (), fps)
    for k in range(23):
        sink.write(noise(k))
    sink.close()
    assert frames_in(path) == 23


@pytest.mark.parametrize(("ending", "lost"), [(".mp4", 0), (".avi", 1), (".mkv", 60)])
def test_fault_killed_a_video_plays_up_to_its_last_fragment(tmp_path, ending, lost):
    path = tmp_path / f"out{ending}"
    code = f"""
import os, sys; sys.path[:0] = {[os.path.dirname(__file__)]!r} + {sys.path!r}
from test_video import OverlayVideoSink, noise
sink = OverlayVideoSink({str(path)!r}, (), 25.0)
for k in range(100):
    sink.write(noise(k))
    if k % 25 == 24:
        sink.flush()
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -9
    assert 100 - lost <= frames_in(path) <= 100


@pytest.mark.parametrize("ending", [".mkv", ".avi"])
def test_fault_disk_full_a_video_ends_while_there_is_room_for_its_index(tmp_path, ending):
    with small_disk(tmp_path / "disk", 9500) as disk:
        path = disk / f"out{ending}"
        sink = OverlayVideoSink(path, (), 25.0)

        def write_on():
            for k in range(1000):
                sink.write(noise(k % 10))

        with pytest.raises(
            SinkError, match=r"less than 8 MiB are left on its disk; its first \d+ frames are kept"
        ) as said:
            write_on()
        sink.close()
        sink.close()
        kept = int(re.search(r"first (\d+)", str(said.value))[1])
        assert frames_in(path) == kept >= 10


def test_fault_disk_full_at_once_opencv_is_silent_and_the_file_is_looked_at(tmp_path):
    with small_disk(tmp_path / "disk", 9000) as disk:
        sink = OverlayVideoSink(disk / "out.avi", (), 25.0)
        for k in range(8):
            sink.write(noise(k))
        fill(disk)  # somebody else
        sink._encoder._writer.write(noise(9).image)
        sink._encoder._frames += 1
        with pytest.raises(SinkError, match=r"of 9 frames the index has \d; is the disk full\?"):
            sink.close()
