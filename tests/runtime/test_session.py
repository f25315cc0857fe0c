from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import signal
import threading
import time

import numpy as np
import pytest

from framegate.runtime import BackendError, BundleError, Reason, RejectedFrame, Session, UsageError
from framegate.runtime.backends.base import CpuBackend
from framegate.runtime.backends.choice import choose_backend, load_backend
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.roi import Roi
from framegate.runtime.scores import not_finite
from framegate.runtime.verdict import Frame

BACKENDS = ["openvino", "onnxruntime"]


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def test_a_clear_image_is_accepted(tiny_bundle, coloured, backend):
    session = Session.open(tiny_bundle, backend)
    prediction = session.infer(coloured((250, 10, 10)))
    assert prediction.accepted
    assert prediction.label == "blue"
    assert prediction.confidence > 0.99
    assert 0 <= prediction.entropy <= prediction.threshold
    assert prediction.engine_ns > 0
    assert prediction.to_json()["verdict"] == "ACCEPT"
    assert session.infer(coloured((10, 10, 250), seed=1)).label == "red"


def test_an_unclear_image_is_rejected_and_its_label_cannot_be_read(tiny_bundle, coloured, backend):
    prediction = Session.open(tiny_bundle, backend).infer(coloured((128, 128, 128)))
    assert prediction.reasons == (Reason.HIGH_SCORE,)
    assert prediction.candidate in ("blue", "green", "red")
    with pytest.raises(RejectedFrame, match="HIGH_SCORE"):
        _ = prediction.label


@pytest.mark.parametrize("kind", ["nan", "infinite", "masked"])
def test_fault_output_not_finite(make_bundle, coloured, backend, kind):
    prediction = Session.open(make_bundle(kind=kind), backend).infer(coloured((250, 10, 10)))
    assert prediction.reasons == (Reason.NOT_FINITE,)
    assert not prediction.accepted


def test_fault_not_calibrated(make_bundle, coloured, backend):
    session = Session.open(make_bundle(threshold=None), backend)
    assert "NOT CALIBRATED" in session.describe()
    prediction = session.infer(coloured((250, 10, 10)))
    assert prediction.reasons == (Reason.NOT_CALIBRATED,)
    assert math.isnan(prediction.threshold)
    assert prediction.to_json()["threshold"] is None


def test_another_engine_version_than_the_calibrated_one_is_named(tiny_bundle):
    assert (
        Session.open(tiny_bundle, "onnxruntime")
        .describe()
        .partition("the promise is that of ")[2]
        .startswith("test, not of this engine")
    )


class _Breaking(CpuBackend):
    """A real engine that fails from a given call on, as a device that falls off the bus does."""

    def __init__(self, inner, healthy_calls, error):
        self._inner, self._left, self._error = inner, healthy_calls, error
        self.name, self.engine, self.classes = inner.name, inner.engine, inner.classes
        self.pooled = None

    def bind(self, tensor):
        self._inner.bind(tensor)

    def finish(self):
        self._left -= 1
        if self._left < 0:
            raise self._error
        return self._inner.finish()


@pytest.mark.parametrize("error", [BackendError("the device is gone"), RuntimeError("boom"), MemoryError("none left")])
def test_fault_engine_dies_while_running(tiny_bundle, coloured, error):
    opened = Session.open(tiny_bundle, "onnxruntime")
    engine = _Breaking(load_backend("onnxruntime", opened.bundle.model_path("fp32")), 7, error)
    session = Session(opened.bundle, engine, "fp32", opened.calibration)
    verdicts = [session.infer(coloured((250, 10, 10), seed=k)) for k in range(6)]
    assert [p.accepted for p in verdicts] == [True, True, False, False, False, False]
    assert all(p.reasons == (Reason.BACKEND_FAULT,) for p in verdicts[2:])
    assert str(error) in verdicts[2].detail


def test_fault_engine_raises_inside_the_graph(make_bundle, coloured):
    # ONNX Runtime itself raises on this graph, already during warm-up: the bundle does not open.
    with pytest.raises(BackendError, match="onnxruntime failed"):
        Session.open(make_bundle(kind="failing"), "onnxruntime")


@pytest.mark.parametrize(
    "image", [np.zeros((48, 64), np.uint8), np.zeros((48, 64, 3), np.uint16), np.zeros((1, 1, 3), np.uint8), None, "x"]
)
def test_bad_input_is_rejected_not_raised(tiny_bundle, image):
    prediction = Session.open(tiny_bundle, "onnxruntime").infer(image)
    assert prediction.reasons == (Reason.BAD_INPUT,)
    assert prediction.detail
    assert prediction.candidate == ""
    assert math.isnan(prediction.score)


def test_infer_treats_its_calls_as_one_camera(tiny_bundle, coloured):
    session = Session.open(tiny_bundle, "onnxruntime")
    image = coloured((250, 10, 10))
    assert session.infer(image).accepted
    assert session.infer(image.copy()).reasons == (Reason.FROZEN,)
    assert session.infer(coloured((250, 10, 10), width=32, height=32)).reasons == (Reason.WRONG_SIZE,)
    photographs = Session.open(tiny_bundle, "onnxruntime", camera=False)
    assert photographs.infer(image).accepted
    assert photographs.infer(image.copy()).accepted


def test_frame_ids_and_times_are_carried_through(tiny_bundle, coloured):
    session = Session.open(tiny_bundle, "onnxruntime")
    assert [session.infer(coloured((250, 10, 10), seed=k)).frame_id for k in range(3)] == [0, 1, 2]
    captured = time.monotonic_ns() - 5_000_000
    prediction = session.infer(coloured((250, 10, 10), seed=9), frame_id=41, captured_ns=captured)
    assert (prediction.frame_id, prediction.captured_ns) == (41, captured)
    assert prediction.latency_ms > 5


def test_both_engines_agree(tiny_bundle, coloured):
    one, two = (Session.open(tiny_bundle, name) for name in BACKENDS)
    rng, decided = np.random.default_rng(0), 0
    for seed in range(20):
        image = coloured(tuple(rng.integers(0, 256, 3)), seed)
        a, b = one.infer(image), two.infer(image)
        assert a.entropy == pytest.approx(b.entropy, abs=1e-4)
        if abs(a.entropy - a.threshold) > 1e-3:  # on the threshold their last bits decide
            assert a.accepted == b.accepted
            decided += 1
    assert decided >= 18


def test_unknown_backend_and_precision(tiny_bundle):
    with pytest.raises(
        UsageError, match="'tensorflow' was asked for; known are auto, tensorrt, tensorrt-rtx, openvino, onnxruntime"
    ):
        Session.open(tiny_bundle, "tensorflow")
    with pytest.raises(BundleError, match="'fp16' was asked for, it has"):
        Session.open(tiny_bundle, "onnxruntime", "fp16")


def test_a_named_backend_never_falls_back(tiny_bundle, monkeypatch):
    real = importlib.util.find_spec
    hidden = lambda name, *rest: None if name == "openvino" else real(name, *rest)  # noqa: E731
    monkeypatch.setattr("importlib.util.find_spec", hidden)
    with pytest.raises(BackendError, match="'openvino' was asked for, but the package 'openvino' is not installed"):
        Session.open(tiny_bundle, "openvino")
    assert choose_backend("auto") == "onnxruntime"


def test_openvino_takes_one_thread_for_small_networks_and_all_for_large_ones(tiny_bundle, monkeypatch):
    pytest.importorskip("openvino")
    from framegate.runtime.backends import openvino_cpu as backend_openvino

    def threads(wanted=None):
        session = Session.open(tiny_bundle, "openvino", threads=wanted)
        return session.scorer.backend._request.get_compiled_model().get_property("INFERENCE_NUM_THREADS")

    assert threads() == 1
    assert threads(2) == 2
    monkeypatch.setattr(backend_openvino, "SMALL_S", 0.0)  # no network is small
    assert threads() > 1 or os.cpu_count() == 1
    assert threads(1) == 1


def test_auto_says_which_one_it_took(tiny_bundle, capsys):
    session = Session.open(tiny_bundle)
    assert session.scorer.backend.engine in capsys.readouterr().err


def test_labels_must_match_the_logits(make_bundle):
    folder = make_bundle(change=lambda m: m.update(labels=["one", "two"]))
    with pytest.raises(BundleError, match="2 labels, but 3 logits"):
        Session.open(folder, "onnxruntime")


def test_a_model_that_is_not_onnx(make_bundle, backend):
    def swap(manifest):
        manifest["files"]["model.fp32.onnx"] = hashlib.sha256(b"not a model").hexdigest()

    folder = make_bundle(threshold=None, change=swap)
    (folder / "model.fp32.onnx").write_bytes(b"not a model")
    with pytest.raises(BundleError, match="no ONNX file"):
        Session.open(folder, backend, "fp32")


def test_refused_frames_never_reach_the_engine(tiny_bundle, coloured):
    session = Session.open(tiny_bundle, "onnxruntime")
    calls = []
    finish = session.scorer.backend.finish
    session.scorer.backend.finish = lambda: calls.append(1) or finish()
    session.infer(coloured((250, 10, 10), seed=1))
    assert len(calls) == 1
    assert Reason.WRONG_SIZE in session.infer(np.zeros((100, 90, 3), np.uint8)).reasons
    assert Reason.BAD_INPUT in session.infer(np.zeros((48, 64), np.uint16)).reasons
    assert len(calls) == 1


@pytest.mark.parametrize("shape", [(1,), (100,), (2, 2), (3, 3, 3, 3), (0, 4, 3), (4, 0, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, object])
def test_arrays_of_any_shape_that_are_not_contiguous_are_bad_input(tiny_bundle, shape, dtype):
    session = Session.open(tiny_bundle, "onnxruntime")
    image = np.zeros(tuple(2 * each for each in shape), dtype)[tuple(slice(None, None, 2) for _ in shape)]
    assert image.shape == shape
    assert Reason.BAD_INPUT in session.infer(image).reasons


def test_fault_camera_check_raises(tiny_bundle, coloured, monkeypatch):
    session = Session.open(tiny_bundle, "onnxruntime")
    monkeypatch.setattr("framegate.runtime.health.frozen.RecentFrames.take", lambda *_: 1 / 0)
    prediction = session.infer(coloured((250, 10, 10), seed=1))
    assert prediction.reasons == (Reason.BAD_INPUT,)
    assert prediction.detail == "health check failed: division by zero"


def test_a_gpu_computes_while_the_camera_is_checked(tiny_bundle, coloured, monkeypatch):
    done = []

    class Gpu:
        name, engine, classes, pooled, takes_frames, fault = "gpu", "gpu 1", 3, None, True, ""

        def bind(self, tensor):
            done.append("bind an array")

        def bind_frames(self, *_):
            done.append("bind")

        def start(self, frame=None):
            done.append("start")

        def finish(self):
            done.append("finish")
            self.scores = not_finite()
            return np.zeros((1, 3), np.float32)

    bundle = Bundle.open(tiny_bundle)
    session = Session(bundle, Gpu(), "fp32", None, gpu_preprocess=True)
    assert done == ["bind an array"] + ["start", "finish"] * 5  # the warm-up; the known answers are arrays, too
    done.clear()
    monkeypatch.setattr("framegate.runtime.health.frozen.RecentFrames.take", lambda *_: done.append("check") or 1 / 0)
    rois = (Roi.whole(), Roi.parse("left=0,0,32,48"))
    frame = Frame(0, time.monotonic_ns(), coloured((250, 10, 10), seed=1))
    predictions = session.frame_judge.judge(frame, rois, session.camera_health())
    assert done == ["bind", "start", "check", "finish", "bind", "start", "finish"]
    assert [Reason.BAD_INPUT in prediction.reasons for prediction in predictions] == [True, True]


def test_an_engine_with_two_steps_computes_while_the_camera_is_checked(tiny_bundle, coloured, monkeypatch):
    done = []

    class Steps:
        name, engine, classes, pooled, takes_frames, fault = "steps", "steps 1", 3, None, False, ""
        scores = None

        def bind(self, tensor):
            done.append("bind")

        def start(self, frame=None):
            assert frame is None
            done.append("start")

        def finish(self):
            done.append("finish")
            return np.array([[9.0, 0.0, 0.0]], np.float32)

    session = Session(Bundle.open(tiny_bundle), Steps(), "fp32", None)
    assert done == ["bind"] + ["start", "finish"] * 5  # the warm-up
    done.clear()
    monkeypatch.setattr("framegate.runtime.health.frozen.RecentFrames.take", lambda *_: done.append("check") or 1 / 0)
    prediction = session.infer(coloured((250, 10, 10), seed=1))
    assert done == ["start", "check", "finish"]
    assert prediction.candidate == "blue"
    assert Reason.BAD_INPUT in prediction.reasons
    assert prediction.engine_ns > 0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such signal")
def test_fault_a_signal_handler_judges_another_frame_in_the_middle_of_one(tiny_bundle, coloured, backend, monkeypatch):
    """There is one input: the frame that was interrupted would get the other one's label."""
    session = Session.open(tiny_bundle, backend, camera=False)
    blue, grey = coloured((250, 10, 10)), coloured((128, 128, 128))
    assert session.infer(blue).accepted
    assert not session.infer(grey).accepted
    refused, finish, handled = [], session.scorer.finish, signal.getsignal(signal.SIGALRM)

    def handler(*_):
        for attempt in (lambda: session.infer(blue), lambda: session.claim("a pipeline")):
            with pytest.raises(UsageError, match="signal handler") as error:
                attempt()
            refused.append(str(error.value))

    def interrupted(*given):
        signal.raise_signal(signal.SIGALRM)
        return finish(*given)

    signal.signal(signal.SIGALRM, handler)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(session.scorer, "finish", interrupted)
            assert not session.infer(grey).accepted
    finally:
        signal.signal(signal.SIGALRM, handled)
    assert len(refused) == 2
    assert session.infer(blue).accepted  # and afterwards it goes on


def test_a_session_that_another_thread_uses_is_not_said_to_have_been_interrupted(tiny_bundle, coloured, monkeypatch):
    session, refused = Session.open(tiny_bundle, "onnxruntime", camera=False), []
    finish = session.scorer.finish

    def meanwhile(*given):
        def claims():
            with pytest.raises(UsageError) as error:
                session.claim("a pipeline")
            refused.append(str(error.value))

        other = threading.Thread(target=claims)
        other.start()
        other.join()
        return finish(*given)

    monkeypatch.setattr(session.scorer, "finish", meanwhile)
    session.infer(coloured((250, 10, 10)))
    assert len(refused) == 1
    assert "judges another stream already" in refused[0]


def test_a_session_whose_judging_was_broken_off_can_be_used_again(tiny_bundle, coloured, monkeypatch):
    session = Session.open(tiny_bundle, "onnxruntime", camera=False)
    with monkeypatch.context() as patch:
        patch.setattr(session.frame_judge, "judge", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            session.infer(coloured((250, 10, 10)))
    assert session.infer(coloured((250, 10, 10))).accepted
