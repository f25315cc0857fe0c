"""The last two minutes: bounded in time, number and bytes, and never in the way of who notes a frame."""

from __future__ import annotations

import json
import math
import struct
import threading
import time

import numpy as np
import pytest

from framegate.camera_demo import timeline as timeline_module
from framegate.camera_demo.timeline import Timeline, note_of
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.roi import Roi
from framegate.runtime.verdict import Prediction, Reason

ROIS = (Roi("left", 0, 0, 80, 60, fractions=False), Roi("right", 80, 0, 80, 60, fractions=False))
IMAGE = np.random.default_rng(0).integers(0, 255, (60, 160, 3), np.uint8)


def result(frame, *reasons):
    now = time.monotonic_ns()
    made = [
        Prediction(frame, roi.name, found, "cat", 0.9, 0.1, 0.8, math.nan, 0.1, 0.5, now - 10**6, now)
        for roi, found in zip(ROIS, (tuple(reasons), ()), strict=True)
    ]
    return FrameResult(tuple(made), IMAGE, "")


def opened(message):
    (length,) = struct.unpack_from(">I", message)
    return json.loads(message[4 : 4 + length]), message[4 + length :]


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def timeline():
    made = Timeline(ROIS)
    yield made
    made.close()
    assert not [each for each in threading.enumerate() if each.name == "framegate-demo-timeline"]


def test_a_rejected_frame_can_be_looked_at_and_an_accepted_one_is_a_note(timeline):
    timeline.saw(result(7, Reason.HIGH_SCORE, Reason.BLURRED))
    timeline.saw(result(8))
    wait_for(lambda: timeline.pictures)
    first, second = timeline.notes(10)
    bits = [timeline_module.REASONS.index(each) for each in (Reason.HIGH_SCORE, Reason.BLURRED)]
    assert (first[0], *first[2:]) == (7, 1, 2, sum(1 << bit for bit in bits))
    assert (second[0], *second[2:]) == (8, 2, 2, 0)
    record, jpeg = opened(timeline.moment(7))
    assert jpeg.startswith(b"\xff\xd8")
    assert record["moment"]
    assert record["regions"][0]["reasons"] == ["HIGH_SCORE", "BLURRED"]
    for gone in (8, 9, -1):
        record, jpeg = opened(timeline.moment(gone))
        assert record["gone"]
        assert jpeg == b""


def test_what_is_older_than_two_minutes_is_forgotten(timeline, monkeypatch):
    timeline.saw(result(1, Reason.LATE))
    wait_for(lambda: timeline.pictures == 1)
    monkeypatch.setattr(timeline_module, "SECONDS", 0.05)
    time.sleep(0.1)
    timeline.saw(result(2, Reason.LATE))
    wait_for(lambda: opened(timeline.moment(1))[0].get("gone") and not opened(timeline.moment(2))[0].get("gone"))
    assert [note[0] for note in timeline.notes(10)] == [2]


def test_pictures_take_no_more_bytes_than_they_may(timeline, monkeypatch):
    timeline.saw(result(0, Reason.LATE))
    wait_for(lambda: timeline.pictures == 1)
    most = 3 * timeline.held_bytes
    monkeypatch.setattr(timeline_module, "MOST_BYTES", most)
    for frame in range(1, 9):
        timeline.saw(result(frame, Reason.LATE))
        wait_for(lambda frame=frame: not opened(timeline.moment(frame))[0].get("gone"))
        assert timeline.held_bytes <= most
    assert opened(timeline.moment(0))[0]["gone"]
    assert len(timeline.notes(100)) == 9


def test_fault_pictures_cannot_be_made_fast_enough(timeline, monkeypatch):
    """Then frames go without one; whoever notes frames does not wait, and few images are held."""
    held = threading.Event()
    monkeypatch.setattr(timeline_module, "message", lambda *_: held.wait(20) and b"")
    started = time.monotonic()
    for frame in range(500):
        timeline.saw(result(frame, Reason.LATE))
    assert time.monotonic() - started < 5
    assert len(timeline._queue) <= timeline_module._QUEUED
    assert len(timeline.notes(1000)) == 500
    held.set()


def test_fault_a_picture_that_cannot_be_made_costs_only_itself(timeline, monkeypatch, capsys):
    real = timeline_module.message
    monkeypatch.setattr(timeline_module, "message", lambda *_: 1 // 0)
    timeline.saw(result(1, Reason.LATE))
    wait_for(lambda: "ZeroDivisionError" in capsys.readouterr().err)
    monkeypatch.setattr(timeline_module, "message", real)
    timeline.saw(result(2, Reason.LATE))
    wait_for(lambda: timeline.pictures == 1)


def test_notes_are_numbers_that_json_keeps_exactly():
    assert 1 << len(timeline_module.REASONS) < 2**53
    everything = result(3, *Reason)
    assert note_of(everything, 5)[4] == (1 << len(Reason)) - 1
