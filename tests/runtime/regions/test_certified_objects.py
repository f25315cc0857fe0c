"""Certificates of objects: every ACCEPT, or once a track before its first one; whatever fails rejects."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from certified_bundles import certified_bundle

from framegate.runtime import Frame, Pipeline, Reason, Session, UsageError
from framegate.runtime.bundle.certificates import Demand
from framegate.runtime.certificate import CertificateNetwork
from framegate.runtime.policy.track import TrackRule
from framegate.runtime.regions.function import FunctionRegions
from framegate.runtime.regions.judge import Objects
from framegate.runtime.regions.tracker import OverlapTracker
from framegate.runtime.regions.tracks import TrackMemory
from framegate.runtime.sources.base import BaseSource

BLUE, RED = (250, 10, 10), (10, 10, 250)
BOX = (10, 10, 40, 40)
AT_ONCE = TrackRule(1, 1, 1)
_STRUCTURE = cv2.GaussianBlur(np.random.default_rng(0).normal(120, 180, (240, 320, 3)), (0, 0), 3)


class Nothing(BaseSource):
    def _produce(self, frame_id):
        return None


def scene(colour, seed):
    rng = np.random.default_rng([1, seed])
    image = np.clip(_STRUCTURE + rng.normal(0, 5, _STRUCTURE.shape), 0, 255).astype(np.uint8)
    image[10:50, 10:50] = np.clip(np.array(colour) + rng.integers(-5, 6, (40, 40, 3)), 0, 255)
    return image


def opened(make_bundle, unit, **demand):
    bundle = certified_bundle(make_bundle(), unit=unit)
    return Session.open(bundle, "onnxruntime", "fp32", certificate=Demand("patch", 3, **demand))


def judge_of(session, rule=AT_ONCE):
    objects = Objects(FunctionRegions(lambda image: [BOX]), tracker=OverlapTracker(), rule=rule)
    judge, health = session.object_judge(objects, TrackMemory(session.stream_policy, rule)), session.camera_health()
    return lambda image, number: judge.judge(Frame(number, time.monotonic_ns(), image), health).predictions[0]


@pytest.fixture
def asked(monkeypatch):
    """How often a certificate was computed, and whether it may succeed."""
    state = {"calls": 0, "fail": False}
    real = CertificateNetwork.certified

    def certified(self, crop):
        state["calls"] += 1
        if state["fail"]:
            return np.full(3, -np.inf)
        return real(self, crop)

    monkeypatch.setattr(CertificateNetwork, "certified", certified)
    return state


def test_every_object_that_would_be_accepted_is_certified(make_bundle, asked):
    judged = judge_of(opened(make_bundle, "frame"))
    before = asked["calls"]
    seen = [judged(scene(BLUE, k), k) for k in range(3)]
    assert all(p.accepted and p.certificate is not None for p in seen)
    assert asked["calls"] - before == 3
    asked["fail"] = True
    assert judged(scene(BLUE, 3), 3).reasons == (Reason.NOT_CERTIFIED,)


def test_once_a_track_is_certified_it_is_accepted_with_that_label_only(make_bundle, asked):
    session = opened(make_bundle, "track", once=True)
    assert "each track once" in session.describe()
    judged = judge_of(session, TrackRule(1, 1, 2))
    before = asked["calls"]
    assert judged(scene(BLUE, 0), 0).reasons == (Reason.UNCONFIRMED,)
    assert asked["calls"] == before  # what is rejected anyway costs no certificate
    assert judged(scene(BLUE, 1), 1).certificate is not None
    asked["fail"] = True
    later = judged(scene(BLUE, 2), 2)
    assert later.accepted
    assert later.certificate is None
    assert asked["calls"] == before + 1
    seen = [judged(scene(RED, k), k) for k in range(3, 6)]
    assert [p.reasons for p in seen] == [(Reason.UNCONFIRMED,), (Reason.NOT_CERTIFIED,), (Reason.NOT_CERTIFIED,)]


def test_fault_a_track_without_its_certificate_is_asked_again_on_every_frame(make_bundle, asked):
    judged = judge_of(opened(make_bundle, "track", once=True))
    asked["fail"] = True
    assert [judged(scene(BLUE, k), k).reasons for k in range(3)] == [(Reason.NOT_CERTIFIED,)] * 3
    asked["fail"] = False
    assert judged(scene(BLUE, 3), 3).accepted


def test_fault_a_frame_that_is_overwritten_while_its_certificate_is_computed(make_bundle, monkeypatch):
    judged, image = judge_of(opened(make_bundle, "frame")), scene(BLUE, 0)
    real = CertificateNetwork.certified

    def certified(self, crop):
        image[:] = 0
        return real(self, crop)

    monkeypatch.setattr(CertificateNetwork, "certified", certified)
    assert judged(image, 0).reasons == (Reason.BAD_INPUT,)


def test_fault_a_frame_that_was_overwritten_certifies_no_track(make_bundle, asked, monkeypatch):
    """Its certificate is about other pixels than those that were judged."""
    judged, image = judge_of(opened(make_bundle, "track", once=True)), scene(BLUE, 0)
    counting = CertificateNetwork.certified

    def overwritten(self, crop):
        found = counting(self, crop)
        image[:] = scene(BLUE, 9)
        return found

    monkeypatch.setattr(CertificateNetwork, "certified", overwritten)
    assert judged(image, 0).reasons == (Reason.BAD_INPUT,)
    monkeypatch.setattr(CertificateNetwork, "certified", counting)
    asked["fail"] = True
    assert judged(scene(BLUE, 1), 1).reasons == (Reason.NOT_CERTIFIED,)


def test_what_proves_nothing_about_tracks_is_refused(make_bundle):
    with pytest.raises(UsageError, match="proved for single frames"):
        opened(make_bundle, "frame", once=True)
    with pytest.raises(UsageError, match="counts the frames of fixed regions"):
        judge_of(opened(make_bundle, "frame", every=2))
    with pytest.raises(UsageError, match="one of the two"):
        Demand("patch", 3, every=2, once=True)
    with pytest.raises(UsageError, match="needs objects that are followed"):
        Pipeline(Nothing("nothing", live=False), opened(make_bundle, "track", once=True))
