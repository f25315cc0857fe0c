"""One run, fixed beforehand: what proves follows from the data, and several promises share one confidence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from framegate.export.calibration import attempts
from framegate.export.calibration.attempts import Question, count_attempt
from framegate.export.calibration.calibrate import (
    Circumstances,
    EngineOutputs,
    Promise,
    calibrate,
    calibrate_together,
)
from framegate.export.calibration.decisions import Outputs
from framegate.export.calibration.design import division_seed, split_units
from framegate.export.calibration.selective_risk import TARGETS, Part, images_needed, of_frames, select
from framegate.runtime.errors import CalibrationError, UsageError

RECORD = {"split_sha256": "a" * 64, "model_sha256": "b" * 64, "engine": "recorded 1"}


def population(count: int, seed: int, risk_at_best: float = 0.0) -> tuple[Outputs, np.ndarray]:
    """Two classes, margin uniform; an image of margin m is wrong with probability risk + (1 - m)^2 / 4."""
    rng = np.random.default_rng(seed)
    margin = rng.random(count)
    labels = rng.integers(0, 2, count)
    wrong = rng.random(count) < risk_at_best + (1 - margin) ** 2 / 4
    sign = np.where((labels == 1) ^ wrong, 1, -1)
    logits = np.stack([np.zeros(count), sign * (0.2 + 4 * margin)], 1)
    return Outputs(logits.astype(np.float32)), labels.astype(np.int64)


def test_another_seed_gives_the_same_proof() -> None:
    outputs, labels = population(4000, 1)
    found = [calibrate(outputs, labels, Promise(0.05, seed=seed), **RECORD) for seed in (0, 1, 2)]
    assert found[0] == found[1] == found[2]
    assert (found[0].division, found[0].shares, found[0].attempts) == ("fingerprint", 1, 1)


def test_other_data_are_divided_anew() -> None:
    first = split_units(1000, None, division_seed("a" * 64))[1].tolist()
    assert first == split_units(1000, None, division_seed("a" * 64))[1].tolist()
    assert first != split_units(1000, None, division_seed("c" * 64))[1].tolist()


def test_the_smallest_of_several_targets_is_taken_and_they_share_the_confidence() -> None:
    outputs, labels = population(3000, 2)
    found = calibrate(outputs, labels, Promise(0.0005, larger_risks=(0.05, 0.2)), **RECORD)
    assert (found.target_risk, found.shares) == (0.05, 3)
    alone = calibrate(outputs, labels, Promise(0.05), **RECORD)
    assert found.coverage <= alone.coverage
    found.require_consistent(2, "k")
    with pytest.raises(UsageError, match="ascending"):
        Promise(0.05, larger_risks=(0.01,))


def test_a_refusal_shows_what_can_be_proved_and_the_next_try_is_not_refused() -> None:
    outputs, labels = population(2000, 3)
    with pytest.raises(CalibrationError) as refusal:
        calibrate(outputs, labels, Promise(0.001), **RECORD)
    table = str(refusal.value).partition("asked at once: ")[2]
    provable = [float(each.split()[0]) for each in table.split(", ")]
    assert provable
    assert set(provable) < set(TARGETS)
    for target in provable:
        assert calibrate(outputs, labels, Promise(target), **RECORD).target_risk == target


def test_engines_are_proved_together_so_that_the_best_of_them_keeps_the_promise() -> None:
    """Every engine is just above the target, so each threshold that is issued is a wrong one."""
    rng = np.random.default_rng(5)

    def part() -> Part:
        draw = [(rng.random(count), rng.random(count) < 0.1001) for count in (100, 300)]
        return of_frames(draw[0], draw[1], 0.1)

    def issued(parts: list[Part]) -> bool:
        try:
            select(parts, 0.1, 0.8)
        except CalibrationError:
            return False
        return True

    runs = [[part() for _ in range(4)] for _ in range(60)]
    assert sum(issued(run) for run in runs) <= 12
    assert sum(any(issued([each]) for each in run) for run in runs) > 24


def test_an_engine_that_cannot_keep_the_promise_refuses_all_of_its_run() -> None:
    outputs, labels = population(3000, 6)
    guessing = Outputs(np.random.default_rng(7).normal(size=(3000, 2)).astype(np.float32))
    parts = {"good": EngineOutputs(outputs), "bad": EngineOutputs(guessing)}
    with pytest.raises(CalibrationError, match="no threshold"):
        calibrate_together(parts, labels, Promise(0.05), Circumstances("a"))


def test_shares_ask_for_more_images() -> None:
    outputs, labels = population(3000, 8)
    parts = {"": EngineOutputs(outputs)}
    alone = calibrate_together(parts, labels, Promise(0.05), Circumstances("a"))[""]
    shared = calibrate_together(parts, labels, Promise(0.05), Circumstances("a", shares=4))[""]
    assert (alone.shares, shared.shares) == (1, 4)
    assert shared.threshold <= alone.threshold
    assert images_needed(0.05, 1 - 0.05 / 4) > images_needed(0.05, 0.95)


def test_questions_are_counted_also_refused_ones_and_the_same_one_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "attempts_file", lambda split: tmp_path / f"{split}.json")
    ask = [Question("net", ("openvino/fp32",), Promise(target)) for target in (0.01, 0.02)]
    assert [count_attempt("s", each) for each in (*ask, *ask)] == [1, 2, 1, 2]
    assert count_attempt("other", ask[0]) == 1
    assert count_attempt("s", Question("other net", ("openvino/fp32",), Promise(0.01))) == 3
    assert count_attempt("s", Question("net", ("openvino/fp32",), Promise(0.01, seed=9))) == 1
    assert count_attempt("s", ask[0], recorded=7) == 7
    # How images are grouped, and what else is calibrated, changes what proves.
    units = np.arange(6) // 2
    asked = [
        Question("net", ("openvino/fp32",), Promise(0.01), units),
        Question("net", ("openvino/fp32",), Promise(0.01), units // 2),
        Question("net", ("openvino/fp32",), Promise(0.01), None, ("int8 file",)),
        Question("net", ("openvino/fp32",), Promise(0.01), None, ("another int8 file",)),
    ]
    assert [count_attempt("s", each) for each in (*asked, *asked)] == [4, 5, 6, 7] * 2
    (tmp_path / "s.json").write_text("{ damaged")
    assert count_attempt("s", ask[0]) == 1
    assert len(json.loads((tmp_path / "s.json").read_text())) == 1


def test_a_place_that_cannot_be_written_does_not_stop_a_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(attempts, "attempts_file", lambda split: tmp_path / "file" / "s.json")
    assert count_attempt("s", Question("net", (), Promise())) == 1


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (np.arange(2000), "2000 images in as many units"),
        (np.zeros(2000, np.int64), "all 2000 images belong to one unit"),
        (np.arange(2000) // 1000, "2000 images in 2 units"),
    ],
    ids=["units of one", "one unit", "two units"],
)
def test_units_that_cannot_be_are_one_clear_error(groups: np.ndarray, words: str) -> None:
    outputs, labels = population(2000, 9)
    with pytest.raises(CalibrationError, match=words):
        calibrate(outputs, labels, Promise(0.3), groups=groups, **RECORD)
