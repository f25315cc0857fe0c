"""Certificates of objects, handed over: each object's own, for its label only, and none where nothing was certified."""

from __future__ import annotations

import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from certified_bundles import certified_bundle
from object_drive import Wire

from framegate.runtime import Frame, Reason, Session
from framegate.runtime.bundle.certificates import Demand
from framegate.runtime.certificate import CertificateNetwork
from framegate.runtime.errors import RejectedFrame
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.handover import Identity, ObjectsReceiver, ReceiverConfig, this_clock
from framegate.runtime.handover.message import decode
from framegate.runtime.handover.object_sender import ObjectSender
from framegate.runtime.policy.track import TrackRule
from framegate.runtime.regions.function import FunctionRegions
from framegate.runtime.regions.judge import Objects
from framegate.runtime.regions.tracker import OverlapTracker
from framegate.runtime.regions.tracks import TrackMemory
from framegate.runtime.verdict import Certificate, FoundObject, Prediction

BLUE, GREY = (250, 10, 10), (128, 126, 127)
BOXES = [(10, 10, 40, 40), (100, 100, 40, 40)]
AT_ONCE = TrackRule(1, 1, 1)
_STRUCTURE = cv2.GaussianBlur(np.random.default_rng(0).normal(120, 180, (240, 320, 3)), (0, 0), 3)


def scene(seed, *colours):
    rng = np.random.default_rng([1, seed])
    image = np.clip(_STRUCTURE + rng.normal(0, 5, _STRUCTURE.shape), 0, 255).astype(np.uint8)
    for (x, y, width, height), colour in zip(BOXES, colours, strict=True):
        noise = rng.integers(-5, 6, (height, width, 3))
        image[y : y + height, x : x + width] = np.clip(np.array(colour) + noise, 0, 255)
    return image


def received(make_bundle, unit="frame", **demand):
    """What a receiver says after each of some frames with a blue and a grey object."""
    bundle = certified_bundle(make_bundle(), unit=unit)
    session = Session.open(bundle, "onnxruntime", "fp32", certificate=Demand("patch", 3, **demand))
    objects = Objects(FunctionRegions(lambda image: BOXES), tracker=OverlapTracker(), rule=AT_ONCE)
    judge, health = session.object_judge(objects, TrackMemory(session.stream_policy, AT_ONCE)), session.camera_health()
    wire = Wire()
    identity = Identity.of(session.bundle, session.calibration)
    receiver = ObjectsReceiver(ReceiverConfig(7, clock_domain=this_clock(), shortest_period_ns=0), 3)
    with ObjectSender([wire], 7, 3, identity, heartbeat_s=None) as sender:
        for number in range(5):
            frame = Frame(number, time.monotonic_ns(), scene(number, BLUE, GREY))
            seen, predictions, left_out = judge.judge(frame, health, 400_000_000)
            sender.send_result(FrameResult(predictions, None, "", seen, left_out))
            for data in wire.sent:
                receiver.feed(data)
            wire.sent.clear()
            yield receiver.verdict()


def test_each_object_has_its_own_certificate_or_no_label(make_bundle):
    *_, last = received(make_bundle)
    assert last.whole
    blue, grey = (each.reading for each in last.objects)
    assert blue.certificate == ("patch", 3.0)
    assert not grey.usable
    with pytest.raises(RejectedFrame, match="certificate"):
        _ = grey.certificate
    with pytest.raises(RejectedFrame, match="a scene has no class"):
        _ = last.scene.certificate


def test_once_a_track_is_certified_its_later_frames_say_so(make_bundle, monkeypatch):
    computed = []
    real = CertificateNetwork.certified
    monkeypatch.setattr(CertificateNetwork, "certified", lambda *given: computed.append(1) or real(*given))
    *_, last = received(make_bundle, unit="track", once=True)
    blue, grey = (each.reading for each in last.objects)
    assert blue.certificate == ("patch", 3.0)
    assert not grey.usable
    assert len(computed) == 1 + 5  # of the blue one once, of the grey one on every frame


def certified(track, label, certificate, reasons=()):
    found = FoundObject((0, 0, 9, 9), track=track)
    now = time.monotonic_ns()
    numbers = {"confidence": 0.9, "entropy": 0.1, "margin": 0.8, "energy": -1.0, "score": 0.1, "threshold": 0.3}
    times = {"captured_ns": now, "decided_ns": now, "valid_until_ns": now + 10**9}
    stream = f"track-{track}"
    return Prediction(track, stream, reasons, label, **numbers, **times, found=found, certificate=certificate)


def test_a_certificate_is_lent_to_its_own_track_and_label_only():
    wire, holds = Wire(), Certificate("linf", 2, 0.0, 0.5)
    fails = replace(holds, margin=-0.1)
    whole = replace(certified(1, "", None), stream="frame", found=None)
    with ObjectSender([wire], 7, 1, Identity(("car", "bus"), b"bundle-1", b"calibr-1"), heartbeat_s=None) as sender:

        def kind(*given, **more):
            wire.sent.clear()
            sender.send_result(FrameResult((certified(*given, **more),), None, "", whole))
            return decode(wire.sent[0])[1].certificate_kind

        assert kind(1, "car", None) == 0
        assert kind(1, "car", fails) == 0
        assert kind(1, "car", None) == 0
        assert kind(1, "car", holds, reasons=(Reason.UNCONFIRMED,)) == 0
        assert kind(1, "car", None) == 1  # it was certified, though not accepted then
        assert kind(1, "bus", None) == 0
        assert kind(1, "car", None, reasons=(Reason.HIGH_SCORE,)) == 0
        assert kind(2, "car", None) == 0
        assert kind(1, "car", None) == 1
        for track in range(3, 400):
            kind(track, "car", holds)
        assert kind(1, "car", None) == 0  # long forgotten
