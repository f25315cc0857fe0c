"""camera_preprocess/reference.py against the libraries that models are trained with: Pillow and OpenCV."""

import platform
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from framegate.cuda_kernels.camera_preprocess import reference as preprocess_reference
from framegate.cuda_kernels.camera_preprocess.filter_weights import (
    RESIZE_MODES,
    Placement,
    axis_taps,
    place,
    resize_taps,
)
from framegate.cuda_kernels.camera_preprocess.reference import (
    CameraFrame,
    FrameTotals,
    Normalisation,
    YuvMatrix,
    content_hash,
    frame_totals,
    luma,
    preprocess,
    to_bgr,
)

# Grey levels of 255. The libraries round to 8 bits, the reference does not. Pillow rounds after each axis, half a level
# twice. cv2 rounds once; its 8-bit bilinear has coefficients of 1/2048 and drops the lowest bits of the row sums (0.83
# in all on x86-64); its area mode leaves out shares below 0.001 samples.
TOLERANCE = {"antialias": 1.0 + 1e-4, "bilinear": 1.0, "area": 0.5 + 0.26}
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
    shapes = preprocess_reference.plane_shapes(pixel_format, width, height)
    return CameraFrame(
        pixel_format, width, height, tuple(noise(*shape, seed=seed + i) for i, shape in enumerate(shapes))
    )


def library_resize(image: Any, size: tuple[int, int], mode: str) -> Any:
    if mode == "antialias":
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    return cv2.resize(image, size, interpolation={"bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}[mode])


def assert_resizes_like_the_library(image: Any, size: tuple[int, int], mode: str) -> None:
    ours = preprocess(bgr_frame(image), size, mode=mode, normalisation=Normalisation("bgr")).transpose(1, 2, 0)
    theirs = library_resize(image, size, mode)
    assert ours.shape == theirs.shape
    # area takes cv2's 2-tap path, with its coefficients, when it enlarges.
    enlarges = size[0] > image.shape[1] or size[1] > image.shape[0]
    tolerance = TOLERANCE["bilinear" if mode == "area" and enlarges else mode]
    assert np.abs(ours - theirs).max() <= tolerance


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("mode", RESIZE_MODES)
@pytest.mark.parametrize(("source", "output"), SIZES)
def test_resize_is_the_librarys(source: Any, output: Any, mode: str, extreme: bool) -> None:
    assert_resizes_like_the_library(noise(source[1], source[0], 3, extreme=extreme), output, mode)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_resize_is_the_librarys_at_any_size(data: st.DataObject) -> None:
    width, height, out_width, out_height = (data.draw(st.integers(1, 90)) for _ in range(4))
    image = noise(height, width, 3, seed=data.draw(st.integers(0, 99)), extreme=data.draw(st.booleans()))
    assert_resizes_like_the_library(image, (out_width, out_height), data.draw(st.sampled_from(RESIZE_MODES)))


def test_modes_differ_where_it_matters() -> None:
    # Without a low-pass filter noise survives shrinking; this is why the mode is part of the bundle.
    frame = bgr_frame(noise(480, 640, 3))
    spread = {mode: preprocess(frame, (32, 32), mode=mode).std() for mode in RESIZE_MODES}
    assert spread["bilinear"] > 5 * spread["area"] > 5 * 0.5 * spread["antialias"] > 0


@pytest.mark.parametrize("rule", ["bilinear", "antialias", "area", "area-enlarging"])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 9), (9, 1), (7, 7), (640, 224), (30, 101), (101, 30), (64, 32)])
def test_taps_are_weights_inside_the_source(rule: str, n: int, m: int) -> None:
    if rule == "area" and n < m:
        with pytest.raises(ValueError, match="no smaller"):
            axis_taps(n, m, rule)
        return
    taps = axis_taps(n, m, rule)
    assert taps.weights.min() >= 0
    assert np.abs(taps.weights.sum(axis=1) - 1).max() < 1e-12
    assert taps.first.min() >= 0
    assert (taps.first + taps.count).max() <= n
    assert taps.count.min() >= 1
    # The kernel finds what a tile needs from its first and last column: both borders must never step back.
    ends = taps.first + taps.count
    assert all(a <= b for a, b in pairwise(taps.first))
    assert all(a <= b for a, b in pairwise(ends))


def test_nv12_is_opencvs_bit_for_bit() -> None:
    frame = random_frame("nv12", 96, 64)
    packed = np.concatenate([frame.planes[0], frame.planes[1].reshape(32, 96)])
    assert cv2.absdiff(to_bgr(frame), cv2.cvtColor(packed, cv2.COLOR_YUV2BGR_NV12)).max() <= COLOUR_TOLERANCE


def test_yuyv_is_opencvs_bit_for_bit() -> None:
    frame = random_frame("yuyv", 96, 64)
    theirs = cv2.cvtColor(frame.planes[0].reshape(64, 96, 2), cv2.COLOR_YUV2BGR_YUY2)
    assert cv2.absdiff(to_bgr(frame), theirs).max() <= COLOUR_TOLERANCE


def test_luma_of_bgr_is_opencvs_bit_for_bit() -> None:
    image = noise(64, 96, 3)
    assert np.abs(luma(bgr_frame(image)) - cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)).max() <= COLOUR_TOLERANCE


@pytest.mark.parametrize("pixel_format", ["nv12", "yuyv"])
@pytest.mark.parametrize("standard", ["bt601", "bt709"])
@pytest.mark.parametrize("full_range", [False, True])
def test_every_matrix_inverts_the_standards_definition(pixel_format: str, standard: str, full_range: bool) -> None:
    # Forward from RGB by the definition of the standard, back by the code: two roundings of chroma weigh up to 2.1 / 2.
    red_share, blue_share = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}[standard]
    colours = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 200, 90]], float)
    for r, g, b in colours:
        y = red_share * r + (1 - red_share - blue_share) * g + blue_share * b
        u, v = (b - y) / (2 * (1 - blue_share)), (r - y) / (2 * (1 - red_share))
        if not full_range:
            y, u, v = 16 + y * 219 / 255, u * 224 / 255, v * 224 / 255
        codes = np.clip(np.rint([y, 128 + u, 128 + v]), 0, 255).astype(np.uint8)
        if pixel_format == "nv12":
            planes: Any = (np.full((2, 2), codes[0]), np.broadcast_to(codes[1:], (1, 1, 2)))
        else:
            planes = (np.broadcast_to(codes[[0, 1, 0, 2]], (2, 1, 4)),)
        found = to_bgr(CameraFrame(pixel_format, 2, 2, planes), YuvMatrix.of(standard, full_range))
        assert np.abs(found.astype(float) - [b, g, r]).max() <= 2.0


@pytest.mark.parametrize("pixel_format", ["nv12", "yuyv", "bgr"])
def test_region_is_a_crop_of_the_converted_frame(pixel_format: str) -> None:
    frame = random_frame(pixel_format, 67, 45)
    crop = np.ascontiguousarray(to_bgr(frame)[7:40, 3:66])
    for mode in RESIZE_MODES:
        ours = preprocess(frame, (20, 30), region=(3, 7, 63, 33), mode=mode)
        assert (ours == preprocess(bgr_frame(crop), (20, 30), mode=mode)).all()


def test_odd_frames_repeat_their_last_chroma_sample() -> None:
    odd, even = random_frame("nv12", 5, 3), random_frame("nv12", 6, 4)
    even.planes[0][:3, :5] = odd.planes[0]
    even.planes[1][...] = odd.planes[1]
    assert (to_bgr(odd) == to_bgr(even)[:3, :5]).all()


def test_normalisation_order_and_letterbox() -> None:
    image = np.full((10, 20, 3), (10, 20, 30), np.uint8)
    norm = Normalisation("rgb", mean=(1.0, 2.0, 3.0), std=(2.0, 4.0, 8.0), pad=(101.0, 102.0, 103.0))
    found = preprocess(bgr_frame(image), (8, 8), fit="letterbox", normalisation=norm)
    assert (found[:, 2:6] == np.array([(30 - 1) / 2, (20 - 2) / 4, (10 - 3) / 8])[:, None, None]).all()
    assert (found[:, [0, 1, 6, 7]] == np.array([50.0, 25.0, 12.5])[:, None, None]).all()


@pytest.mark.parametrize(
    ("source", "output", "where"),
    [
        ((1920, 1080), (640, 640), Placement(0, 140, 640, 360)),
        ((480, 640), (640, 640), Placement(80, 0, 480, 640)),
        ((3, 2), (9, 9), Placement(0, 1, 9, 6)),  # the rest of 3 rows: one above, two below
        ((4, 1), (6, 6), Placement(0, 2, 6, 2)),  # 1.5 rows: half up
        ((1000, 1), (8, 8), Placement(0, 3, 8, 1)),  # at least one pixel
    ],
)
def test_letterbox_geometry(source: Any, output: Any, where: Placement) -> None:
    assert place(source, output, "letterbox") == where
    assert place(source, output, "stretch") == Placement(0, 0, *output)


@pytest.mark.parametrize("pixel_format", ["nv12", "yuyv", "bgr"])
@pytest.mark.parametrize("size", [(96, 64), (33, 21), (1, 5), (1, 1)])
def test_statistics_are_opencvs(pixel_format: str, size: tuple[int, int]) -> None:
    frame = random_frame(pixel_format, *size)
    a = luma(frame).astype(np.float64)
    found = frame_totals(frame, saturated_level=200, dark_level=30).statistics(a.size)
    replicate = cv2.BORDER_REPLICATE
    assert found.mean == pytest.approx(a.mean(), rel=1e-12)
    assert found.saturated_share == (a >= 200).mean()
    assert found.dark_share == (a <= 30).mean()
    laplacian = cv2.Laplacian(a, cv2.CV_64F, ksize=1, borderType=replicate)
    assert found.laplacian_variance == pytest.approx(laplacian.var(), rel=1e-12, abs=1e-9)
    detail = a - cv2.blur(a, (3, 3), borderType=replicate)
    assert found.high_frequency_energy == pytest.approx((detail**2).mean(), rel=1e-9, abs=1e-9)
    variation = np.abs(np.diff(a, axis=0)).sum() + np.abs(np.diff(a, axis=1)).sum()
    assert found.total_variation == pytest.approx(variation / a.size, rel=1e-12)


def test_statistics_without_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        FrameTotals(0, 0, 0, 0, 0, 0, 0, 0).statistics(0)


def plain_hash(frame: CameraFrame) -> int:
    """The definition, word by word."""
    total = index = 0
    for plane in frame.planes:
        for row in plane.reshape(len(plane), -1):
            for at in range(0, len(row), 4):
                z = index << 32 | int.from_bytes(row[at : at + 4].tobytes(), "little")
                z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
                z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
                total += z ^ z >> 31
                index += 1
    return total % 2**64


@pytest.mark.parametrize("pixel_format", ["nv12", "yuyv", "bgr"])
@pytest.mark.parametrize("size", [(16, 4), (13, 5), (1, 1), (2, 3)])
def test_hash_is_its_definition(pixel_format: str, size: tuple[int, int]) -> None:
    frame = random_frame(pixel_format, *size)
    assert content_hash(frame) == plain_hash(frame)


@pytest.mark.parametrize("pixel_format", ["nv12", "yuyv", "bgr"])
def test_hash_sees_every_bit_and_every_place(pixel_format: str) -> None:
    frame = random_frame(pixel_format, 9, 5)
    seen = {content_hash(frame)}
    count = 1
    for plane in frame.planes:
        flat = plane.reshape(-1)
        for i in range(flat.size):
            flat[i] ^= 1  # the smallest noise there is
            seen.add(content_hash(frame))
            count += 1
            flat[i] ^= 1
    rows = frame.planes[0]
    rows[[0, 1]] = rows[[1, 0]]  # the same words at other places
    seen.add(content_hash(frame))
    assert len(seen) == count + 1


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: YuvMatrix.of("bt2020"), "bt601, bt709"),
        (lambda: random_frame("i420", 4, 4), "pixel format"),
        (lambda: CameraFrame("nv12", 4, 4, (noise(4, 4),)), "asked for uint8 planes"),
        (lambda: CameraFrame("bgr", 4, 4, (noise(4, 4, 3).astype(np.float32),)), "float32"),
        (lambda: preprocess(random_frame("bgr", 4, 4), (4, 4), region=(-1, 0, 2, 2)), "inside the 4x4"),
        (lambda: Normalisation("gbr"), "rgb or bgr"),
        (lambda: Normalisation(std=(1.0, 0.0, 1.0)), "std > 0"),
        (lambda: Normalisation(mean=(np.nan, 0.0, 1.0)), "finite"),
        (lambda: Normalisation(pad=(1.0,)), "three numbers"),  # type: ignore[arg-type]
        (lambda: resize_taps((4, 4), (4, 4), "cubic"), "resize mode"),
        (lambda: axis_taps(0, 4, "bilinear"), "1..16384"),
        (lambda: place((4, 4), (4, 4), "crop"), "fit"),
    ],
)
def test_nonsense_is_refused(call: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
