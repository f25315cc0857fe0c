"""Objects from a giver to verdicts: one engine call, one camera check, one stamp; everything fails towards REJECT."""

from __future__ import annotations

import json
import time
import tracemalloc

import cv2
import numpy as np
import pytest

from framegate.runtime import Bundle, Debounce, Frame, Pipeline, Policy, Reason, Roi, Session, UsageError
from framegate.runtime.backends.base import CpuBackend
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.policy.track import TrackRule
from framegate.runtime.regions.base import Box, Found
from framegate.runtime.regions.fixed import FixedRegions
from framegate.runtime.regions.function import FunctionRegions, as_box
from framegate.runtime.regions.judge import Objects
from framegate.runtime.regions.label_map import LabelMap
from framegate.runtime.regions.together import TogetherRegions
from framegate.runtime.regions.tracker import OverlapTracker
from framegate.runtime.regions.tracks import TrackMemory
from framegate.runtime.sources.base import BaseSource

BLUE, GREEN, RED, GREY = (250, 10, 10), (10, 250, 10), (10, 10, 250), (120, 120, 120)


class Counted(CpuBackend):
    """A real engine that counts its calls, and can be told to fail or to repeat itself."""

    calls = 0
    mode = ""

    def __init__(self, inner):
        self._inner = inner
        self.name, self.engine, self.classes, self.pooled = inner.name, inner.engine, inner.classes, None
        self._old = None

    def bind(self, tensor):
        self._inner.bind(tensor)

    def share(self):
        return Counted(self._inner.share())

    def finish(self):
        Counted.calls += 1
        if Counted.mode == "fail":
            raise RuntimeError("the engine is gone")
        if Counted.mode == "stuck" and self._old is not None:
            return self._old
        self._old = self._inner.finish().copy()
        if Counted.mode == "nan":
            self._old[0] = np.nan
        return self._old


@pytest.fixture
def session(tiny_bundle):
    Counted.calls, Counted.mode = 0, ""
    bundle = Bundle.open(tiny_bundle)
    engine = Counted(load_backend("onnxruntime", bundle.model_path("fp32"), 1))
    return Session(bundle, engine, "fp32", bundle.calibration("onnxruntime", "fp32"))


@pytest.fixture
def scene():
    """A healthy camera's frame, 320 x 240, with coloured squares of 40 x 40: scene({(x, y): colour}, seed)."""
    structure = cv2.GaussianBlur(np.random.default_rng(0).normal(120, 180, (240, 320, 3)), (0, 0), 3)

    def make(squares, seed=0):
        rng = np.random.default_rng([1, seed])
        image = np.clip(structure + rng.normal(0, 5, structure.shape), 0, 255).astype(np.uint8)
        for (x, y), colour in squares.items():
            noise = rng.integers(-5, 6, (40, 40, 3))
            image[y : y + 40, x : x + 40] = np.clip(np.array(colour) + noise, 0, 255)
        return image

    return make


def judge_of(session, giver, **options):
    objects = Objects(giver if hasattr(giver, "find") else FunctionRegions(giver), **options)
    memory = TrackMemory(session.stream_policy, objects.rule)
    judge, health = session.object_judge(objects, memory), session.camera_health()

    def judged(image, number=0, deadline_ns=None):
        return judge.judge(Frame(number, time.monotonic_ns(), image), health, deadline_ns)

    return judged


PLACES = {(10, 10): BLUE, (60, 10): GREEN, (110, 10): RED, (160, 10): GREY, (210, 10): BLUE}
BOXES = [(x, y, 40, 40, "", 0.9 - 0.1 * k) for k, (x, y) in enumerate(PLACES)]


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
    assert Reason.BAD_INPUT in verdict.reasons
    assert not any(p.accepted for p in predictions)


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
    for boxes in ([Box(10, 10, 40, 40, stream=name)], [Box(10, 10, 40, 40, stream="a"), Box(60, 10, 40, 40, stream="a")]):
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
