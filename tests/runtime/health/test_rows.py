"""Two implementations count the rows of a frame: they must agree in every number, on every kind of picture."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repository import ROOT

from framegate.runtime.health import rows_native
from framegate.runtime.health.rows import NEVER, RowMemory
from framegate.runtime.health.rows_native import NativeRowMemory, row_memory
from framegate.runtime.native import FILE, library
from framegate.runtime.scores import frame_scores

CODE, WHY_NOT = library()
compiled = pytest.mark.skipif(CODE is None, reason=f"no compiled code: {WHY_NOT}")


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_where_there_is_a_compiler_the_code_is_compiled():
    assert CODE is not None, WHY_NOT


def picture(rng, kind, height, width):
    if kind == "noise":
        return rng.integers(0, 256, (height, width, 3), np.uint8)
    if kind == "smooth":
        ramp = np.linspace(0, 255, width)[None, :, None] * np.linspace(0.2, 1.0, height)[:, None, None]
        return np.clip(ramp + rng.normal(0, 2, (height, width, 3)), 0, 255).astype(np.uint8)
    if kind == "white":
        return np.full((height, width, 3), rng.integers(246, 256), np.uint8)
    if kind == "grey":
        return np.repeat(rng.integers(0, 256, (height, width, 1), np.uint8), 3, axis=2)
    if kind == "two equal":
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        image[..., 2] = image[..., 0]
        return image
    if kind == "half":
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        image[height // 2 :] = image[height // 2]
        return image
    return np.where(rng.random((height, width, 1)) < 0.5, 0, 255).astype(np.uint8).repeat(3, axis=2)  # extremes


KINDS = ("noise", "smooth", "white", "grey", "two equal", "half", "extremes")


@compiled
@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(KINDS),
    rows=st.integers(2, 40),
    width=st.integers(16, 400),
    step=st.integers(1, 3),
)
def test_both_count_the_same(seed, kind, rows, width, step):
    image = picture(np.random.default_rng(seed), kind, rows * step, width)[::step]
    plain, native = RowMemory(rows, width, 2), NativeRowMemory(CODE, rows, width, 2)
    assert native.count(1, image) == plain.count(1, image)
    assert np.array_equal(native.grey, plain.grey)


@compiled
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 20), width=st.integers(16, 300), slots=st.integers(1, 5))
def test_both_compare_the_same(seed, rows, width, slots):
    rng = np.random.default_rng(seed)
    plain, native = RowMemory(rows, width, slots), NativeRowMemory(CODE, rows, width, slots)
    shown = [picture(rng, kind, rows, width) for kind in ("noise", "smooth", "half")]
    shown.append(np.concatenate([shown[0][: rows // 2], shown[1][rows // 2 :]]))  # torn
    for number in range(10):
        image = shown[rng.integers(len(shown))]
        if rng.random() < 0.5:
            image = cv2.add(image, np.full_like(image, 3))
        slot = number % slots
        for memory in (plain, native):
            memory.count(slot, image)
        moved = [memory.compare(slot, (slot - 1) % slots, 0.05) for memory in (plain, native)]
        assert moved[0] == moved[1]
        for name in ("known", "equal", "changed"):
            assert np.array_equal(getattr(plain, name), getattr(native, name)), name


@pytest.mark.parametrize("make", [RowMemory, pytest.param(lambda *a: NativeRowMemory(CODE, *a), marks=compiled)])
def test_counts_of_a_picture_that_can_be_counted_by_hand(make):
    image = np.zeros((4, 32, 3), np.uint8)
    image[:, 16:] = 200
    image[3, 31] = 255
    counts = make(4, 32, 2).count(0, image)
    assert counts.total == 4 * 16 * 3 * 200 + 3 * 55
    assert counts.saturated == 1
    assert counts.block_total == 4 * 16 * 200 + 55
    assert counts.fine == 4 * 200**2 + 55**2
    assert counts.coarse == 4 * 4 * 200**2 + 55**2
    assert counts.border_steps == 4 * 32  # the edge is a border of 8x8 blocks, and steps are limited
    assert counts.repeated == 2  # the second and third row repeat the first
    assert counts.equal == (True, True, True)


def test_an_unknown_frame_is_infinitely_far():
    memory = row_memory(4, 64, 3)
    image = picture(np.random.default_rng(0), "noise", 4, 64)
    memory.count(0, image)
    assert memory.compare(0, 2, 0.05) == (0, NEVER, NEVER, 0, 0, 0)
    memory.count(1, image)
    assert memory.compare(1, 0, 0.05) == (0, 0, 0, 0, 1, 1)


@compiled
def test_views_that_are_not_rows_are_copied():
    image = picture(np.random.default_rng(1), "noise", 8, 48)[:, ::-1]
    assert NativeRowMemory(CODE, 8, 48, 1).count(0, image) == RowMemory(8, 48, 1).count(0, image)


@compiled
def test_pixels_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"expected \(8, 48, 3\) uint8"):
        NativeRowMemory(CODE, 8, 48, 1).count(0, np.zeros((8, 47, 3), np.uint8))


def test_rows_too_wide_for_compiled_sums_are_counted_by_numpy():
    assert type(row_memory(2, rows_native._WIDEST + 1, 1)) is RowMemory


def test_without_compiled_code_the_verdicts_stay():
    script = """
import numpy as np
from framegate.runtime.health.check import CameraHealth
from framegate.runtime.native import library
from framegate.runtime.scores import frame_scores
print(library()[1])
health, rng = CameraHealth(), np.random.default_rng(0)
for n in range(20):
    image = rng.integers(60, 90, (240, 320, 3), np.uint8) if n != 15 else image
    print(health.check(image), health.content)
"""

    def told(value):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={"FRAMEGATE_NATIVE": value},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split("\n", 1)

    why, without = told("0")
    assert why == "switched off by FRAMEGATE_NATIVE=0"
    assert "FROZEN" in without
    assert told("1")[1] == without


SOURCES = (
    "health/rows.c",
    "health/content.c",
    "health/beside.c",
    "native/preprocess.c",
    "native/frame_scores.c",
    "replay/verdicts.c",
    "handover/c/native.c",
)
SANITIZED = """
import ctypes, sys
import numpy as np
from framegate.runtime import monitor, native, scores
from framegate.runtime.health.rows_native import NativeRowMemory, row_memory
from framegate.runtime.health.thresholds import HealthThresholds
from framegate.runtime.monitor import Monitor, Tap
from framegate.runtime.native.answer import bound_rows
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec

rng = np.random.default_rng(0)
assert native.library()[1] == sys.argv[1], native.library()
for rows, width in ((2, 16), (2, 17), (3, 31), (5, 33), (7, 100), (33, 1280), (4, 10_000)):
    memory = row_memory(rows, width, 3)
    assert isinstance(memory, NativeRowMemory)
    for k in range(7):
        # Arrays of exactly the size that is read: one pixel too far is an error here.
        image = rng.integers(0, 256, (rows, width, 3), np.uint8)
        image[:] = (0, 255, image)[k % 3] if k < 6 else image
        memory.count(k % 3, image)
        memory.compare(k % 3, (k - 1) % 3, 0.05)
        if memory.prepare():  # on another core
            assert memory.begin(k % 3, (k - 1) % 3, image, 0.05)
            assert memory.look(k % 3, image)
            memory.healthy(HealthThresholds(zones=(2.0,) * 16), False)
            memory.compare(k % 3, (k - 1) % 3, 0.05)
for width, height in ((1, 1), (2, 3), (16, 16), (33, 20), (96, 96)):
    resize = Preprocessor(PreprocessSpec(width, height, "bilinear", "stretch", "rgb", (1.0,) * 3, (2.0,) * 3))
    for size in ((1, 1), (1, 7), (3, 2), (height, width), (2 * height, 2 * width), (45, 67), (720, 1280)):
        resize(rng.integers(0, 256, (*size, 3), np.uint8))
for classes in (1, 2, 10, 1000):
    for scale in (1.0, 1e38, np.inf, np.nan):
        row = np.float32(scale) * rng.normal(size=(1, classes)).astype(np.float32)
        scores.frame_scores(row, 0.05)
for size, width in ((1, 1), (15, 3), (464, 16)):
    values = [rng.normal(size=shape).astype(np.float32) for shape in (size, (width, size), width, width)]
    head = Monitor((Tap("all", size),), values[0], np.ones(size, np.float32), 3.0, *values[1:], 0.0, {})
    for value in (1.0, 3e38, np.nan):
        head(np.full(size, value, np.float32))
    bound_rows(np.zeros((3, 7), np.float32), np.ones((3, size), np.float32), head.head)(3, 0.5)
print("clean")
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc, whose sanitizers are used")
def test_the_compiled_code_is_clean_under_sanitizers(tmp_path):
    def located(name):
        return subprocess.run(
            ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()

    if not Path(located("libasan.so")).is_absolute():
        pytest.skip("gcc has no address sanitizer here")
    package = tmp_path / "framegate"
    for room in ("runtime", "cuda_kernels"):
        shutil.copytree(ROOT / room, package / room, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copy(ROOT / "src" / "framegate" / "__init__.py", package)  # else the installed package comes first
    target = package / "runtime" / "native" / FILE
    sources = [str(ROOT / "runtime" / name) for name in SOURCES]
    flags = ["-O1", "-g", "-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    flags += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run(["gcc", *flags, *sources, "-o", str(target), "-lm"], check=True)
    environment = {
        "PYTHONPATH": str(tmp_path),
        "LD_PRELOAD": located("libasan.so"),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
        "PYTHONMALLOC": "malloc",  # so that every array ends where its memory ends
    }
    done = subprocess.run(
        [sys.executable, "-c", SANITIZED, target.name], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "clean\n"


@compiled
def test_a_stream_costs_no_memory():
    # NumPy 2.4.6 loses some twenty bytes at every view whose __array_interface__ is asked for, in a table that grows by
    # doubling: a few thousand frames show nothing.
    memory = NativeRowMemory(CODE, 4, 64, 3)
    image = picture(np.random.default_rng(0), "noise", 8, 64)
    logits = np.zeros((2, 10), np.float32)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for k in range(20_000):
            memory.count(k % 3, image[::2])
            memory.compare(k % 3, (k - 1) % 3, 0.05)
            frame_scores(logits[k % 2 :][:1], 1.0)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 100_000  # five bytes a frame
