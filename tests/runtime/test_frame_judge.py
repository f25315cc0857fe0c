"""The way of one frame: its order, and the one moment at which all of its regions are decided."""

from __future__ import annotations

import time

import numpy as np
import pytest

from framegate.runtime import Bundle, Reason, Roi, Session
from framegate.runtime.backends.base import CpuBackend
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.verdict import Frame

MS = 1_000_000
BLUE = (250, 10, 10)


class _SlowOnce(CpuBackend):
    """A real engine, whose call number ``slow`` takes longer."""

    def __init__(self, inner, delay_s):
        self._inner, self._delay_s, self.calls, self.slow = inner, delay_s, 0, None
        self.name, self.engine, self.classes, self.pooled = inner.name, inner.engine, inner.classes, None

    def bind(self, tensor):
        self._inner.bind(tensor)

    def finish(self):
        self.calls += 1
        if self.calls == self.slow:
            time.sleep(self._delay_s)
        return self._inner.finish()


@pytest.fixture
def judged(tiny_bundle, coloured):
    """Judge two blue regions: judged(slow, deadline_ms), the slow region's engine call taking 0.2 s."""

    def judge(slow, deadline_ms):
        bundle = Bundle.open(tiny_bundle)
        engine = _SlowOnce(load_backend("onnxruntime", bundle.model_path("fp32"), 1), 0.2)
        session = Session(bundle, engine, "fp32", bundle.calibration("onnxruntime", "fp32"))
        engine.slow = engine.calls + slow
        rois = (Roi.whole(), Roi.parse("left=0,0,32,48"))
        frame = Frame(0, time.monotonic_ns(), coloured(BLUE, seed=1))
        return session.frame_judge.judge(frame, rois, session.camera_health(), deadline_ms * MS)

    return judge


def test_a_deadline_between_two_regions_rejects_both(judged):
    """The first region is ready in time, but nothing is handed over before the second one, which is not."""
    first, second = judged(slow=2, deadline_ms=100)
    assert first.reasons == second.reasons == (Reason.LATE,)
    assert first.decided_ns == second.decided_ns
    assert first.latency_ms >= 200


def test_two_regions_in_time_are_accepted_with_one_stamp(judged):
    first, second = judged(slow=1, deadline_ms=60_000)
    assert first.accepted
    assert second.accepted
    assert first.decided_ns == second.decided_ns


def test_a_region_that_cannot_be_started_does_not_hide_the_camera(tiny_bundle, coloured):
    """The camera check runs once, also where the first region never reaches the engine."""
    session = Session.open(tiny_bundle, "onnxruntime", "fp32", 1)
    rois = (Roi.parse("outside=60,40,60,60"), Roi.whole())
    frame = Frame(0, time.monotonic_ns(), np.zeros_like(coloured(BLUE)))
    outside, whole = session.frame_judge.judge(frame, rois, session.camera_health())
    assert outside.reasons == (Reason.BLACK, Reason.BAD_INPUT)
    assert "reaches outside" in outside.detail
    assert Reason.BLACK in whole.reasons


def test_a_frame_of_the_wrong_size_reaches_no_engine(tiny_bundle, coloured):
    bundle = Bundle.open(tiny_bundle)
    engine = _SlowOnce(load_backend("onnxruntime", bundle.model_path("fp32"), 1), 0.0)
    session = Session(bundle, engine, "fp32", bundle.calibration("onnxruntime", "fp32"))
    health = session.camera_health((640, 480))
    calls = engine.calls
    (prediction,) = session.frame_judge.judge(Frame(0, time.monotonic_ns(), coloured(BLUE)), (Roi.whole(),), health)
    assert prediction.reasons == (Reason.WRONG_SIZE,)
    assert engine.calls == calls


def together(path, count=3):
    session = Session.open(path, "onnxruntime", "fp32", 1)
    session.judge_together(count)
    assert session.frame_judge.together is not None
    return session


def test_regions_in_one_engine_call_have_the_verdicts_of_a_call_each(tiny_bundle):
    one, all_at_once = Session.open(tiny_bundle, "onnxruntime", "fp32", 1), together(tiny_bundle)
    rois = tuple(map(Roi.parse, ("left=0,0,40,40", "tiny=60,10,8,8", "right=50,5,40,40")))
    health = one.camera_health(), all_at_once.camera_health()
    rng, accepted = np.random.default_rng(0), 0
    for k in range(12):
        image = np.zeros((60, 100, 3), np.uint8)
        image[:, :45], image[:, 45:] = rng.integers(0, 251, (2, 3))
        frame = Frame(k, k + 1, image + rng.integers(0, 5, image.shape, np.uint8))
        pair = [
            each.frame_judge.judge(frame, rois, seen) for each, seen in zip((one, all_at_once), health, strict=True)
        ]
        for a, b in zip(*pair, strict=True):
            assert (a.stream, a.reasons, a.candidate) == (b.stream, b.reasons, b.candidate)
            assert np.isnan(a.score) == np.isnan(b.score)
            assert not abs(a.score - b.score) > 1e-5
            accepted += b.accepted
        assert Reason.BAD_INPUT in pair[1][1].reasons  # the one that is too small, and no other
        assert Reason.BAD_INPUT not in pair[1][2].reasons
        assert len({b.decided_ns for b in pair[1]}) == 1
    assert 3 < accepted < 24


def test_fault_an_engine_that_fails_on_a_batch_rejects_every_region_of_it(tiny_bundle, coloured):
    session = together(tiny_bundle, 2)
    rois = (Roi.whole(), Roi.parse("left=0,0,32,48"))
    engine = session.frame_judge.together.engines[0]
    finish = engine.finish

    def gone():
        raise RuntimeError("the engine is gone")

    frames = [Frame(k, k + 1, coloured(BLUE, seed=k)) for k in range(4)]
    health = session.camera_health()
    assert all(p.accepted for p in session.frame_judge.judge(frames[0], rois, health))
    engine.finish = gone
    for prediction in session.frame_judge.judge(frames[1], rois, health):
        assert prediction.reasons == (Reason.BACKEND_FAULT,)
    old = finish().copy()
    engine.finish = lambda: old
    session.frame_judge.judge(frames[2], rois, health)
    for prediction in session.frame_judge.judge(frames[3], rois, health):  # the same logits for other pixels
        assert prediction.reasons == (Reason.BACKEND_FAULT,)
    engine.finish = finish


def test_fault_a_frame_that_is_overwritten_while_its_regions_are_judged(tiny_bundle, coloured):
    session = together(tiny_bundle, 2)
    frame = Frame(0, 1, coloured(BLUE))
    engine = session.frame_judge.together.engines[0]
    finish = engine.finish

    def overwrite():
        frame.image[:] = 0
        return finish()

    engine.finish = overwrite
    for prediction in session.frame_judge.judge(
        frame, (Roi.whole(), Roi.parse("left=0,0,32,48")), session.camera_health()
    ):
        assert Reason.BAD_INPUT in prediction.reasons


def test_regions_are_judged_one_by_one_where_a_batch_cannot_be(tiny_bundle):
    for count, options in ((1, {}), (17, {}), (3, {"probabilities": True})):
        session = Session.open(tiny_bundle, "onnxruntime", "fp32", 1, **options)
        session.judge_together(count)
        assert session.frame_judge.together is None
