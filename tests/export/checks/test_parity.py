"""The comparison with the trained network, and the gate."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores
from framegate.export.calibration.decisions import Outputs
from framegate.export.checks.parity import Changes, Loss, accuracy, check_loss, compare, loss
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.errors import ExportRefusedError

COUNT = 400


def _calibration(threshold: float) -> Calibration:
    return Calibration(1.0, "entropy", threshold, 0.05, 0.9, 0.04, 0.8, 0.02, 100, "f", "m", "e")


@pytest.fixture
def outputs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 10, COUNT)
    logits = rng.normal(size=(COUNT, 10)).astype(np.float32)
    logits[np.arange(COUNT), labels] += 3
    return logits, labels


def _wrong(logits: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """The logits with ``count`` right predictions turned wrong."""
    changed = logits.copy()
    rows = np.flatnonzero(logits.argmax(1) == labels)[:count]
    changed[rows, (labels[rows] + 1) % 10] = changed[rows].max(1) + 1
    return changed


def test_same_outputs_agree_fully(outputs) -> None:
    logits, labels = outputs
    row = compare("x", Outputs(logits), _calibration(1.0), Outputs(logits), _calibration(1.0), labels, compared=100)
    assert (row.compared, row.test_images) == (100, COUNT)
    assert (row.agreement, row.verdict_agreement, row.largest_difference) == (1.0, 1.0, 0.0)
    assert row.test_accuracy == np.mean(logits.argmax(1) == labels) > 0.7
    assert 0 < row.test_coverage < 1
    assert row.test_selective_risk is not None
    assert row.test_selective_risk < 1 - row.test_accuracy


def test_differences_are_counted(outputs) -> None:
    logits, labels = outputs
    changed = _wrong(logits, labels, 20)
    row = compare("x", Outputs(changed), _calibration(1.0), Outputs(logits), _calibration(1.0), labels)
    assert row.agreement == 1 - 20 / COUNT
    assert row.largest_difference == np.abs(changed - logits).max() > 0
    # Each network under its own calibration: one that accepts nothing agrees only where the other rejects.
    strict = compare("x", Outputs(logits), _calibration(-1.0), Outputs(logits), _calibration(1.0), labels)
    assert strict.verdict_agreement == 1 - row.test_images**-1 * round(
        COUNT
        * compare("y", Outputs(logits), _calibration(1.0), Outputs(logits), _calibration(1.0), labels).test_coverage
    )
    assert (strict.test_coverage, strict.test_selective_risk) == (0.0, None)


def _checked(logits: np.ndarray, reference: np.ndarray, labels: np.ndarray, threshold: float = 1.0) -> None:
    calibration = _calibration(threshold)
    found = loss(Outputs(logits), calibration, Outputs(reference), calibration, labels)
    check_loss("int8", found, "the trained network")


def test_accuracy_gate(outputs) -> None:
    logits, labels = outputs
    _checked(logits, logits, labels)
    _checked(_wrong(logits, labels, 2), logits, labels)  # exactly half a point
    _checked(_wrong(logits, labels, 4), logits, labels)  # once in sixteen by chance
    with pytest.raises(ExportRefusedError, match=r"int8 gives a wrong label on 5 of 400 test images where the trained"):
        _checked(_wrong(logits, labels, 5), logits, labels)


@pytest.mark.parametrize(
    ("worse", "better", "images", "fails"),
    [
        (50, 0, 10_000, False),  # the limit itself
        (51, 0, 10_000, True),
        (225, 174, 10_000, True),
        (525, 474, 10_000, False),  # more than half a point, and chance
        (5, 0, 400, True),
        (12, 6, 600, False),
        (0, 9, 400, False),
    ],
)
def test_a_loss_fails_beyond_the_limit_and_beyond_chance(worse: int, better: int, images: int, fails: bool) -> None:
    assert Changes(worse, better).too_many(images) is fails
    assert bool(Loss(images, Changes(worse, better), Changes(0, 0), 0, 0, 0).failures("b", "a")) is fails
    assert bool(Loss(images, Changes(0, 0), Changes(worse, better), 0, 0, 0).failures("b", "a")) is fails


def test_the_sign_test_is_exact() -> None:
    assert Changes(0, 0).chance() == 1.0
    assert Changes(3, 1).chance() == pytest.approx((4 + 1) / 16)
    assert Changes(1, 3).chance() == pytest.approx((4 + 6 + 4 + 1) / 16)


def test_gate_counts_wrong_labels_that_are_newly_accepted(outputs) -> None:
    """The engine is certain of frames that the reference rejected, and wrong; its labels are no worse."""
    logits, labels = outputs
    certain = np.zeros_like(logits)
    certain[np.arange(COUNT), labels] = 50.0

    def reference(count: int) -> np.ndarray:
        """As wrong, and unsure: rejected."""
        changed = certain.copy()
        changed[:count] = 0.0
        changed[np.arange(count), (labels[:count] + 1) % 10] = 0.01
        return changed

    def sure(count: int) -> np.ndarray:
        changed = certain.copy()
        changed[:count] = 0.0
        changed[np.arange(count), (labels[:count] + 1) % 10] = 50.0
        return changed

    found = loss(Outputs(sure(5)), _calibration(1.0), Outputs(reference(5)), _calibration(1.0), labels)
    assert found == Loss(COUNT, Changes(0, 0), Changes(5, 0), 5, 0, 0)
    _checked(sure(2), reference(2), labels)
    with pytest.raises(ExportRefusedError, match=r"int8 accepts a wrong label on 5 of 400 test images"):
        _checked(sure(5), reference(5), labels)


@pytest.mark.parametrize(
    ("contradictions", "images", "fails"),
    [(0, 100, False), (1, 100, False), (2, 100, True), (5, 1_000, False), (6, 1_000, True), (20, 10_000, False),
     (29, 10_000, True), (3, 3, True)],
)  # fmt: skip
def test_accepting_with_different_labels_fails_beyond_its_limit(contradictions: int, images: int, fails: bool) -> None:
    found = Loss(images, Changes(0, 0), Changes(0, 0), 0, 0, contradictions).failures("b", "a")
    assert bool(found) is fails
    assert all("b and a both accept" in each and "with different labels" in each for each in found)


@pytest.mark.parametrize(
    ("accepts", "rejects", "images", "fails"),
    [(0, 25, 298, False), (100, 0, 1_000, False), (0, 117, 1_000, True), (60, 60, 1_000, True), (2, 0, 10, False)],
)
def test_differing_verdicts_fail_beyond_their_limit_in_both_directions(
    accepts: int, rejects: int, images: int, fails: bool
) -> None:
    found = Loss(images, Changes(0, 0), Changes(0, 0), accepts, rejects, 0).failures("b", "a")
    assert bool(found) is fails
    assert all(f"only b accepts {accepts}, only a {rejects}" in each for each in found)


def test_an_engine_that_rejects_much_more_does_not_decide_alike(outputs) -> None:
    """It hands over nothing wrong, and what was tested with the reference says nothing about it."""
    logits, labels = outputs
    scores = np.sort(softmax_scores(logits, 1.0).entropy)
    first, stricter, silent = scores[COUNT // 2], scores[COUNT // 2 - 20], -1.0

    def judged(threshold: float) -> Loss:
        return loss(Outputs(logits), _calibration(threshold), Outputs(logits), _calibration(first), labels)

    assert (judged(stricter).new_rejects, judged(stricter).failures("b", "a")) == (20, ())
    assert judged(silent).wrong_accepts.worse == 0
    with pytest.raises(ExportRefusedError, match=r"the verdicts of int8 and the trained network differ on 201 of 400"):
        check_loss("int8", judged(silent), "the trained network")


def test_contradictions_are_counted_where_both_accept(outputs) -> None:
    """As many wrong labels are accepted by both, so that nothing is lost net: only the contradictions say it."""
    logits, labels = outputs
    certain = np.zeros_like(logits)
    certain[np.arange(COUNT), labels] = 50.0

    def wrong(rows: slice) -> Outputs:
        changed = certain.copy()
        changed[rows] = np.roll(certain[rows], 1, axis=1)
        return Outputs(changed)

    found = loss(wrong(slice(0, 4)), _calibration(1.0), wrong(slice(4, 8)), _calibration(1.0), labels)
    assert found == Loss(COUNT, Changes(4, 4), Changes(4, 4), 0, 0, 8)
    assert len(found.failures("b", "a")) == 1
    rejecting = loss(wrong(slice(0, 4)), _calibration(-1.0), wrong(slice(4, 8)), _calibration(1.0), labels)
    assert rejecting.contradictions == 0


def test_nan_outputs_are_wrong_whatever_argmax_says(outputs) -> None:
    logits, labels = outputs
    spoilt = logits.copy()
    spoilt[:, 3] = np.nan  # argmax of such a row is 3
    assert (spoilt.argmax(1) == 3).all()
    assert accuracy(spoilt, np.full(COUNT, 3)) == 0.0
    with pytest.raises(ExportRefusedError):
        _checked(spoilt, logits, labels)


def test_row_is_plain_json(outputs) -> None:
    logits, labels = outputs
    row = compare("x", Outputs(logits), _calibration(1.0), Outputs(logits), _calibration(1.0), labels)
    assert row.to_json() == dataclasses.asdict(row)
    assert all(isinstance(value, (str, int, float)) for value in row.to_json().values())
