"""What a program reads of a prediction beside its label: the class number and the probabilities, guarded like it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from framegate.runtime.errors import ExpiredVerdict, RejectedFrame, UsageError
from framegate.runtime.scores import class_probabilities
from framegate.runtime.session import Session
from framegate.runtime.verdict import NO_CLASS, Prediction, Reason


@pytest.fixture
def bundle(make_bundle) -> Path:
    return make_bundle()


def _picture(colour: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    image = rng.integers(60, 120, (40, 40, 3)).astype(np.uint8)
    image[:, :, colour] = np.minimum(image[:, :, colour].astype(int) + 120, 255)
    return image


def test_the_class_number_counts_the_labels(bundle: Path) -> None:
    session = Session.open(bundle, "onnxruntime", camera=False)
    assert session.classes == session.bundle.labels
    for colour in range(3):
        prediction = session.infer(_picture(colour))
        assert session.classes[prediction.candidate_id] == prediction.candidate
        assert prediction.candidate_probabilities == ()
        assert prediction.to_json()["candidate_id"] == prediction.candidate_id
        if prediction.accepted:
            assert session.classes[prediction.class_id] == prediction.label
            with pytest.raises(UsageError, match="probabilities=True"):
                _ = prediction.probabilities


def test_probabilities_come_on_request_and_in_other_sessions_of_the_bundle(bundle: Path) -> None:
    first = Session.open(bundle, "onnxruntime", camera=False, probabilities=True)
    for session in (first, first.another()):
        prediction = session.infer(_picture(0))
        assert len(prediction.candidate_probabilities) == len(session.classes)
        assert sum(prediction.candidate_probabilities) == pytest.approx(1.0)
        assert max(prediction.candidate_probabilities) == pytest.approx(prediction.confidence, rel=1e-6)
        best = int(np.argmax(prediction.candidate_probabilities))
        assert best == prediction.candidate_id
        row = json.loads(json.dumps(prediction.to_json()))
        assert row["candidate_probabilities"] == pytest.approx(prediction.candidate_probabilities, rel=1e-5)


def _prediction(*reasons: Reason, end_ns: int = 2**63 - 1, number: int = 2) -> Prediction:
    return Prediction(
        7, "whole", reasons, "cat", 0.9, 0.1, 0.8, -3.0, 0.1, 0.5, 0, 1,
        valid_until_ns=end_ns, candidate_id=number, candidate_probabilities=(0.05, 0.05, 0.9),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["label", "class_id", "probabilities"])
def test_nothing_is_read_of_a_rejected_or_an_expired_prediction(name: str) -> None:
    with pytest.raises(RejectedFrame, match=rf"was rejected: HIGH_SCORE; check \.accepted before using \.{name}"):
        getattr(_prediction(Reason.HIGH_SCORE), name)
    with pytest.raises(ExpiredVerdict, match=rf"before using \.{name}"):
        getattr(_prediction(end_ns=time.monotonic_ns() - 1), name)
    assert getattr(_prediction(), name) in ("cat", 2, (0.05, 0.05, 0.9))


def test_a_prediction_without_a_number_has_none() -> None:
    with pytest.raises(UsageError, match="without a class number"):
        _ = _prediction(number=NO_CLASS).class_id
    silent = Prediction.without_frame("whole", Reason.NO_FRAME, "", 1)
    assert silent.candidate_id == NO_CLASS
    assert silent.to_json()["candidate_id"] is None
    assert "candidate_probabilities" not in silent.to_json()


def test_a_frame_that_no_network_saw_has_no_class(bundle: Path) -> None:
    session = Session.open(bundle, "onnxruntime", camera=False, probabilities=True)
    prediction = session.infer(np.zeros((2, 2, 3), np.uint8))
    assert (prediction.candidate_id, prediction.candidate_probabilities) == (NO_CLASS, ())


def test_probabilities_are_the_calibrated_softmax() -> None:
    logits = np.array([[1000.0, 0.0, -1000.0]], np.float32)
    assert class_probabilities(logits, 1.0) == (1.0, 0.0, 0.0)
    found = class_probabilities(np.array([[2.0, 0.0]], np.float32), 2.0)
    assert found == pytest.approx((1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))))
