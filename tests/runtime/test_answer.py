"""One compiled call looks at an engine's answer: it says what the parts say one by one."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from framegate.runtime.engine_check import NewAnswers
from framegate.runtime.errors import BackendError
from framegate.runtime.monitor import SHIFT, Monitor, Tap
from framegate.runtime.native import fast_path_module, library
from framegate.runtime.native.answer import bound_answer, bound_rows
from framegate.runtime.scores import frame_scores

pytestmark = pytest.mark.skipif(library()[0] is None, reason="no compiled code")
RNG = np.random.default_rng(4)
NETWORK = 6


def monitor(size=9, width=4):
    rows = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in
            (("centre", size), ("hidden", (width, size)), ("hidden_bias", width), ("weights", width))}  # fmt: skip
    spread = RNG.uniform(0.5, 2, size).astype(np.float32)
    return Monitor(taps=(Tap("a", 4), Tap("b", size - 4)), spread=spread, limit=3.0, bias=0.3, fitted={}, **rows)


def test_the_fast_path_is_there_where_the_compiled_code_is():
    """Else its tests would be skipped; a file that was compiled from another version is as good as none."""
    if sys.version_info < (3, 11) or not library()[0].framegate_beside_size():
        pytest.skip("not for this Python or system")
    assert fast_path_module() is not None, "compile again: python setup.py build_ext --inplace"


@pytest.fixture(params=[True, False])
def parts(request):
    """Logits, what is shown, pooled values, the monitor, and what looks at them; with a monitor and without."""
    head = monitor() if request.param else None
    logits, shown = np.zeros((1, NETWORK), np.float32), np.zeros(500, np.float32)
    pooled = np.zeros((1, 9), np.float32) if head else None
    return logits, shown, pooled, head, bound_answer(logits, shown[::7], pooled, head and head.head)


def test_it_says_what_the_parts_say(parts):
    logits, shown, pooled, head, bound = parts
    new, stuck = NewAnswers("the engine"), 0
    for k in range(400):
        if k % 5:  # else the same question
            shown[:] = RNG.normal(size=500)
        if RNG.random() < 0.7:  # else the same answer
            logits[:] = RNG.normal(0, 5, NETWORK)
            if RNG.random() < 0.1:
                logits[0, RNG.integers(NETWORK)] = RNG.choice([np.nan, np.inf, -np.inf])
        if pooled is not None:
            pooled[:] = RNG.normal(size=9)
            pooled[0, 3] = np.nan if RNG.random() < 0.1 else pooled[0, 3]
        temperature = RNG.uniform(0.3, 3)
        said = bound(temperature)
        try:
            new.require(shown[::7].tobytes(), logits.tobytes())
        except BackendError:
            stuck += 1
            assert said is None
            continue
        scores = frame_scores(logits, temperature)
        assert said is scores.finite
        if said:
            assert tuple(bound.found[:5]) == tuple(scores)
        if head is not None:
            expected = head(pooled[0])[SHIFT]
            assert math.isnan(expected) if math.isnan(bound.found[5]) else expected == bound.found[5]
    assert stuck > 20


def test_what_was_seen_before_is_known_to_both(parts):
    """The memory goes with the frames, from step by step to one call and back: who stops between is found."""
    logits, shown, _, _, bound = parts
    new = NewAnswers("the engine")
    logits[:], shown[:] = 1, 1
    new.require(shown[::7].tobytes(), logits.tobytes())
    new.hand_over(bound)
    shown[:] = 2
    assert bound(1.0) is None
    new.take_over(bound)
    with pytest.raises(BackendError, match="bit for bit"):  # once stuck, it stays so, though the picture repeats
        new.require(shown[::7].tobytes(), logits.tobytes())
    new.hand_over(bound)
    assert bound(1.0) is None
    bound.forget()
    assert bound(1.0) is True


def test_other_arrays_are_none_for_it():
    logits, shown = np.zeros((1, NETWORK), np.float32), np.zeros(50, np.float32)
    head, pooled = monitor().head, np.zeros((1, 9), np.float32)
    assert bound_answer(logits, shown, pooled, head) is not None
    assert bound_answer(logits.astype(np.float64), shown, None, None) is None
    assert bound_answer(np.zeros((1, 2 * NETWORK), np.float32)[:, ::2], shown, None, None) is None
    assert bound_answer(logits, shown.astype(np.float16), None, None) is None
    assert bound_answer(logits, shown, None, head) is None
    assert bound_answer(logits, shown, pooled[:, :8].copy(), head) is None


@pytest.mark.parametrize("monitored", [True, False])
def test_rows_say_what_each_row_says_alone(monitored):
    head = monitor() if monitored else None
    logits, pooled = np.zeros((5, NETWORK), np.float32), np.zeros((5, 9), np.float32) if monitored else None
    rows = bound_rows(logits, pooled, head and head.head)
    seen_bad = 0
    for _ in range(100):
        logits[:] = RNG.normal(0, 5, logits.shape)
        if RNG.random() < 0.5:
            logits[RNG.integers(5), RNG.integers(NETWORK)] = RNG.choice([np.nan, np.inf, -np.inf])
        if pooled is not None:
            pooled[:] = RNG.normal(size=pooled.shape)
            pooled[RNG.integers(5), 3] = np.nan
        count, temperature = int(RNG.integers(1, 6)), RNG.uniform(0.3, 3)
        found = rows(count, temperature)
        assert len(found) == count
        for k, (best, *numbers, shift) in enumerate(found):
            scores = frame_scores(logits[k : k + 1], temperature)
            assert best == scores.argmax
            np.testing.assert_array_equal(numbers, scores[1:])  # not a number equals itself here
            seen_bad += not scores.finite
            np.testing.assert_equal(shift, head(pooled[k])[SHIFT] if head is not None else math.nan)
    assert seen_bad > 10


def test_rows_that_are_none_for_the_compiled_code_are_left_to_python():
    head, logits, pooled = monitor().head, np.zeros((4, NETWORK), np.float32), np.zeros((4, 9), np.float32)
    assert bound_rows(logits, pooled, head) is not None
    assert bound_rows(logits[:, ::2], None, None) is None
    assert bound_rows(logits.astype(np.float64), None, None) is None
    assert bound_rows(logits, pooled[:2], head) is None
    assert bound_rows(logits, None, head) is None
    assert bound_answer(logits, np.zeros(9, np.float32), None, None) is None  # one row is what it is for
