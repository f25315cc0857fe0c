"""Data that the network has seen prove nothing, and frames of undeclared tracks are noticed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from framegate.export.calibration.calibrate import Circumstances, EngineOutputs, Promise, calibrate, calibrate_together
from framegate.export.calibration.decisions import Outputs, predicted
from framegate.export.calibration.seen import audit, check_recorded, check_report, fisher
from framegate.export.calibration.undeclared import neighbours_alike, undeclared_tracks
from framegate.export.data.splits import Splits, check_disjoint
from framegate.models.labelled import LabelledImages
from framegate.runtime.bundle.calibration import NO_PROMISE, UNPROVED, Calibration
from framegate.runtime.errors import CalibrationError, DataError

RECORD = {"split_sha256": "a" * 64, "model_sha256": "b" * 64, "engine": "recorded 1"}


def images(count: int, labels: np.ndarray | None = None, seed: int = 0, **more: object) -> LabelledImages:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 2, 2, 3)).astype(np.uint8)
    labels = np.arange(count) % 10 if labels is None else labels
    return LabelledImages(f"images of {seed}", pixels, labels.astype(np.int64), **more)


def answers(count: int, risk: float, seed: int) -> tuple[Outputs, np.ndarray]:
    """Ten labels; a share ``risk`` of the answers is wrong, and as certain as the others."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    said = np.where(rng.random(count) < risk, (labels + 1) % 10, labels)
    logits = rng.normal(0, 0.3, (count, 10))
    logits[np.arange(count), said] += rng.uniform(2, 8, count)
    return Outputs(logits.astype(np.float32)), labels.astype(np.int64)


def test_fisher_is_the_hypergeometric_tail() -> None:
    # 1 of 10 against 5 of 12: by hand, sum over k = 0, 1 of C(10, k) C(12, 6 - k) / C(22, 6).
    by_hand = sum(math.comb(10, k) * math.comb(12, 6 - k) for k in (0, 1)) / math.comb(22, 6)
    assert fisher(1, 10, 5, 12) == pytest.approx(by_hand, rel=1e-12)
    assert fisher(3, 10, 0, 5) == pytest.approx(1.0)
    assert audit(0, 50, 0.01) == 1.0
    assert audit(2, 50, 0.01) == pytest.approx(1 - 0.99**50 - 50 * 0.01 * 0.99**49, rel=1e-9)


@pytest.mark.parametrize(("count", "power"), [(100, 0.9), (200, 0.99)])
def test_power_of_fisher_is_as_stated(count: int, power: float) -> None:
    rng = np.random.default_rng(1)
    draws = zip(rng.binomial(5000, 0.004, 300), rng.binomial(count, 0.082, 300), strict=True)
    refused = np.mean([fisher(int(a), 5000, int(b), count) <= 0.01 for a, b in draws])
    assert refused >= power
    alike = zip(rng.binomial(5000, 0.03, 300), rng.binomial(count, 0.03, 300), strict=True)
    assert np.mean([fisher(int(a), 5000, int(b), count) <= 0.01 for a, b in alike]) <= 0.03


def test_a_calibration_on_images_that_it_was_trained_on_is_refused() -> None:
    """The false proof: calibrated on training images it "proves" 2 %, and 8 % of the report images are wrong."""
    outputs, labels = answers(3000, 0.004, 2)
    found = calibrate(outputs, labels, Promise(0.02), **RECORD)  # on its own it is issued
    report, truth = answers(1000, 0.08, 3)
    with pytest.raises(CalibrationError, match=r"has probably seen the calibration images.*--unseen.*--no-promise"):
        check_report("k", found, (outputs, images(3000, labels)), (report, images(1000, truth)))
    honest, known = answers(1000, 0.004, 4)
    check_report("k", found, (outputs, images(3000, labels)), (honest, images(1000, known)))


def test_errors_among_the_accepted_report_images_refuse_though_the_networks_errors_agree() -> None:
    outputs, labels = answers(3000, 0.02, 5)
    order = np.argsort(outputs.logits.max(1))
    wrong = np.flatnonzero(predicted(outputs) != labels)
    # On the calibration images the errors have low logits, on the report images they have not.
    calm = Outputs(outputs.logits.copy())
    calm.logits[wrong] *= 0.05
    found = calibrate(calm, labels, Promise(0.005, score="entropy"), **RECORD)
    assert order.size == 3000
    with pytest.raises(CalibrationError, match="accepted report images are wrong"):
        check_report("k", found, (calm, images(3000, labels)), (outputs, images(3000, labels)))


def test_the_recorded_test_error_of_the_export_counts_too() -> None:
    outputs, labels = answers(3000, 0.004, 6)
    wrong = predicted(outputs) != labels
    parity = [{"key": "openvino/fp32", "test_images": 10_000, "test_accuracy": 0.918}]
    with pytest.raises(CalibrationError, match="the test images of its export"):
        check_recorded("onnxruntime/fp32", wrong, images(3000, labels), parity)
    check_recorded("k", wrong, images(3000, labels), [{**parity[0], "test_accuracy": 0.9958}])
    check_recorded("k", wrong, images(3000, labels), [])


def test_tracks_count_once() -> None:
    """Thirty copies of each image are no more evidence: 1 wrong of 100 tracks does not contradict 4 %."""
    labels = np.arange(100) % 10
    many = np.repeat(np.arange(100), 30)
    wrong = np.repeat(np.arange(100) == 7, 30)
    split = images(3000, labels[many], groups=many)
    parity = [{"key": "k", "test_images": 12_000, "test_accuracy": 0.96}]
    check_recorded("k", wrong, split, parity)
    with pytest.raises(CalibrationError):
        check_recorded("k", wrong, replace(split, groups=None), parity)


@pytest.mark.parametrize("shared", ["train", "calibration"])
def test_images_that_lie_in_two_splits_are_refused(shared: str) -> None:
    parts = {"train": images(50, seed=1), "calibration": images(200, seed=2), "test": images(100, seed=3)}
    check_disjoint(Splits(**parts, names=tuple("0123456789")))
    pixels = parts["test"].images.copy()
    pixels[:30] = parts[shared].images[:30]
    with pytest.raises(DataError, match=r"30 images of .* lie in .*, too"):
        check_disjoint(Splits(**{**parts, "test": replace(parts["test"], images=pixels)}, names=tuple("0123456789")))


def test_a_report_split_that_is_the_calibration_split_is_refused() -> None:
    same = images(200, seed=2)
    with pytest.raises(DataError, match="200 images of"):
        check_disjoint(Splits(images(50, seed=1), same, replace(same, name="test"), tuple("0123456789")))


def test_without_a_promise_nothing_is_said_to_be_proved() -> None:
    outputs, labels = answers(2000, 0.004, 7)
    found = calibrate(outputs, labels, Promise(0.02, proved=False), **RECORD)
    assert not found.proved
    assert found.coverage > 0.5
    found.require_consistent(10, "k")
    assert found.promise() == found.explanation()[0] == NO_PROMISE
    assert "at most" not in found.short()
    assert Calibration.from_json(found.to_json()) == found
    vouched = replace(found, unseen="user")  # a person said that the network saw none of the images
    assert vouched.promise() == vouched.explanation()[0] == vouched.unproved == UNPROVED
    assert "may have seen" not in UNPROVED


def _in_tracks(seed: int, tracks: bool) -> tuple[Outputs, LabelledImages]:
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(4), 150)
    certainty = rng.normal(3, 1, 20)[np.repeat(np.arange(20), 30)] if tracks else rng.normal(3, 1, 600)
    logits = np.zeros((600, 4))
    logits[np.arange(600), labels] = certainty + rng.normal(0, 0.2, 600)
    return Outputs(logits.astype(np.float32)), images(600, labels, seed)


def test_frames_of_undeclared_tracks_are_noticed_in_any_order_of_the_array() -> None:
    outputs, split = _in_tracks(8, tracks=True)
    assert neighbours_alike(outputs, split)[0] > 0.5
    assert "--group" in undeclared_tracks(outputs, split)
    order = np.random.default_rng(9).permutation(600)
    mixed = split.subset(order, "mixed")  # as a folder's images come: in the order of their hashes
    assert "--group" in undeclared_tracks(outputs.subset(order), mixed)
    assert not undeclared_tracks(outputs, replace(split, groups=np.arange(600) // 30))


def test_independent_images_are_not_taken_for_tracks() -> None:
    assert not any(undeclared_tracks(*_in_tracks(seed, tracks=False)) for seed in (10, 11))


def test_units_with_a_wrong_accept_are_counted_and_their_bound_holds() -> None:
    """Tracks of 20 frames, each frame wrong by chance: few frames, many tracks."""
    rng = np.random.default_rng(15)

    def draw(tracks: int) -> tuple[Outputs, np.ndarray, np.ndarray]:
        risk = rng.beta(0.05, 4, tracks)[np.repeat(np.arange(tracks), 20)]
        labels = rng.integers(0, 10, tracks * 20)
        said = np.where(rng.random(len(labels)) < risk, (labels + 1) % 10, labels)
        logits = rng.normal(0, 0.3, (len(labels), 10))
        logits[np.arange(len(labels)), said] += rng.uniform(2, 8, len(labels))
        return Outputs(logits.astype(np.float32)), labels, np.repeat(np.arange(tracks), 20)

    outputs, labels, groups = draw(500)
    run = Circumstances("a", groups, "drive")
    found = calibrate_together({"": EngineOutputs(outputs)}, labels, Promise(0.05), run)[""]
    assert (found.unit, found.groups, found.size) == ("drive", 500, 400)
    assert found.units_wrong is not None
    assert found.units_bound is not None
    assert found.selective_risk < found.units_wrong / 400 < found.units_bound < 0.3
    assert f"{found.units_wrong} of 400 tested drives" in found.explanation()[1]
    with pytest.raises(CalibrationError, match="no threshold"):  # as units, 5 % cannot be promised at this coverage
        calibrate_together({"": EngineOutputs(outputs)}, labels, Promise(0.002, about="units"), run)
    about = calibrate_together({"": EngineOutputs(outputs)}, labels, Promise(0.1, about="units"), run)[""]
    about.require_consistent(10, "k")
    assert about.coverage < found.coverage
    assert "of new drives contain a wrong accept" in about.promise()


def test_a_promise_about_units_needs_units() -> None:
    outputs, labels = answers(1000, 0.0, 16)
    with pytest.raises(CalibrationError, match="the images have none; see --group"):
        calibrate(outputs, labels, Promise(0.1, about="units"), **RECORD)
