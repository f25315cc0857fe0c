"""Temperature and threshold of one backend's outputs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from framegate.export.calibrate import (
    Promise,
    calibrate,
    fingerprint,
    fit_temperature,
    negative_log_likelihood,
    scores_and_errors,
)
from framegate.export.command_calibrate import unasked
from framegate.export.selective_risk import accepts
from framegate.runtime.backend import BACKENDS
from framegate.runtime.errors import CalibrationError, UsageError

RECORD = {"split_sha256": "a" * 64, "model_sha256": "b" * 64, "engine": "recorded 1"}


def _honest(count: int, seed: int, sharpness: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that mean what they say: labels are drawn from their softmax."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, sharpness, (count, 10))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    return logits.astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_temperature_is_found_again(temperature: float) -> None:
    logits, labels = _honest(4000, seed=1)
    assert fit_temperature(logits * np.float32(temperature), labels) == pytest.approx(temperature, rel=0.06)


def test_temperature_is_the_minimum() -> None:
    logits, labels = _honest(500, seed=2)
    found = fit_temperature(logits, labels)
    least = negative_log_likelihood(logits, labels, found)
    for other in (0.99 * found, 1.01 * found, 0.1, 10.0):
        assert negative_log_likelihood(logits, labels, other) > least


def test_rows_that_are_not_finite_do_not_touch_the_temperature() -> None:
    logits, labels = _honest(500, seed=3)
    spoilt = np.concatenate([logits, np.full((5, 10), np.nan, np.float32), np.full((5, 10), np.inf, np.float32)])
    assert fit_temperature(spoilt, np.append(labels, np.zeros(10, np.int64))) == fit_temperature(logits, labels)
    with pytest.raises(CalibrationError, match="finite"):
        fit_temperature(spoilt[-10:], np.zeros(10, np.int64))


def test_record_says_what_was_proved() -> None:
    logits, labels = _honest(6000, seed=4)
    found = calibrate(logits, labels, Promise(0.1, 0.9), **RECORD)
    assert (found.target_risk, found.confidence_level, found.score) == (0.1, 0.9, "entropy")
    assert found.selective_risk < found.risk_bound <= 0.1
    assert 0 < found.coverage < 1
    assert 0 < found.size < 6000
    assert (found.fingerprint, found.model_sha256, found.engine) == ("a" * 64, "b" * 64, "recorded 1")
    fresh, fresh_labels = _honest(50_000, seed=5)
    scores, wrong = scores_and_errors(fresh, fresh_labels, found.temperature)
    accepted = accepts(scores, found.threshold)
    assert accepted.mean() == pytest.approx(found.coverage, abs=0.05)
    assert wrong[accepted].mean() <= 0.1


def test_threshold_is_tested_on_images_that_set_nothing_before() -> None:
    """Which images are tested is known: the record's numbers come from them alone, and wrong labels there refuse."""
    logits, labels = _honest(4000, seed=6)
    plain = calibrate(logits, labels, Promise(0.1, 0.9), **RECORD)
    order = np.random.default_rng(0).permutation(4000)
    tested = order[4000 - plain.size :]
    wrong = labels.copy()
    wrong[tested] = (wrong[tested] + 1) % 10
    with pytest.raises(CalibrationError, match="no threshold"):
        calibrate(logits, wrong, Promise(0.1, 0.9), **RECORD)
    scores, errors = scores_and_errors(logits[tested], labels[tested], plain.temperature)
    accepted = accepts(scores, plain.threshold)
    assert plain.coverage == accepted.mean()
    assert plain.selective_risk == errors[accepted].mean()


def test_nan_outputs_count_as_errors_and_are_never_accepted() -> None:
    logits, labels = _honest(200, seed=7)
    logits[::2] = np.nan
    scores, wrong = scores_and_errors(logits, labels, 1.5)
    assert wrong[::2].all()
    assert not accepts(scores, 100.0)[::2].any()
    assert accepts(scores, 100.0)[1::2].all()


def test_guessing_network_is_refused() -> None:
    rng = np.random.default_rng(8)
    with pytest.raises(CalibrationError, match="best bound"):
        calibrate(rng.normal(size=(4000, 10)).astype(np.float32), rng.integers(0, 10, 4000), Promise(), **RECORD)


def test_no_images_are_refused() -> None:
    with pytest.raises(CalibrationError, match="0 images"):
        calibrate(np.zeros((0, 10), np.float32), np.zeros(0, np.int64), Promise(), **RECORD)


def test_fingerprint_sees_every_pixel_label_and_order(colours) -> None:
    split = colours(6, seed=9)
    images, labels = split.images.copy(), split.labels.copy()
    images[3, 7, 7, 1] ^= 1
    labels[5] = (labels[5] + 1) % 3
    others = [
        dataclasses.replace(split, images=images),
        dataclasses.replace(split, labels=labels),
        split.subset(np.arange(5), "fewer"),
        split.subset(np.arange(6)[::-1], "reversed"),
    ]
    prints = {fingerprint(split), *(fingerprint(other) for other in others)}
    assert len(prints) == 5
    assert fingerprint(colours(6, seed=9)) == fingerprint(split)


def test_promise_is_checked_when_it_is_made() -> None:
    with pytest.raises(UsageError, match=r"target risk: 1\.5"):
        Promise(target_risk=1.5)


def test_half_precision_is_calibrated_unasked_only_on_gpus() -> None:
    assert [name for name in BACKENDS if unasked(name, "fp16")] == ["tensorrt", "tensorrt-rtx"]
    assert all(unasked(name, precision) for name in BACKENDS for precision in ("fp32", "int8"))
