"""Writing beside the stream: slow, failing and hanging sinks, and what is said about them."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from framegate.runtime.errors import SinkError
from framegate.runtime.frame_result import FrameResult
from framegate.runtime.sinks import recorder as recorder_module
from framegate.runtime.sinks.recorder import Recorder
from framegate.runtime.verdict import Prediction, Reason

PICTURE = np.zeros((4, 4, 3), np.uint8)


def result(number):
    now = time.monotonic_ns()
    one = Prediction(number, "car", (Reason.LATE,), "cat", 0.9, 0.1, 0.8, -3.0, 0.1, 0.5, now - 10**6, now)
    return FrameResult((one,), PICTURE, "")


def silence():
    return FrameResult((Prediction.without_frame("car", Reason.NO_FRAME, "", time.monotonic_ns()),), None, "")


class ListSink:
    """Keeps what it gets; takes its time, fails or hangs."""

    path = Path("list")
    takes_silence = False
    takes_pictures = True

    def __init__(self, seconds=0.0, fails_at=None, error=None, hangs_at=None):
        self.seconds, self.fails_at, self.hangs_at = seconds, fails_at, hangs_at
        self.error = error or SinkError("recording list: writing failed (No space left on device); 2 frames are kept")
        self.written, self.pictures, self.flushed, self.closed = [], 0, 0, False
        self.free = threading.Event()

    def write(self, result):
        if len(self.written) == self.fails_at:
            raise self.error
        if len(self.written) == self.hangs_at:
            self.free.wait()
        time.sleep(self.seconds)
        self.written.append(result.predictions[0].frame_id)
        self.pictures += result.image is not None

    def flush(self):
        self.flushed += 1

    def close(self):
        self.closed = True


class LineSink(ListSink):
    takes_silence = True
    takes_pictures = False


def test_everything_is_written_to_everyone():
    said = []
    sinks = [ListSink(), LineSink()]
    with Recorder(sinks, lossless=False, report=said.append) as recorder:
        for number in range(20):
            recorder.put(result(number))
        recorder.put(silence())
    assert sinks[0].written == list(range(20))
    assert sinks[1].written == [*range(20), -1]
    assert [sink.pictures for sink in sinks] == [20, 0]
    assert all(sink.closed for sink in sinks)
    assert not said
    assert not recorder.failed
    assert recorder.to_json()[0] == {"file": "list", "frames": 20, "left_out": 0, "failed": None}


@pytest.mark.parametrize("lossless", [False, True])
def test_a_slow_sink_holds_nobody_up_but_where_nothing_may_be_lost(lossless):
    said = []
    slow, quick = ListSink(0.01), LineSink()
    recorder = Recorder([slow, quick], lossless=lossless, report=said.append)
    begun = time.monotonic()
    for number in range(150):
        recorder.put(result(number))
    took = time.monotonic() - begun
    recorder.close()
    recorder.close()
    left_out = recorder.to_json()[0]["left_out"]
    assert len(slow.written) + left_out == 150
    assert slow.written[-1] == 149
    assert quick.written == list(range(150))  # it has a thread of its own
    assert (left_out == 0) == lossless
    assert (took > 0.5) == lossless
    assert said == (
        [] if lossless else [f"framegate: list lacks {left_out} frames: writing was slower than the stream"]
    )
    assert not recorder.failed


@pytest.mark.parametrize("lossless", [False, True])
def test_fault_a_sink_that_fails_is_closed_and_said_once_and_the_others_go_on(lossless):
    said = []
    sinks = [ListSink(fails_at=2), LineSink()]
    recorder = Recorder(sinks, lossless=lossless, report=said.append)
    for number in range(300):
        recorder.put(result(number))
    recorder.close()
    assert len(sinks[0].written) == 2
    assert sinks[1].written == list(range(300))
    assert all(sink.closed for sink in sinks)
    why = "recording list: writing failed (No space left on device); 2 frames are kept"
    assert said in ([f"framegate: {why}; judging goes on"], [f"framegate: {why}"])
    assert recorder.failed
    assert recorder.to_json()[0]["failed"] == why


def test_fault_a_sink_that_fails_is_said_while_the_stream_goes_on():
    said = []
    recorder = Recorder([ListSink(fails_at=0)], lossless=False, report=said.append)
    recorder.put(result(0))
    limit = time.monotonic() + 20
    while not said and time.monotonic() < limit:
        time.sleep(0.01)
    assert said[0].endswith("; judging goes on")
    recorder.close()
    assert len(said) == 1


def test_fault_an_unforeseen_error_of_a_sink_does_not_reach_the_stream():
    said = []
    sink = ListSink(fails_at=1, error=TypeError("odd"))
    with Recorder([sink], lossless=True, report=said.append) as recorder:
        for number in range(100):
            recorder.put(result(number))
    assert "recording list: TypeError: odd" in said[0]
    assert sink.closed
    assert recorder.failed


def test_fault_a_sink_that_cannot_be_finished_is_said():
    class Unfinished(ListSink):
        def close(self):
            raise SinkError("recording list: closing failed (Input/output error)")

    said = []
    with Recorder([Unfinished()], lossless=False, report=said.append) as recorder:
        recorder.put(result(0))
    assert said == ["framegate: recording list: closing failed (Input/output error)"]
    assert recorder.failed


@pytest.mark.parametrize("lossless", [False, True])
def test_fault_a_sink_that_hangs_is_given_up(monkeypatch, lossless):
    monkeypatch.setattr(recorder_module, "STUCK_S", 0.4)
    said = []
    hanging, quick = ListSink(hangs_at=3), LineSink()
    recorder = Recorder([hanging, quick], lossless=lossless, report=said.append)
    begun = time.monotonic()
    for number in range(200):
        recorder.put(result(number))
    recorder.close()
    assert time.monotonic() - begun < 10
    assert quick.written == list(range(200))
    assert len(said) == 1
    assert "writing has stood still for 0.4 s, so it is left as it is; its first 3 frames were handed over" in said[0]
    assert recorder.failed
    hanging.free.set()


def test_sinks_are_flushed_every_second_although_nothing_comes(monkeypatch):
    monkeypatch.setattr(recorder_module, "FLUSH_S", 0.1)
    sink = ListSink()
    with Recorder([sink], lossless=False, report=print) as recorder:
        recorder.put(result(0))
        limit = time.monotonic() + 20
        while sink.flushed < 3 and time.monotonic() < limit:
            time.sleep(0.01)
    assert sink.flushed >= 3
