from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from framegate.runtime.errors import UsageError
from framegate.runtime.roi import Roi, parse_rois, require_inside


def test_pixels_and_fractions():
    assert Roi.parse("car=10,20,30,40").pixels(640, 480) == (10, 20, 30, 40)
    assert Roi.parse("0.5,0.5,0.25,0.5").pixels(640, 480) == (320, 240, 160, 240)
    assert Roi.parse("0.0,0.0,1.0,1.0").pixels(641, 479) == (0, 0, 641, 479)
    # Whole numbers are pixels, even if they could be fractions.
    assert Roi.parse("0,0,1,1").pixels(640, 480) == (0, 0, 1, 1)
    assert Roi.parse("a=1,2,3,4").name == "a"
    assert Roi.parse("1,2,3,4", 7).name == "roi7"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1,2,3",
        "1,2,3,4,5",
        "a,b,c,d",
        "=1,2,3,4",
        "-1,2,3,4",
        "1,2,0,4",
        "1,2,3,-4",
        "nan,0,1,1",
        "0.6,0,0.5,1.0",
        "inf,0,1,1",
        "x=y",
    ],
)
def test_unusable_text(text):
    with pytest.raises(UsageError, match="region"):
        Roi.parse(text)


def test_crop_is_a_view_of_the_right_pixels():
    image = np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)
    crop = Roi.parse("10,20,30,8").crop(image)
    assert np.shares_memory(crop, image)
    np.testing.assert_array_equal(crop, image[20:28, 10:40])
    assert Roi.parse("40,0,30,8").crop(image) is None


def test_outside_names_region_and_frame():
    with pytest.raises(UsageError, match=r"'far' \(600,0,100,100\) reaches outside the 640x480 frame"):
        require_inside(parse_rois(["far=600,0,100,100"]), (640, 480))
    require_inside(parse_rois(["540,0,100,100"]), (640, 480))


def test_names_must_differ():
    with pytest.raises(UsageError, match="used twice"):
        parse_rois(["a=0,0,1,1", "a=1,1,2,2"])
    assert [roi.name for roi in parse_rois([])] == ["frame"]


@given(
    x=st.floats(0, 1),
    y=st.floats(0, 1),
    w=st.floats(0.001, 1),
    h=st.floats(0.001, 1),
    width=st.integers(16, 4000),
    height=st.integers(16, 4000),
)
def test_fractions_never_leave_the_frame(x, y, w, h, width, height):
    assume(x < 1 and y < 1)
    roi = Roi("r", x, y, min(w, 1 - x), min(h, 1 - y), fractions=True)
    box = roi.pixels(width, height)
    if roi.width * width >= 2 and roi.height * height >= 2:
        assert box is not None
    if box is not None:
        left, top, wide, high = box
        assert left >= 0
        assert top >= 0
        assert wide > 0
        assert high > 0
        assert left + wide <= width
        assert top + high <= height


@pytest.mark.parametrize(
    "numbers",
    [
        (0, -100, 640, 580, False),  # counted from the end: another part of the frame
        (-1, 0, 10, 10, False),
        (0.0, -0.25, 1.0, 1.25, True),
        (0, 0, 0, 10, False),
        (0, 0, 10, -1, False),
        (math.nan, 0, 10, 10, False),
        (0, 0, math.inf, 10, False),
        (0.5, 0.0, 0.6, 1.0, True),
        ("0", 0, 10, 10, False),
        (0, None, 10, 10, False),
        (0, 0, 1j, 10, False),
    ],
)
def test_no_region_can_be_made_that_lies_on_no_frame(numbers):
    with pytest.raises(UsageError, match="region 'sign'"):
        Roi("sign", *numbers)


@pytest.mark.parametrize("name", [None, 7, b"sign"])
def test_a_name_is_a_text(name):
    with pytest.raises(UsageError, match="expected a text"):
        Roi(name, 0, 0, 1, 1, fractions=False)


def test_numbers_of_numpy_are_numbers():
    box = np.array([1, 2, 3, 4], np.int32)
    assert Roi("sign", *box, fractions=False).pixels(8, 8) == (1, 2, 3, 4)
    assert Roi("sign", *box.astype(np.float32), fractions=False).pixels(8, 8) == (1, 2, 3, 4)


def test_a_name_that_cannot_be_shown_is_refused_where_it_is_typed():
    with pytest.raises(UsageError, match="cannot be shown"):
        Roi.parse("a\x1b[2J=0,0,1,1")
    assert Roi("a\x1b[2J", 0, 0, 1, 1, fractions=False).pixels(4, 4) == (0, 0, 1, 1)  # what shows it leaves them out
