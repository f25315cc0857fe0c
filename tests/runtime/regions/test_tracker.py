from __future__ import annotations

import numpy as np
import pytest

from framegate.runtime import Policy, Reason
from framegate.runtime.policy.stream import StreamPolicy
from framegate.runtime.policy.track import TrackRule
from framegate.runtime.regions.base import Box
from framegate.runtime.regions.tracker import OverlapTracker, iou
from framegate.runtime.regions.tracks import TrackMemory
from framegate.runtime.session import Session


def follow(tracker, frames):
    """Numbers of the boxes (x, y, w, h) of each frame."""
    return [tracker.update([Box(*box) for box in boxes], boxes, k) for k, boxes in frames]


def test_two_objects_that_pass_each_other_keep_their_numbers():
    rng = np.random.default_rng(0)
    frames = []
    for k in range(40):
        boxes = [(10 * k, 100, 60, 60), (400 - 10 * k, 130, 60, 60)]
        frames.append((k, [tuple(int(v + rng.integers(-1, 2)) for v in box) for box in boxes]))
    assert follow(OverlapTracker(), frames) == [[1, 2]] * 40


def test_the_order_of_the_boxes_does_not_matter_and_a_new_object_gets_a_new_number():
    first, second, third = (0, 0, 50, 50), (200, 0, 50, 50), (400, 0, 50, 50)
    frames = [(0, [first, second]), (1, [second, first]), (2, [third, second, first])]
    assert follow(OverlapTracker(), frames) == [[1, 2], [2, 1], [3, 2, 1]]


def test_an_object_that_was_hidden_comes_back_as_itself_within_the_patience():
    path = [(5 * k, 0, 50, 50) for k in range(40)]
    shown = [(k, [path[k]]) for k in (*range(5), *range(10, 15))]
    assert follow(OverlapTracker(patience=6), shown)[-1] == [1]
    assert follow(OverlapTracker(patience=2), shown)[-1] == [2]


def test_dropped_frames_are_gaps_that_motion_bridges():
    shown = [(k, [(20 * k, 0, 40, 40)]) for k in (0, 1, 2, 3, 8, 9)]
    assert follow(OverlapTracker(), shown) == [[1]] * 6


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [((0, 0, 2, 2), (0, 0, 2, 2), 1.0), ((0, 0, 2, 2), (2, 0, 2, 2), 0.0), ((0, 0, 2, 2), (1, 0, 2, 2), 1 / 3)],
)
def test_intersection_over_union(a, b, expected):
    assert iou(a, b) == pytest.approx(expected)


def memory(patience=5):
    return TrackMemory(lambda: StreamPolicy(Policy(), None), TrackRule(1, 1, 2), patience)


def test_fault_a_number_that_jumps_starts_anew():
    tracks = memory()
    first = tracks.see(7, (0, 0, 40, 40), 0)
    assert tracks.see(7, (10, 0, 40, 40), 1) is first
    jumped = tracks.see(7, (900, 500, 40, 40), 2)
    assert jumped is not first
    assert Reason.UNCONFIRMED in jumped.gate.decide(True, "car")
    assert tracks.counts.jumped == 1
    assert tracks.counts.begun == 2


def test_a_track_ends_when_it_is_not_seen_and_its_number_begins_anew():
    tracks = memory(patience=2)
    first = tracks.see(1, (0, 0, 40, 40), 0)
    tracks.end_unseen(3)
    assert tracks.see(1, (0, 0, 40, 40), 3) is first
    tracks.end_unseen(7)
    assert tracks.see(1, (0, 0, 40, 40), 7) is not first
    assert tracks.counts.ended == 1


def test_fault_numbers_without_end_do_not_fill_the_memory():
    tracks = memory()
    for number in range(1000):
        tracks.see(number, (0, 0, 40, 40), number // 300)
    assert len(tracks._tracks) <= 256
    assert tracks.counts.begun == 1000


def test_of_a_counter_example_drift_is_not_watched(tiny_bundle):
    session = Session.open(tiny_bundle, "openvino")
    memory = TrackMemory(session.stream_policy, TrackRule(), counter_examples={"sky"})
    assert memory.see(-1, (0, 0, 9, 9), 0, "sky").policy.drift is None
    assert memory.see(-2, (9, 0, 9, 9), 0, "road").policy.drift is not None
