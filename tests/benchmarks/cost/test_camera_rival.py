"""The rival of the camera check, and what is made of the two."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from framegate.benchmarks.cost import camera_rival
from framegate.benchmarks.cost.statistics_monitor import STATISTICS, StatisticsMonitor, statistics
from framegate.runtime.verdict import Image


def scene(seed: int) -> Image:
    rng = np.random.default_rng(seed)
    image = np.random.default_rng(0).integers(40, 200, (27, 48, 3)).astype(np.float32)
    return cv2.addWeighted(
        cv2.resize(image, (192, 108), interpolation=cv2.INTER_NEAREST),
        1.0 + rng.normal(0, 0.02),
        rng.normal(0, 2, (108, 192, 3)).astype(np.float32),
        1.0,
        0.0,
        dtype=cv2.CV_8U,
    )


@pytest.fixture
def monitor() -> StatisticsMonitor:
    learnt = StatisticsMonitor()
    for seed in range(60):
        learnt.learn(scene(seed))
    return learnt


def test_each_statistic_is_measured() -> None:
    values = statistics(scene(0))
    assert values.shape == (len(STATISTICS),)
    assert np.isfinite(values).all()
    assert statistics(np.zeros((108, 192, 3), np.uint8))[0] == 0


def test_a_camera_is_untrusted_until_it_is_proven_healthy(monitor: StatisticsMonitor) -> None:
    assert monitor.untrusted
    seen = [monitor.judge(scene(seed)) for seed in range(100, 130)]
    assert seen[:4] == [True] * 4
    assert not seen[-1]


def test_a_sustained_change_is_found_and_a_single_frame_is_not(monitor: StatisticsMonitor) -> None:
    for seed in range(100, 130):
        monitor.judge(scene(seed))
    dark = scene(5) // 3
    assert monitor.score(dark) < 40 < 60 < monitor.score(scene(6))
    assert not monitor.judge(dark)
    assert not any(monitor.judge(scene(seed)) for seed in range(130, 140))
    assert [monitor.judge(dark) for _ in range(10)].index(True) >= 4  # a cap of 15 in steps of at most 3


def test_nothing_is_judged_before_something_was_learnt() -> None:
    with pytest.raises(ValueError, match="learnt no frame"):
        StatisticsMonitor().judge(scene(0))


def test_a_still_picture_is_usual_to_it(monitor: StatisticsMonitor) -> None:
    for seed in range(100, 130):
        monitor.judge(scene(seed))
    still = scene(7)
    assert not any(monitor.judge(still) for _ in range(50))


@pytest.mark.slow
def test_both_see_the_same_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [scene(seed) for seed in range(80)]
    monkeypatch.setattr(camera_rival, "read_clip", lambda path: images)
    found = camera_rival.measure(2, 1, ("black", "freeze"))
    assert set(found["cameras"]) == {"moving", "fixed"}
    moving = found["cameras"]["moving"]
    assert moving["faults"]["black"]["check"]["ms"] == 0
    assert moving["faults"]["black"]["rival"]["frames"] >= 1
    assert moving["faults"]["freeze"]["rival"]["ms"] is None
    assert set(moving["healthy"]["the same view"]["check"]) == {"frames", "alarms", "per_hour", "rejected"}


def test_alarms_are_counted_where_they_begin() -> None:
    alarms = [False, True, True, False, True]
    assert camera_rival.false_alarms(alarms) == {"frames": 5, "alarms": 2, "per_hour": 36000.0, "rejected": 0.6}
    first = camera_rival.FIRST
    late = camera_rival.delay([False] * (first + 2) + [True])
    assert (late["frames"], late["ms"], late["alarm_before"]) == (2, 80, False)
    assert camera_rival.delay([True] * first + [False])["ms"] is None
