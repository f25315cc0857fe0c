from __future__ import annotations

import json
import platform
from dataclasses import asdict
from unittest.mock import patch

import cv2
import numpy as np
import pytest

from framegate.runtime.errors import BundleError, DataError
from framegate.runtime.native import library
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

APART = 2 if platform.machine() in ("aarch64", "arm64") else 0
"""Levels between the compiled resize and OpenCV's. The compiled one is that of x86-64 everywhere: a network then sees
the same pixels in the vehicle as at its calibration; OpenCV's own rounds in another way on ARM."""


@pytest.fixture
def crop():
    # A view into a larger frame, as a region of interest is: rows are not contiguous.
    return np.random.default_rng(1).integers(0, 256, (300, 400, 3), np.uint8)[20:177, 33:250]


@pytest.mark.parametrize("resize", ["bilinear", "area"])
@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_equals_the_formula_in_float64(crop, resize, colour):
    spec = PreprocessSpec.from_json({**SPEC, "resize": resize, "colour": colour})
    preprocessor = Preprocessor(spec)
    got = preprocessor(crop)
    interpolation = {"bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}[resize]
    small = preprocessor.small.astype(np.float64)
    assert np.abs(small - cv2.resize(crop, (96, 64), interpolation=interpolation)).max() <= APART
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


VOLUME = {**SPEC, "width": 20, "height": 24, "colour": "grey", "mean": [100.0], "std": [50.0], "depth": 6}


def reference_volume(strip, depth, width, height, interpolation):
    """Slice by slice in float64, grey by the luma of ITU-R BT.601 rounded to whole values."""
    slices = []
    for piece in np.split(strip, depth):
        small = cv2.resize(piece, (width, height), interpolation=interpolation).astype(np.float64)
        grey = np.floor(small @ np.array([0.114, 0.587, 0.299]) + 0.5)
        slices.append((grey - 100.0) / 50.0)
    return np.stack(slices)


@pytest.mark.parametrize("resize", ["bilinear", "area"])
@pytest.mark.parametrize("size", [(24, 20), (48, 40), (37, 61), (7, 5)])
def test_a_volume_equals_its_slices_one_by_one(resize, size):
    height, width = size
    # A view into a larger frame, as a region of interest is: rows are not contiguous.
    strip = np.random.default_rng(3).integers(0, 256, (6 * height + 9, width + 8, 3), np.uint8)[4:-5, 3:-5]
    preprocessor = Preprocessor(PreprocessSpec.from_json({**VOLUME, "resize": resize}))
    got = preprocessor(strip)
    assert got.shape == (1, 1, 6, 24, 20)
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    interpolation = {"bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}[resize]
    expected = reference_volume(strip, 6, 20, 24, interpolation)
    difference = np.abs(got[0, 0] - expected)
    assert difference.max() <= 1 / 50 + 1e-6  # OpenCV's fixed-point luma may round a half to the other side
    assert (difference > 1e-6).mean() < 0.01
    assert preprocessor.small.shape == (6 * 24, 20, 3)


def test_a_slice_does_not_bleed_into_its_neighbours():
    strip = np.zeros((6 * 40, 50, 3), np.uint8)
    strip[40:80] = 255
    got = Preprocessor(PreprocessSpec.from_json({**VOLUME, "resize": "area"}))(strip)[0, 0]
    assert np.unique(got[1]).tolist() == [np.float32(3.1)]
    assert np.unique(got[[0, 2, 3, 4, 5]]).tolist() == [-2.0]


def test_equal_channels_pass_the_conversion_to_grey_unchanged():
    levels = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(16, 16, 3)
    identity = {**SPEC, "width": 16, "height": 16, "colour": "grey", "mean": [0.0], "std": [1.0]}
    got = Preprocessor(PreprocessSpec.from_json(identity))(levels)
    assert got.shape == (1, 1, 16, 16)
    np.testing.assert_array_equal(got.ravel(), np.arange(256))


@pytest.mark.parametrize("change", [{}, {"depth": 1, "height": 144}])
def test_a_grey_input_is_filled_in_place(change):
    preprocessor = Preprocessor(PreprocessSpec.from_json({**VOLUME, **change}))
    for size in ((144, 20), (288, 40), (144, 20)):
        image = np.random.default_rng(size[0]).integers(0, 256, (*size, 3), np.uint8)
        first, small = preprocessor.tensor, preprocessor.small
        before = first.copy()
        assert preprocessor(image) is first is preprocessor.tensor
        assert preprocessor.small is small
        assert not np.array_equal(before, first)


def test_a_volume_whose_rows_cannot_be_divided_is_refused():
    preprocessor = Preprocessor(PreprocessSpec.from_json(VOLUME))
    for rows in (145, 5, 0):
        with pytest.raises(DataError, match=f"6 slices, one below the other, was expected; {rows} rows"):
            preprocessor(np.zeros((rows, 20, 3), np.uint8))


def test_manifests_from_before_there_were_volumes_describe_images():
    spec = PreprocessSpec.from_json(SPEC)
    assert spec.depth == 1
    assert PreprocessSpec.from_json(asdict(spec)) == spec
    volume = PreprocessSpec.from_json(VOLUME)
    assert PreprocessSpec.from_json(json.loads(json.dumps(asdict(volume)))) == volume


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 0}, r"depth is 0; expected 1\.\.1024"),
        ({"depth": -3}, "depth is -3"),
        ({"depth": 5000}, "depth is 5000"),
        ({"depth": "many"}, "not usable"),
        ({"depth": None}, "not usable"),
        ({"colour": "rgb", "mean": [1.0] * 3, "std": [1.0] * 3}, "colour is 'rgb' at depth 6; volumes are grey"),
        ({"mean": [1.0] * 3}, "need one number each for colour 'grey'"),
        ({"std": []}, "need one number each"),
        ({"colour": "gray"}, "colour is 'gray'; this version knows rgb, bgr, grey"),
        ({"depth": 1, "colour": "bgr"}, "need three numbers each for colour 'bgr'"),
        ({"std": [0.0]}, "std positive"),
    ],
)
def test_unusable_specifications(change, message):
    with pytest.raises(BundleError, match=message):
        PreprocessSpec.from_json({**VOLUME, **change})


CODE = library()[0]
compiled = pytest.mark.skipif(CODE is None, reason="the compiled code is not there")


def both(spec, image):
    """The resized pixels and the input, from the compiled code and from OpenCV."""
    first = Preprocessor(spec)
    with patch("framegate.runtime.preprocess.bilinear", return_value=None):
        second = Preprocessor(spec)
    found = [(each(image).copy(), each.small.copy()) for each in (first, second)]
    assert np.any(found[0][0])
    return found


@compiled
def test_compiled_and_opencv_give_the_same_bits():
    rng = np.random.default_rng(11)
    for k in range(250):
        width, height = (int(side) for side in rng.integers(1, 120, 2))
        columns, rows = (int(side) for side in rng.integers(1, 500, 2))
        if k // 8 % 2:
            width += -width % 8  # where tables are linear, eight columns at once
        # What OpenCV treats in its own way: the same size, exactly half, one axis unchanged or halved.
        columns, rows = {
            0: (width, height),
            1: (2 * width, 2 * height),
            2: (width, rows),
            3: (columns, 2 * height),
        }.get(k % 8, (columns, rows))
        colour, linear = ("rgb", "bgr")[k % 2], k % 3
        mean, std = ((10.0, 20.0, 30.0), (60.0, 70.0, 80.0)) if linear else ((123.675, 116.28, 103.53), (58.395,) * 3)
        spec = PreprocessSpec(width, height, "bilinear", "stretch", colour, mean, std)
        left, right, top = (int(margin) for margin in rng.integers(0, 4, 3))
        frame = rng.integers(0, 256, (rows + top, columns + left + right, 3), np.uint8)
        (tensor, small), (expected, expected_small) = both(spec, frame[top:, left : left + columns])
        where = f"{columns}x{rows} to {width}x{height}"
        assert np.abs(small.astype(int) - expected_small).max() <= APART, where
        np.testing.assert_allclose(tensor, expected, rtol=0, atol=1.001 * APART / min(std), err_msg=where)


@compiled
def test_a_table_is_computed_anew_only_where_that_gives_the_same_bits():
    for half, linear in ((127.5, True), (127.3, False), (1e-46, False)):  # the last one has a table with a -0
        spec = PreprocessSpec(8, 8, "bilinear", "stretch", "bgr", (half,) * 3, (half,) * 3)
        assert Preprocessor(spec).compiled.linear is linear


@compiled
@pytest.mark.parametrize("side", [4, 8])
def test_nothing_behind_the_last_pixel_is_read_or_written(side):
    spec = PreprocessSpec(side, side, "bilinear", "stretch", "bgr", (0.0,) * 3, (1.0,) * 3)
    preprocessor = Preprocessor(spec, np.zeros((2, 3, side, side), np.float32)[:1])
    memory = np.full(9 * 3 * 9 + 64, 200, np.uint8)
    crop = memory[: 9 * 3 * 9].reshape(9, 9, 3)
    first = preprocessor(crop).copy()
    memory[9 * 3 * 9 :] = 7
    np.testing.assert_array_equal(preprocessor(crop), first)
    assert not preprocessor.tensor.base[1].any()


@compiled
@pytest.mark.parametrize("view", [np.s_[:, ::-1], np.s_[:, ::2], np.s_[::-1], np.s_[..., ::-1]])
def test_a_view_that_does_not_lie_row_by_row_is_resized_all_the_same(view):
    image = np.random.default_rng(5).integers(0, 256, (90, 121, 3), np.uint8)[view]
    (tensor, _), (expected, _) = both(PreprocessSpec.from_json(SPEC), np.ascontiguousarray(image))
    for found in (tensor, Preprocessor(PreprocessSpec.from_json(SPEC))(image)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1.001 * APART / min(SPEC["std"]))
