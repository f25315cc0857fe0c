"""Counting on another core: the same numbers as without, whoever does the work and whatever goes wrong between."""

from __future__ import annotations

import math
import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import cv2
import numpy as np
import pytest

from framegate.runtime.health.beside import NAME, Beside
from framegate.runtime.health.check import CameraHealth
from framegate.runtime.health.content import measure
from framegate.runtime.health.frozen import RecentFrames
from framegate.runtime.health.rows import RowMemory
from framegate.runtime.health.rows_native import NativeRowMemory
from framegate.runtime.health.thresholds import HealthThresholds
from framegate.runtime.native import library
from framegate.runtime.verdict import BGR, NV12, Reason

CODE, _ = library()
pytestmark = [
    pytest.mark.skipif(CODE is None, reason="no compiled code"),
    pytest.mark.skipif(CODE is not None and not CODE.framegate_beside_size(), reason="no such thread on this system"),
]


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr("framegate.runtime.health.rows_native.processors", lambda: 2)


def pictures(count, rows, width):
    rng = np.random.default_rng(3)
    kinds = [
        lambda: rng.integers(0, 256, (rows, width, 3), np.uint8),
        lambda: np.repeat(rng.integers(0, 256, (rows, width, 1), np.uint8), 3, axis=2),
        lambda: np.full((rows, width, 3), 255, np.uint8),
        lambda: np.zeros((rows, width, 3), np.uint8),
        lambda: np.clip(rng.normal(120, 3, (rows, width, 3)), 0, 255).astype(np.uint8),
        lambda: rng.integers(0, 256, (rows, width, 3), np.uint8) * np.array([1, 0, 1], np.uint8),
        lambda: rng.integers(0, 256, (rows, width, 3), np.uint8)[:, :, [0, 0, 2]],
    ]
    return [np.ascontiguousarray(kinds[k % len(kinds)]()) for k in range(count)]


def same(first, second):
    return all(
        a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b)) for a, b in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("size", [(2, 16), (7, 33), (32, 320), (33, 1280)])
@pytest.mark.parametrize("running", [True, False])
def test_the_numbers_are_those_of_one_core(size, running):
    plain, beside = RowMemory(*size, 4), NativeRowMemory(CODE, *size, 4)
    assert beside.prepare()
    if not running:  # as if it never got a processor: whoever needs the result does the work
        CODE.framegate_beside_stop(beside._beside.at)
        beside._beside.thread.join(5)
        assert not beside._beside.thread.is_alive()
    for k, image in enumerate([*pictures(14, *size), pictures(1, *size)[0]]):
        slot, previous = k % 4, (k - 1) % 4
        assert beside.begin(slot, previous, image, 0.05)
        assert beside.look(slot, image)
        content = beside.content
        expected = measure(plain.count(slot, image), *size)
        assert same(content[:9], expected[:9])
        assert same(content.zones, expected.zones)
        assert content[10:12] == expected[10:12]
        assert beside.compare(slot, previous, 0.05) == plain.compare(slot, previous, 0.05)
        for name in ("grey", "known", "equal", "changed"):
            assert np.array_equal(getattr(plain, name), getattr(beside, name)), name


def health_findings(late):
    """What a check says about a stream with good, equal and strange frames, begun early or not."""
    rng = np.random.default_rng(0)
    scene = np.kron(rng.integers(30, 220, (16, 20, 3)), np.ones((15, 16, 1)))
    noise = rng.normal(0, 2, (20, *scene.shape))
    health, found = CameraHealth((320, 240)), []
    for k in range(20):
        moved = np.roll(scene, 7 * (10 if k in (12, 13) else k), axis=1) * (k != 15)
        image = np.clip(moved + noise[k], 0, 255).astype(np.uint8)
        if late:
            assert health.begin(image)
            if k == 9:  # never asked about: as if the frame had been given up
                image = np.ascontiguousarray(image[::-1])
        found.append(dict(health.inspect(image)))
    return found, health.limits


def test_a_stream_is_judged_alike():
    (early, learnt), (late, learnt_late) = health_findings(False), health_findings(True)
    assert [set(each) for each in early[:9]] == [set(each) for each in late[:9]]
    assert [set(each) for each in early[10:]] == [set(each) for each in late[10:]]
    assert late[9] == {}, "what is judged is the frame that was asked about, which is not the one that was given up"
    assert Reason.BLACK in late[15]
    assert learnt.light == pytest.approx(learnt_late.light, rel=0.05)


def test_strange_images_are_left_to_inspect():
    health = CameraHealth((64, 64))
    for strange in (None, 5, np.zeros((64, 64), np.uint8), np.zeros((64, 64, 4), np.uint8), np.zeros((64, 64, 3))):
        assert not health.begin(strange)
    mirrored = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)[:, ::-1]
    assert not health.begin(mirrored)
    assert Reason.BAD_INPUT not in health.inspect(mirrored)


def test_one_core_or_no_thread_counts_as_before():
    image = pictures(1, 32, 64)[0]
    with patch("framegate.runtime.health.rows_native.processors", return_value=1):
        assert not CameraHealth().begin(image)
    with patch("framegate.runtime.health.rows_native.Beside", side_effect=RuntimeError("can't start new thread")):
        health = CameraHealth()
        assert not health.begin(image)
        assert Reason.BAD_INPUT not in health.inspect(image)


def test_the_thread_ends_with_its_stream():
    beside = Beside(CODE)
    thread = beside.thread
    assert thread.name == NAME
    assert thread.daemon
    del beside
    deadline = time.monotonic() + 5
    while thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert not thread.is_alive()


def test_what_the_thread_works_on_lives_until_it_has_stopped():
    for _ in range(20):
        memory = NativeRowMemory(CODE, 33, 1280, 4)
        assert memory.begin(1, 0, pictures(1, 33, 1280)[0], 0.05)
        kept = memory._beside.kept
        assert any(each is memory.grey for each in kept)
        assert any(isinstance(each, np.ndarray) and each.shape == (33, 1280, 3) for each in kept)
        del memory  # in the middle of the work
        assert kept == []


def strange_stream(count):
    """Frames of a camera, with stuck, torn, black, blurred and half-lost ones between, in colour and as NV12."""
    rng = np.random.default_rng(5)
    scene = np.kron(rng.integers(30, 220, (16, 20, 3)), np.ones((15, 16, 1)))
    before = None
    for k in range(count):
        image = np.clip(np.roll(scene, 7 * k, axis=1) + rng.normal(0, 2, scene.shape), 0, 255).astype(np.uint8)
        kind = rng.integers(0, 12) if k > 12 else 11
        if kind == 0:
            image = before.copy()
        elif kind == 1:
            image[60:] = before[60:]
        elif kind == 2:
            image[:] = 0
        elif kind == 3:
            image = cv2.GaussianBlur(image, (0, 0), 9)
        elif kind == 4:
            image = image[:, ::-1]
        before = image
        yield (cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420), NV12) if kind == 5 else (image, BGR)


@pytest.mark.parametrize("learn_frames", [0, 10])
def test_the_short_way_of_a_good_frame_says_what_the_long_one_says(learn_frames):
    thresholds = HealthThresholds(learn_frames=learn_frames)
    short, long = CameraHealth((320, 240), thresholds=thresholds), CameraHealth((320, 240), thresholds=thresholds)
    kinds = Counter()
    with patch.object(RecentFrames, "is_good", autospec=True, side_effect=RecentFrames.is_good) as asked:
        for image, pixel_format in strange_stream(150):
            short.begin(image, pixel_format)
            early, late = (each.check(image, pixel_format) for each in (short, long))
            assert early == late
            assert short.content == long.content or math.isnan(short.content.light)
            assert short.limits == long.limits
            kinds.update(list(early))
        assert asked.call_count > 80
    assert {Reason.BLACK, Reason.FROZEN, Reason.TORN} <= kinds.keys()
    assert kinds.total() < 120


def test_the_thread_that_hands_a_frame_over_takes_the_job():
    memory = NativeRowMemory(CODE, 33, 1280, 4)
    assert memory.prepare()
    image = pictures(1, 33, 1280)[0]
    for _ in range(50):  # until it attended before the job came
        with ThreadPoolExecutor(1) as other:
            attends = other.submit(CODE.framegate_beside_attend, memory._beside.at, 10**9)
            time.sleep(0.01)
            assert memory.begin(1, 0, image, 0.05)
            took = attends.result()
        assert memory.look(1, image)
        assert same(memory.content[:9], measure(RowMemory(33, 1280, 4).count(1, image), 33, 1280)[:9])
        if took:
            return
    raise AssertionError("it never took a job")


def test_who_attends_in_vain_goes_on_soon_and_at_once_when_the_stream_ends():
    beside = Beside(CODE)
    assert not beside.attend()
    with ThreadPoolExecutor(1) as other:
        attends = other.submit(CODE.framegate_beside_attend, beside.at, 60 * 10**9)
        assert not beside.attend(), "one is enough, and nothing was asked for"
        beside.close()
        assert attends.result(30) == 0


def test_fault_who_attends_while_the_first_frame_makes_the_memory():
    """The thread that captures does not wait for the one that judges."""
    health, attended = CameraHealth(), []

    def slow(*size):
        health.attend()  # as from the other thread, in the middle
        attended.append(size)
        return NativeRowMemory(CODE, *size)

    with patch("framegate.runtime.health.frozen.row_memory", side_effect=slow):
        for image in (pictures(1, 32, 64)[0], pictures(1, 64, 128)[0]):
            assert Reason.BAD_INPUT not in health.inspect(image)
            health.attend()
    assert len(attended) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_fault_a_child_that_was_forked_while_the_thread_counts_ends():
    memory, rows = NativeRowMemory(CODE, 299, 10_000, 4), pictures(1, 299, 10_000)[0]  # takes some milliseconds
    children = []
    for _ in range(8):
        assert memory.begin(0, 0, rows, None)
        time.sleep(0.001)
        child = os.fork()
        if child == 0:
            memory.close()  # as the end of the interpreter does
            os._exit(0)
        children.append(child)
        memory.forget_begun()
    until, ended = time.monotonic() + 10, set()
    while len(ended) < len(children) and time.monotonic() < until:
        ended |= {child for child in children if child not in ended and os.waitpid(child, os.WNOHANG) != (0, 0)}
        time.sleep(0.01)
    for child in set(children) - ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert len(ended) == len(children)
