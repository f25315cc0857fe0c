"""Temperature and threshold of one backend's outputs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from framegate.export.calibration.calibrate import Promise, calibrate, fingerprint
from framegate.export.calibration.decisions import Outputs, accepted, accepts, predicted, values_of
from framegate.export.calibration.design import DESIGN_SHARE, division_seed, split_units
from framegate.export.calibration.temperature import fit_temperature, negative_log_likelihood
from framegate.export.checks.verify import Side, decide
from framegate.export.commands.calibrate import calibrated_by_default
from framegate.runtime.backends.choice import BACKENDS
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


def test_images_without_an_error_do_not_make_every_probability_one() -> None:
    """The likelihood alone rises up to the edge of the range there, and the entropies of most images become 0."""
    rng = np.random.default_rng(6)
    labels = rng.integers(0, 43, 690)
    logits = (rng.normal(0, 1, (690, 43)) + 14 * np.eye(43)[labels]).astype(np.float32)
    assert (logits.argmax(1) == labels).all()
    found = fit_temperature(logits, labels)
    assert 0.5 < found < 2
    more = fit_temperature(np.tile(logits, (50, 1)), np.tile(labels, 50))
    assert 0.3 < more < found  # the more images without an error, the surer


@pytest.mark.parametrize("seed", [1, 3, 7, 0])  # in the first three every tested score is smaller
def test_a_threshold_lies_among_the_scores_that_the_record_holds(seed: int) -> None:
    """Without an error the design images' largest score is the threshold, and every tested one can be smaller."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, 60)
    logits = (rng.normal(0, 1, (60, 10)) + 14 * np.eye(10)[labels]).astype(np.float32)
    found = calibrate(Outputs(logits), labels, Promise(0.1, 0.9, score="entropy"), **RECORD)
    found._require_selective(10, "onnxruntime/fp32")  # what a bundle asks of its record when it is opened
    assert found.threshold <= found.score_quantiles[-1]


def test_rows_that_are_not_finite_do_not_touch_the_temperature() -> None:
    logits, labels = _honest(500, seed=3)
    spoilt = np.concatenate([logits, np.full((5, 10), np.nan, np.float32), np.full((5, 10), np.inf, np.float32)])
    found = fit_temperature(spoilt, np.append(labels, np.zeros(10, np.int64)))
    assert found == pytest.approx(fit_temperature(logits, labels), rel=1e-9)
    with pytest.raises(CalibrationError, match="finite"):
        fit_temperature(spoilt[-10:], np.zeros(10, np.int64))


def test_record_says_what_was_proved() -> None:
    logits, labels = _honest(6000, seed=4)
    found = calibrate(Outputs(logits), labels, Promise(0.1, 0.9, score="entropy"), **RECORD)
    assert (found.target_risk, found.confidence_level, found.score) == (0.1, 0.9, "entropy")
    assert found.selective_risk < found.risk_bound <= 0.1
    assert 0 < found.coverage < 1
    assert 0 < found.size < 6000
    assert (found.fingerprint, found.model_sha256, found.engine) == ("a" * 64, "b" * 64, "recorded 1")
    fresh, fresh_labels = _honest(50_000, seed=5)
    verdicts = accepted(Outputs(fresh), found)
    assert verdicts.mean() == pytest.approx(found.coverage, abs=0.05)
    assert (predicted(Outputs(fresh)) != fresh_labels)[verdicts].mean() <= 0.1


def test_threshold_is_tested_on_images_that_set_nothing_before() -> None:
    """Which images are tested is known: the record's numbers come from them alone, and wrong labels there refuse."""
    logits, labels = _honest(4000, seed=6)
    plain = calibrate(Outputs(logits), labels, Promise(0.1, 0.9), **RECORD)
    tested = split_units(4000, None, division_seed(RECORD["split_sha256"]))[1]
    wrong = labels.copy()
    wrong[tested] = (wrong[tested] + 1) % 10
    with pytest.raises(CalibrationError, match="no threshold"):
        calibrate(Outputs(logits), wrong, Promise(0.1, 0.9), **RECORD)
    rows = Outputs(logits[tested])
    verdicts = accepted(rows, plain)
    assert plain.coverage == verdicts.mean()
    assert plain.selective_risk == (predicted(rows) != labels[tested])[verdicts].mean()


def test_nan_outputs_count_as_errors_and_are_never_accepted() -> None:
    logits, labels = _honest(200, seed=7)
    logits[::2] = np.nan
    scores = values_of(Outputs(logits), 1.5)["entropy"]
    assert (predicted(Outputs(logits)) != labels)[::2].all()
    assert not accepts(scores, 100.0)[::2].any()
    assert accepts(scores, 100.0)[1::2].all()


def test_guessing_network_is_refused() -> None:
    rng = np.random.default_rng(8)
    with pytest.raises(CalibrationError, match=r"can prove, all of .*: none of them"):
        calibrate(
            Outputs(rng.normal(size=(4000, 10)).astype(np.float32)), rng.integers(0, 10, 4000), Promise(), **RECORD
        )


def test_no_images_are_refused() -> None:
    with pytest.raises(CalibrationError, match="0 images"):
        calibrate(Outputs(np.zeros((0, 10), np.float32)), np.zeros(0, np.int64), Promise(), **RECORD)


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


def test_half_precision_is_calibrated_by_default_only_on_gpus() -> None:
    assert [name for name in BACKENDS if calibrated_by_default(name, "fp16")] == ["tensorrt", "tensorrt-rtx"]
    assert all(calibrated_by_default(name, precision) for name in BACKENDS for precision in ("fp32", "int8"))


def _with_shift(count: int, seed: int) -> tuple[Outputs, np.ndarray]:
    logits, labels = _honest(count, seed)
    return Outputs(logits, {"shift": np.random.default_rng(seed).normal(size=count)}), labels


def test_limits_reject_the_share_that_they_may_and_the_proof_counts_it() -> None:
    outputs, labels = _with_shift(6000, 20)
    found = calibrate(outputs, labels, Promise(0.1, 0.9, limit_share=0.04), **RECORD)
    assert [(limit.signal, limit.low is None) for limit in found.limits] == [("energy", False), ("shift", True)]
    fresh, _ = _with_shift(40_000, 21)
    values = values_of(fresh, found.temperature)
    outside = [(values["energy"] < found.limits[0].low).mean(), (values["shift"] > found.limits[1].high).mean()]
    assert outside == pytest.approx([0.02, 0.02], abs=0.008)
    free = dataclasses.replace(found, limits=())
    assert accepted(fresh, free).mean() - accepted(fresh, found).mean() > 0.01
    assert found.coverage == pytest.approx(accepted(fresh, found).mean(), abs=0.03)


def test_array_decisions_are_the_runtimes() -> None:
    outputs, labels = _with_shift(2000, 22)
    outputs.logits[5, 3], outputs.logits[6, 0], outputs.signals["shift"][7] = np.nan, -np.inf, np.nan
    for score in ("entropy", "max_probability", "margin", "energy", "shift"):
        record = calibrate(outputs, labels, Promise(0.4 if score != "shift" else 0.9, 0.9, score=score), **RECORD)
        side = Side("k", "e", outputs, record)
        expected = np.array([decide(side, k).accepted for k in range(len(labels))])
        values = values_of(outputs, record.temperature)
        # Thresholds and limits are scores of images; on these, the last bit of two ways to compute a score decides.
        bounds = [(score, record.threshold), *((each.signal, each.low or each.high) for each in record.limits)]
        on_it = np.any([np.abs(values[name] - bound) < 1e-9 for name, bound in bounds], axis=0)
        assert on_it.sum() <= len(bounds)
        np.testing.assert_array_equal(accepted(outputs, record)[~on_it], expected[~on_it])
        assert not expected[5:8].any()
        assert 100 < expected.sum() < 1997


def test_the_better_score_is_chosen() -> None:
    """Energy is made to tell right from wrong, entropy not: a common offset of the logits moves only energy."""
    rng = np.random.default_rng(23)
    labels = rng.integers(0, 10, 6000)
    logits = rng.normal(0, 0.3, (6000, 10))
    wrong = rng.random(6000) < 0.3
    logits[np.arange(6000), np.where(wrong, (labels + 1) % 10, labels)] += 4.0
    logits += np.where(wrong, -20.0, 0.0)[:, None]
    found = calibrate(Outputs(logits.astype(np.float32)), labels, Promise(0.05, 0.95), **RECORD)
    assert found.score == "energy"
    assert found.coverage > 0.6


def test_no_unit_is_in_both_parts_and_each_proves_once() -> None:
    rng = np.random.default_rng(24)
    groups = rng.integers(0, 300, 5000)
    design, test = split_units(5000, groups, 3)
    assert not set(groups[design]) & set(groups[test])
    assert len(set(groups[test])) == len(test) == len(np.unique(groups)) - round(len(np.unique(groups)) * DESIGN_SHARE)
    assert split_units(5000, groups, 3)[1].tolist() == test.tolist()
    assert split_units(5000, groups, 4)[1].tolist() != test.tolist()


def test_copies_of_one_image_prove_nothing_more() -> None:
    """200 different images, 30 copies each: as single images they seem to prove 1 %, as units they cannot."""
    logits, _ = _honest(200, seed=25, sharpness=12.0)
    labels = logits.argmax(1)
    copies = np.repeat(np.arange(200), 30)
    many, known = Outputs(logits[copies]), labels[copies]
    assert calibrate(many, known, Promise(0.01, 0.95), **RECORD).size > 4000
    with pytest.raises(CalibrationError, match="299 accepted"):
        calibrate(many, known, Promise(0.01, 0.95), groups=copies, **RECORD)
    found = calibrate(many, known, Promise(0.03, 0.95), groups=copies, **RECORD)
    assert (found.size, found.groups) == (160, 200)


def test_window_limit_of_tracks_is_kept_by_other_tracks() -> None:
    """The frames of a track share an offset, so a limit for independent frames would stop many clean tracks."""
    logits, labels = _honest(40_000, seed=26)
    groups = np.arange(40_000) // 40
    rng = np.random.default_rng(27)
    shift = rng.normal(size=1000)[groups] + rng.normal(size=40_000)
    outputs = Outputs(logits, {"shift": shift})
    promise = Promise(0.3, 0.9, window=16, limit_share=0.02)

    def stopped(limit: float) -> float:
        fresh = rng.normal(size=1000)[groups] + rng.normal(size=40_000)
        means = np.lib.stride_tricks.sliding_window_view(fresh.reshape(1000, 40), 16, axis=1).mean(2)
        return float((means.max(1) > limit).mean())

    of_tracks = calibrate(outputs, labels, promise, groups=groups, **RECORD).limits[-1]
    of_images = calibrate(outputs, labels, promise, **RECORD).limits[-1]
    assert (of_tracks.signal, of_tracks.frames, of_images.frames) == ("shift", 16, 16)
    assert stopped(of_tracks.high) < 0.06
    assert stopped(of_images.high) > 0.1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda o, y: (o, np.zeros_like(y)), "one label"),
        (lambda o, y: (o, y + 5), "network knows 0 to 9"),
        (lambda o, y: (o, y[:-1]), "belong together"),
        (lambda o, y: (Outputs(np.zeros_like(o.logits)), y), "same entropy"),
        (lambda o, y: (Outputs(np.full_like(o.logits, np.nan)), y), "finite"),
        (lambda o, y: (o, np.random.default_rng(0).permutation(y)), "do labels and images belong together"),
        (lambda o, y: (o.subset(np.arange(300)), y[:300]), "299 accepted images"),
        (lambda o, y: (o.subset(np.arange(1)), y[:1]), "one label"),
    ],
)
def test_splits_that_cannot_calibrate_are_refused(change, words) -> None:
    outputs, labels = _with_shift(4000, 28)
    outputs, labels = change(outputs, labels)
    with pytest.raises(CalibrationError, match=words):
        calibrate(outputs, labels, Promise(0.01, 0.95), **RECORD)


@pytest.mark.parametrize(
    "wish", [{"method": "guess"}, {"score": "vibes"}, {"limit_share": 0.5}, {"limit_share": np.nan}, {"window": 1}]
)
def test_wishes_that_make_no_sense_are_refused(wish) -> None:
    with pytest.raises(UsageError, match="given, expected"):
        Promise(**wish)


def test_a_signal_that_the_bundle_lacks_is_refused() -> None:
    logits, labels = _honest(2000, seed=29)
    with pytest.raises(CalibrationError, match="'shift' was asked for"):
        calibrate(Outputs(logits), labels, Promise(0.3, 0.9, score="shift"), **RECORD)
    with pytest.raises(CalibrationError, match="no monitor"):
        calibrate(Outputs(logits), labels, Promise(0.3, 0.9, window=8), **RECORD)
