"""The yardstick does the same work with cv2 alone, and floors are measured on what a stage must touch."""

from __future__ import annotations

from unittest.mock import patch

import cv2
import numpy as np
import pytest

from framegate.benchmarks.latency.floors import (
    LINE,
    WHAT,
    Copy,
    Floors,
    Waking,
    above_floor,
    lines_of_resize,
    lines_of_rows,
)
from framegate.benchmarks.latency.yardstick import BareLoop, CarefulPreprocessing
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec, input_shape

SPEC = PreprocessSpec(8, 6, "bilinear", "stretch", "rgb", (1.0, 2.0, 3.0), (60.0, 70.0, 80.0))


def test_the_yardstick_gives_the_same_input_with_cv2_alone():
    image = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    tensor = np.zeros(input_shape(SPEC), np.float32)
    with (
        patch("framegate.runtime.native.library", side_effect=AssertionError("compiled code in the yardstick")),
        patch("cv2.resize", wraps=cv2.resize) as resize,
    ):
        CarefulPreprocessing(SPEC, tensor)(image)
    assert resize.call_count == 1
    np.testing.assert_array_equal(tensor, Preprocessor(SPEC)(image))


def test_the_bare_loop_computes_the_bundles_network(tiny_bundle):
    bundle = Bundle.open(tiny_bundle)
    bare = BareLoop(bundle, "openvino", next(iter(bundle.models)), 1)
    image = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    bare(image)
    assert np.any(bare.tensor)


@pytest.mark.parametrize(("width", "height"), [(64, 48), (160, 90)])
def test_exactly_the_lines_with_a_pixel_that_the_resize_reads_are_copied(width, height):
    read = set(lines_of_resize(SPEC, width, height).tolist())
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    before = Preprocessor(SPEC)(image).copy()
    flat = image.reshape(-1)
    for line in range(flat.size // LINE):
        if line not in read:  # what lies elsewhere changes nothing
            flat[line * LINE : (line + 1) * LINE] = 0
    np.testing.assert_array_equal(Preprocessor(SPEC)(image), before)


def test_an_area_resize_reads_everything():
    spec = PreprocessSpec(8, 6, "area", "stretch", "rgb", (1.0,) * 3, (60.0,) * 3)
    assert len(lines_of_resize(spec, 64, 48)) == 64 * 48 * 3 // LINE
    assert len(lines_of_rows(1280, 720)) == 33 * 1280 * 3 // LINE


def test_every_stage_has_a_floor():
    image = np.zeros((48, 64, 3), np.uint8)
    called = []
    with Waking() as waking:
        floors = Floors(SPEC, (64, 48), 10, waking, lambda: called.append(1))
        for _ in range(3):
            floors.sample(image, image)
    found = floors.summary()
    assert set(WHAT) - set(found) <= {"scores"}  # where there is a compiler
    assert len(called) == 3
    assert all(floor["p50_ms"] > 0 and floor["what"] for floor in found.values())
    assert found["preprocess"]["bytes"] == Copy(lines_of_resize(SPEC, 64, 48), image.size).bytes_read
    stages = {"engine": {"p50_ms": 2.0}}
    assert above_floor(stages, found) == {"engine": (2.0, found["engine"]["p50_ms"])}
