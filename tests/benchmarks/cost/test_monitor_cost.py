from __future__ import annotations

import json
import sys

from framegate.benchmarks.cost import monitor
from framegate.runtime.bundle.search import find_bundle


def test_bundles_without_a_monitor_are_left_out_unless_they_are_named(tmp_path, monkeypatch, capsys):
    with_monitor, without = find_bundle("simplecnn-cifar10"), find_bundle("resnet20-robust-cifar10")
    monkeypatch.setattr(monitor, "classifiers", lambda: [with_monitor, without])
    out = tmp_path / "monitor.json"
    monkeypatch.setattr(sys, "argv", ["monitor", "--frames", "100", "--out", str(out)])
    assert monitor.main() == 0
    found = json.loads(out.read_text())["bundles"]
    assert [each["bundle"] for each in found] == ["simplecnn-cifar10"]
    assert found[0]["bare_engine"]["p50_us"] > 0
    monkeypatch.setattr(sys, "argv", ["monitor", "--bundles", str(without), "--frames", "100", "--out", str(out)])
    assert monitor.main() != 0
    assert "has no monitor to measure" in capsys.readouterr().err
