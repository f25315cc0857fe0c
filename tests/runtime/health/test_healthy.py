"""What compiled code calls healthy, and what Python finds nothing in, are the same frames."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.runtime.health.content import Content
from framegate.runtime.health.judge import is_dark, judge_content
from framegate.runtime.health.rows_native import LOST, NativeRowMemory
from framegate.runtime.health.thresholds import HealthThresholds
from framegate.runtime.native import library

CODE, _ = library()
pytestmark = pytest.mark.skipif(CODE is None, reason="no compiled code")

# Around the limits, exactly on them, and far away.
LEVELS = (0.0, 0.01, 0.1, 0.25, 0.5, 0.9, 1.0, 2.0, 2.5, 3.0, 6.0, 12.0, 12.5, 16.0, 31.9, 32.0, 120.0, math.nan)
NEAR = st.sampled_from(LEVELS)
USUAL = st.lists(st.sampled_from([0.0, 0.9, 1.0, 4.0, 8.0]), min_size=16, max_size=16).map(tuple)
ZONES = st.one_of(st.just(()), USUAL)


@settings(max_examples=400, deadline=None)
@given(
    measures=st.lists(NEAR, min_size=9, max_size=9),
    zones=st.lists(NEAR, min_size=16, max_size=16),
    lost=st.sampled_from([0, 0, 0, 1, 5]),
    coloured=st.booleans(),
    small=st.booleans(),
    usual=ZONES,
    light=st.sampled_from([0.0, 80.0]),
    detail=st.sampled_from([0.0, 2.0]),
    contrast=st.sampled_from([2.5, 12.0]),
    colour=st.sampled_from([None, True, False]),
)
def test_both_say_the_same(measures, zones, lost, coloured, small, usual, light, detail, contrast, colour):
    content = Content(*measures, tuple(zones), LOST[lost], coloured)
    limits = HealthThresholds(zones=usual, light=light, detail=detail, contrast=contrast, colour=colour)
    memory = NativeRowMemory(CODE, 2, 16, 1)
    memory._content[:] = [*measures, *zones, lost, coloured]
    # A dark frame is left to Python, which looks for structure in it.
    expected = not is_dark(content, limits) and not judge_content(content, limits, small)
    assert memory.healthy(limits, small) == expected
    assert np.array_equal(memory._content[:9], measures, equal_nan=True)
