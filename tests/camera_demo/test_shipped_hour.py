"""The shipped demo for an hour: its clip, its bundle, its regions."""

from __future__ import annotations

import time

import cv2
import pytest

from framegate.camera_demo.shipped import BUNDLE, CLIP, REGIONS
from framegate.runtime.policy.drift import DriftAlarm
from framegate.runtime.policy.stream import Policy
from framegate.runtime.session import Session
from framegate.runtime.verdict import Frame

HOUR = 25 * 3600


@pytest.mark.slow
def test_the_shipped_demo_raises_no_false_drift_alarm_in_an_hour():
    """Of the two cars none. Sky and road are nothing that the network knows: there the alarm is right, and raised."""
    session = Session.open(BUNDLE, "openvino", "int8", policy=Policy(drift=False))
    assert session.calibration is not None
    health, capture, seen = session.camera_health(), cv2.VideoCapture(str(CLIP)), {roi.name: [] for roi in REGIONS}
    while True:
        there, image = capture.read()
        if not there:
            break
        number = len(seen["sky"])
        for each in session.frame_judge.judge(Frame(number, time.monotonic_ns(), image), REGIONS, health):
            seen[each.stream].append((each.decided_reasons, each.score))
    alarms = {}
    for name, frames in seen.items():
        alarm = DriftAlarm(session.calibration)
        for number in range(HOUR):
            alarm.saw(*frames[number % len(frames)])
        alarms[name] = alarm.alarms
    assert alarms == {"black-car": 0, "white-car": 0, "sky": 1, "road": 1}
