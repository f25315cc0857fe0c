"""What the hand-over takes and what its floor is: that the programs measure, not how long anything takes."""

from __future__ import annotations

import pytest

from framegate.benchmarks.fault_tables import handover_floor
from framegate.benchmarks.handover import floor, scheduling, speed


def test_the_floor_measures_a_datagram_between_two_processes(monkeypatch):
    monkeypatch.setattr(floor, "_ROUNDS", 1)
    monkeypatch.setattr(floor, "SCHEDULING", {"ordinary": scheduling.ordinary})
    found = floor.measure(5, 500)
    ways = ["Python to Python"] if speed.compiler() is None else ["C to C", "Python to Python", "a sleep ends"]
    assert list(found) == ways
    for each in found.values():
        assert each["ordinary"]["count"] == 5
        assert 0 < each["ordinary"]["p50"] <= each["ordinary"]["max"] < 10_000
    about = {"machine": {"cores": 2, "cpu": "a processor"}, "busy": 2, "date": "today", "load": 1.0}
    assert "| C to C |" in handover_floor({"ms": found | {"C to C": found["Python to Python"]}, **about})


@pytest.mark.slow
@pytest.mark.parametrize("judged", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_verdict_is_timed_from_its_decision_to_the_receivers(tmp_path, judged):
    url = speed.IN_C if judged and speed.compiler() else "udp://127.0.0.1:0"
    found = speed.over(url, speed.WARM_UP + 10, 0.002, str(tmp_path), judged=judged)
    parts = [found[name]["p50"] for name in ("made", "way", "judged")]
    assert all(part > 0 for part in parts)
    assert sum(parts) == pytest.approx(found["verdicts"]["p50"], rel=0.9)
    assert found["bare"]["p50"] > 0
    assert judged or found["usable"] > 0


def test_a_schedule_that_is_not_allowed_is_found_out(monkeypatch):
    monkeypatch.setitem(scheduling._TRY, "SCHED_FIFO", "raise PermissionError")
    assert not scheduling.allowed("SCHED_FIFO")
    assert scheduling.allowed("ordinary")
