"""Annotated videos: whole, or said to be not."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

from framegate.runtime.pipeline import FrameResult
from framegate.runtime.sinks.video import OverlayVideoSink


def noise(seed, size=(240, 320)):
    return FrameResult((), np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8), "")


@pytest.mark.parametrize("ending", [".mp4", ".avi"])
@pytest.mark.parametrize("frames", [1, 2, 45])
def test_every_frame_that_was_written_can_be_read(tmp_path, ending, frames):
    path = tmp_path / f"out{ending}"
    sink = OverlayVideoSink(path, (), 25.0)
    for k in range(frames):
        sink.write(noise(k, (240, 320) if k % 5 else (120, 160)))
    sink.close()
    sink.close()
    video = cv2.VideoCapture(str(path))
    count = 0
    while video.read()[0]:
        count += 1
    assert count == frames


# A limit on the size of files fails a write as a full disk does, and needs no rights.
LIMITED = """
import resource, sys
import numpy as np
from framegate.runtime.errors import SinkError
from framegate.runtime.pipeline import FrameResult
from framegate.runtime.sinks.video import OverlayVideoSink

resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
sink = OverlayVideoSink(sys.argv[1], (), 25.0)
try:
    for k in range(60):
        sink.write(FrameResult((), np.random.default_rng(k).integers(0, 255, (240, 320, 3), np.uint8), ""))
    sink.close()
except SinkError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits on the size of files are POSIX")
@pytest.mark.parametrize("ending", [".mp4", ".avi"])
def test_fault_disk_full(tmp_path, ending):
    path = tmp_path / f"out{ending}"
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True)
    assert f"video {path}: 60 frames were written" in done.stdout
    assert "is the disk full?" in done.stdout
