from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest

from framegate.camera_demo.clip_boxes import ClipBoxes, place_name
from framegate.camera_demo.delayed_backend import DelayedBackend
from framegate.camera_demo.region_slots import RegionSlots
from framegate.camera_demo.shipped import AGREEMENT, BOXES, BUNDLE, CLIP, shipped_giver
from framegate.runtime import Bundle, Pipeline, Reason, Session
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.regions.judge import DEFAULT_RULE, Objects
from framegate.runtime.regions.label_map import LabelMap
from framegate.runtime.regions.tracker import OverlapTracker
from framegate.runtime.sources.video import VideoFileSource
from framegate.runtime.verdict import Frame, Prediction


def seen(*names):
    return [Prediction.without_frame(name, Reason.NO_FRAME, "", 0) for name in names]


def test_an_object_keeps_its_line_and_a_new_one_takes_the_first_free_one():
    slots = RegionSlots(("sky", "road"), moving=True)
    assert slots.names == ["sky", "road", "object A", "object B", "object C"]
    assert slots.place(seen("track-1", "track-2", "sky", "road")) == {"sky": 0, "road": 1, "track-1": 2, "track-2": 3}
    assert slots.place(seen("track-2", "track-3", "road")) == {"road": 1, "track-3": 2, "track-2": 3}
    assert slots.title("track-2") == "B · track-2"
    assert slots.title("road") == "road"


def test_more_objects_than_lines_are_named_without_one():
    slots = RegionSlots((), moving=True)
    assert len(slots.place(seen(*(f"track-{k}" for k in range(9))))) == 3
    assert slots.title("track-8") == "track-8"
    assert RegionSlots(("frame",), moving=False).names == ["frame"]


def test_boxes_move_with_the_looped_clip():
    image = np.zeros((720, 1280, 3), np.uint8)
    boxes = ClipBoxes(BOXES)
    still = boxes.find(Frame(3, 0, image)).boxes
    moved = boxes.find(Frame(900, 0, image, place_name(3, 12, 5))).boxes
    assert [(box.x + 12, box.y + 5) for box in still] == [(box.x, box.y) for box in moved]
    assert boxes.find(Frame(41, 0, image)).boxes == still  # the clip has 38 frames


def test_the_recorded_boxes_are_what_their_readme_says():
    boxes = ClipBoxes(BOXES)
    image = np.zeros((720, 1280, 3), np.uint8)
    found = [box for k in range(38) for box in boxes.find(Frame(k, 0, image)).boxes]
    labels = Counter(box.label for box in found)
    assert len(found) == 112
    assert labels["car"] + labels["truck"] == 99
    assert max(box.score for box in found if box.label == "person") == 0.556


@pytest.mark.slow
def test_the_demo_follows_the_cars_and_uses_nothing_else():
    """The false person, the road that is called a train, sky and road: none of them may be used on any frame."""
    source, session = VideoFileSource(CLIP), Session.open(BUNDLE, "onnxruntime", "fp32", 1)
    labels = LabelMap.load(AGREEMENT, session.bundle.labels)
    objects = Objects(shipped_giver(), tracker=OverlapTracker(), rule=DEFAULT_RULE, labels=labels)
    with Pipeline(source, session, objects=objects, lossless=True) as pipeline:
        predictions = [each for result in pipeline.results() for each in result.predictions]
    used = [each for each in predictions if each.accepted_when_decided]
    assert len(used) > 40
    assert {each.found.detected for each in used} <= {"car", "truck"}
    assert {each.candidate for each in used} <= {"automobile", "truck"}
    person = [each for each in predictions if each.found.detected == "person"]
    assert person
    assert all(Reason.NO_AGREEMENT in each.decided_reasons for each in person if each.candidate)
    assert not [each for each in used if each.stream in ("sky", "road")]
    counted = pipeline.stats
    assert set(counted.streams) == {"objects", "sky", "road"}
    assert counted.streams["sky"].evaluated == 38
    assert counted.objects.called == {"car": 99, "train": 9, "person": 3, "umbrella": 1}
    assert [name for name, count in counted.objects.used.items() if count] == ["car"]


def test_the_slow_engine_is_slow_for_objects_too(tiny_bundle):
    """The button's backend gives one engine for each batch; all of them wait."""
    backend = DelayedBackend(load_backend("onnxruntime", Bundle.open(tiny_bundle).model_path("fp32"), 1))
    batch = backend.share()
    batch.bind(np.zeros((4, 3, 32, 32), np.float32))
    backend.delay_s = 0.1
    began = time.monotonic()
    batch.start()
    assert len(batch.finish()) == 4
    assert time.monotonic() - began >= 0.1
    backend.delay_s = 0.0
    assert batch.delay_s == 0
