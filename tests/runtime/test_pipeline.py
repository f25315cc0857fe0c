from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
import weakref

import numpy as np
import pytest

from framegate.runtime import Frame, Pipeline, Reason, Roi, Session, SourceError, UsageError, open_source
from framegate.runtime.backends.base import CpuBackend
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.faults.inject import FaultInjector, parse_faults
from framegate.runtime.regions.function import FunctionRegions
from framegate.runtime.regions.judge import Objects
from framegate.runtime.sources.base import BaseSource


class Numbered(BaseSource):
    """Frames in a clear colour, each different; optionally slow, or breaking off."""

    def __init__(self, images, interval_s=0.0, breaks_after=None, error=None, live=False):
        super().__init__("numbered", live=live, frame_size=(images[0].shape[1], images[0].shape[0]))
        self._images, self._interval, self._breaks, self._error = images, interval_s, breaks_after, error

    def _produce(self, frame_id):
        if self._breaks is not None and frame_id == self._breaks:
            raise self._error
        if frame_id >= len(self._images):
            return None
        if self._interval:
            self._closed.wait(self._interval)
        return Frame(frame_id, time.monotonic_ns(), self._images[frame_id])


@pytest.fixture
def session(tiny_bundle):
    return Session.open(tiny_bundle, "onnxruntime", threads=1)


@pytest.fixture(scope="module")
def blue(coloured):
    return [coloured((250, 10, 10), seed=k) for k in range(200)]


class _Slow(CpuBackend):
    """A real engine behind a delay."""

    def __init__(self, session, delay_s):
        self._inner = load_backend("onnxruntime", session.bundle.model_path("fp32"), 1)
        self._delay = delay_s
        self.name, self.engine, self.classes = self._inner.name, self._inner.engine, self._inner.classes
        self.pooled = None

    def bind(self, tensor):
        self._inner.bind(tensor)

    def finish(self):
        time.sleep(self._delay)
        return self._inner.finish()


def test_what_exists_when_it_starts_costs_the_collector_nothing_while_it_runs(session, blue, monkeypatch, request):
    monkeypatch.setattr("framegate.runtime.pipeline.gc", gc)  # tests/conftest.py has a quicker one for all others

    class Knot:
        """Garbage that only a full collection finds."""

    request.addfinalizer(gc.freeze)  # the collected tests, again
    gc.unfreeze()
    knot = Knot()
    knot.itself, seen = knot, weakref.ref(knot)
    gc.collect(1)
    gc.collect(1)  # now it is among what is old
    del knot
    pipeline = Pipeline(Numbered(blue[:2]), session, lossless=True)
    with pipeline:
        assert seen() is None
        assert gc.get_freeze_count() > 1000
        assert len(list(pipeline)) == 2
    assert gc.get_freeze_count() == 0


def slowed(session, delay_s):
    return Session(session.bundle, _Slow(session, delay_s), "fp32", session.calibration)


def test_numbers_in_numbers_out(session, blue):
    with Pipeline(Numbered(blue), session, lossless=True) as pipeline:
        predictions = list(pipeline)
    assert [p.frame_id for p in predictions] == list(range(200))
    assert all(p.accepted for p in predictions)
    assert pipeline.stats.captured == pipeline.stats.frames == pipeline.stats.accepted == 200
    assert pipeline.stats.dropped == pipeline.stats.unread == 0


def test_a_slow_engine_drops_frames_but_never_delays_the_newest(session, blue):
    source = Numbered(blue[:60], interval_s=0.005, live=True)
    with Pipeline(source, slowed(session, 0.03)) as pipeline:
        predictions = list(pipeline)
    stats = pipeline.stats
    assert stats.captured == 60
    assert stats.dropped > 0
    assert stats.frames + stats.dropped == 60
    ids = [p.frame_id for p in predictions]
    assert ids == sorted(set(ids))
    assert ids[-1] == 59


def test_a_slow_consumer_never_holds_the_worker_up(session, blue):
    source = Numbered(blue, interval_s=0.001, live=True)
    with Pipeline(source, session) as pipeline:
        deadline = time.monotonic() + 20
        while pipeline.stats.frames + pipeline.stats.dropped < 200 and time.monotonic() < deadline:
            time.sleep(0.01)  # nobody reads
        assert pipeline.stats.frames + pipeline.stats.dropped == 200
        read = list(pipeline)
    assert pipeline.stats.unread > 0
    assert len(read) + pipeline.stats.unread == pipeline.stats.frames
    assert read[-1].frame_id == 199


def test_fault_source_breaks_off_verdicts_up_to_there_are_kept(session, blue):
    source = Numbered(blue, breaks_after=7, error=SourceError("the cable is out"))
    with Pipeline(source, session, lossless=True) as pipeline:
        results = iter(pipeline)
        assert [next(results).frame_id for _ in range(7)] == list(range(7))
        with pytest.raises(SourceError, match="the cable is out"):
            next(results)


def test_fault_source_raises_something_unexpected(session, blue):
    source = Numbered(blue, breaks_after=3, error=ZeroDivisionError("a bug in a driver"))
    with Pipeline(source, session, lossless=True) as pipeline, pytest.raises(ZeroDivisionError):
        list(pipeline)
    assert pipeline.stats.accepted == 3


def test_fault_deadline_missed(session, blue):
    with Pipeline(Numbered(blue[:5]), slowed(session, 0.02), deadline_ms=10, lossless=True) as pipeline:
        predictions = list(pipeline)
    assert len(predictions) == 5
    assert all(p.reasons == (Reason.LATE,) for p in predictions)


def test_frames_within_the_deadline_are_accepted(session, blue):
    with Pipeline(Numbered(blue[:5]), session, deadline_ms=10_000, lossless=True) as pipeline:
        assert [p.accepted for p in pipeline] == [True] * 5


def test_injected_faults_never_get_through(session, blue):
    plan = "black:3-5,freeze:10-12,size:20-21,grey16:30"
    source = FaultInjector(Numbered(blue[:40]), parse_faults(plan))
    with Pipeline(source, session, lossless=True) as pipeline:
        verdicts = {p.frame_id: p for p in pipeline}
    for ids, reason in (
        ((3, 4, 5), Reason.BLACK),
        ((10, 11, 12), Reason.FROZEN),
        ((20, 21), Reason.WRONG_SIZE),
        ((30,), Reason.BAD_INPUT),
    ):
        for frame_id in ids:
            assert not verdicts[frame_id].accepted
            assert reason in verdicts[frame_id].reasons
    clean = set(range(40)) - {3, 4, 5, 10, 11, 12, 20, 21, 30}
    assert {k for k, p in verdicts.items() if p.accepted} == clean


def test_every_region_gets_its_own_verdict(session):
    # Left half blue, right half grey: one region usable, the other not.
    rng = np.random.default_rng(0)
    images = []
    for _ in range(4):
        image = rng.integers(120, 136, (48, 64, 3)).astype(np.uint8)
        image[:, :32] = (250, 5, 5)
        images.append(image)
    rois = (Roi.parse("left=0,0,32,48"), Roi.parse("right=0.5,0.0,0.5,1.0"))
    with Pipeline(Numbered(images), session, rois=rois, lossless=True, keep_frames=True) as pipeline:
        results = list(pipeline.results())
    assert len(results) == 4
    for result, image in zip(results, images, strict=True):
        left, right = result.predictions
        assert (left.stream, left.accepted, left.label) == ("left", True, "blue")
        assert (right.stream, right.reasons) == ("right", (Reason.HIGH_SCORE,))
        np.testing.assert_array_equal(result.image, image)
    assert pipeline.stats.streams["left"].accepted == 4
    assert pipeline.stats.streams["right"].accepted == 0


def test_a_region_outside_the_frame_is_refused_before_anything_runs(session, blue):
    with pytest.raises(UsageError, match="reaches outside the 64x48 frame"):
        Pipeline(Numbered(blue), session, rois=(Roi.parse("60,40,20,20"),))


@pytest.mark.parametrize("deadline", [0, -1, float("nan")])
def test_a_deadline_must_be_positive(session, blue, deadline):
    with pytest.raises(UsageError, match="positive"):
        Pipeline(Numbered(blue), session, deadline_ms=deadline)


def _ours():
    """Threads of pipelines; those of libraries and of other tests come and go."""
    return sum(thread.name.startswith("framegate") for thread in threading.enumerate())


def _gone_by(before, timeout_s=5.0):
    """Assert that all threads begun since have ended; the check's ends by itself, and nobody waits for it."""
    end = time.monotonic() + timeout_s
    while _ours() != before and time.monotonic() < end:
        time.sleep(0.01)
    assert _ours() == before


def test_stopping_early_ends_all_threads_and_keeps_what_was_judged(session):
    before = _ours()
    source = open_source("synthetic://?width=128&height=96&fps=200")
    with Pipeline(source, session) as pipeline:
        for count, _ in enumerate(pipeline):
            if count == 5:
                break
    _gone_by(before)
    assert not any(thread.is_alive() for thread in pipeline._threads)
    assert source.read() is None
    assert pipeline.stats.frames >= 6


def test_iterating_without_with_is_an_error_and_does_not_wait_forever(session, blue):
    with pytest.raises(UsageError, match="inside its with block"):
        next(iter(Pipeline(Numbered(blue), session)))


def test_a_lossless_pipeline_nobody_reads_can_be_stopped(session, blue):
    with Pipeline(Numbered(blue), session, lossless=True) as pipeline:
        time.sleep(0.2)  # the worker now waits for room in the results
    assert pipeline.stats.frames < 200


def test_who_is_told_at_once_gets_every_result_also_where_the_consumer_sleeps(session, blue):
    told, threads = [], set()

    def tell(result):
        told.append(result.first.frame_id)
        threads.add(threading.current_thread().name)

    pipeline = Pipeline(Numbered(blue[:20], interval_s=0.002, live=True), session, deadline_ms=5000)
    pipeline.tell(tell)
    with pipeline:
        first = pipeline.take(10)
        time.sleep(0.1)
        read = [first.first.frame_id, *(each.frame_id for each in pipeline)]
    assert told == sorted(set(told))
    assert len(told) == pipeline.stats.frames > len(read)
    assert threads == {"framegate-worker"}


@pytest.mark.parametrize("silent", [False, True])
def test_an_error_of_who_is_told_ends_the_pipeline_and_comes_out(session, blue, silent):
    def tell(result):
        if silent == (result.first.frame_id < 0):
            raise UsageError("there is no stream here")

    pipeline = Pipeline(Numbered(blue[:4], interval_s=0.3 * silent, live=True), session, deadline_ms=60)
    pipeline.tell(tell)
    with pipeline, pytest.raises(UsageError, match="no stream here"):
        list(pipeline)


def _own_threads():
    return {each.name for each in threading.enumerate() if each.name.startswith("framegate-") and each.is_alive()}


@pytest.mark.parametrize("fps", [float("nan"), float("inf"), 0.0, -25.0, 1e-300, 1e300])
def test_a_live_source_of_a_nonsensical_rate_is_judged_and_watched(session, blue, fps):
    source = Numbered(blue[:5], interval_s=0.1, live=True)
    source.fps = fps
    with Pipeline(source, session, deadline_ms=60_000) as pipeline:
        assert "framegate-watchdog" in _own_threads()
        assert sum(prediction.accepted for prediction in pipeline) >= 1


@pytest.mark.parametrize("which", ["framegate-capture", "framegate-worker", "framegate-watchdog"])
def test_fault_a_pipeline_that_cannot_start_leaves_nothing_running(session, blue, monkeypatch, which):
    """Whatever raises: no thread goes on giving verdicts that nobody watches, and the session is free."""
    before = _own_threads()
    source = Numbered(blue, interval_s=0.01, live=True)
    pipeline, begin = Pipeline(source, session), threading.Thread.start

    def start(self):
        if self.name == which:
            raise RuntimeError("can't start new thread")
        begin(self)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start"), pipeline:
            pytest.fail("the block was entered")
    assert pipeline.latest().reasons == (Reason.NO_FRAME,)
    assert not {"framegate-capture", "framegate-worker", "framegate-watchdog"} & (_own_threads() - before)
    with Pipeline(Numbered(blue[:3]), session, lossless=True) as again:
        assert len(list(again)) == 3


def test_fault_a_session_whose_preparation_fails_is_free_again(session, blue, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(session, "judge_together", lambda count: 1 / 0)
        with pytest.raises(ZeroDivisionError), Pipeline(Numbered(blue[:3]), session):
            pytest.fail("the block was entered")
    with Pipeline(Numbered(blue[:3]), session, lossless=True) as again:
        assert len(list(again)) == 3


def test_fault_a_source_that_raises_when_it_is_closed_leaves_nothing_running(session, blue):
    class Refusing(Numbered):
        def close(self):
            super().close()
            raise OSError("the driver says no")

    before = set(threading.enumerate())  # of a test before this one a thread may still be ending
    pipeline = Pipeline(Refusing(blue, interval_s=0.01, live=True), session, deadline_ms=60_000)
    with pytest.raises(OSError, match="the driver says no"), pipeline:
        assert pipeline.take(30) is not None
    assert pipeline.unfinished == ()
    assert pipeline.latest().reasons == (Reason.NO_FRAME,)
    running = [each.name for each in threading.enumerate() if each not in before]
    assert not {"framegate-capture", "framegate-worker"} & set(running)
    with Pipeline(Numbered(blue[:3]), session, lossless=True) as again:  # the session is free
        assert len(list(again)) == 3


def test_fault_a_source_that_never_ends_its_close_is_named_and_holds_nobody_up(session, blue, capsys, monkeypatch):
    class Stuck(Numbered):
        driver_answers = threading.Event()

        def close(self):
            super().close()
            self.driver_answers.wait()

    monkeypatch.setattr("framegate.runtime.pipeline._JOIN_S", 0.5)
    stuck = Stuck(blue, interval_s=0.01, live=True)
    with Pipeline(stuck, session, deadline_ms=60_000) as pipeline:
        assert pipeline.take(30) is not None
        begun = time.monotonic()
        threading.Timer(10, stuck.driver_answers.set).start()
    assert time.monotonic() - begun < 5
    assert pipeline.unfinished == ("framegate-close",)
    assert "the source numbered does not answer" in capsys.readouterr().err
    stuck.driver_answers.set()
    with Pipeline(Numbered(blue[:3]), session, lossless=True) as again:  # the session is free
        assert len(list(again)) == 3


def test_a_source_is_closed_where_no_thread_can_be_started(session, blue, monkeypatch):
    source = Numbered(blue[:3])
    pipeline = Pipeline(source, session, lossless=True)
    with pipeline, monkeypatch.context() as patch:
        assert len(list(pipeline)) == 3
        patch.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("no room")))
        pipeline.stop()
        assert source.status.state == "ended"
        assert source._closed.is_set()
        assert pipeline.unfinished == ()


def test_fault_a_signal_handler_stops_the_pipeline_whose_reader_it_has_interrupted(session, blue, capsys):
    """The worker may be waiting for what the interrupted thread holds, which goes on only after the handler."""
    with Pipeline(Numbered(blue, interval_s=0.01, live=True), session, deadline_ms=60_000) as pipeline:
        assert pipeline.take(30) is not None
        with pipeline._results._guard:  # as in the middle of `take`
            begun = time.monotonic()
            pipeline.stop()
            assert time.monotonic() - begun < 2
        assert pipeline.take(30) is None or pipeline.take(30) is None  # one may have been waiting
    assert pipeline.unfinished == ()
    assert "does not answer" not in capsys.readouterr().err
    with Pipeline(Numbered(blue[:3]), session, lossless=True) as again:
        assert len(list(again)) == 3


def test_fault_what_the_first_close_raised_comes_out_where_stop_could_not_wait_for_it(session, blue):
    """Closed again it may say nothing, and two threads that close one driver at once might harm it."""

    class Once(Numbered):
        closings = 0

        def close(self):
            super().close()
            self.closings += 1
            if self.closings == 1:
                raise OSError("the driver says no")

    source = Once(blue, interval_s=0.01, live=True)
    pipeline = Pipeline(source, session, deadline_ms=60_000)
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.raises(OSError, match="the driver says no"))
        stack.enter_context(pipeline)
        assert pipeline.take(30) is not None
        with pipeline._results._guard:  # a signal handler, in the middle of `take`
            pipeline.stop()
    pipeline.stop()
    assert source.closings == 1


def test_fault_a_signal_handler_that_has_interrupted_stop_does_not_wait_for_it(session, blue, monkeypatch):
    """`Event.set` and `Thread.join` hold a lock for some microseconds, which the same call in a handler waits for."""
    calls = []
    with Pipeline(Numbered(blue, interval_s=0.01, live=True), session, deadline_ms=60_000) as pipeline:
        assert pipeline.take(30) is not None
        tell = pipeline._watchdog.stop

        def interrupted():
            if threading.current_thread() is threading.main_thread():  # else it is the worker, which ends
                calls.append(None)
                if len(calls) == 1:
                    pipeline.stop()
            tell()

        monkeypatch.setattr(pipeline._watchdog, "stop", interrupted)
        pipeline.stop()
        assert len(calls) == 1
    assert pipeline.unfinished == ()


def test_fault_a_giver_that_never_ends_its_close_is_not_taken_for_the_source(session, blue, capsys, monkeypatch):
    monkeypatch.setattr("framegate.runtime.pipeline._JOIN_S", 0.5)
    giver, goes_on = FunctionRegions(lambda image: []), threading.Event()
    giver.close = goes_on.wait
    with Pipeline(Numbered(blue[:3]), session, lossless=True, objects=Objects(giver)) as pipeline:
        assert len(list(pipeline.results())) == 3
    goes_on.set()
    assert pipeline.unfinished == ("framegate-close-regions",)
    assert "the giver of regions does not answer" in capsys.readouterr().err


def test_regions_of_one_name_are_refused(session, blue):
    twice = (Roi("a", 0, 0, 20, 20, fractions=False), Roi("a", 20, 0, 20, 20, fractions=False))
    with pytest.raises(UsageError, match="used twice"):
        Pipeline(Numbered(blue), session, rois=twice)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_fault_a_forked_child_that_leaves_the_block_ends(session, blue):
    """The threads, and the locks that they may hold at that moment, are the parent's."""
    with Pipeline(Numbered(blue, interval_s=0.01, live=True), session, deadline_ms=60_000) as pipeline:
        until = time.monotonic() + 30
        while pipeline.stats.frames < 1 and time.monotonic() < until:
            time.sleep(0.01)
        # As it is when the fork falls into a hand-over: nobody in the child will ever let go.
        with pipeline._mailbox._guard, pipeline._results._guard:
            child = os.fork()
            if child == 0:
                pipeline.stop()
                os._exit(0 if pipeline.latest().reasons == (Reason.NO_FRAME,) else 1)
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < until:
            time.sleep(0.01)
        if ended == (0, 0):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        assert ended == (child, 0)
        assert pipeline.latest().accepted  # the parent's goes on
