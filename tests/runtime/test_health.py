from __future__ import annotations

import numpy as np
import pytest

from framegate.runtime.health import CameraHealth, unusable
from framegate.runtime.verdict import Reason


def noisy(seed, level=120, spread=20, shape=(480, 640, 3)):
    return np.clip(np.random.default_rng(seed).normal(level, spread, shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((48, 64), np.uint8), "colour image"),
        (np.zeros((48, 64, 1), np.uint8), "colour image"),
        (np.zeros((48, 64, 4), np.uint8), "colour image"),
        (np.zeros((48, 64, 3), np.uint16), "8-bit"),
        (np.zeros((48, 64, 3), np.float32), "8-bit"),
        (np.zeros((1, 1, 3), np.uint8), "at least 16x16"),
        (np.zeros((0, 0, 3), np.uint8), "at least 16x16"),
        (None, "NoneType"),
    ],
)
def test_unusable_images_say_why(image, message):
    assert message in unusable(image)
    reasons, detail = CameraHealth().check(image)
    assert reasons == (Reason.BAD_INPUT,)
    assert message in detail


def test_a_live_camera_is_well():
    health = CameraHealth()
    for seed in range(6):
        assert health.check(noisy(seed)) == ((), "")


def test_frozen_is_found_at_once_and_recovers():
    health = CameraHealth()
    still = noisy(0)
    assert health.check(still)[0] == ()
    for _ in range(5):
        assert health.check(still.copy())[0] == (Reason.FROZEN,)
    assert health.check(noisy(1))[0] == ()


def test_two_stale_buffers_that_alternate_are_frozen():
    health = CameraHealth()
    a, b = noisy(0), noisy(1)
    assert health.check(a)[0] == ()
    assert health.check(b)[0] == ()
    for k in range(6):
        assert health.check((a, b)[k % 2])[0] == (Reason.FROZEN,)


def test_a_replayed_ring_of_buffers_is_frozen():
    # The camera's last second is played again and again: no two neighbouring frames are alike.
    health = CameraHealth()
    ring = [noisy(seed, shape=(64, 64, 3)) for seed in range(30)]
    assert [health.check(image)[0] for image in ring] == [()] * 30
    assert [health.check(image)[0] for image in ring] == [(Reason.FROZEN,)] * 30


def test_frozen_is_found_behind_a_gap_of_black_frames():
    health = CameraHealth()
    last = noisy(0)
    health.check(last)
    for _ in range(6):
        health.check(np.zeros_like(last))
    assert health.check(last.copy())[0] == (Reason.FROZEN,)


def test_a_scene_at_rest_with_sensor_noise_is_not_frozen():
    health = CameraHealth()
    scene = noisy(0, spread=40)
    rng = np.random.default_rng(5)
    for _ in range(20):
        frame = np.clip(scene.astype(int) + rng.integers(-1, 2, scene.shape), 0, 255).astype(np.uint8)
        assert health.check(frame)[0] == ()


def test_black_with_and_without_sensor_noise():
    assert Reason.BLACK in CameraHealth().check(np.zeros((480, 640, 3), np.uint8))[0]
    assert Reason.BLACK in CameraHealth().check(noisy(0, level=6, spread=3))[0]


def test_a_night_street_is_not_black():
    night = noisy(0, level=8, spread=3)
    night[100:200, 300:340] = 250  # a street lamp
    assert Reason.BLACK not in CameraHealth().check(night)[0]


def test_wrong_size_after_the_first_frame():
    health = CameraHealth()
    assert health.check(noisy(0))[0] == ()
    reasons, detail = health.check(noisy(1, shape=(240, 320, 3)))
    assert reasons == (Reason.WRONG_SIZE,)
    assert detail == "320x240, the stream is 640x480"
    assert health.check(noisy(2))[0] == ()


def test_the_announced_size_counts_from_the_first_frame():
    assert CameraHealth((640, 480)).check(noisy(0, shape=(240, 320, 3)))[0] == (Reason.WRONG_SIZE,)


def test_photographs_may_repeat_and_differ_in_size():
    health = CameraHealth(fixed_size=False)
    assert health.check(noisy(0))[0] == ()
    assert health.check(noisy(0))[0] == ()
    assert health.check(noisy(1, shape=(100, 90, 3)))[0] == ()
