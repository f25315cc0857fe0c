from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from repository import ROOT

from framegate.benchmarks.cost import drift_scenes
from framegate.runtime.policy.drift import BLOCK, RUN_LENGTH, SCENE_BLOCKS, SIMULATED

RESULT = ROOT / "benchmarks/results/drift-scenes.json"


def rows(**wanted: object) -> list[dict]:
    record = json.loads(RESULT.read_text())
    return [row for row in record["scenes"] if all(row[key] == value for key, value in wanted.items())]


def test_the_table_is_that_of_today_s_code(tmp_path, monkeypatch):
    out = tmp_path / "scenes.json"
    monkeypatch.setattr(sys, "argv", ["drift_scenes.py", "--out", str(out), "--frames", "20000"])
    monkeypatch.setattr(drift_scenes, "CALIBRATIONS", 2)
    drift_scenes.main()
    now, committed = json.loads(out.read_text()), json.loads(RESULT.read_text())
    keys = ("scene_frames", "lengths", "block_frames")
    assert [[row[key] for key in keys] for row in now["scenes"]] == [
        [row[key] for key in keys] for row in committed["scenes"]
    ]
    assert committed["run_length_promised"] == RUN_LENGTH


@pytest.mark.parametrize("scene", sorted(SIMULATED))
def test_what_info_says_of_scenes_is_what_was_simulated(scene):
    (row,) = rows(scene_frames=scene, lengths="geometric", block_frames=BLOCK)
    assert SIMULATED[scene] == pytest.approx(row["run_length"], rel=0.1)
    assert f"| {scene} | {row['run_length']:,} |" in (ROOT / "docs/policy.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("scene", sorted(SIMULATED))
def test_blocks_that_follow_the_scenes_keep_the_stated_run_length(scene):
    """Not more false alarms than the run length allows, to within four standard deviations."""
    for row in rows(scene_frames=scene, block_frames=max(BLOCK, SCENE_BLOCKS * scene)):
        expected = row["frames"] / RUN_LENGTH
        assert row["false_alarms"] <= expected + 4 * expected**0.5


def test_calibrations_that_saw_no_rejection_hardly_alarm():
    for row in json.loads(RESULT.read_text())["no_rejection_seen"]:
        assert row["alarmed"] <= 0.02 * row["calibrations"]


def test_scenes_are_like_the_calibration_as_a_whole_and_their_frames_alike():
    for fixed in (True, False):
        scores = drift_scenes.scene_scores(400_000, 100, fixed, np.random.default_rng(0))
        assert len(scores) == 400_000
        assert (scores.mean(), scores.std()) == pytest.approx((0, 1), abs=0.05)
        assert np.corrcoef(scores[:-1], scores[1:])[0, 1] > 0.7
