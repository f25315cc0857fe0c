from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.runtime.stats import LatencyHistogram, PipelineStats
from framegate.runtime.verdict import Prediction, Reason


@given(st.lists(st.integers(1_000, 10**12), min_size=1, max_size=200), st.sampled_from([50.0, 99.0, 99.9]))
@settings(deadline=None)
def test_percentiles_are_within_half_a_percent_of_the_sorted_list(durations, percent):
    histogram = LatencyHistogram()
    for duration in durations:
        histogram.add(duration)
    rank = max(1, math.ceil(len(durations) * percent / 100)) - 1
    assert histogram.percentile_ms(percent) == pytest.approx(np.sort(durations)[rank] / 1e6, rel=0.0051)
    assert histogram.max_ns == max(durations)


def test_no_percentile_without_data():
    assert math.isnan(LatencyHistogram().percentile_ms(50))


def test_an_hour_long_stall_is_not_lost():
    histogram = LatencyHistogram()
    histogram.add(3_600 * 10**9)
    assert histogram.summary()["max_ms"] == 3_600_000


def prediction(stream, *reasons):
    return Prediction(0, stream, reasons, "cat", 0.9, 0.1, 0.8, -3.0, 0.1, 0.2, 1_000, 2_001_000, 1_500_000)


def test_counts_add_up():
    stats = PipelineStats(("a", "b"))
    stats.record((prediction("a"), prediction("b", Reason.BLACK, Reason.FROZEN)))
    stats.record((prediction("a"), prediction("b", Reason.FROZEN)))
    assert (stats.frames, stats.evaluated, stats.accepted, stats.coverage) == (2, 4, 2, 0.5)
    assert stats.rejected_by_reason == {"BLACK": 1, "FROZEN": 2}
    assert stats.streams["a"].labels == {"cat": 2}
    record = json.loads(json.dumps(stats.to_json(), allow_nan=False))
    assert record["streams"]["b"]["rejected_by_reason"] == {"BLACK": 1, "FROZEN": 2}
    assert record["capture_to_verdict"]["p50_ms"] == pytest.approx(2.0, rel=0.006)


def test_before_the_first_frame_nothing_is_invented():
    record = PipelineStats(("a",)).to_json()
    assert record["capture_to_verdict"]["p50_ms"] is None
    assert record["streams"]["a"]["coverage"] is None
    assert "0 captured" in str(PipelineStats(("a",)))
