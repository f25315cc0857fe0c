"""Time stamps of network streams as careless cameras send them."""

from __future__ import annotations

import pytest

from framegate.runtime.sources.clock import StreamClock

MS, SECOND = 1_000_000, 1_000_000_000


@pytest.mark.parametrize("odd", ["repeated", "out of order", "none", "zero", "now and then", "still"])
def test_fault_a_stamp_that_says_nothing_does_not_make_old_frames_new(odd: str) -> None:
    """A queue of two seconds in front of the reader, and one careless stamp: everything behind it counted as new."""
    clock, ages = StreamClock(), []
    for k in range(400):
        now = 1000 * SECOND + 33 * k * MS + min(max(k - 50, 0) * 30, 2000) * MS
        pts = 33.0 * k
        if k == 200:
            pts = {"repeated": pts - 33.0, "out of order": pts - 90.0, "none": float("nan"), "zero": 0.0}.get(odd, pts)
        if odd == "now and then" and k % 7 == 0:
            pts -= 33.0
        if odd == "still" and 200 <= k < 260:
            pts = 33.0 * 199
        ages.append((now - clock.captured_ns(pts, now)) / MS)
    assert max(ages[:50]) < 1
    assert min(ages[150:]) > 1900
    for k in range(400, 410):  # the queue is gone
        now = 1000 * SECOND + 33 * k * MS
        assert (now - clock.captured_ns(33.0 * k, now)) / MS < 1


def test_stamps_that_begin_late_age_nothing() -> None:
    clock = StreamClock()
    for k in range(300):
        now = 1000 * SECOND + 33 * k * MS
        pts = 33.0 * max(k - 200, 0)
        assert (now - clock.captured_ns(pts, now)) / MS < 1
