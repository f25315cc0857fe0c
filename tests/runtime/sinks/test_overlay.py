from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from framegate.runtime.roi import Roi
from framegate.runtime.sinks import overlay
from framegate.runtime.sinks.overlay import draw
from framegate.runtime.verdict import FoundObject, Prediction, Reason

GREY = np.full((480, 640, 3), 128, np.uint8)


def prediction(*reasons, stream="car"):
    return Prediction(3, stream, reasons, "cat", 0.9, 0.1, 0.8, -3.0, 0.1, 0.2, 0, 1)


def is_green(pixel):
    return int(pixel[1]) > int(pixel[2]) + 50


def is_red(pixel):
    return int(pixel[2]) > int(pixel[1]) + 50


def test_accepted_and_rejected_differ_in_shape_not_only_in_colour():
    roi = Roi.parse("car=100,100,200,100")
    accepted, rejected = draw(GREY, (prediction(),), (roi,)), draw(GREY, (prediction(Reason.HIGH_SCORE),), (roi,))
    assert is_green(accepted[100, 200])
    assert is_red(rejected[100, 200])
    # The middle of an accepted region stays as it is; a rejected one is crossed out.
    assert (accepted[145:155, 195:205] == 128).all()
    assert is_red(rejected[150, 200])
    assert (GREY == 128).all()


def test_a_reason_shared_by_all_regions_is_shown_at_the_top():
    rois = (Roi.parse("a=100,100,100,100"), Roi.parse("b=300,100,100,100"))
    both = (prediction(Reason.FROZEN, stream="a"), prediction(Reason.FROZEN, Reason.HIGH_SCORE, stream="b"))
    one = (prediction(Reason.HIGH_SCORE, stream="a"), prediction(stream="b"))
    assert is_red(draw(GREY, both, rois)[2, 2])
    assert not is_red(draw(GREY, one, rois)[2, 2])


@pytest.mark.parametrize(
    ("objects", "regions", "says"),
    [
        ("ARA", "RR", "2 of 3 objects, 0 of 2 regions usable"),
        ("RA", "", "1 of 2 objects usable"),
        ("", "AR", "1 of 2 regions usable"),
        ("", "", "0 of 0 objects usable"),
    ],
)
def test_fault_the_bar_tells_objects_from_fixed_regions(monkeypatch, objects, regions, says):
    said = []
    monkeypatch.setattr(overlay, "_text", lambda image, lines, *place: said.extend(lines))
    found = [
        replace(
            prediction(*[Reason.HIGH_SCORE] * (each == "R"), stream=f"{fixed}{k}"),
            found=FoundObject((10 * k, 10, 40, 40), fixed=fixed),
        )
        for fixed, each_kind in ((False, objects), (True, regions))
        for k, each in enumerate(each_kind)
    ]
    rois = tuple(Roi(each.stream, *each.found.box, fractions=False) for each in found)
    draw(GREY, tuple(found), rois, prediction(stream="frame"))
    assert said[-1] == f"frame 3: {says}"


@pytest.mark.parametrize("text", ["0,0,640,480", "0,440,640,40", "600,0,40,480", "0,0,40,40", "600,440,40,40"])
def test_regions_at_the_border_keep_their_text_inside(text):
    drawn = draw(GREY, (prediction(Reason.HIGH_SCORE, Reason.LATE, stream="x"),), (Roi.parse("x=" + text),))
    assert drawn.shape == GREY.shape
    assert (drawn != GREY).any()


@pytest.mark.parametrize("size", [(16, 16), (48, 64), (2160, 3840)])
def test_any_size_of_frame(size):
    image = np.full((*size, 3), 128, np.uint8)
    assert draw(image, (prediction(stream="frame"),), (Roi.whole(),)).shape == image.shape


def test_a_region_that_does_not_fit_this_frame_is_left_out():
    # After a wrong-size frame: its verdict exists, its region does not.
    drawn = draw(GREY, (prediction(Reason.WRONG_SIZE),), (Roi.parse("car=600,400,200,200"),))
    assert drawn.shape == GREY.shape


def test_the_number_beside_a_threshold_is_the_score_that_was_compared_with_it(monkeypatch):
    """A bundle may be calibrated by another score than the entropy."""
    said = []
    monkeypatch.setattr(overlay, "_text", lambda image, lines, *place: said.extend(lines))
    by_margin = replace(prediction(Reason.HIGH_SCORE), entropy=0.9, score=0.31, threshold=0.25)
    by_shift = replace(prediction(Reason.ACTIVATION_SHIFT), entropy=0.9, score=0.2, threshold=0.25)
    draw(GREY, (by_margin, by_shift), (Roi.parse("a=100,100,100,100"), Roi.parse("b=300,100,100,100")))
    assert "(cat? score 0.31 > 0.25)" in said
    assert "(cat?)" in said


def test_a_picture_whose_fault_waits_is_not_said_to_reject_what_may_be_used(monkeypatch):
    """A debounce lets the objects be used meanwhile; the scene does not wait."""
    said = []
    monkeypatch.setattr(overlay, "_text", lambda image, lines, *place: said.extend(lines))
    scene = replace(prediction(Reason.BLURRED, stream="frame"), candidate="")
    car = replace(prediction(), found=FoundObject((100, 100, 50, 50)))
    draw(GREY, (car,), (Roi.parse("car=100,100,50,50"),), scene)
    assert "frame 3: 1 of 1 objects usable   picture: blurred" in said
    said.clear()
    rejected = replace(car, decided_reasons=(Reason.BLURRED,))
    draw(GREY, (rejected,), (Roi.parse("car=100,100,50,50"),), scene)
    assert "frame 3: 0 of 1 objects usable   ALL REJECTED: blurred" in said
