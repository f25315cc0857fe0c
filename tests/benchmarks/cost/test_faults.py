"""The fault bench runs, writes its table, and fails when something is accepted under a hard fault."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

from framegate.runtime.native import library


def bench(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"framegate.benchmarks.cost.{script}", *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )


def test_the_table_holds_every_region_and_what_was_accepted(tmp_path: Path) -> None:
    out = tmp_path / "faults.json"
    options = ("--frames", "14", "--kinds", "black", "rain", "--backend", "onnxruntime", "--precision", "fp32")
    done = bench("faults", *options, "--out", str(out))
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert record["hard_faults_with_an_accept"] == []
    assert record["machine"]["cpu"]
    demo = record["sources"]["highway_1280x720_25fps"]
    assert demo["clean"]["false_alarms"]["value"] == 0
    assert demo["clean"]["accepted_as"]["black-car: automobile"] == 14
    assert set(demo["faults"]) == {"black", *(f"rain:{severity}" for severity in range(1, 6))}
    black = demo["faults"]["black"]
    assert set(black) == {"frame", "black-car", "white-car", "sky", "road", "all"}
    assert black["all"]["verdicts"] == 10
    assert black["all"]["rejected"]["value"] == black["all"]["right_reason"]["value"] == 1.0
    assert black["all"]["rejected"]["low"] < 0.8
    # Light rain does not hide a car, so that the figures above could have been others.
    assert demo["faults"]["rain:1"]["black-car"]["accepted"]["value"] == 1.0
    assert demo["faults"]["rain:1"]["black-car"]["false_accepts"]["value"] == 0.0


@pytest.mark.parametrize(
    ("options", "says"), [(("--kinds", "melt"), "'melt' is not known"), (("--frames", "12"), "more than 12")]
)
def test_wrong_options_are_refused(tmp_path: Path, options: tuple[str, ...], says: str) -> None:
    done = bench("faults", *options, "--out", str(tmp_path / "faults.json"))
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_the_cost_of_the_health_check_is_written(tmp_path: Path) -> None:
    out = tmp_path / "health.json"
    done = bench("health", "--frames", "50", "--out", str(out))
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert set(record["sizes"]) == {"1920x1080", "1280x720", "960x540"}
    ways = {"numpy", "compiled"} if library()[0] is not None else {"numpy"}
    for size in record["sizes"].values():
        assert set(size) == ways
        for row in size.values():
            assert row["rejected"] == 0
            assert 0 < row["processor_ms"]["p50"] <= row["processor_ms"]["max"]
