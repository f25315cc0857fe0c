"""NV12 stays NV12 until the GPU, and becomes BGR once where there is none: with the same verdicts as BGR."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from framegate.runtime.errors import UsageError
from framegate.runtime.faults.inject import FaultInjector, parse_faults
from framegate.runtime.health.check import CameraHealth
from framegate.runtime.pipeline import Pipeline
from framegate.runtime.pixel_format import flip_image, frame_size, nv12_problem, nv12_rows, to_bgr, to_nv12
from framegate.runtime.roi import Roi
from framegate.runtime.session import Session
from framegate.runtime.sources.adjust import AdjustedSource
from framegate.runtime.sources.open import open_source
from framegate.runtime.sources.synthetic import read_frame_number
from framegate.runtime.verdict import BGR, NV12, Frame, Reason


def noise(width, height, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height * 3 // 2, width), np.uint8)


def nv12_frame(image, number=0):
    return Frame(number, 0, image, "", NV12)


def test_nv12_of_a_picture_is_the_picture():
    image = cv2.GaussianBlur(np.random.default_rng(1).integers(60, 190, (48, 64, 3), np.uint8), (0, 0), 6)
    back = to_bgr(nv12_frame(to_nv12(image)))
    assert back.pixel_format == BGR
    assert np.abs(back.image.astype(int) - image).max() <= 6  # limited range, 2x2 chroma
    assert frame_size(nv12_frame(to_nv12(image))) == frame_size(back) == (64, 48)


def test_the_planes_are_where_opencv_and_the_kernel_look_for_them():
    red = np.full((16, 16, 3), (0, 0, 255), np.uint8)
    image = to_nv12(red)
    assert set(image[:16].ravel()) == {82}  # BT.601, limited range
    assert set(image[16:, 0::2].ravel()) == {90}  # U
    assert set(image[16:, 1::2].ravel()) == {240}  # V


@pytest.mark.parametrize("size", [(64, 48), (64, 50), (34, 2), (640, 480)])
@pytest.mark.parametrize("step", [2, 32])
def test_sampled_rows_are_those_of_the_whole_conversion(size, step):
    image = noise(*size)
    assert np.array_equal(nv12_rows(image, step), to_bgr(nv12_frame(image)).image[::step])


@pytest.mark.parametrize("code", [0, 1, -1])
def test_flipping_before_or_after_the_conversion_is_the_same(code):
    image = noise(64, 48)
    flipped = to_bgr(nv12_frame(flip_image(image, NV12, code))).image
    assert np.array_equal(flipped, cv2.flip(to_bgr(nv12_frame(image)).image, code))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((72, 64, 3), np.uint8),
        np.zeros((72, 64), np.uint16),
        np.zeros((73, 64), np.uint8),
        np.zeros((72, 63), np.uint8),
        np.zeros((0, 0), np.uint8),
        np.zeros(7, np.uint8),
    ],
    ids=["colour", "deep", "height", "width", "empty", "flat"],
)
def test_what_is_no_nv12_is_bad_input(tiny_bundle, image):
    assert "expected NV12" in nv12_problem(image)
    with pytest.raises(ValueError, match="expected NV12"):
        to_bgr(nv12_frame(image))
    session = Session.open(tiny_bundle, "onnxruntime", threads=1)
    (prediction,) = session.frame_judge.judge(nv12_frame(image), (Roi.whole(),), CameraHealth())
    assert prediction.reasons == (Reason.BAD_INPUT,)
    assert "expected NV12" in prediction.detail


def test_an_unknown_format_is_bad_input(tiny_bundle):
    session = Session.open(tiny_bundle, "onnxruntime", threads=1)
    frame = Frame(0, 0, np.full((48, 64, 3), (250, 9, 9), np.uint8), "", "yuyv")
    (prediction,) = session.frame_judge.judge(frame, (Roi.whole(),), CameraHealth())
    assert prediction.reasons == (Reason.BAD_INPUT,)


def test_verdicts_on_nv12_are_those_on_its_bgr(tiny_bundle, coloured):
    session = Session.open(tiny_bundle, "onnxruntime", threads=1)
    rois = (Roi.whole(), Roi.parse("left=0,0,32,48"))
    ours, theirs = CameraHealth(), CameraHealth()
    accepted = 0
    for k in range(30):
        colour = (250, 10, 10) if k % 2 else (120, 120, 120)
        frame = nv12_frame(to_nv12(cv2.resize(coloured(colour, seed=k // 3), (64, 48))), k)
        a, b = session.frame_judge.judge(frame, rois, ours), session.frame_judge.judge(to_bgr(frame), rois, theirs)
        assert [p.reasons for p in a] == [p.reasons for p in b]
        assert [p.entropy for p in a] == pytest.approx([p.entropy for p in b], abs=1e-6)
        accepted += sum(p.accepted for p in a)
    assert 0 < accepted < 60


def test_health_sees_the_same_in_nv12():
    image = to_nv12(np.full((48, 64, 3), 90, np.uint8))
    black = to_nv12(np.zeros((48, 64, 3), np.uint8))
    health = CameraHealth()
    assert health.check(image, NV12) == {}
    assert tuple(health.check(image, NV12)) == (Reason.FROZEN,)
    assert tuple(health.check(black, NV12)) == (Reason.BLACK,)
    assert tuple(health.check(to_nv12(np.full((64, 64, 3), 90, np.uint8)), NV12)) == (Reason.WRONG_SIZE,)
    assert tuple(health.check(to_nv12(np.full((8, 64, 3), 90, np.uint8)), NV12)) == (Reason.BAD_INPUT,)


def test_the_test_pattern_comes_as_nv12_and_people_see_bgr(tiny_bundle):
    uri = "synthetic://?width=128&height=64&frames=9&format=nv12"
    with open_source(uri, realtime=False) as source:
        frames = [frame for frame in iter(source.read, None) if frame is not None]
    assert [read_frame_number(frame.image) for frame in frames] == list(range(9))
    assert {(frame.pixel_format, frame.image.shape) for frame in frames} == {(NV12, (96, 128))}
    session = Session.open(tiny_bundle, "onnxruntime", threads=1)
    source = AdjustedSource(open_source(uri, realtime=False), flip="180", skip=2)
    with Pipeline(source, session, lossless=True, keep_frames=True) as pipeline:
        results = list(pipeline.results())
    assert len(results) == 7
    shown = [cv2.rotate(result.image, cv2.ROTATE_180) for result in results if result.image is not None]
    assert [read_frame_number(image) for image in shown] == list(range(2, 9))
    assert all(Reason.BAD_INPUT not in result.predictions[0].reasons for result in results)


def test_faults_can_be_injected_into_nv12():
    source = open_source("synthetic://?width=128&height=64&frames=6&format=nv12", realtime=False)
    health = CameraHealth((128, 64))
    with FaultInjector(source, parse_faults("black:1,freeze:3,size:5")) as faulty:
        found = [tuple(health.check(frame.image)) for frame in iter(faulty.read, None) if frame is not None]
    assert found == [(), (Reason.BLACK,), (), (Reason.FROZEN,), (), (Reason.WRONG_SIZE,)]


def test_odd_sizes_have_no_nv12():
    with pytest.raises(UsageError, match="even for nv12"):
        open_source("synthetic://?width=129&height=64&format=nv12")
