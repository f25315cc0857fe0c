from __future__ import annotations

import subprocess
import sys

import cv2
import pytest
from repository import ROOT


def test_the_clear_lane_is_accepted_the_foggy_one_is_not_and_the_picture_shows_both(tmp_path):
    pytest.importorskip("onnx", reason="the example makes its model with onnx")
    picture = tmp_path / "usable.png"
    script = ROOT / "docs/examples/dense_usable_pixels.py"
    done = subprocess.run(
        [sys.executable, str(script), "--out", str(picture)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "clear: ACCEPT"
    assert "fog: REJECT HIGH_SCORE" in lines
    in_the_lane = next(line for line in lines if "in the lane" in line)
    counts = {part.split()[-2]: int(part.split()[-1]) for part in in_the_lane.partition(":")[2].split(",")}
    assert counts["road"] > 10 * (counts["sky"] + counts["plants"])
    image = cv2.imread(str(picture))
    assert image.shape == (360, 1280, 3)
    clear, foggy = image[100:, :640].reshape(-1, 3), image[100:, 640:].reshape(-1, 3)
    red = (40, 40, 220)
    assert (clear == red).all(axis=1).mean() < 0.25
    assert (foggy == red).all(axis=1).mean() > 0.3
