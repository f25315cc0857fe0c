"""camera_preprocess/reference.py against OpenCV, with which frames are preprocessed on the CPU."""

import platform
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.cuda_kernels.camera_preprocess.filter_weights import RESIZE_MODES, axis_weights, resize_weights
from framegate.cuda_kernels.camera_preprocess.reference import (
    CameraFrame,
    Normalisation,
    plane_shapes,
    preprocess,
    to_bgr,
)

# Grey levels of 255. cv2 rounds to 8 bits, the reference does not; its 8-bit bilinear has coefficients of 1/2048 and
# drops the lowest bits of the row sums (0.83 in all on x86-64); its area mode leaves out shares below 0.001 samples.
TOLERANCE = {"bilinear": 1.0, "area": 0.5 + 0.26}
# cv2 has other code for colours on Arm, where it may round the other way.
COLOUR_TOLERANCE = 0 if platform.machine() == "x86_64" else 1

SIZES = [  # (width, height) of the source and of the output: why
    ((1920, 1080), (224, 224)),  # a camera to a network
    ((64, 64), (32, 32)),  # exactly half: cv2 has a path of its own
    ((96, 64), (32, 32)),  # whole-numbered, different along x and y
    ((53, 47), (31, 17)),  # odd sides
    ((31, 17), (53, 47)),  # enlarged
    ((51, 54), (28, 58)),  # shrunk and enlarged; 58 / 54 is where cv2's area rule hangs on its rounding
    ((1, 1), (7, 5)),  # one source pixel
    ((19, 23), (1, 1)),  # one output pixel
    ((300, 20), (3, 200)),  # very unequal
]


def noise(*shape: int, seed: int = 0, extreme: bool = False) -> Any:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, shape, np.uint8) * 255 if extreme else rng.integers(0, 256, shape, np.uint8)


def bgr_frame(image: Any) -> CameraFrame:
    return CameraFrame("bgr", image.shape[1], image.shape[0], (image,))


def random_frame(pixel_format: str, width: int, height: int, seed: int = 0) -> CameraFrame:
    shapes = plane_shapes(pixel_format, width, height)
    planes = tuple(noise(*shape, seed=seed + i) for i, shape in enumerate(shapes))
    return CameraFrame(pixel_format, width, height, planes)


def assert_resizes_like_opencv(image: Any, size: tuple[int, int], mode: str) -> None:
    ours = preprocess(bgr_frame(image), size, mode=mode, normalisation=Normalisation("bgr")).transpose(1, 2, 0)
    theirs = cv2.resize(image, size, interpolation={"bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}[mode])
    assert ours.shape == theirs.shape
    # area takes cv2's path with two samples, and its coefficients, when it enlarges.
    enlarges = size[0] > image.shape[1] or size[1] > image.shape[0]
    tolerance = TOLERANCE["bilinear" if mode == "area" and enlarges else mode]
    assert np.abs(ours - theirs).max() <= tolerance


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("mode", RESIZE_MODES)
@pytest.mark.parametrize(("source", "output"), SIZES)
def test_resize_is_opencvs(source: Any, output: Any, mode: str, extreme: bool) -> None:
    assert_resizes_like_opencv(noise(source[1], source[0], 3, extreme=extreme), output, mode)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_resize_is_opencvs_at_any_size(data: st.DataObject) -> None:
    width, height, out_width, out_height = (data.draw(st.integers(1, 90)) for _ in range(4))
    image = noise(height, width, 3, seed=data.draw(st.integers(0, 99)), extreme=data.draw(st.booleans()))
    assert_resizes_like_opencv(image, (out_width, out_height), data.draw(st.sampled_from(RESIZE_MODES)))


def test_modes_differ_where_it_matters() -> None:
    # Without a low-pass filter noise survives shrinking; this is why the mode is part of the bundle.
    frame = bgr_frame(noise(480, 640, 3))
    spread = {mode: preprocess(frame, (32, 32), mode=mode).std() for mode in RESIZE_MODES}
    assert spread["bilinear"] > 5 * spread["area"] > 0


@pytest.mark.parametrize("rule", ["bilinear", "area", "area-enlarging"])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 9), (9, 1), (7, 7), (640, 224), (30, 101), (101, 30), (64, 32)])
def test_weights_lie_inside_the_source_and_sum_to_1(rule: str, n: int, m: int) -> None:
    if rule == "area" and n < m:
        with pytest.raises(ValueError, match="no smaller"):
            axis_weights(n, m, rule)
        return
    axis = axis_weights(n, m, rule)
    assert axis.weights.min() >= 0
    assert np.abs(axis.weights.sum(axis=1) - 1).max() < 1e-12
    assert axis.first.min() >= 0
    assert (axis.first + axis.count).max() <= n
    assert axis.count.min() >= 1
    # The kernel finds what a tile needs from its first and last column: both borders must never step back.
    ends = axis.first + axis.count
    assert all(a <= b for a, b in pairwise(axis.first))
    assert all(a <= b for a, b in pairwise(ends))


def test_nv12_is_opencvs_bit_for_bit() -> None:
    frame = random_frame("nv12", 96, 64)
    packed = np.concatenate([frame.planes[0], frame.planes[1].reshape(32, 96)])
    assert cv2.absdiff(to_bgr(frame), cv2.cvtColor(packed, cv2.COLOR_YUV2BGR_NV12)).max() <= COLOUR_TOLERANCE


def test_the_matrix_inverts_the_standards_definition() -> None:
    # Forward from RGB by the definition of BT.601, back by the code: two roundings of chroma weigh up to 2.1 / 2.
    red_share, blue_share = 0.299, 0.114
    colours = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 200, 90]], float)
    for r, g, b in colours:
        y = red_share * r + (1 - red_share - blue_share) * g + blue_share * b
        u, v = (b - y) / (2 * (1 - blue_share)), (r - y) / (2 * (1 - red_share))
        y, u, v = 16 + y * 219 / 255, u * 224 / 255, v * 224 / 255
        codes = np.clip(np.rint([y, 128 + u, 128 + v]), 0, 255).astype(np.uint8)
        planes = (np.full((2, 2), codes[0]), np.broadcast_to(codes[1:], (1, 1, 2)))
        assert np.abs(to_bgr(CameraFrame("nv12", 2, 2, planes)).astype(float) - [b, g, r]).max() <= 2.0


def test_odd_frames_repeat_their_last_chroma_sample() -> None:
    odd, even = random_frame("nv12", 5, 3), random_frame("nv12", 6, 4)
    even.planes[0][:3, :5] = odd.planes[0]
    even.planes[1][...] = odd.planes[1]
    assert (to_bgr(odd) == to_bgr(even)[:3, :5]).all()


def test_normalisation_and_channel_order() -> None:
    image = np.full((10, 20, 3), (10, 20, 30), np.uint8)
    norm = Normalisation("rgb", mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 8.0))
    found = preprocess(bgr_frame(image), (8, 8), normalisation=norm)
    assert (found == np.array([(30 - 1) / 2, (20 - 2) / 4, (10 - 3) / 8])[:, None, None]).all()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: random_frame("i420", 4, 4), "pixel format"),
        (lambda: CameraFrame("nv12", 4, 4, (noise(4, 4),)), "asked for uint8 planes"),
        (lambda: CameraFrame("bgr", 4, 4, (noise(4, 4, 3).astype(np.float32),)), "float32"),
        (lambda: Normalisation("gbr"), "rgb or bgr"),
        (lambda: Normalisation(std=(1.0, 0.0, 1.0)), "std > 0"),
        (lambda: Normalisation(mean=(np.nan, 0.0, 1.0)), "finite"),
        (lambda: Normalisation(mean=(1.0,)), "three numbers"),  # type: ignore[arg-type]
        (lambda: resize_weights((4, 4), (4, 4), "cubic"), "resize mode"),
        (lambda: axis_weights(0, 4, "bilinear"), "1..16384"),
        (lambda: axis_weights(4, 4, "cubic"), "resize rule"),
    ],
)
def test_nonsense_is_refused(call: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
