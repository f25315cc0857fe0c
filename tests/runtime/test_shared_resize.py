"""A resize that two threads do together gives what one of them gives, and none of it is written after it has ended."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
import weakref

import numpy as np
import pytest

from framegate.runtime.health.beside import Beside
from framegate.runtime.native import library
from framegate.runtime.native.fast_path import _SharedResize
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec

CODE, _ = library()
pytestmark = [
    pytest.mark.skipif(CODE is None, reason="no compiled code"),
    pytest.mark.skipif(CODE is not None and not CODE.framegate_beside_size(), reason="no such thread on this system"),
]


def spec(width, height, linear=True):
    std = (58.0, 57.0, 56.0) if linear else (58.395, 57.12, 57.375)
    return PreprocessSpec(width, height, "bilinear", "stretch", "rgb", (120.0, 110.0, 100.0), std)


def shared_by(made, image):
    """A resize that has begun, and its address."""
    shared = _SharedResize()
    height, width, _ = image.shape
    at = ctypes.addressof(shared)
    CODE.framegate_preprocess_share(at, made.compiled.at, image.ctypes.data, image.strides[0], width, height)
    return shared, at


@pytest.mark.parametrize("size", [(96, 96), (32, 32), (40, 7), (24, 65)])
@pytest.mark.parametrize("crop", [(720, 1280), (192, 192), (96, 96), (64, 64), (50, 31), (9, 2000)])
@pytest.mark.parametrize("linear", [True, False])
def test_two_threads_make_what_one_makes(size, crop, linear):
    image = np.random.default_rng(sum(crop)).integers(0, 256, (*crop, 3), np.uint8)
    one, both = Preprocessor(spec(*size, linear)), Preprocessor(spec(*size, linear))
    expected = one(image).tobytes()
    for _ in range(4):
        both.tensor[:], both.small[:] = np.nan, 77
        shared, at = shared_by(both, image)
        helper = threading.Thread(target=CODE.framegate_preprocess_help, args=(at,))
        helper.start()
        CODE.framegate_preprocess_finish(at)
        assert both.tensor.tobytes() == expected
        assert both.small.tobytes() == one.small.tobytes()
        helper.join()
        assert both.tensor.tobytes() == expected
        assert shared.made == size[1]


def test_one_thread_alone_and_a_helper_alone_do_all_of_it():
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    one, other = Preprocessor(spec(96, 96)), Preprocessor(spec(96, 96))
    expected = one(image).tobytes()
    for alone in (CODE.framegate_preprocess_help, CODE.framegate_preprocess_finish):
        other.tensor[:] = 0
        shared, at = shared_by(other, image)
        alone(at)
        assert other.tensor.tobytes() == expected
        assert shared.made == 96
    other.tensor[:] = 0
    CODE.framegate_preprocess_help(at)  # one who comes late writes nothing
    assert not other.tensor.any()


def test_fault_the_helper_gets_no_processor_and_its_rows_are_waited_for():
    image = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    made = Preprocessor(spec(96, 96))
    expected = made(image).copy()
    made.tensor[:] = 0
    shared, at = shared_by(made, image)
    shared.taken = 8  # somebody has taken the first rows, and is not done
    waiting = threading.Thread(target=CODE.framegate_preprocess_finish, args=(at,))
    waiting.start()
    time.sleep(0.05)
    assert waiting.is_alive()
    shared.made += 8  # now
    waiting.join(10)
    assert not waiting.is_alive()
    assert not made.tensor[0, :, :8].any()
    assert made.tensor[0, :, 8:].tobytes() == expected[0, :, 8:].tobytes()


def test_fault_a_helper_that_comes_late_changes_nothing_of_the_plan():
    image, narrow = (
        np.random.default_rng(k).integers(0, 256, (90, wide, 3), np.uint8) for k, wide in ((0, 300), (1, 40))
    )
    made, alone = Preprocessor(spec(96, 96)), Preprocessor(spec(96, 96))
    expected = alone(narrow).tobytes()
    _, at = shared_by(made, image)
    CODE.framegate_preprocess_finish(at)
    made(narrow)  # the taps are those of another width now
    CODE.framegate_preprocess_help(at)
    assert made.tensor.tobytes() == expected
    assert made(narrow).tobytes() == expected


def test_the_helped_resize_lives_as_long_as_the_thread_may_read_it():
    beside = Beside(CODE)

    class Helped:
        pass

    first, second = Helped(), Helped()
    gone = weakref.ref(first)
    beside.keep(first)
    del first
    gc.collect()
    assert gone() is not None
    beside.keep(second)
    gc.collect()
    assert gone() is None
    beside.close()
    beside.keep(second)  # the thread has ended: nothing to keep it for
    beside.thread.join(10)
