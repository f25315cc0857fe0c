from __future__ import annotations

import json
import sys
from itertools import islice

import numpy as np
import pytest
from repository import ROOT

from framegate.benchmarks.cost import drift

RESULT = ROOT / "benchmarks/results/drift.json"


def test_video_as_a_whole_is_like_the_calibration_though_its_frames_are_alike():
    p = np.concatenate(list(islice(drift.video(np.random.default_rng(0), 20), 20_000)))
    np.testing.assert_allclose(np.quantile(p, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.02)
    assert np.corrcoef(p[:-1], p[1:])[0, 1] > 0.6
    accepted = np.concatenate(list(islice(drift.video(np.random.default_rng(0), 20, accepted_only=True), 500)))
    assert accepted.min() >= 1 - drift.COVERAGE


@pytest.mark.parametrize("rate", [0.3, 0.8, 1.0])
def test_more_rejections_are_as_many_as_named(rate):
    p = drift.more_rejections(rate)(np.random.default_rng(0).random(50_000))
    assert (p < 1 - drift.COVERAGE).mean() == pytest.approx(rate, abs=0.01)
    assert 0 <= p.min() <= p.max() <= 1


def test_the_table_has_a_row_for_every_alarm_and_the_shipped_one_is_today_s(tmp_path, monkeypatch):
    out = tmp_path / "drift.json"
    monkeypatch.setattr(sys, "argv", ["simulate_drift.py", "--out", str(out), "--frames", "1000", "--runs", "1"])
    drift.main()
    now, committed = json.loads(out.read_text()), json.loads(RESULT.read_text())
    assert list(now["alarms"]) == list(committed["alarms"]) == list(drift.ALARMS)
    for key in ("coverage", "run_length_promised", "block_frames"):
        assert now[key] == committed[key]
    for alarm, row in committed["alarms"].items():
        assert row["run_length"].keys() == now["alarms"][alarm]["run_length"].keys()
        assert row["delay_frames"].keys() == now["alarms"][alarm]["delay_frames"].keys()
    # No chance in these: every frame is alike, so the table must hold what the code gives today.
    for alarm in ("e-detector", "e-detector by frame", "CUSUM by frame"):
        same = (table["alarms"][alarm]["delay_frames"]["all rejected"]["median"] for table in (now, committed))
        assert len(set(same)) == 1


def test_the_page_shows_the_committed_figures():
    page = (ROOT / "docs/policy.md").read_text(encoding="utf-8")
    table = json.loads(RESULT.read_text())["alarms"]
    assert len(table["e-detector"]["run_length"]) >= 3
    assert len(table["e-detector"]["delay_frames"]) >= 3
    for kind in table["e-detector"]["run_length"]:
        cells = [row["run_length"][kind]["run_length"] for row in table.values()]
        shown = [f"> {int(cell[2:]):,}" if isinstance(cell, str) else f"{cell:,}" for cell in cells]
        assert f"| {kind} | {' | '.join(shown)} |" in page
    for kind in table["e-detector"]["delay_frames"]:
        cells = [row["delay_frames"][kind] for row in table.values()]
        missed = [cell.get("missed", 0) * 2 >= cell["runs"] for cell in cells]
        shown = [
            "none within 20,000" if none else f"{cell['median']:,}" for cell, none in zip(cells, missed, strict=True)
        ]
        assert f"| {kind} | {' | '.join(shown)} |" in page
