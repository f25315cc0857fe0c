from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores
from framegate.runtime import scores
from framegate.runtime.native import library
from framegate.runtime.scores import frame_scores

LARGE = float(np.float32(3e38))
FINITE = st.floats(-LARGE, LARGE, width=32)
USUAL = st.floats(-50, 50, width=32)


@pytest.fixture(params=["compiled", "python"], scope="module", autouse=True)
def _way(request):
    if request.param == "compiled" and library()[0] is None:
        pytest.skip(f"no compiled code: {library()[1]}")
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "python":
            patch.setattr(scores, "library", lambda: (None, "switched off by a test"))
        yield


@given(
    row=st.one_of(*(arrays(np.float32, (1, c), elements=e) for c in (1, 2, 10, 64, 65, 100) for e in (USUAL, FINITE))),
    temperature=st.floats(0.05, 20),
)
@example(row=np.array([[3e38, -3e38]], np.float32), temperature=0.05)
@example(row=np.array([[5, 5, 5]], np.float32), temperature=1.0)
@example(row=np.zeros((1, 64), np.float32), temperature=1.0)
def test_equals_the_reference(row, temperature):
    got, expected = frame_scores(row, temperature), softmax_scores(row, temperature)
    assert got.finite
    assert got.argmax == expected.argmax[0]
    for name in ("max_probability", "entropy", "margin"):
        assert getattr(got, name) == pytest.approx(getattr(expected, name)[0], abs=1e-12), name
    assert got.energy == pytest.approx(expected.energy[0], rel=1e-12, abs=1e-12)
    assert 0 <= got.entropy <= math.log(row.shape[1])


@pytest.mark.parametrize("classes", [3, 100])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("position", [0, 2])
def test_anything_not_finite_is_a_fault(classes, value, position):
    row = np.zeros((1, classes), np.float32)
    row[0, position] = value
    got = frame_scores(row, 1.0)
    assert not got.finite
    assert not got.entropy <= 1e9
    assert math.isnan(got.max_probability)
