"""What happens around a frame's judgement: verdicts read late, silence, shared sessions, reused buffers, odd numbers.

Each test injects its fault for real and asserts that no ACCEPT can be read.
"""

from __future__ import annotations

import copy
import math
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from framegate.benchmarks.cost.broken_parts import BrokenEngine, OneBufferSource, PictureCamera
from framegate.runtime import Bundle, Pipeline, Reason, RejectedFrame, Roi, Session, UsageError, Verdict
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.errors import ExpiredVerdict
from framegate.runtime.pipeline import default_deadline_ms
from framegate.runtime.verdict import NEVER_NS, Frame, Prediction

BLUE, GREEN = (250, 10, 10), (10, 250, 10)


@pytest.fixture
def session(tiny_bundle):
    return Session.open(tiny_bundle, "onnxruntime", "fp32", 1)


@pytest.fixture
def broken(tiny_bundle):
    """A session whose engine can be told to misbehave, and the engine."""
    bundle = Bundle.open(tiny_bundle)
    engine = BrokenEngine(load_backend("onnxruntime", bundle.model_path("fp32"), 1))
    return Session(bundle, engine, "fp32", bundle.calibration("onnxruntime", "fp32")), engine


@pytest.fixture
def pictures(coloured):
    return [coloured(BLUE, seed=k) for k in range(64)]


# A verdict has an end.


def test_fault_a_consumer_that_is_too_slow_reads_no_old_accept(session, pictures):
    """A 50 fps camera, a deadline of 100 ms, and a consumer who needs 30 ms a verdict."""
    accepted = 0
    with Pipeline(PictureCamera(pictures, frames=60), session, deadline_ms=100) as pipeline:
        for prediction in pipeline:
            if prediction.accepted:
                accepted += 1
                assert time.monotonic_ns() - prediction.captured_ns < 130e6
            time.sleep(0.03)
    assert accepted > 5  # it is not that nothing is ever accepted
    assert pipeline.stats.unread > 5  # overwritten by newer ones


def test_fault_an_accepted_label_is_read_after_its_end(session, pictures):
    with Pipeline(PictureCamera(pictures, frames=20), session, deadline_ms=100) as pipeline:
        prediction = next(p for p in pipeline if p.accepted)
        assert prediction.label == "blue"
        assert prediction
        time.sleep(0.12)
        assert prediction.reasons == (Reason.EXPIRED,)
        assert prediction.verdict is Verdict.REJECT
        assert not prediction
        with pytest.raises(ExpiredVerdict, match=r"ended .* ms ago"):
            _ = prediction.label
    assert issubclass(ExpiredVerdict, RejectedFrame)
    assert prediction.decided_reasons == ()  # the record says what was decided
    assert prediction.to_json()["verdict"] == "ACCEPT"
    assert prediction.to_json()["valid_until_ns"] == prediction.captured_ns + 100_000_000


def test_a_live_source_gets_a_deadline_from_its_rate_and_a_file_none(session, pictures):
    assert Pipeline(PictureCamera(pictures, fps=50.0), session).deadline_ms == 100.0
    assert Pipeline(PictureCamera(pictures, fps=10.0), session).deadline_ms == 300.0
    assert Pipeline(PictureCamera(pictures), session, deadline_ms=40).deadline_ms == 40
    assert Pipeline(PictureCamera(pictures), session, lossless=True).deadline_ms is None
    assert default_deadline_ms(None) == default_deadline_ms(math.nan) == 100.0


@pytest.mark.parametrize("deadline", [math.inf, -math.inf, math.nan, 0, -1, 1e300])
def test_a_deadline_that_is_no_number_of_milliseconds_is_refused(session, pictures, deadline):
    with pytest.raises(UsageError, match="deadline is"):
        Pipeline(PictureCamera(pictures), session, deadline_ms=deadline)


def test_the_verdict_on_a_picture_has_no_end(session, coloured):
    prediction = session.infer(coloured(BLUE))
    assert prediction.valid_until_ns == NEVER_NS
    assert prediction.to_json()["valid_until_ns"] is None


def test_the_newest_verdict_can_be_read_at_any_time(session, pictures):
    pipeline = Pipeline(PictureCamera(pictures, frames=30), session, deadline_ms=200)
    assert pipeline.latest().reasons == (Reason.NO_FRAME,)
    with pipeline:
        end = time.monotonic() + 5
        while not pipeline.latest().accepted and time.monotonic() < end:
            time.sleep(0.005)
        first = pipeline.latest()
        assert first.label == "blue"
        for _ in pipeline:
            pass
        assert pipeline.latest().reasons == (Reason.NO_FRAME,)
        assert pipeline.latest().detail == "the source has ended"
    assert pipeline.latest().reasons == (Reason.NO_FRAME,)


def test_latest_of_several_regions_wants_a_name(session, pictures):
    rois = (Roi.whole(), Roi.parse("left=0,0,32,48"))
    pipeline = Pipeline(PictureCamera(pictures), session, rois=rois)
    assert pipeline.latest("left").stream == "left"
    with pytest.raises(UsageError, match="name one of"):
        pipeline.latest()
    with pytest.raises(UsageError, match="there is no such region"):
        pipeline.latest("right")


def test_take_waits_no_longer_than_it_was_told(session, pictures):
    camera = PictureCamera(pictures, frames=10)
    camera.hangs.set()
    with Pipeline(camera, session, deadline_ms=10_000) as pipeline:
        result = pipeline.take(0.05)
        assert not result.has_frame
        assert result.predictions[0].reasons == (Reason.NO_FRAME,)
        camera.goes_on.set()
        while (result := pipeline.take(5)) is not None:
            assert result.has_frame
        with pytest.raises(UsageError, match="timeout is"):
            pipeline.take(math.inf)


@pytest.mark.parametrize("verdict", list(Verdict))
def test_only_accept_is_true(verdict):
    assert bool(verdict) == (verdict is Verdict.ACCEPT)


def test_fault_a_rejected_prediction_as_a_truth_value(session, coloured):
    rejected = session.infer(np.zeros_like(coloured(BLUE)))
    assert rejected.reasons
    assert not rejected
    assert not rejected.verdict


# Silence speaks.


def silence(pipeline, reason, within_s=3.0):
    """The first report of silence, and how long it took, in seconds."""
    begun = time.monotonic()
    while time.monotonic() - begun < within_s:
        result = pipeline.take(within_s)
        assert result is not None
        if not result.has_frame:
            assert [p.decided_reasons for p in result.predictions] == [(reason,)] * len(result.predictions)
            return result, time.monotonic() - begun
    raise AssertionError("nothing was reported")


def test_fault_the_source_hangs(session, pictures, capsys, monkeypatch):
    monkeypatch.setattr("framegate.runtime.pipeline._JOIN_S", 0.2)  # it hangs again at the end
    camera = PictureCamera(pictures)
    with Pipeline(camera, session, deadline_ms=200) as pipeline:
        assert next(iter(pipeline)).accepted
        camera.hangs.set()
        result, took = silence(pipeline, Reason.NO_FRAME)
        assert took < 1.0
        assert not pipeline.latest()
        again, _ = silence(pipeline, Reason.NO_FRAME)  # as long as it lasts
        assert again.predictions[0].decided_ns > result.predictions[0].decided_ns
        camera.goes_on.set()
        assert any(p.accepted for p in pipeline)  # it comes back
        camera.goes_on.clear()
    assert pipeline.stats.silences["NO_FRAME"] >= 2


def test_fault_the_engine_hangs(broken, pictures, capsys, monkeypatch):
    session, engine = broken
    monkeypatch.setattr("framegate.runtime.pipeline._JOIN_S", 0.2)
    with Pipeline(PictureCamera(pictures), session, deadline_ms=200) as pipeline:
        assert any(p.accepted for p in pipeline)
        engine.hangs.set()
        result, took = silence(pipeline, Reason.LATE)
        assert took < 1.0
        assert "has been judged for" in result.predictions[0].detail
        assert not pipeline.latest()
        pipeline.stop()
        assert pipeline.unfinished == ("framegate-worker",)
    assert "the engine does not answer" in capsys.readouterr().err
    with pytest.raises(UsageError, match="judges another stream"):  # it stays with the thread that hangs
        Pipeline(PictureCamera(pictures), session).__enter__()
    engine.goes_on.set()


def test_fault_a_source_that_never_ends_its_read_is_named_at_the_stop(session, pictures, capsys, monkeypatch):
    monkeypatch.setattr("framegate.runtime.pipeline._JOIN_S", 0.2)
    camera = PictureCamera(pictures)
    camera.hangs.set()
    with Pipeline(camera, session, deadline_ms=200) as pipeline:
        silence(pipeline, Reason.NO_FRAME)
    assert pipeline.unfinished == ("framegate-capture",)
    assert "the source camera does not answer" in capsys.readouterr().err
    camera.goes_on.set()


STOPPED = """
import sys, time
from framegate.runtime import Pipeline, Session, open_source
session = Session.open(sys.argv[1], "onnxruntime", "fp32", 1)
with Pipeline(open_source("synthetic://?fps=30&width=128&height=64"), session, deadline_ms=200) as pipeline:
    print("runs", flush=True)
    end = time.monotonic() + 3
    while time.monotonic() < end:
        pipeline.take(1)
    print(pipeline.stats.silences, flush=True)
"""


def test_fault_the_process_is_stopped_and_goes_on(tiny_bundle):
    child = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(tiny_bundle)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline() == "runs\n"
        time.sleep(0.5)
        child.send_signal(signal.SIGSTOP)
        time.sleep(1.0)
        child.send_signal(signal.SIGCONT)
        counted, said = child.communicate(timeout=20)
    finally:
        child.kill()
    assert "NO_FRAME" in counted
    assert "this process did not run for" in said


# One session, one stream.


def test_fault_one_session_in_two_pipelines(session, pictures):
    with Pipeline(PictureCamera(pictures), session) as first:
        assert next(iter(first)) is not None
        with pytest.raises(UsageError, match=r"session\.another\(\)"):
            Pipeline(PictureCamera(pictures), session).__enter__()
        with pytest.raises(UsageError, match="runs in a pipeline"):
            session.infer(pictures[0])
    with Pipeline(PictureCamera(pictures, frames=3), session) as second:  # one after the other is fine
        assert any(p.accepted for p in second)


def test_fault_infer_from_many_threads(session, pictures, coloured):
    session.infer(pictures[0])
    found = []

    def call(seed):
        try:
            found.append(session.infer(coloured(GREEN, seed=seed)))
        except UsageError as error:
            found.append(str(error))

    threads = [threading.Thread(target=call, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all("second thread" in each for each in found)


def test_a_session_follows_a_thread_that_has_ended(session, pictures):
    thread = threading.Thread(target=session.infer, args=(pictures[0],))
    thread.start()
    thread.join()
    assert session.infer(pictures[1]).accepted


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_sessions_with_shared_weights_do_not_disturb_each_other(tiny_bundle, coloured, backend):
    one = Session.open(tiny_bundle, backend, "fp32", 1)
    sessions = [one, *(one.another() for _ in range(3))]
    colours = (BLUE, GREEN, BLUE, GREEN)
    found = [[] for _ in sessions]

    def judge(k):
        found[k] = [sessions[k].infer(coloured(colours[k], seed=seed)) for seed in range(50)]

    threads = [threading.Thread(target=judge, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for colour, predictions in zip(colours, found, strict=True):
        assert {p.label for p in predictions} == {"blue" if colour == BLUE else "green"}


def test_fault_a_session_is_pickled_copied_or_forked(session, pictures):
    for refused in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(UsageError, match="cannot be pickled or copied"):
            refused(session)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()

    def child():
        try:
            session.infer(pictures[0])
            queue.put("judged")
        except UsageError as error:
            queue.put(str(error))

    process = context.Process(target=child)
    process.start()
    process.join(20)
    assert f"opened in process {os.getpid()}" in queue.get()


def test_a_pipeline_runs_once(session, pictures):
    pipeline = Pipeline(PictureCamera(pictures, frames=2), session)
    with pipeline, pytest.raises(UsageError, match="has run already"):
        pipeline.__enter__()
    with pytest.raises(UsageError, match="has run already"):
        pipeline.__enter__()


# The engine still computes.


def test_fault_the_engine_returns_its_last_output(broken, coloured):
    session, engine = broken
    assert session.infer(coloured(BLUE, seed=0)).accepted
    last = engine.finish().copy()
    engine.change = lambda _: last
    found = [session.infer(coloured(GREEN, seed=seed)) for seed in range(1, 20)]
    assert not any(found)
    assert all(Reason.BACKEND_FAULT in p.reasons for p in found)
    assert "the same logits for different pixels" in found[0].detail


@pytest.mark.parametrize(
    "change",
    [
        lambda logits: np.zeros((1, 5), np.float32),
        lambda logits: logits[0],
        lambda logits: np.concatenate([logits, logits]),
        lambda logits: logits.astype(np.float64),
    ],
)
def test_fault_the_engine_gives_logits_of_another_shape(broken, coloured, change):
    session, engine = broken
    assert session.infer(coloured(BLUE, seed=0)).accepted
    engine.change = change
    prediction = session.infer(coloured(BLUE, seed=1))
    assert prediction.reasons == (Reason.BACKEND_FAULT,)
    assert "expected float32 (1, 3)" in prediction.detail


# Pixels stay what they were.


def test_fault_a_source_writes_into_the_array_that_it_handed_over(session, coloured):
    """Blue and grey in turns: a frame judged from two pictures would be accepted with the other one's number."""
    images = [coloured(BLUE if k % 2 == 0 else (120, 120, 120), seed=k) for k in range(64)]
    with Pipeline(OneBufferSource(images, 300), session, deadline_ms=1000) as pipeline:
        found = list(pipeline)
    assert len(found) > 20
    assert not any(p.decided_reasons == () and p.frame_id % 2 for p in found)
    assert any(p.decided_reasons == () for p in found)


def test_fault_somebody_writes_into_the_frame_while_it_is_judged(broken, coloured):
    session, engine = broken
    image = coloured(GREEN, seed=1)

    def write(logits):
        image[:] = coloured(BLUE, seed=2)
        return logits

    engine.change = write
    prediction = session.infer(image)
    assert prediction.reasons == (Reason.BAD_INPUT,)
    assert "wrote into the frame" in prediction.detail


def test_a_frame_that_was_handed_over_cannot_be_written_to(session, pictures):
    with Pipeline(PictureCamera(pictures, frames=5), session, keep_frames=True, deadline_ms=5000) as pipeline:
        images = [result.image for result in pipeline.results() if result.has_frame]
    assert images
    with pytest.raises(ValueError, match="read-only"):
        images[0][0, 0] = 0


# Time and numbers.


@pytest.mark.parametrize("captured", [math.nan, -math.inf, math.inf, "now", None, 1.5])
def test_fault_a_time_of_capture_that_is_no_number_of_ns(session, pictures, captured):
    frame = Frame(0, captured, pictures[0])
    (prediction,) = session.frame_judge.judge(frame, (Roi.whole(),), session.camera_health(), 10**9)
    assert not prediction
    assert prediction.reasons == (Reason.BAD_INPUT,)


@pytest.mark.parametrize("number", ["x", None, 1.5, math.nan])
def test_fault_a_frame_number_that_is_none(session, pictures, number):
    frame = Frame(number, time.monotonic_ns(), pictures[0])
    (prediction,) = session.frame_judge.judge(frame, (Roi.whole(),), session.camera_health())
    assert prediction.reasons == (Reason.BAD_INPUT,)


def test_fault_frame_numbers_that_repeat_or_go_backwards(session, pictures):
    found = [session.infer(picture, frame_id=k) for k, picture in zip((5, 6, 6, 3, 7), pictures, strict=False)]
    assert [p.reasons for p in found] == [(), (), (Reason.STALE_FRAME,), (Reason.STALE_FRAME,), ()]


def test_numbers_of_numpy_are_numbers(session, pictures):
    frame = Frame(np.int64(3), np.int64(time.monotonic_ns()), pictures[0])
    (prediction,) = session.frame_judge.judge(frame, (Roi.whole(),), session.camera_health(), 10**10)
    assert prediction.accepted
    assert type(prediction.frame_id) is int


def test_counters_add_up(broken, pictures):
    session, engine = broken
    with Pipeline(PictureCamera(pictures, fps=200.0), session, deadline_ms=1000) as pipeline:
        time.sleep(0.3)
        engine.change = lambda logits: time.sleep(0.02) or logits
        time.sleep(0.3)
    stats = pipeline.stats
    assert stats.captured == stats.frames + stats.dropped + stats.waiting
    assert 0 <= stats.waiting <= 2
    assert stats.dropped > 0


def test_a_silence_is_written_down_without_a_frame():
    prediction = Prediction.without_frame("whole", Reason.NO_FRAME, "gone", 17)
    record = prediction.to_json()
    assert record["frame_id"] is None
    assert record["verdict"] == "REJECT"
    assert record["confidence"] is None
