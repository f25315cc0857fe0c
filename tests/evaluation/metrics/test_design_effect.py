"""Intervals of frames of tracks: what they cover, and what of a record is widened."""

from __future__ import annotations

import json

import numpy as np
import pytest
from repository import ROOT

from framegate.evaluation.metrics.design_effect import KEY, design_effect, widened
from framegate.evaluation.metrics.intervals import proportion, share
from framegate.runtime.errors import DataError

LENGTH = 30


def tracks(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Tracks of thirty frames of which each has an error rate of its own, as those of traffic signs have."""
    rate = rng.beta(0.05, 0.95, count)[np.repeat(np.arange(count), LENGTH)]
    return rng.random(count * LENGTH) < rate, np.repeat(np.arange(count), LENGTH)


def test_copies_count_once_and_independent_frames_in_full() -> None:
    rng = np.random.default_rng(1)
    once = rng.random(300) < 0.2
    assert design_effect(np.repeat(once, 7), np.repeat(np.arange(300), 7)) == pytest.approx(7, rel=0.01)
    assert design_effect(rng.random(6000) < 0.2, np.arange(6000) // 30) == pytest.approx(1, abs=0.25)
    assert design_effect(np.zeros(60, bool), np.arange(60) // 30) == 1.0
    with pytest.raises(DataError, match="two units"):
        design_effect(once, np.zeros(300, np.int64))


def test_intervals_that_take_frames_for_independent_miss_and_widened_ones_cover() -> None:
    rng = np.random.default_rng(2)
    known, groups = tracks(200, rng)
    effect = design_effect(known, groups)
    assert effect > 8
    nominal = honest = 0
    trials = 150
    for _ in range(trials):
        flags, _ = tracks(100, rng)
        plain = share(flags)
        wide = widened({"risk": plain.to_json()}, effect, len(flags), "other tracks")["risk"]
        nominal += plain.low <= 0.05 <= plain.high
        honest += wide["low"] <= 0.05 <= wide["high"]
    assert nominal < 0.65 * trials
    assert honest > 0.91 * trials


def test_few_of_many_frames_are_nearly_independent() -> None:
    record = {"few": proportion(20, 100).to_json(), "all": [proportion(2000, 10_000).to_json()], "none": None}
    found = widened(record, 15.0, 10_000, "tracks")
    old, new = (proportion(20, 100), found["few"])
    assert new["low"] <= old.low
    assert new["high"] - new["low"] < 1.15 * (old.high - old.low)
    spread = found["all"][0]["high"] - found["all"][0]["low"]
    assert 3.5 < spread / (record["all"][0]["high"] - record["all"][0]["low"]) < 4.5
    assert (found["few"]["value"], found["none"], found[KEY]["effect"]) == (0.2, None, 15.0)
    with pytest.raises(DataError, match="once"):
        widened(found, 15.0, 10_000, "tracks")


def test_a_figure_of_a_bootstrap_is_widened_also_where_it_looks_like_a_count() -> None:
    """One in four AUROCs of 10,000 frames is that near a whole number of them; its interval was left as it was."""
    auroc = {"value": 0.95, "low": 0.93, "high": 0.97, "n": 10_000}
    near = {**auroc, "value": 0.950008}
    for figure in (auroc, near):
        wide = widened({"auroc": figure}, 16.0, 10_000, "tracks")["auroc"]
        assert wide["low"] == pytest.approx(figure["value"] - 4 * (figure["value"] - 0.93))
        assert wide["high"] == pytest.approx(figure["value"] + 4 * (0.97 - figure["value"]))


def test_a_share_of_a_rounded_record_is_counted_and_agreeing_resamples_are_no_certainty() -> None:
    plain = {key: float(f"{end:.6g}") for key, end in proportion(123, 10_000).to_json().items()} | {"n": 10_000}
    assert widened({"a": plain}, 4.0, 10_000, "t")["a"]["high"] == pytest.approx(proportion(31, 2500).high, abs=1e-3)
    surely = widened({"a": {"value": 1.0, "low": 1.0, "high": 1.0, "n": 600}}, 4.0, 600, "t")["a"]
    assert surely["low"] == pytest.approx(proportion(150, 150).low)


@pytest.mark.parametrize("kind", ["evaluation", "gate"])
def test_the_committed_records_of_grouped_data_say_their_design_effect(kind: str) -> None:
    for path in sorted((ROOT / "benchmarks/results" / kind).glob("*.json")):
        record = json.loads(path.read_text())
        assert (KEY in record) == ("cifar10" not in path.name)
        if "gtsrb" in path.name:
            assert 13 < record[KEY]["effect"] < 17
