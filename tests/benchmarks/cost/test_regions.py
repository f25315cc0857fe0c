from __future__ import annotations

import json

import pytest

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")
from framegate.benchmarks.checkout import ROOT
from framegate.benchmarks.cost import regions

RESULT = ROOT / "benchmarks/results/regions.json"


def test_both_ways_of_calling_the_engine_are_measured_and_written(tmp_path, monkeypatch):
    monkeypatch.setattr(regions, "CASES", regions.CASES[-1:])
    assert regions.main(["--frames", "2", "--regions", "3", "--out", str(tmp_path / "regions.json")]) == 0
    record = json.loads((tmp_path / "regions.json").read_text())
    (case,) = record["cases"]
    assert (record["regions"], record["frames"], case["bundle"]) == (3, 2, "simplecnn-cifar10")
    assert case["a_call_each_ms"] > 0 < case["one_call_ms"]


def test_the_page_says_what_was_measured():
    page = " ".join((ROOT / "docs/objects.md").read_text(encoding="utf-8").split())
    for case in json.loads(RESULT.read_text())["cases"]:
        times = f"{case['a_call_each_ms']:.1f} against {case['one_call_ms']:.1f} ms"
        assert f"{case['bundle']} on {case['engine'].split()[0]}/{case['precision']} {times}" in page
