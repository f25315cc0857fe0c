from __future__ import annotations

import cv2
import numpy as np
import pytest

from framegate.runtime.regions.fit import FITS, Fit, placed


@pytest.mark.parametrize("frame", [(1280, 720), (720, 1280), (333, 77), (64, 64), (5000, 1)])
@pytest.mark.parametrize("kind", FITS)
def test_a_box_comes_back_exactly_where_it_was(kind, frame):
    fit = Fit(kind, 416, 352, "bilinear")
    fit(np.zeros((frame[1], frame[0], 3), np.uint8))
    x, y, width, height = placed(kind, frame, (416, 352))
    assert 0 <= x <= x + width <= 416
    assert 0 <= y <= y + height <= 352
    boxes = np.array([[0, 0, *frame], [frame[0] / 4, frame[1] / 3, frame[0] / 2, frame[1]]], np.float32)
    scale = np.array([width / frame[0], height / frame[1]] * 2, np.float32)
    np.testing.assert_allclose(
        fit.back(boxes * scale + np.array([x, y, x, y], np.float32)), boxes, rtol=1e-5, atol=1e-3
    )


def test_the_letterbox_of_ultralytics_and_of_yolox():
    # 1280 x 720 into 640 x 640: ratio 0.5, 640 x 360, 140 rows of grey above and below; or all of it below.
    assert placed("letterbox", (1280, 720), (640, 640)) == (0, 140, 640, 360)
    assert placed("letterbox-corner", (1280, 720), (640, 640)) == (0, 0, 640, 360)
    # 101 x 100 into 64 x 64: round(100 * 64 / 101) = 63, and the odd row of grey below; YOLOX cuts off: int.
    assert placed("letterbox", (101, 100), (64, 64)) == (0, 0, 64, 63)
    assert placed("letterbox-corner", (100, 101), (64, 64)) == (0, 0, 63, 64)


def test_the_rest_is_grey_also_after_a_frame_of_another_shape():
    image = np.full((100, 200, 3), 7, np.uint8)
    fit = Fit("letterbox", 64, 64, "bilinear")
    fit(np.full((200, 100, 3), 9, np.uint8))
    canvas = fit(image)
    assert (canvas[:16] == 114).all()
    assert (canvas[16:48] == 7).all()
    assert (canvas[48:] == 114).all()


def test_stretching_is_what_cv2_gives():
    image = np.random.default_rng(0).integers(0, 256, (97, 211, 3)).astype(np.uint8)
    expected = cv2.resize(image, (64, 48), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(Fit("stretch", 64, 48, "area")(image), expected)
