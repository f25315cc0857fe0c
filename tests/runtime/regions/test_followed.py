"""Objects over several frames: their tracks, numbers, warm-up, and what a debounce does with them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from squares import BLUE, GREY, PLACES, RED, judge_of

from framegate.runtime import Debounce, Policy, Reason, Roi, UsageError
from framegate.runtime.policy.track import TrackRule
from framegate.runtime.regions.base import Box
from framegate.runtime.regions.fixed import FixedRegions
from framegate.runtime.regions.function import FunctionRegions
from framegate.runtime.regions.together import TogetherRegions
from framegate.runtime.regions.tracker import OverlapTracker


def test_a_track_is_used_when_its_rule_says_so_and_a_new_label_starts_anew(session, scene):
    judged = judge_of(session, lambda image: [(10, 10, 40, 40)], tracker=OverlapTracker(), rule=TrackRule(2, 3, 2))
    colours = [BLUE, BLUE, RED, RED, GREY, RED]
    seen = [judged(scene({(10, 10): colour}, seed=k), k)[1][0] for k, colour in enumerate(colours)]
    assert [p.accepted for p in seen] == [False, True, False, True, False, True]
    assert seen[0].reasons == seen[2].reasons == (Reason.UNCONFIRMED,)
    assert seen[4].reasons == (Reason.HIGH_SCORE,)
    assert {p.stream for p in seen} == {"track-1"}
    assert [p.found.age for p in seen] == [1, 2, 3, 4, 5, 6]


def test_fault_an_object_that_nobody_follows_is_never_used_under_a_rule(session, scene):
    judged = judge_of(session, lambda image: [(10, 10, 40, 40)], rule=TrackRule(1, 1, 2))
    for number in range(3):
        _, (prediction,), _ = judged(scene({(10, 10): BLUE}, seed=number), number)
        assert prediction.reasons == (Reason.UNCONFIRMED,)
        assert "nobody follows" in prediction.detail


def test_fault_a_warm_up_of_objects_that_nobody_follows_does_not_end(session, scene):
    session.policy = Policy(warm_up=2)
    for giver, accepted in (((10, 10, 40, 40), [False] * 4), ((10, 10, 40, 40, "", 0.9, 7), [False] * 2 + [True] * 2)):
        judged = judge_of(session, lambda image, box=giver: [box])
        seen = [judged(scene({(10, 10): BLUE}, seed=k), k)[1][0] for k in range(4)]
        assert [p.accepted for p in seen] == accepted
        assert all(p.reasons in ((), (Reason.WARMING_UP,)) for p in seen)


def test_a_reason_that_is_found_last_cannot_be_held(session):
    session.policy = Policy({Reason.NOT_CERTIFIED: Debounce(1, 1, 3)})
    with pytest.raises(UsageError, match="NOT_CERTIFIED cannot be debounced for objects"):
        judge_of(session, lambda image: [])


@pytest.mark.parametrize("numbers", [[], [1, 2], ["one"], None])
def test_fault_a_tracker_that_fails_confirms_nothing(session, scene, numbers):
    class Broken:
        def update(self, boxes, pixels, frame_id):
            return numbers

    judged = judge_of(session, lambda image: [(10, 10, 40, 40)], tracker=Broken())
    verdict, (prediction,), _ = judged(scene({(10, 10): BLUE}))
    assert verdict.accepted
    assert prediction.reasons == (Reason.UNCONFIRMED,)
    assert "the tracker failed" in prediction.detail


def test_numbers_of_the_giver_and_of_the_tracker_are_kept_apart(session, scene):
    boxes = [(10, 10, 40, 40, "", 0.9, 1), (210, 10, 40, 40, "", 0.8)]
    judged = judge_of(session, lambda image: boxes, tracker=OverlapTracker())
    _, predictions, _ = judged(scene(PLACES))
    assert [p.accepted for p in predictions] == [True, True]
    assert predictions[0].stream == "track-1"
    assert predictions[1].stream == "track-1000001"


def test_fault_objects_with_one_number_do_not_confirm_each_other(session, scene):
    """Not on one frame, and not on the frames that follow: the surest of them is another one on each."""
    places = {(10, 10): BLUE, (60, 10): BLUE, (110, 10): BLUE}
    surest = [0]

    def one_number(image):
        return [(x, y, 40, 40, "", 0.9 if k == surest[0] else 0.5, 4) for k, (x, y) in enumerate(places)]

    judged = judge_of(session, one_number, rule=TrackRule(1, 1, 3))
    for surest[0] in range(3):
        _, predictions, _ = judged(scene(places, seed=surest[0]), surest[0])
        assert [p.reasons for p in predictions] == [(Reason.UNCONFIRMED,)] * 3
        assert {p.stream for p in predictions} == {"object-0", "object-1", "object-2"}


def test_fault_a_number_that_was_given_twice_starts_anew(session, scene):
    boxes = [(10, 10, 40, 40, "", 0.9, 4)]
    judged = judge_of(session, lambda image: boxes, rule=TrackRule(1, 1, 2))
    colours = {(10, 10): BLUE, (60, 10): BLUE}
    assert [judged(scene(colours, seed=k), k)[1][0].accepted for k in range(3)] == [False, True, True]
    boxes.append((60, 10, 40, 40, "", 0.8, 4))
    assert not any(judged(scene(colours, seed=3), 3)[1])
    del boxes[0]  # which of the two is left?
    assert [judged(scene(colours, seed=k), k)[1][0].accepted for k in (4, 5)] == [False, True]


@pytest.mark.parametrize("with_tracker", [True, False])
def test_a_number_below_0_is_none(session, scene, with_tracker):
    """Trackers write -1 for what they do not follow yet; below 0 are the numbers of fixed regions."""

    class NotYet(OverlapTracker):
        def update(self, boxes, pixels, frame_id):
            return [-1] * len(boxes)

    loose = FunctionRegions(lambda image: [(110, 10, 40, 40, "", 0.9, -1), (210, 10, 40, 40, "", 0.9, -1)])
    giver = TogetherRegions((loose, FixedRegions((Roi.parse("left=10,10,40,40"),))))
    rule = TrackRule(1, 1, 2)
    for tracker in (NotYet(), OverlapTracker()) if with_tracker else (None,):
        judged = judge_of(session, giver, tracker=tracker, rule=rule)
        for number in range(3):
            _, (fixed, *others), _ = judged(scene(PLACES, seed=number), number)
            assert fixed.stream == "left"
            assert fixed.accepted == (number > 0)
            assert all(p.accepted for p in others) == (number > 0 and type(tracker) is OverlapTracker)


def test_fault_a_track_that_begins_under_a_bad_camera_does_not_wait_anew(session, scene):
    """What a frame as a whole is rejected for waits, and is held, for the stream: objects come and go."""
    session.policy = Policy({Reason.LOW_CONTRAST: Debounce(3, 5, 10), Reason.BLACK: Debounce(1, 1, 4)})
    boxes = [(10, 10, 40, 40, "", 0.9, 1)]
    judged = judge_of(session, lambda image: boxes)

    def look(number, image):
        verdict, predictions, _ = judged(image, number)
        return verdict.decided_reasons, [each.decided_reasons for each in predictions], predictions

    for number in range(12):
        assert look(number, scene({(10, 10): BLUE}, seed=number))[:2] == ((), [()])
    found = []
    for number in range(12, 24):
        foggy = cv2.GaussianBlur(scene({}, seed=number), (0, 0), 8)
        foggy[10:50, 10:50] = scene({(10, 10): BLUE}, seed=number)[10:50, 10:50]
        boxes[:] = [(10, 10, 40, 40, "", 0.9, number // 3)]  # another object every three frames
        of_scene, of_objects, (prediction,) = look(number, foggy)
        assert of_scene == prediction.found_reasons == (Reason.LOW_CONTRAST,)  # the scene never waits
        found += of_objects
    assert found == [()] * 2 + [(Reason.LOW_CONTRAST,)] * 10
    boxes.clear()  # nothing is found on a black picture, and nothing of it is remembered by a track
    assert Reason.BLACK in look(24, np.zeros((240, 320, 3), np.uint8))[0]
    boxes.append((10, 10, 40, 40, "", 0.9, 99))
    for number in range(25, 28):
        of_scene, (of_object,), _ = look(number, scene({(10, 10): BLUE}, seed=number))
        assert Reason.BLACK in of_scene
        assert Reason.BLACK in of_object
    assert Reason.BLACK not in look(28, scene({(10, 10): BLUE}, seed=28))[0]


@pytest.mark.parametrize("rule", [{Reason.BLACK: Debounce(1, 1, 4)}, {Reason.BLURRED: Debounce(2, 2, 3)}])
def test_fault_what_a_giver_holds_against_a_box_is_no_reason_of_the_frame(session, scene, rule):
    """Whether that waits is not the stream's to decide, which has never seen it."""
    session.policy = Policy(rule)
    against = {Reason.BLURRED: "the detector says so"}
    bad, good = [Box(10, 10, 40, 40, "", 0.9, 1, against=each) for each in (against, {})]
    boxes = []
    judged = judge_of(session, lambda image: boxes)

    def accepted(number, box):
        boxes[:] = [box, Box(60, 10, 40, 40, "", 0.8, 2)]
        verdict, (one, other), _ = judged(scene(PLACES, seed=number), number)
        assert verdict.accepted
        assert other.accepted
        return one.accepted

    waits = Reason.BLURRED in rule
    assert [accepted(number, bad) for number in range(4)] == [waits, False, False, False]
    assert [accepted(number, good) for number in range(4, 8)] == [not waits, not waits, True, True]
