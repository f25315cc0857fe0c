"""Objects from a giver to verdicts: one engine call, one camera check, one stamp; everything fails towards REJECT."""

from __future__ import annotations

import json
import time
import tracemalloc

import numpy as np
import pytest
from squares import BLUE, BOXES, PLACES, RED, Counted, judge_of

from framegate.runtime import Frame, Pipeline, Reason, Roi, UsageError
from framegate.runtime.pixel_format import to_nv12
from framegate.runtime.policy.track import TrackRule
from framegate.runtime.regions.base import Box, Found
from framegate.runtime.regions.fixed import FixedRegions
from framegate.runtime.regions.function import FunctionRegions, as_box
from framegate.runtime.regions.judge import Objects
from framegate.runtime.regions.label_map import LabelMap
from framegate.runtime.regions.tracker import OverlapTracker
from framegate.runtime.regions.tracks import TrackMemory
from framegate.runtime.sources.base import BaseSource
from framegate.runtime.verdict import NV12


def test_all_objects_of_a_frame_go_through_one_call_and_get_one_stamp(session, scene):
    judged = judge_of(session, lambda image: BOXES)
    calls = Counted.calls
    scene_verdict, predictions, left_out = judged(scene(PLACES))
    assert Counted.calls == calls + 1
    assert [p.candidate for p in predictions[:3]] == ["blue", "green", "red"]
    assert [p.accepted for p in predictions] == [True, True, True, False, True]
    assert predictions[3].reasons == (Reason.HIGH_SCORE,)
    assert {p.decided_ns for p in predictions} == {scene_verdict.decided_ns}
    assert scene_verdict.accepted
    assert scene_verdict.candidate == ""
    assert left_out == {}
    assert [p.found.box for p in predictions] == [box[:4] for box in BOXES]


@pytest.mark.parametrize("count", [1, 2, 5, 7, 11, 16])
def test_a_batch_says_of_every_object_what_it_would_say_of_it_alone(session, scene, count):
    rng = np.random.default_rng(count)
    boxes = [(int(rng.integers(0, 250)), int(rng.integers(0, 190)), 50, 40) for _ in range(count)]
    image = scene(PLACES)
    _, together, _ = judge_of(session, lambda _: boxes)(image)
    for prediction in together:
        _, (alone,), _ = judge_of(session, lambda _, p=prediction: [p.found.box])(image)
        assert alone.candidate == prediction.candidate
        assert alone.entropy == pytest.approx(prediction.entropy, abs=1e-4)


def test_every_object_has_the_probabilities_that_were_asked_for(session, scene):
    session.scorer.probabilities = True
    judged = judge_of(session, lambda image: BOXES)
    predictions = judged(scene(PLACES), 0)[1][:3]
    assert all(sum(p.candidate_probabilities) == pytest.approx(1) for p in predictions)
    assert [p.probabilities[p.class_id] for p in predictions] == pytest.approx([p.confidence for p in predictions])
    Counted.mode = "nan"
    assert judged(scene(PLACES, seed=1), 1)[1][0].candidate_probabilities == ()


def test_no_object_is_an_answer_and_needs_no_engine(session, scene):
    judged = judge_of(session, lambda image: [])
    calls = Counted.calls
    verdict, predictions, _ = judged(scene({}))
    assert verdict.accepted
    assert predictions == ()
    assert Counted.calls == calls


def test_fault_a_black_frame_rejects_every_object_and_the_scene(session, scene):
    verdict, predictions, _ = judge_of(session, lambda image: BOXES)(np.zeros((240, 320, 3), np.uint8))
    assert Reason.BLACK in verdict.reasons
    assert len(predictions) == 5
    assert all(Reason.BLACK in p.reasons for p in predictions)
    verdict, predictions, _ = judge_of(session, lambda image: [])(np.zeros((240, 320, 3), np.uint8))
    assert Reason.BLACK in verdict.reasons  # and nobody may conclude that the road is empty


def test_fault_a_giver_that_fails_leaves_no_frame_usable(session, scene):
    def broken(image):
        raise ZeroDivisionError("in the user's function")

    verdict, predictions, _ = judge_of(session, broken)(scene(PLACES))
    assert verdict.reasons == (Reason.NO_REGIONS,)
    assert "ZeroDivisionError" in verdict.detail
    assert predictions == ()
    verdict, _, _ = judge_of(session, lambda image: [(1, 2, 3)])(scene(PLACES))
    assert verdict.reasons == (Reason.NO_REGIONS,)


def test_fault_a_giver_that_writes_into_the_frame_is_found_out(session, scene):
    def scribbles(image):
        image[:] = 0
        return BOXES

    verdict, predictions, _ = judge_of(session, scribbles)(scene(PLACES))
    assert verdict.reasons == (Reason.NO_REGIONS,)
    assert "read-only" in verdict.detail
    assert predictions == ()
    image = scene(PLACES)
    verdict, predictions, _ = judge_of(session, lambda _: scribbles(image))(image)  # it kept the array
    assert Reason.BAD_INPUT in verdict.reasons
    assert len(predictions) == 5
    assert not any(p.accepted for p in predictions)


def test_fault_a_giver_that_paints_into_a_frame_that_was_converted(session, scene):
    """What the classifier is shown of a camera that gives NV12 is not the frame itself."""

    def paints(image):
        image[10:50, 10:50] = BLUE
        return [(10, 10, 40, 40)]

    objects = Objects(FunctionRegions(paints))
    judge = session.object_judge(objects, TrackMemory(session.stream_policy, objects.rule))
    frame = Frame(0, time.monotonic_ns(), to_nv12(scene({(10, 10): RED})), pixel_format=NV12)
    verdict, predictions, _ = judge.judge(frame, session.camera_health())
    assert verdict.reasons == (Reason.NO_REGIONS,)
    assert predictions == ()


def test_fault_a_tiny_object_is_rejected_beside_the_others(session, scene):
    boxes = [*BOXES[:2], (100, 100, 6, 6, "", 0.1)]
    _, predictions, left_out = judge_of(session, lambda image: boxes)(scene(PLACES))
    assert [p.accepted for p in predictions] == [True, True, False]
    assert predictions[2].reasons == (Reason.BAD_INPUT,)
    assert left_out == {}


def test_fault_boxes_that_are_none_are_reported_and_never_silently_cut(session, scene):
    nan = float("nan")
    boxes = [*BOXES, (nan, 0, 1, 1), (5, 5, -1, 4), (900, 900, 5, 5), *[(5, 5, 20, 20, "", 0.0)] * 9_000]
    verdict, predictions, left_out = judge_of(session, lambda image: boxes, most=8)(scene(PLACES))
    assert len(predictions) == 8
    assert left_out == {"not_finite": 1, "inverted": 1, "outside": 1, "beyond": 8_997}
    assert "8997 more than are judged" in verdict.detail


def test_fault_an_engine_that_raises_rejects_all_objects(session, scene):
    judged = judge_of(session, lambda image: BOXES)
    Counted.mode = "fail"
    verdict, predictions, _ = judged(scene(PLACES))
    assert all(p.reasons == (Reason.BACKEND_FAULT,) for p in predictions)
    assert verdict.accepted  # nothing is wrong with the frame


def test_fault_one_row_that_is_not_finite_rejects_its_object_alone(session, scene):
    judged = judge_of(session, lambda image: BOXES)
    Counted.mode = "nan"
    _, predictions, _ = judged(scene(PLACES))
    assert predictions[0].reasons == (Reason.NOT_FINITE,)
    assert [p.accepted for p in predictions[1:]] == [True, True, False, True]


def test_fault_an_engine_that_repeats_itself_is_found_out_until_it_stops(session, scene):
    judged = judge_of(session, lambda image: BOXES)
    judged(scene(PLACES, seed=1), 0)
    Counted.mode = "stuck"
    for number in (1, 2, 3):
        _, predictions, _ = judged(scene(PLACES, seed=2), number)
        assert all(Reason.BACKEND_FAULT in p.reasons for p in predictions)
    Counted.mode = ""
    _, predictions, _ = judged(scene(PLACES, seed=3), 4)
    assert predictions[0].accepted


def test_fault_a_late_frame_rejects_every_object(session, scene):
    def slow(image):
        time.sleep(0.05)
        return BOXES

    verdict, predictions, _ = judge_of(session, slow)(scene(PLACES), deadline_ns=20_000_000)
    assert all(Reason.LATE in p.reasons for p in (verdict, *predictions))


def test_fault_the_same_frame_again_is_stale_for_every_object(session, scene):
    judged = judge_of(session, lambda image: BOXES, tracker=OverlapTracker())
    judged(scene(PLACES, seed=1), 5)
    verdict, predictions, _ = judged(scene(PLACES, seed=2), 5)
    assert Reason.STALE_FRAME in verdict.reasons
    assert all(Reason.STALE_FRAME in p.reasons for p in predictions)


def test_labels_that_exclude_each_other_are_no_agreement(session, scene):
    names = LabelMap({"sky": ["blue"], "tree": ["green"], "kite": []})
    boxes = [(10, 10, 40, 40, "sky"), (60, 10, 40, 40, "sky"), (110, 10, 40, 40, "kite"), (210, 10, 40, 40, "?")]
    _, predictions, _ = judge_of(session, lambda image: boxes, labels=names)(scene(PLACES))
    assert [p.decided_reasons for p in predictions] == [(), (Reason.NO_AGREEMENT,), (Reason.NO_AGREEMENT,), ()]
    assert "'sky'" in predictions[1].detail


def test_fixed_regions_keep_their_names_and_must_lie_on_the_frame(session, scene):
    rois = (Roi.parse("left=10,10,40,40"), Roi.parse("right=110,10,40,40"))
    _, predictions, _ = judge_of(session, FixedRegions(rois))(scene(PLACES))
    assert sorted((p.stream, p.candidate) for p in predictions) == [("left", "blue"), ("right", "red")]
    verdict, predictions, _ = judge_of(session, FixedRegions((Roi.parse("far=300,200,40,60"),)))(scene(PLACES))
    assert verdict.reasons == (Reason.NO_REGIONS,)


@pytest.mark.parametrize("name", ["frame", "objects", "track-1", "object-0"])
def test_fault_a_region_beside_objects_has_no_name_that_another_verdict_has(session, scene, name):
    with pytest.raises(UsageError, match=f"region name '{name}'"):
        FixedRegions((Roi.parse(f"{name}=10,10,40,40"),))
    for boxes in (
        [Box(10, 10, 40, 40, stream=name)],
        [Box(10, 10, 40, 40, stream="a"), Box(60, 10, 40, 40, stream="a")],
    ):
        verdict, predictions, _ = judge_of(session, lambda image, boxes=boxes: boxes)(scene(PLACES))
        assert verdict.reasons == (Reason.NO_REGIONS,)
        assert predictions == ()


def test_a_box_needs_four_to_seven_values():
    assert as_box((1, 2, 3, 4, "car", 0.5, 7))[:8] == (1, 2, 3, 4, "car", 0.5, 7, "")
    for values in ((1, 2, 3), range(8), "1x34"):
        with pytest.raises(ValueError, match=r"box|float"):
            as_box(values)


@pytest.mark.parametrize("most", [0, 17, -1])
def test_more_objects_than_a_batch_holds_are_refused(most):
    with pytest.raises(UsageError, match="1 to 16"):
        Objects(FunctionRegions(lambda image: []), most)


class Frames(BaseSource):
    def __init__(self, images, live=False):
        super().__init__("frames", live=live, frame_size=(320, 240))
        self._images = images

    def _produce(self, frame_id):
        return Frame(frame_id, time.monotonic_ns(), self._images[frame_id]) if frame_id < len(self._images) else None


def test_a_pipeline_of_objects_counts_them_together(session, scene, tmp_path):
    images = [scene({(10 + k, 10): BLUE}, seed=k) for k in range(12)]
    giver = FunctionRegions(lambda image: [])
    where = iter(range(12))
    giver.find = lambda frame: Found((as_box((10 + next(where), 10, 40, 40)),) if frame.frame_id != 5 else ())
    objects = Objects(giver, tracker=OverlapTracker(), rule=TrackRule(1, 1, 2))
    with Pipeline(Frames(images), session, objects=objects, lossless=True) as pipeline:
        results = list(pipeline.results())
    assert [len(r.predictions) for r in results] == [1] * 5 + [0] + [1] * 6
    assert all(r.has_frame and r.first.frame_id == k for k, r in enumerate(results))
    stats = pipeline.stats.to_json()
    assert stats["objects"]["frames_without_objects"] == 1
    assert stats["objects"]["tracks"]["frames_to_first_accept"] == {"2": 1}
    assert stats["streams"]["objects"]["evaluated"] == 11
    assert json.dumps(stats)


def test_the_newest_verdict_on_a_track_ends_with_the_track(session, scene):
    giver = FunctionRegions(lambda image: [(10, 10, 40, 40, "", 0.9, 3)])
    with Pipeline(Frames([scene(PLACES)]), session, objects=Objects(giver), lossless=True) as pipeline:
        result = next(iter(pipeline.results()))
        assert result.predictions[0].stream == "track-3"
        list(pipeline)
        assert pipeline.latest("track-3").reasons == (Reason.NO_FRAME,)
        assert pipeline.latest().reasons == (Reason.NO_FRAME,)
        assert pipeline.latest_objects() == ()


def test_regions_and_objects_together_are_refused(session, scene):
    objects = Objects(FunctionRegions(lambda image: []))
    with pytest.raises(UsageError, match="regions and objects"):
        Pipeline(Frames([scene({})]), session, objects=objects, rois=(Roi.whole(),))


@pytest.mark.parametrize("counts", [(1, 2, 1, 2), (3, 4, 1, 3), (2, 3, 4, 2, 4)])
def test_fault_a_stuck_engine_is_found_out_whatever_the_number_of_objects(session, scene, counts):
    """Each number has an engine of its own, or rows of one that were not looked at on the frame before."""
    wanted = [len(BOXES)]
    judged = judge_of(session, lambda image: BOXES[: wanted[0]])
    frames = iter(range(100))

    def accepted(count, seed):
        wanted[0] = count
        _, predictions, _ = judged(scene(PLACES, seed=seed), next(frames))
        assert len(predictions) == count
        return [p.accepted for p in predictions if Reason.BACKEND_FAULT not in p.reasons]

    for seed, count in enumerate(counts):
        assert any(accepted(count, seed))
    Counted.mode = "stuck"
    for seed, count in enumerate(counts * 2):
        assert not accepted(count, 50 + seed)
    Counted.mode = ""
    assert any(accepted(counts[0], 99))


def test_after_warm_up_a_frame_leaves_nothing_behind_and_makes_no_array(session, scene):
    judged = judge_of(session, lambda image: BOXES, tracker=OverlapTracker())
    frames = [scene(PLACES, seed=k) for k in range(40)]
    for k in range(20):
        judged(frames[k], k)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    for k in range(20, 40):
        judged(frames[k], k)
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Scores of the last frames, which drift and windows look at: they stop growing after some hundred frames.
    assert after - before < 60_000
    assert peak - before < 150_000  # one frame has 230,400 bytes, the batch of five 98,304
