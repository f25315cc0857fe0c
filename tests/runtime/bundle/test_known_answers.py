"""The engine is asked whether it still computes what was exported: at open, and again while a stream runs."""

from __future__ import annotations

import json
import math
import shutil
import time

import numpy as np
import pytest
from repository import BUNDLES, CLASSIFIERS

from framegate.benchmarks.cost.broken_parts import BrokenEngine
from framegate.runtime import Bundle, BundleError, Pipeline, Reason, Session, open_source
from framegate.runtime.backends import openvino_cpu
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.bundle.bundle import MANIFEST, seal
from framegate.runtime.bundle.known_answers import FILE, KnownAnswers
from framegate.runtime.errors import BackendError
from framegate.runtime.regions.batch_scorer import BatchScorer

SHIPPED = BUNDLES / "simplecnn-cifar10.bundle"
HYBRID = BUNDLES / "hybrid-cifar10.bundle"


def changed(change):
    bundle = Bundle.open(SHIPPED)
    engine = BrokenEngine(load_backend("onnxruntime", bundle.model_path("fp32"), 1))
    engine.change = change
    return Session(bundle, engine, "fp32", bundle.calibration("onnxruntime", "fp32"), camera=False), engine


@pytest.mark.parametrize("path", CLASSIFIERS, ids=lambda path: path.stem)
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_shipped_bundle_is_answered_by_every_engine(path, backend, precision):
    session = Session.open(path, backend, precision, 1)
    assert session.bundle.known_answers is not None
    session.scorer.ask()
    assert session.scorer.wrong == ""


@pytest.mark.parametrize(
    "change",
    [
        lambda logits: logits + np.float32(1),
        lambda logits: logits[:, ::-1].copy(),
        lambda logits: logits * np.float32(0.2),  # what sums that overflow look like
        lambda logits: np.full_like(logits, np.nan),
        lambda logits: np.zeros_like(logits),
    ],
)
def test_fault_an_engine_that_computes_something_else_is_not_opened(change):
    with pytest.raises(BackendError, match="does not compute what was exported"):
        changed(change)


def test_fault_int8_sums_that_overflow_are_noticed(monkeypatch):
    """OpenVINO's own INT8 kernels, whatever the processor: right where it adds exactly, refused where it does not."""
    exact = openvino_cpu.adds_int8_exactly()
    monkeypatch.setattr(openvino_cpu, "adds_int8_exactly", lambda: True)
    if exact:
        assert Session.open(HYBRID, "openvino", "int8", 1).scorer.wrong == ""
        return
    with pytest.raises(BackendError, match="does not compute what was exported; try another precision"):
        Session.open(HYBRID, "openvino", "int8", 1)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("regions", [1, 2])
def test_fault_an_engine_that_stops_at_a_known_answer_is_found_out_on_the_next_frame(backend, regions):
    """What it hands out then is right, for another picture; with two regions both come from one engine call."""
    session = Session.open(SHIPPED, backend, "fp32", 1, camera=False)
    crops = np.random.default_rng(0).integers(0, 256, (9, 60, 50, 3), np.uint8)
    scorer = session.scorer
    if regions == 2:
        scorer = BatchScorer(session.bundle, scorer.backend, "fp32", session.calibration, 2, always=True)

    def judge(number):
        if regions == 2:
            scorer.start(crops[number : number + 2])
        else:
            scorer.start(crops[number], "bgr")
        return scorer.finish()

    engine = scorer.engines[0] if regions == 2 else scorer.backend
    for number in range(3):
        judge(number)
    scorer.ask()
    assert scorer.wrong == ""
    held = engine.finish()  # the known pictures still lie in the input
    engine.finish = lambda: held
    for number in (3, 5):
        with pytest.raises(BackendError, match="bit for bit"):
            judge(number)


class Saturated:
    """What an engine says of a network that gives one answer to all pictures but the known ones."""

    def __init__(self, finish, tensor, known):
        self.finish, self.tensor, self.known = finish, tensor, known

    def __call__(self):
        logits = self.finish()
        for row, pixels in zip(logits, self.tensor, strict=False):
            if not any(np.array_equal(pixels, each) for each in self.known):
                row[:] = np.arange(len(row))
        return logits


@pytest.mark.parametrize("regions", [1, 2])
def test_a_network_that_says_the_same_of_different_pixels_is_no_stuck_engine(regions):
    """An INT8 network far from all that it knows does: its activations stand at the ends of their ranges."""
    session = Session.open(SHIPPED, "onnxruntime", "fp32", 1, camera=False)
    scorer, engine = session.scorer, session.scorer.backend
    known = []
    for image in session.bundle.known_answers.images:
        scorer.preprocessor(image)
        known.append(scorer.preprocessor.tensor[0].copy())
    tensor = scorer.preprocessor.tensor
    if regions == 2:
        scorer = BatchScorer(session.bundle, engine, "fp32", session.calibration, 2, always=True)
        engine, tensor = scorer.engines[0], scorer._tensor
    real = engine.finish
    engine.finish = Saturated(real, tensor, known)
    crops = np.random.default_rng(0).integers(0, 256, (20, 60, 50, 3), np.uint8)

    def judge(number):
        if regions == 2:
            scorer.start(crops[2 * number : 2 * number + 2])
            return scorer.finish()[0].scores
        scorer.start(crops[number], "bgr")
        return scorer.finish().scores

    assert len({judge(number) for number in range(6)}) == 1
    held = engine.finish().copy()
    engine.finish = lambda: held  # now it is stuck, at an answer that would be right
    with pytest.raises(BackendError, match="bit for bit"):
        judge(6)


class Stopping:
    """An engine that gives its last answer again, and then stops in one of several ways while it is asked why."""

    def __init__(self, real, how):
        self.real, self.how, self.calls = real, how, 0
        self.held = real().copy()

    def __call__(self):
        self.calls += 1
        computes = self.calls == 2 or (self.how == "every second time" and self.calls % 2 == 0)
        if self.how == "wrong" and self.calls > 1:
            return self.real()[:, ::-1].copy()
        if self.how == "raises" and self.calls == 3:
            raise BackendError("the engine broke off")
        if computes:
            self.held = self.real().copy()
        return self.held


@pytest.mark.parametrize("regions", [1, 2])
@pytest.mark.parametrize("how", ["stuck", "raises", "wrong", "every second time"])
def test_fault_an_engine_that_stops_while_it_is_asked_whether_it_computes(regions, how):
    """What it hands out then is the right answer to a known picture; the next frame must not get it."""
    session = Session.open(SHIPPED, "onnxruntime", "fp32", 1, camera=False)
    scorer, engine = session.scorer, session.scorer.backend
    if regions == 2:
        scorer = BatchScorer(session.bundle, engine, "fp32", session.calibration, 2, always=True)
        engine = scorer.engines[0]
    crops = np.random.default_rng(0).integers(0, 256, (20, 60, 50, 3), np.uint8)

    def judge(number):
        scorer.start(crops[2 * number : 2 * number + 2]) if regions == 2 else scorer.start(crops[number], "bgr")
        return scorer.finish()

    for number in range(3):
        judge(number)
    real = engine.finish
    engine.finish = Stopping(real, how)
    for number in (3, 4, 5):
        with pytest.raises(BackendError):
            judge(number)
    assert "bit for bit" in scorer.wrong
    engine.finish = real
    scorer.ask()
    assert scorer.wrong == ""
    judge(6)


def test_frames_that_saturate_a_network_are_not_rejected_as_a_fault_of_the_engine():
    session = Session.open(SHIPPED, "onnxruntime", "fp32", 1, camera=False)
    tensor, known = session.scorer.preprocessor.tensor, []
    for image in session.bundle.known_answers.images:
        session.scorer.preprocessor(image)
        known.append(tensor[0].copy())
    engine = session.scorer.backend
    engine.finish = Saturated(engine.finish, tensor, known)
    frames = np.random.default_rng(0).integers(0, 256, (8, 60, 50, 3), np.uint8)
    for frame in frames:  # all of one size, so that the fast path takes most
        prediction = session.infer(frame)
        assert Reason.BACKEND_FAULT not in prediction.reasons, prediction.detail
        assert prediction.candidate


def test_fault_the_engine_goes_wrong_while_the_stream_runs(monkeypatch):
    monkeypatch.setattr("framegate.runtime.session.ASK_EVERY_S", 0.2)
    monkeypatch.setattr("framegate.runtime.session._ASK_AGAIN_S", 0.1)
    session, engine = changed(lambda logits: logits)
    session.look_after_engine()
    source = open_source("synthetic://?width=128&height=64&fps=60")
    with Pipeline(source, session, deadline_ms=2000) as pipeline:
        next(iter(pipeline))
        assert session.scorer.wrong == ""
        engine.change = lambda logits: logits + np.float32(2)
        begun = time.monotonic()
        wrong = next(p for p in pipeline if Reason.BACKEND_FAULT in p.decided_reasons)
        assert time.monotonic() - begun < 5
        assert "does not compute what was exported" in wrong.detail
        engine.change = lambda logits: logits  # it comes back when its answers are right again
        assert any(Reason.BACKEND_FAULT not in p.decided_reasons for p in pipeline)


def test_fault_the_engine_raises_when_it_is_asked():
    session, engine = changed(lambda logits: logits)
    engine.change = lambda logits: 1 / 0
    session.scorer.ask()
    assert "failed on a known picture" in session.scorer.wrong
    prediction = session.infer(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    assert prediction.reasons[0] is Reason.BACKEND_FAULT or Reason.BACKEND_FAULT in prediction.reasons


def test_a_bundle_without_answers_is_opened(tiny_bundle):
    session = Session.open(tiny_bundle, "onnxruntime", "fp32", 1)
    assert session.bundle.known_answers is None
    session.scorer.ask()
    assert session.scorer.wrong == ""


GOOD = KnownAnswers(np.zeros((2, 32, 32, 3), np.uint8), np.zeros((2, 10), np.float32), {"other/fp32": 0.1})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no zip",
        KnownAnswers(np.zeros((2, 31, 32, 3), np.uint8), GOOD.logits, GOOD.tolerances).to_bytes(),
        KnownAnswers(GOOD.images, np.zeros((2, 9), np.float32), GOOD.tolerances).to_bytes(),
        KnownAnswers(GOOD.images, np.full((2, 10), np.nan, np.float32), GOOD.tolerances).to_bytes(),
        KnownAnswers(GOOD.images, GOOD.logits, {"other/fp32": math.inf}).to_bytes(),
        KnownAnswers(GOOD.images, GOOD.logits, {"other/fp32": -1.0}).to_bytes(),
        KnownAnswers(GOOD.images[:0], GOOD.logits[:0], GOOD.tolerances).to_bytes(),
    ],
)
def test_answers_that_cannot_be_used_are_one_error(tmp_path, content):
    folder = shutil.copytree(SHIPPED, tmp_path / "copy.bundle")
    (folder / FILE).write_bytes(content)
    seal(folder, json.loads((folder / MANIFEST).read_text()))
    with pytest.raises(BundleError, match=r"known_answers\.npz"):
        Bundle.open(folder)


def test_tolerances_are_those_of_the_engine_or_of_its_precision():
    answers = KnownAnswers(GOOD.images, GOOD.logits, {"openvino/int8": 0.5, "other/int8": 0.7})
    assert answers.tolerance("openvino", "int8") == 0.5
    assert answers.tolerance("tensorrt", "int8") == 0.7
    assert answers.tolerance("tensorrt", "fp16") is None
    assert answers.wrong(0, np.full(10, 0.5, np.float32), 0.5) == ""
    assert answers.wrong(0, np.full(10, np.nan, np.float32), 0.5)
