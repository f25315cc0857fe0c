"""Predictions as they are made."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, fields, replace

import pytest

from framegate.runtime.verdict import NEVER_NS, Prediction, Reason, prediction_of


def test_what_is_made_quickly_is_a_prediction_like_any_other():
    given = {
        "frame_id": 7, "stream": "full", "decided_reasons": (), "candidate": "car", "confidence": 0.9, "entropy": 0.1,
        "margin": 0.8, "energy": -3.0, "score": 0.1, "threshold": 0.5, "captured_ns": 10, "decided_ns": 20,
        "engine_ns": 5, "detail": "", "signals": {"shift": 1.0}, "valid_until_ns": NEVER_NS, "found_reasons": (),
        "found": None, "certificate": None, "candidate_id": 3, "candidate_probabilities": (0.1, 0.9), "dense": None,
        "promised_for": "a random frame",
    }  # fmt: skip
    made, plain = prediction_of(**given), Prediction(**given)
    assert type(made) is Prediction
    assert made == plain
    assert repr(made) == repr(plain)
    assert made.label == "car"
    assert pickle.loads(pickle.dumps(made)) == plain
    assert replace(made, candidate="cat") == replace(plain, candidate="cat")
    assert given.keys() == {each.name for each in fields(Prediction)}
    for deed in (lambda: setattr(made, "candidate", "cat"), lambda: delattr(made, "candidate")):
        with pytest.raises(FrozenInstanceError):
            deed()


def test_a_sentence_is_put_together_when_it_is_read_and_once():
    asked = []

    def words():
        asked.append(1)
        return "shift is 9, calibrated -inf to 3"

    made = replace(Prediction.without_frame("full", Reason.NO_FRAME, "", 5), detail=words)
    assert not made.accepted
    assert not asked
    assert replace(made, detail=None).detail is None  # by hand: it stays what it was
    copied = pickle.loads(pickle.dumps(made))
    assert made.detail == copied.detail == made.to_json()["detail"] == "shift is 9, calibrated -inf to 3"
    assert len(asked) == 1
    assert made.to_json() == copied.to_json()
    with pytest.raises(FrozenInstanceError):
        made.detail = "another"
