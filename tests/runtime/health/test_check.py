"""The health check by itself: what a healthy camera sends passes, and every fault has its reason."""

from __future__ import annotations

import functools
from dataclasses import replace

import cv2
import numpy as np
import pytest

from framegate.runtime.faults import camera as fault_camera
from framegate.runtime.faults import light as fault_light
from framegate.runtime.health.check import CameraHealth, unusable
from framegate.runtime.health.content import Content, structure
from framegate.runtime.health.judge import judge_content
from framegate.runtime.health.thresholds import HealthThresholds
from framegate.runtime.verdict import Reason

LEARNT = 12
"""Frames after which the limits relative to the stream are learnt."""


def world(seed=0, height=240, width=1000):
    """A coloured landscape of boxes and stripes, sharp edges and smooth slopes."""
    rng = np.random.default_rng(seed)
    image = np.empty((height, width, 3), np.float32)
    image[:] = np.linspace(190, 60, height)[:, None, None] + np.array([15, 0, -15])
    for _ in range(130):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        w, h = (int(v) for v in rng.integers(8, 90, 2))
        cv2.rectangle(image, (x, y), (x + w, y + h), tuple(map(float, rng.integers(20, 230, 3))), -1)
    return cv2.GaussianBlur(image, (3, 3), 0.6)


WORLD = world()


def drive(k, noise=1.5, speed=9, width=320):
    """Frame k of a moving camera with sensor noise."""
    return _driven(k, noise, speed, width).copy()


@functools.lru_cache(256)  # most tests begin with the same frames, and noise takes longer than their check
def _driven(k, noise, speed, width):
    rng = np.random.default_rng(k)
    view = WORLD[:, k * speed % 680 :][:, :width]
    return np.clip(view + rng.normal(0, noise, view.shape), 0, 255).astype(np.uint8)


def after_learning(thresholds=None):
    health = CameraHealth(thresholds=thresholds)
    for k in range(LEARNT):
        assert health.check(drive(k)) == {}
    return health


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
    found = CameraHealth().check(image)
    assert list(found) == [Reason.BAD_INPUT]
    assert message in found[Reason.BAD_INPUT]


def test_a_live_camera_is_well():
    health = CameraHealth()
    for seed in range(6):
        assert health.check(noisy(seed)) == {}


def test_frozen_is_found_at_once_and_recovers():
    health = CameraHealth()
    still = noisy(0)
    assert tuple(health.check(still)) == ()
    for _ in range(5):
        assert tuple(health.check(still.copy())) == (Reason.FROZEN,)
    assert tuple(health.check(noisy(1))) == ()


def test_two_stale_buffers_that_alternate_are_frozen():
    health = CameraHealth()
    a, b = noisy(0), noisy(1)
    assert tuple(health.check(a)) == ()
    assert tuple(health.check(b)) == ()
    for k in range(6):
        assert tuple(health.check((a, b)[k % 2])) == (Reason.FROZEN,)


def test_a_replayed_ring_of_buffers_is_frozen():
    # The camera's last second is played again and again: no two neighbouring frames are alike.
    health = CameraHealth()
    ring = [noisy(seed, shape=(64, 64, 3)) for seed in range(30)]
    assert [tuple(health.check(image)) for image in ring] == [()] * 30
    assert [tuple(health.check(image)) for image in ring] == [(Reason.FROZEN,)] * 30


def test_frozen_is_found_behind_a_gap_of_black_frames():
    health = CameraHealth()
    last = noisy(0)
    health.check(last)
    for _ in range(6):
        health.check(np.zeros_like(last))
    assert tuple(health.check(last.copy())) == (Reason.FROZEN,)


def test_a_scene_at_rest_with_sensor_noise_is_not_frozen():
    health = after_learning()
    rng = np.random.default_rng(5)
    x, speed = LEARNT * 9.0, 9.0
    for _ in range(60):
        # The vehicle brakes to a halt within two seconds, and stands.
        view = cv2.warpAffine(WORLD, np.float32([[1, 0, -x], [0, 1, 0]]), (320, 240), flags=cv2.INTER_LINEAR)
        assert health.check(np.clip(view + rng.normal(0, 1.5, view.shape), 0, 255).astype(np.uint8)) == {}
        speed *= 0.85
        x += speed if speed > 0.05 else 0.0


def test_black_with_and_without_sensor_noise():
    assert Reason.BLACK in tuple(CameraHealth().check(np.zeros((480, 640, 3), np.uint8)))
    assert Reason.BLACK in tuple(CameraHealth().check(noisy(0, level=6, spread=3)))


def test_a_night_street_is_not_black():
    night = noisy(0, level=8, spread=3)
    night[100:200, 300:340] = 250  # a street lamp
    assert Reason.BLACK not in tuple(CameraHealth().check(night))


def sign(seed=0, side=32):
    """A legible traffic sign: a bright disc with a ring and two digits."""
    image = np.full((side * 8, side * 8, 3), 60, np.uint8)
    centre = side * 4, side * 4
    cv2.circle(image, centre, side * 3, (60, 60, 220), cv2.FILLED)
    cv2.circle(image, centre, side * 2, (230, 230, 230), cv2.FILLED)
    cv2.putText(image, str(30 + seed), (side * 2 + side // 2, side * 5), 0, side / 10, (20, 20, 20), side)
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("side", [32, 64, 110, 480])
@pytest.mark.parametrize("light", [0.04, 0.08])
def test_a_sign_at_night_that_is_legible_is_not_black(side, light):
    rng = np.random.default_rng(side)
    for seed in range(5):
        dark = sign(seed, side) * light + rng.normal(1.5, 0.6, (side, side, 3))
        image = np.clip(np.rint(dark), 0, 255).astype(np.uint8)
        assert image.mean() < 14
        health = CameraHealth(fixed_size=False)
        assert Reason.BLACK not in health.check(image)
        if image.mean() < 11:
            assert health.content.structure > 1.15


@pytest.mark.parametrize("side", [32, 64, 110, 480])
@pytest.mark.parametrize("smeared", [0.0, 0.6, 1.0], ids=["white", "slightly smeared", "smeared"])
@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0, 2.0])
def test_a_covered_lens_is_black_whatever_its_noise(side, smeared, spread):
    rng = np.random.default_rng(3)
    for level in (0, 1, 4, 8, 11):
        noise = rng.normal(0, 1, (side, side, 3))
        if smeared:
            noise = cv2.GaussianBlur(noise, (0, 0), smeared)
            noise /= noise.std()
        image = np.clip(np.rint(level + spread * noise), 0, 255).astype(np.uint8)
        assert tuple(CameraHealth(fixed_size=False).check(image)) == (Reason.BLACK,)


def test_what_cannot_be_compared_in_the_dark_is_black():
    assert np.isnan(structure(np.zeros((1, 64), np.uint8), 32))
    assert np.isnan(structure(np.zeros((32, 5), np.uint8), 1))


def dusk(image, light, seed=0, noise=1.0):
    """The same scene in less light: the sensor's own noise stays."""
    rng = np.random.default_rng(seed)
    return np.clip(np.rint(image * light + rng.normal(0, noise, image.shape)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("light", [0.7, 0.5, 0.3, 0.2])
def test_less_light_for_good_is_no_fault_of_the_camera(light):
    """A bright start, then dusk or a tunnel: contrast and detail shrink with the light."""
    health = after_learning()
    limits = health.limits
    for k in range(LEARNT, LEARNT + 60):
        assert health.check(dusk(drive(k), light, k)) == {}
    assert health.limits == limits


@pytest.mark.parametrize("light", [1.0, 0.5, 0.3])
@pytest.mark.parametrize("severity", [2, 3, 4, 5])
def test_lost_contrast_is_found_in_less_light_too(light, severity):
    health = after_learning()
    for k in range(LEARNT, LEARNT + 8):
        assert Reason.LOW_CONTRAST in health.check(dusk(fault_light.contrast(drive(k), severity, k), light, k))


def test_a_veil_leaves_the_light_and_takes_the_contrast():
    health = after_learning()
    for k in range(LEARNT, LEARNT + 8):
        veiled = np.rint(drive(k) * 0.15 + 150).astype(np.uint8)
        assert Reason.LOW_CONTRAST in health.check(veiled)


def test_limits_without_a_known_light_hold_in_any_light_that_is_not_dim():
    """A file of framegate health from before the light was stored."""
    old = {"format": "framegate-health-1", "contrast": 20.0, "learn_frames": 0}
    health = CameraHealth(thresholds=HealthThresholds.from_json(old))
    assert health.check(drive(0)) == {}
    assert Reason.LOW_CONTRAST in health.check(dusk(drive(1), 0.3))


def test_wrong_size_after_the_first_frame():
    health = CameraHealth()
    assert tuple(health.check(noisy(0))) == ()
    found = health.check(noisy(1, shape=(240, 320, 3)))
    assert found == {Reason.WRONG_SIZE: "320x240, the stream is 640x480"}
    assert tuple(health.check(noisy(2))) == ()


def test_the_announced_size_counts_from_the_first_frame():
    assert tuple(CameraHealth((640, 480)).check(noisy(0, shape=(240, 320, 3)))) == (Reason.WRONG_SIZE,)


def test_photographs_may_repeat_and_differ_in_size():
    health = CameraHealth(fixed_size=False)
    assert tuple(health.check(noisy(0))) == ()
    assert tuple(health.check(noisy(0))) == ()
    assert tuple(health.check(noisy(1, shape=(100, 90, 3)))) == ()


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (fault_light.black, Reason.BLACK),
        (fault_light.saturated, Reason.SATURATED),
        (fault_light.contrast, Reason.LOW_CONTRAST),
        (fault_camera.channel, Reason.COLOUR_LOST),
        (fault_camera.half, Reason.TORN),
    ],
)
def test_every_severity_has_its_reason(fault, reason, severity):
    health = after_learning()
    for k in range(LEARNT, LEARNT + 8):
        assert reason in tuple(health.check(fault(drive(k), severity, k)))
    assert health.check(drive(30)) == {}  # and healthy again at once


@pytest.mark.parametrize(
    ("fault", "reason", "least"),
    [
        (fault_camera.blur, Reason.BLURRED, 3),
        (fault_camera.covered, Reason.LOW_CONTRAST, 4),
        (fault_camera.noise, Reason.NOISY, 2),
        (fault_camera.compression, Reason.NOISY, 3),
    ],
)
def test_every_severity_from_some_on_has_its_reason(fault, reason, least):
    health = after_learning()
    for severity in range(least, 6):
        for k in range(LEARNT, LEARNT + 4):
            assert reason in tuple(health.check(fault(drive(k), severity, k)))


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_a_stuck_picture_behind_a_codec_is_frozen_although_no_two_frames_are_equal(severity):
    health = after_learning()
    past = drive(LEARNT - 1)
    frames = [fault_camera.stuck(drive(k), severity, k, past) for k in range(LEARNT, LEARNT + 40)]
    assert len({frame.tobytes() for frame in frames}) == len(frames)
    found = [tuple(health.check(frame)) for frame in frames]
    assert all(Reason.FROZEN in reasons or Reason.NOISY in reasons for reasons in found)
    assert severity == 5 or all(Reason.FROZEN in reasons for reasons in found)
    assert health.check(drive(70)) == {}


def test_one_frame_delivered_twice_at_rest_does_not_hold_up_the_next():
    health = CameraHealth()
    rng = np.random.default_rng(2)
    view = WORLD[:, :320]
    still = [np.clip(view + rng.normal(0, 1.5, view.shape), 0, 255).astype(np.uint8) for _ in range(4)]
    found = [tuple(health.check(image)) for image in (still[0], still[1], still[1], still[2], still[3])]
    assert found == [(), (), (Reason.FROZEN,), (), ()]


def test_a_replayed_ring_behind_a_codec_is_frozen():
    health = after_learning()
    ring = [drive(k) for k in range(LEARNT, LEARNT + 20)]
    assert all(tuple(health.check(image)) == () for image in ring)
    again = [fault_camera.stuck(image, 2, k, image) for k, image in enumerate(ring)]
    assert all(Reason.FROZEN in tuple(health.check(image)) for image in again)


def test_a_picture_stuck_from_the_start_under_weak_new_noise_is_frozen():
    # Its own noise is repeated, and is stronger than what is new.
    health = CameraHealth()
    past = drive(0, noise=3.0).astype(np.float64)
    rng = np.random.default_rng(1)
    frames = [np.clip(past + rng.normal(0, 1, past.shape), 0, 255).astype(np.uint8) for _ in range(20)]
    assert [tuple(health.check(frame)) for frame in frames] == [()] + [(Reason.FROZEN,)] * 19


@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
def test_rows_of_an_earlier_frame_are_torn(severity):
    health = after_learning()
    past = drive(LEARNT - 1)
    for k in range(LEARNT, LEARNT + 8):
        assert Reason.TORN in tuple(health.check(fault_camera.torn(drive(k), severity, k, past)))
    assert health.check(drive(40)) == {}


def test_rows_that_never_change_are_not_torn():
    # The bonnet of the car, and a black bar of the display: the same in all frames.
    health = CameraHealth()
    for k in range(30):
        frame = drive(k)
        frame[180:] = drive(0)[180:]
        assert health.check(frame) == {}


@pytest.mark.parametrize("fill", [(0, 0, 0), (128, 128, 128), (0, 135, 0), (20, 90, 200)])
def test_a_missing_lower_part_is_torn_in_a_single_photograph_too(fill):
    image = drive(0)
    image[200:] = fill
    found = CameraHealth(fixed_size=False).check(image)
    reasons, detail = tuple(found), "; ".join(found.values())
    assert reasons == (Reason.TORN,)
    assert "rows repeat" in detail


def test_a_white_background_is_not_missing():
    image = drive(0)
    image[:120] = 255
    assert CameraHealth(fixed_size=False).check(image) == {}


def test_a_colour_camera_that_turns_grey_lost_its_colour_and_a_grey_camera_did_not():
    grey = [cv2.cvtColor(cv2.cvtColor(drive(k), cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR) for k in range(30)]
    health = after_learning()
    assert tuple(health.check(grey[20])) == (Reason.COLOUR_LOST,)
    health = CameraHealth()
    assert [health.check(image) for image in grey] == [{}] * 30
    assert CameraHealth(fixed_size=False).check(grey[0]) == {}


def test_a_channel_that_copies_another_is_lost():
    image = drive(0)
    image[..., 0] = image[..., 2]
    assert CameraHealth(fixed_size=False).check(image) == {Reason.COLOUR_LOST: "channel blue = red"}


def test_a_camera_that_starts_blurred_is_not_learnt_as_normal():
    health = CameraHealth()
    for k in range(30):
        assert Reason.BLURRED in tuple(health.check(fault_camera.blur(drive(k), 5, k)))
    assert health.limits == HealthThresholds()
    for k in range(30, 30 + LEARNT):
        assert health.check(drive(k)) == {}
    assert health.limits.sharpness > HealthThresholds().sharpness


def test_what_was_learnt_is_not_given_up_slowly():
    health = after_learning()
    limits = health.limits
    for k in range(LEARNT, 60):
        health.check(drive(k, noise=1.5 + k / 20))
    assert health.limits == limits


def test_unrelated_images_know_absolute_limits_only():
    health = CameraHealth(fixed_size=False)
    for k in range(LEARNT + 2):
        assert health.check(drive(k)) == {}
    assert health.limits == HealthThresholds()
    assert health.check(fault_camera.noise(drive(50), 2, 0)) == {}
    assert tuple(health.check(fault_camera.noise(drive(50), 5, 0))) == (Reason.NOISY,)
    assert tuple(health.check(fault_camera.blur(drive(50), 5, 0))) == (Reason.BLURRED,)


def test_noise_alone_and_a_flat_frame_are_rejected():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (240, 320, 3)).astype(np.uint8)
    assert Reason.NOISY in tuple(CameraHealth().check(noise))
    assert tuple(CameraHealth().check(np.full((240, 320, 3), 128, np.uint8))) == (Reason.TORN,)
    flat = np.clip(rng.normal(128, 2, (240, 320, 3)), 0, 255).astype(np.uint8)
    assert tuple(CameraHealth().check(flat)) == (Reason.LOW_CONTRAST,)


@pytest.mark.parametrize(
    "change",
    [
        {"mean": np.nan, "std": np.nan},
        {"saturated": np.nan},
        {"contrast": np.nan},
        {"detail": np.nan},
        {"sharpness": np.nan},
        {"noise": np.nan},
        {"blockiness": np.nan},
        {"missing": np.nan},
        {"zones": (np.nan,) * 16},
    ],
)
def test_what_cannot_be_measured_is_rejected(change):
    good = Content(100.0, 50.0, 0.0, 40.0, 0.1, 10.0, 1.0, 1.0, 0.0, (5.0,) * 16, "", True)
    limits = replace(HealthThresholds(), zones=(5.0,) * 16, detail=1.0)
    assert judge_content(good, limits) == {}
    assert judge_content(good._replace(**change), limits)


@pytest.mark.parametrize("shape", [(16, 16), (17, 400), (400, 17), (63, 65), (64, 64), (65, 79), (33, 4000)])
def test_any_size_and_content_is_judged_without_an_error(shape):
    rng, judged = np.random.default_rng(1), 0
    for camera in (True, False):
        health = CameraHealth(fixed_size=camera)
        for image in (
            np.zeros((*shape, 3), np.uint8),
            np.full((*shape, 3), 255, np.uint8),
            rng.integers(0, 256, (*shape, 3)).astype(np.uint8),
            np.tile(np.array([[0], [255]], np.uint8), (shape[0], shape[1], 3))[: shape[0], : shape[1]],
            np.ascontiguousarray(drive(0)[: shape[0], : shape[1]]) if shape[1] <= 320 else drive(0),
        ):
            if image.shape[:2] == shape:
                for view in (image, image[:, ::-1]):  # the second is not contiguous
                    found = health.check(view)
                    assert set(found) <= set(Reason)
                    if not image.any():
                        assert Reason.BLACK in found
                    judged += 1
    assert judged >= 16


def test_only_light_is_judged_in_small_images():
    small = np.full((32, 32, 3), (200, 30, 30), np.uint8)
    health = CameraHealth(fixed_size=False)
    assert health.check(small) == {}
    assert tuple(health.check(np.zeros_like(small))) == (Reason.BLACK,)
    assert tuple(health.check(np.full_like(small, 255))) == (Reason.SATURATED,)
