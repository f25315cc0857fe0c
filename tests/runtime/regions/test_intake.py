from __future__ import annotations

import math

import pytest

from framegate.runtime.regions.base import Box
from framegate.runtime.regions.intake import describe, take

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("box", "why"),
    [
        ((NAN, 0, 5, 5), "not_finite"),
        ((0, 0, INF, 5), "not_finite"),
        ((0, -INF, 5, 5), "not_finite"),
        ((10, 10, -5, 5), "inverted"),
        ((10, 10, 5, 0), "inverted"),
        ((100, 0, 5, 5), "outside"),
        ((0, 60, 5, 5), "outside"),
        ((-9, 0, 9, 5), "outside"),
        ((1e300, 1e300, 1e300, 1e300), "outside"),
        ((3, 3, 0.2, 0.2), "outside"),
    ],
)
def test_fault_a_box_that_cannot_be_judged_is_counted_with_its_reason(box, why):
    taken = take([Box(*box), Box(1, 2, 30, 20)], 100, 60, 16)
    assert taken.pixels == ((1, 2, 30, 20),)
    assert taken.left_out == {why: 1}
    assert describe(taken.left_out).startswith("boxes without a verdict: 1 ")


def test_a_box_over_the_edge_is_judged_by_what_is_on_the_frame():
    taken = take([Box(-10, -10, 30, 30), Box(90, 50, 1e12, 1e12)], 100, 60, 16)
    assert sorted(taken.pixels) == [(0, 0, 20, 20), (90, 50, 10, 10)]
    assert not taken.left_out
    assert describe(taken.left_out) == ""


def test_the_surest_are_kept_then_the_largest_and_the_rest_is_counted():
    boxes = [Box(k, 0, 10 + k, 10, score=score) for k, score in enumerate((0.2, 0.9, NAN, 0.9, 0.5))]
    taken = take(boxes, 100, 60, 3)
    assert [box.x for box in taken.boxes] == [3, 1, 4]
    assert taken.left_out == {"beyond": 2}


def test_fault_ten_thousand_boxes_cost_no_more_than_their_count():
    boxes = [Box(k % 90, k % 50, 10, 10, score=k / 1e4) for k in range(10_000)]
    taken = take(boxes, 100, 60, 16)
    assert len(taken.boxes) == 16
    assert taken.left_out == {"beyond": 9_984}
    assert taken.boxes[0].score == pytest.approx(0.9999)
