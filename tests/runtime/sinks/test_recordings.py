"""What the demo writes beside its page."""

from __future__ import annotations

import base64
import json
import math
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest

from framegate.camera_demo.picture import is_fresh, message
from framegate.runtime.errors import SinkError, UsageError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.roi import Roi
from framegate.runtime.sinks.mcap_file import McapSink
from framegate.runtime.sinks.picture import shown
from framegate.runtime.sinks.rerun_file import RerunSink
from framegate.runtime.verdict import Prediction, Reason

ROIS = (Roi("left", 0, 0, 0.5, 1.0, fractions=True), Roi("right", 0.5, 0, 0.5, 1.0, fractions=True))


def result(number, coloured, image=None):
    now = time.monotonic_ns()
    predictions = tuple(
        Prediction(number, roi.name, reasons, "green", 0.9, 0.1, 0.8, -3.0, score, 0.5, now - 10**6, now)
        for roi, reasons, score in zip(ROIS, ((), (Reason.NOT_FINITE,)), (0.1, math.nan), strict=True)
    )
    return FrameResult(predictions, coloured((20, 200, 20), number) if image is None else image, "")


def test_an_mcap_file_holds_pictures_and_verdicts(tmp_path, coloured):
    reader = pytest.importorskip("mcap.reader")
    path = tmp_path / "out.mcap"
    sink = McapSink(path, ROIS)
    for number in range(3):
        sink.write(result(number, coloured))
    sink.close()
    sink.close()
    found = {}
    with path.open("rb") as file:
        for schema, channel, entry in reader.make_reader(file).iter_messages():
            found.setdefault((channel.topic, schema.name), []).append((entry.log_time, json.loads(entry.data)))
    assert {name: len(each) for name, each in found.items()} == {
        ("/camera", "foxglove.CompressedImage"): 3,
        ("/verdict/left", "framegate.Prediction"): 3,
        ("/verdict/right", "framegate.Prediction"): 3,
    }
    at, picture = found["/camera", "foxglove.CompressedImage"][0]
    assert abs(at - time.time_ns()) < 60e9  # the clock on the wall
    image = cv2.imdecode(np.frombuffer(base64.b64decode(picture["data"]), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (48, 64, 3)
    verdict = found["/verdict/right", "framegate.Prediction"][2][1]
    assert (verdict["frame_id"], verdict["verdict"], verdict["reasons"]) == (2, "REJECT", ["NOT_FINITE"])
    assert verdict["score"] is None


def test_a_rerun_file_is_written(tmp_path, coloured):
    pytest.importorskip("rerun", reason="rerun-sdk is not installed: pip install 'framegate[rerun]'")
    path = tmp_path / "out.rrd"
    sink = RerunSink(path, ROIS)
    for number in range(5):
        sink.write(result(number, coloured))
    sink.close()
    data = path.read_bytes()
    assert data.startswith(b"RRF")
    for part in (b"camera", b"left", b"score"):
        assert part in data


@pytest.mark.parametrize(("make", "package"), [(McapSink, "mcap"), (RerunSink, "rerun")])
def test_a_missing_package_or_folder_is_said(tmp_path, monkeypatch, make, package):
    with monkeypatch.context() as without:
        without.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(UsageError, match=f"pip install 'framegate.{package}"):
            make(tmp_path / "out", ROIS)
    pytest.importorskip(package)
    with pytest.raises(SinkError, match="cannot be written"):
        make(tmp_path / "no" / "out", ROIS)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((0, 0, 3), np.uint8),
        np.full((40, 60), 9, np.uint8),
        np.full((40, 60), 40_000, np.uint16),
        np.zeros((40, 60, 4), np.uint8),
        np.zeros((40, 60, 3), np.float32),
    ],
)
def test_what_is_no_picture_can_be_shown_all_the_same(coloured, image):
    view = shown(image)
    assert view.dtype == np.uint8
    assert view.shape[2] == 3
    assert message(result(0, coloured, image), ROIS)[:1] == b"\0"


def test_numbers_that_are_not_finite_are_null_in_a_message(coloured):
    encoded = message(result(7, coloured), ROIS)
    head = json.loads(encoded[4 : 4 + int.from_bytes(encoded[:4], "big")])
    assert head["frame"] == 7
    assert head["regions"][0]["box"] == [0, 0, 0.5, 1]
    assert [region["accepted"] for region in head["regions"]] == [True, False]
    assert "NaN" not in encoded[4:400].decode("latin-1")


def test_old_results_are_not_shown(coloured):
    now = result(0, coloured)
    assert is_fresh(now)
    old = replace(now.predictions[-1], decided_ns=time.monotonic_ns() - 10**9)
    assert not is_fresh(replace(now, predictions=(old, old)))
