"""A label with a threshold of its own: the runtime compares with it, and what cannot be told apart is rejected."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.bundle.class_risk import ClassRisk
from framegate.runtime.dense import judge_dense
from framegate.runtime.policy.rules import judge_score
from framegate.runtime.session import Session
from framegate.runtime.verdict import NO_CLASS, Reason

COLOURS = {"blue": (250, 10, 10), "green": (10, 250, 10), "red": (10, 10, 250)}


def own(label: str, class_id: int, threshold: float) -> ClassRisk:
    return ClassRisk(label, class_id, 0.01, threshold, 1000, 0, 0.005)


def with_classes(*classes: ClassRisk, threshold: float = 0.5) -> Calibration:
    return Calibration(
        1.0, "entropy", threshold, 0.05, 0.95, 0.04, 0.9, 0.01, 1000, "0", "0", "test", classes=tuple(classes)
    )


def test_each_label_is_compared_with_its_own_threshold() -> None:
    found = with_classes(own("red", 2, 0.1))
    assert judge_score(0.3, True, found, 0) == {}
    assert judge_score(0.1, True, found, 2) == {}
    assert tuple(judge_score(math.nextafter(0.1, 1), True, found, 2)) == (Reason.HIGH_SCORE,)


@pytest.mark.parametrize("class_id", [0, 2, NO_CLASS])
def test_fault_nan_passes_no_threshold_and_an_unknown_label_none_at_all(class_id: int) -> None:
    found = with_classes(own("red", 2, 0.1))
    assert tuple(judge_score(math.nan, True, found, class_id)) == (Reason.HIGH_SCORE,)
    assert tuple(judge_score(0.0, True, found)) == (Reason.HIGH_SCORE,)
    assert judge_score(0.0, True, with_classes()) == {}


def test_a_session_rejects_the_label_with_the_strict_threshold_and_says_which(
    tiny_bundle, coloured, monkeypatch
) -> None:
    scores = {
        label: Session.open(tiny_bundle, "onnxruntime", camera=False).infer(coloured(colour))
        for label, colour in COLOURS.items()
    }
    assert all(each.accepted for each in scores.values())
    strict = scores["red"].score / 2
    opened = Bundle.open(tiny_bundle)
    red = opened.labels.index("red")
    changed = {
        key: replace(value, classes=(own("red", red, strict),)) for key, value in opened.calibrations.items()
    }  # fmt: skip
    session = Session.open(replace(opened, calibrations=changed), "onnxruntime", camera=False)
    again = {label: session.infer(coloured(colour)) for label, colour in COLOURS.items()}
    assert {label: each.accepted for label, each in again.items()} == {"blue": True, "green": True, "red": False}
    assert again["red"].reasons == (Reason.HIGH_SCORE,)
    assert again["red"].threshold == strict
    assert again["blue"].threshold == scores["blue"].threshold
    assert "read as 'red' at most 1.00%" in session.describe()


def test_pixels_are_compared_with_the_threshold_of_their_label() -> None:
    logits = np.zeros((3, 2, 2), np.float32)
    logits[0, 0], logits[2, 1] = 6.0, 6.0
    logits[:, 1, 1] = np.nan
    entropy = judge_dense(logits, with_classes()).score[0, 0]
    assert judge_dense(logits, with_classes()).mask.tolist() == [[True, True], [True, False]]
    found = judge_dense(logits, with_classes(own("red", 2, float(entropy) / 2)))
    assert found.mask.tolist() == [[True, True], [False, False]]
