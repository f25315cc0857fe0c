"""A label with a risk of its own: proved for itself, kept by its own threshold, refused with what is missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from framegate.evaluation.gate.promise import is_kept
from framegate.export.calibration.calibrate import Circumstances, EngineOutputs, Promise, calibrate_together
from framegate.export.calibration.decisions import Outputs, accepted, predicted
from framegate.export.calibration.plan import plan
from framegate.models.labelled import LabelledImages
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.errors import CalibrationError, UsageError

LABELS = ("stop", "yield", "30=limit")


def population(count: int, seed: int, stop_risk: float = 0.2) -> tuple[Outputs, np.ndarray]:
    """Three labels; a frame of margin m is wrong with probability risk (1 - m)^2, stop ones with another risk."""
    rng = np.random.default_rng(seed)
    read_as = rng.integers(0, 3, count)
    margin = rng.random(count)
    risk = np.where(read_as == 0, stop_risk, 0.2) * (1 - margin) ** 2
    labels = np.where(rng.random(count) < risk, (read_as + 1) % 3, read_as)
    logits = np.zeros((count, 3), np.float32)
    logits[np.arange(count), read_as] = 0.2 + 4 * margin
    return Outputs(logits), labels.astype(np.int64)


def calibrated(
    outputs: Outputs, labels: np.ndarray, promise: Promise, groups: np.ndarray | None = None, fingerprint: str = "a"
) -> Calibration:
    run = Circumstances(fingerprint, groups, "track" if groups is not None else "", labels=LABELS, table=False)
    return calibrate_together({"": EngineOutputs(outputs)}, labels, promise, run)[""]


def test_a_label_has_a_threshold_of_its_own_and_the_record_says_what_was_counted() -> None:
    outputs, labels = population(12_000, 1)
    found = calibrated(outputs, labels, Promise(0.05, class_risks=(("stop", 0.02),)))
    (stop,) = found.classes
    assert (stop.label, stop.class_id, stop.target_risk, found.shares) == ("stop", 0, 0.02, 2)
    assert stop.threshold < found.threshold
    assert found.threshold_of(0) == stop.threshold
    assert found.threshold_of(1) == found.threshold_of(2) == found.threshold
    assert np.isnan(found.threshold_of(-1))
    found.require_consistent(3, "k")
    passed = accepted(outputs, found)
    scores = passed & (predicted(outputs) == 0)
    assert 0 < scores.sum() < (passed & (predicted(outputs) == 1)).sum()
    assert Calibration.from_json(found.to_json()) == found
    said = " ".join(found.explanation())
    assert f"read as 'stop' at most 2.00% are wrong: the same probability covers this, too ({stop.errors} of" in said
    assert "read as 'stop' at most 2.00%" in found.promise()
    assert "read as 'stop' at most 2.00%" in found.short()


def test_of_grouped_data_one_frame_of_each_unit_counts() -> None:
    outputs, labels = population(3000, 2)
    copies = np.repeat(np.arange(3000), 4)
    found = calibrated(
        outputs.subset(copies), labels[copies], Promise(0.05, class_risks=(("stop", 0.03),)), copies.astype(np.int64)
    )
    assert found.size == 2400
    assert found.classes[0].accepted < 2400 / 3
    assert found.units_wrong is not None
    assert found.units_bound is not None
    assert found.units_wrong / found.size < found.units_bound
    found.require_consistent(3, "k")


@pytest.mark.slow
def test_both_promises_are_kept_as_often_as_they_say() -> None:
    """Many calibrations of one population: that about the label, and that about all accepted frames, in one event."""
    outputs, labels = population(6000, 3, stop_risk=0.6)
    rng = np.random.default_rng(4)
    target, broken, issued, trials = 0.1, 0, 0, 60
    for trial in range(trials):
        index = rng.integers(0, 6000, 1500)
        promise = Promise(target, 0.8, class_risks=(("stop", target / 2),), score="entropy")
        try:
            found = calibrated(outputs.subset(index), labels[index], promise, fingerprint=str(trial))
        except CalibrationError:
            continue
        issued += 1
        passed = accepted(outputs, found)
        wrong = predicted(outputs) != labels
        stop = passed & (predicted(outputs) == 0)
        broken += wrong[stop].mean() > target / 2 or wrong[passed].mean() > target
    assert issued > 10
    assert is_kept(broken, trials, 0.2)


def test_all_labels_may_have_risks_of_their_own() -> None:
    outputs, labels = population(6000, 5)
    risks = tuple((label, 0.04) for label in LABELS)
    found = calibrated(outputs, labels, Promise(0.05, class_risks=risks))
    assert found.shares == 3
    assert found.threshold == min(each.threshold for each in found.classes)
    found.require_consistent(3, "k")


def test_a_label_that_cannot_be_proved_is_refused_with_what_is_missing() -> None:
    outputs, labels = population(2000, 6)
    with pytest.raises(CalibrationError) as refusal:
        calibrated(outputs, labels, Promise(0.05, class_risks=(("stop", 0.001),)))
    said = str(refusal.value)
    assert "risk 0.001 of 'stop' cannot be proved: of the 1600 images that prove, " in said
    assert "Without a single error 3688 accepted ones are needed, about 1" in said  # ln(0.05 / 2) / ln(0.999)
    outputs, labels = population(20_000, 7, stop_risk=20.0)  # the surest are wrong, too
    with pytest.raises(CalibrationError, match=r"risk 0.02 of 'stop' cannot be proved: at the threshold that the"):
        calibrated(outputs, labels, Promise(0.05, class_risks=(("stop", 0.02),)))


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"class_risks": (("stop", 0.1),)}, "expected at most the target risk of all labels"),
        ({"class_risks": (("stop", 0.01), ("stop", 0.02))}, "expected each label once"),
        ({"class_risks": (("stop", 0.01),), "about": "units"}, "a promise about units"),
        ({"class_risks": (("stop", 0.01),), "proved": False}, "no promise"),
        ({"class_risks": (("stop", float("nan")),)}, "between 0 and 1"),
        ({"class_risks": (("stopp", 0.01),)}, "0 labels 'stopp', expected one of stop"),
        ({"class_risks": (("limit", 0.01),)}, "expected one of 30=limit"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(wish: dict, words: str) -> None:
    outputs, labels = population(2000, 8)
    with pytest.raises(UsageError, match=words):
        calibrated(outputs, labels, Promise(0.05, **wish))


def test_an_edited_record_is_refused() -> None:
    outputs, labels = population(6000, 9)
    found = calibrated(outputs, labels, Promise(0.05, class_risks=(("stop", 0.03),)))
    (stop,) = found.classes
    for changed, words in (
        (replace(stop, class_id=3), "none of the network's 3"),
        (replace(stop, target_risk=0.2, risk_bound=0.2), "above the target"),
        (replace(stop, risk_bound=stop.errors / stop.accepted), "does not follow from"),
        (replace(stop, threshold=5.0), "it rejects nothing"),
    ):
        with pytest.raises(CalibrationError, match=words):
            replace(found, classes=(changed,)).require_consistent(3, "k")
    for words in (
        {"threshold": float("nan")},
        {"accepted": 0},
        {"errors": -1},
        {"risk_bound": 0.9},
        {"class_id": True},
    ):
        with pytest.raises(CalibrationError):
            replace(stop, **words)
    with pytest.raises(CalibrationError, match="two risks"):
        replace(found, classes=(stop, stop))


def test_a_plan_says_how_many_more_images_of_a_label_it_takes() -> None:
    labels = np.arange(900) % 3
    split = LabelledImages("s", np.zeros((900, 4, 4, 3), np.uint8), labels)
    wish = Promise(0.05, class_risks=(("30=limit", 0.01), ("stop", 0.05)))
    lines = plan(split, wish, 1, LABELS).lines()
    assert "3 promises share the confidence" in lines[0]
    (line,) = (each for each in lines if "'30=limit'" in each)
    assert "408 accepted images" in line  # ln(0.05 / 3) / ln(0.99)
    assert "300 images show it, of which about 240 prove; give at least 210 more of it" in line
    (line,) = (each for each in lines if "'stop'" in each)
    assert line.endswith("these may do")
