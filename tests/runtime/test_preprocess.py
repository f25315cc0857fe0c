from __future__ import annotations

import cv2
import numpy as np
import pytest

from framegate.runtime.preprocess import Preprocessor, PreprocessSpec

SPEC = {
    "width": 96,
    "height": 64,
    "resize": "bilinear",
    "fit": "stretch",
    "colour": "rgb",
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
}


@pytest.fixture
def crop():
    # A view into a larger frame, as a region of interest is: rows are not contiguous.
    return np.random.default_rng(1).integers(0, 256, (300, 400, 3), np.uint8)[20:177, 33:250]


@pytest.mark.parametrize("resize", ["bilinear", "area"])
@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_equals_the_formula_in_float64(crop, resize, colour):
    spec = PreprocessSpec.from_json({**SPEC, "resize": resize, "colour": colour})
    got = Preprocessor(spec)(crop)
    interpolation = {"bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}[resize]
    small = cv2.resize(crop, (96, 64), interpolation=interpolation).astype(np.float64)
    small = small[..., ::-1] if colour == "rgb" else small
    expected = ((small - np.array(SPEC["mean"])) / np.array(SPEC["std"])).transpose(2, 0, 1)
    assert got.shape == (1, 3, 64, 96)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got[0], expected, rtol=2e-7, atol=1e-7)


def test_the_same_array_is_filled_every_time(crop):
    # Engines are bound to this address once: a new array would leave them reading the old frame.
    preprocessor = Preprocessor(PreprocessSpec.from_json(SPEC))
    first = preprocessor(crop)
    address, before = first.ctypes.data, first.copy()
    second = preprocessor(255 - crop)
    assert second.ctypes.data == address
    assert not np.array_equal(before, second)
    assert np.shares_memory(first, preprocessor.tensor)


def test_an_image_of_the_input_size_is_not_resampled():
    image = np.random.default_rng(2).integers(0, 256, (64, 96, 3), np.uint8)
    preprocessor = Preprocessor(PreprocessSpec.from_json(SPEC))
    preprocessor(image)
    np.testing.assert_array_equal(preprocessor.small, image)
