"""Every corruption against one contract; then each against its closed form."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from framegate.evaluation.corruptions.blur import blur_along_lines, line_kernel, zoom_in
from framegate.evaluation.corruptions.suite import CORRUPTIONS, SEVERITIES, VOLUME_CORRUPTIONS, corrupt
from framegate.runtime.errors import UsageError

Images = npt.NDArray[np.uint8]
DETERMINISTIC = {"defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression"}
NOT_MONOTONE = {"glass_blur", "motion_blur", "frost", "elastic_transform"}
"""By their published parameters; see the head of corruptions.py."""


def scenes(count: int, height: int = 32, width: int = 32, seed: int = 0) -> Images:
    """Like photographs: 1/f shading, an object with sharp edges, correlated colours."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    frequency[0, 0] = np.inf
    made = np.empty((count, height, width, 3), np.uint8)
    for image in made:
        spectrum = np.fft.fft2(rng.standard_normal((height, width)))
        shading = np.fft.ifft2(spectrum * frequency**-1.5).real
        field = (100 + 30 * shading / shading.std())[..., None] + rng.uniform(-30, 30, 3)
        canvas = np.ascontiguousarray(np.clip(field, 0, 255).astype(np.uint8))
        centre = (int(rng.integers(6, width - 6)), int(rng.integers(6, height - 6)))
        colour = [int(v) for v in rng.integers(20, 230, 3)]
        cv2.ellipse(canvas, centre, (7, 4), float(rng.uniform(0, 180)), 0, 360, colour, -1)
        image[:] = canvas
    return made


def flat(*bgr: int, count: int = 1, side: int = 32) -> Images:
    return np.broadcast_to(np.array(bgr, np.uint8), (count, side, side, 3)).copy()


def difference(images: Images, name: str, severity: int) -> float:
    changed = corrupt(images, name, severity, 5).astype(float) - images
    return float((changed**2).mean())


def test_the_published_fifteen_are_there() -> None:
    assert len(CORRUPTIONS) == 15
    assert len(set(CORRUPTIONS)) == 15
    assert set(VOLUME_CORRUPTIONS) < set(CORRUPTIONS)


@pytest.mark.parametrize("size", [(32, 32), (16, 16), (21, 48)], ids=str)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_shape_and_type_stay_and_the_input_is_left_alone(name: str, size: tuple[int, int]) -> None:
    images = scenes(3, *size)
    before = images.copy()
    for severity in SEVERITIES:
        changed = corrupt(images, name, severity, 1)
        assert changed.shape == images.shape
        assert changed.dtype == np.uint8
        assert (changed != images).any()
    assert np.array_equal(images, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_corrupted_the_same_alone_and_in_any_batch(name: str) -> None:
    images = scenes(100)  # more than one internal block at 32x32
    for severity in (1, 5):
        whole = corrupt(images, name, severity, 3)
        for k in (0, 1, 84, 85, 99):
            alone = corrupt(images[k : k + 1], name, severity, 3, first_index=k)
            assert np.array_equal(alone[0], whole[k])
        rest = corrupt(images[7:20], name, severity, 3, first_index=7)
        assert np.array_equal(rest, whole[7:20])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_seed_and_the_index_decide(name: str) -> None:
    images = np.repeat(scenes(1), 8, axis=0)
    first, again, other = (corrupt(images, name, 4, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert np.array_equal(first, other) == (name in DETERMINISTIC)
    assert (first == first[0]).all() == (name in DETERMINISTIC)


@pytest.mark.parametrize("name", sorted(set(CORRUPTIONS) - NOT_MONOTONE))
def test_a_higher_severity_is_further_from_the_clean_image(name: str) -> None:
    images = scenes(80)
    distances = [difference(images, name, severity) for severity in SEVERITIES]
    assert distances[0] > 0
    assert all(later > earlier for earlier, later in itertools.pairwise(distances)), distances


def test_the_published_parameters_that_are_not_monotone() -> None:
    images = scenes(80)
    found = {name: [difference(images, name, severity) for severity in SEVERITIES] for name in NOT_MONOTONE}
    glass, motion = found["glass_blur"], found["motion_blur"]
    assert glass[0] == pytest.approx(glass[1], rel=0.05)
    assert max(glass[:3]) < min(glass[3:])
    assert motion[2] == pytest.approx(motion[3], rel=0.01)
    assert motion[0] < motion[1] < motion[2] < motion[4]
    assert found["frost"][0] < found["frost"][1] < found["frost"][2]
    assert sorted(found["elastic_transform"], reverse=True) == found["elastic_transform"]


@pytest.mark.parametrize(("severity", "std"), list(zip(SEVERITIES, (0.04, 0.06, 0.08, 0.09, 0.10), strict=True)))
def test_gaussian_noise_has_the_published_deviation(severity: int, std: float) -> None:
    noise = corrupt(flat(128, 128, 128, count=20), "gaussian_noise", severity, 0).astype(float) - 128
    assert noise.std() == pytest.approx(std * 255, rel=0.02)
    assert abs(noise.mean()) < 0.4
    # Independent from channel to channel: grey noise would be another corruption.
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.05


@pytest.mark.parametrize(("severity", "photons"), list(zip(SEVERITIES, (500, 250, 100, 75, 50), strict=True)))
def test_shot_noise_has_the_variance_of_counting(severity: int, photons: int) -> None:
    for level in (51, 128):
        noise = corrupt(flat(level, level, level, count=20), "shot_noise", severity, 0).astype(float) / 255
        assert noise.mean() == pytest.approx(level / 255, rel=0.01)
        assert noise.var() == pytest.approx(level / 255 / photons, rel=0.07)  # 256 levels add some


@pytest.mark.parametrize(("severity", "share"), list(zip(SEVERITIES, (0.01, 0.02, 0.03, 0.05, 0.07), strict=True)))
def test_impulse_noise_hits_the_published_share(severity: int, share: float) -> None:
    changed = corrupt(flat(100, 100, 100, count=60), "impulse_noise", severity, 0)
    assert set(np.unique(changed)) == {0, 100, 255}
    assert (changed == 0).mean() == pytest.approx(share / 2, rel=0.1)
    assert (changed == 255).mean() == pytest.approx(share / 2, rel=0.1)


@pytest.mark.parametrize(
    "name", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic_transform", "contrast", "pixelate"]
)
def test_a_plain_colour_stays(name: str) -> None:
    images = flat(10, 128, 250, count=3)
    for severity in SEVERITIES:
        assert np.array_equal(corrupt(images, name, severity, 0), images)


def test_defocus_of_a_point_is_a_disk_of_the_published_radius() -> None:
    point = flat(0, 0, 0)
    point[0, 16, 16] = 255
    spread = corrupt(point, "defocus_blur", 5, 0)[0, :, :, 1].astype(float) / 255
    # Radius 1.5 holds the nine pixels within sqrt(2); sigma 0.1 smooths no visible amount.
    assert spread[15:18, 15:18] == pytest.approx(np.full((3, 3), 1 / 9), abs=0.003)
    assert spread.sum() == pytest.approx(1, abs=0.02)


def test_glass_without_smoothing_only_moves_pixels_down_and_right() -> None:
    images = scenes(4)
    changed = corrupt(images, "glass_blur", 1, 0)  # sigma 0.05: no smoothing
    sources = [np.roll(images, shift, (1, 2))[:, 2:, 2:] for shift in ((0, 0), (1, 0), (0, 1), (1, 1))]
    hits = np.array([(changed[:, 2:, 2:] == source).all(-1) for source in sources])
    assert hits.any(0).all()
    assert all(hit.mean() > 0.2 for hit in hits)
    assert np.array_equal(changed[:, :2], images[:, :2])


def test_motion_blur_is_half_a_gaussian_along_its_line() -> None:
    kernel, anchor = line_kernel(6, 2.0, 0.0)
    weights = np.exp(-(np.arange(13) ** 2) / 8)
    assert kernel.shape == (1, 13)
    assert anchor == (0, 0)
    assert kernel[0] == pytest.approx(weights / weights.sum(), rel=1e-5)
    kernel, anchor = line_kernel(6, 2.0, -90.0)
    assert kernel.shape == (13, 1)
    assert anchor == (0, 12)
    assert kernel[12, 0] == pytest.approx(float(weights[0] / weights.sum()), rel=1e-5)
    diagonal, anchor = line_kernel(9, 2.5, 45.0)
    assert anchor == (0, 0)
    assert np.array_equal(np.argwhere(diagonal)[:, 0], np.argwhere(diagonal)[:, 1])
    assert diagonal.sum() == pytest.approx(1)


@pytest.mark.parametrize("degrees", [-135.0, -60.0, 0.0, 17.0, 45.0])
def test_motion_blur_samples_towards_the_given_direction(degrees: float) -> None:
    image = np.random.default_rng(0).random((1, 20, 24, 3)).astype(np.float32)
    expected = np.zeros_like(image)
    steps = np.arange(19)
    weights = np.exp(-(steps**2) / (2 * 2.5**2)) / np.exp(-(steps**2) / (2 * 2.5**2)).sum()
    angle = np.radians(degrees)
    for step, weight in zip(steps, weights, strict=True):
        rows = np.clip(np.arange(20) + int(np.ceil(step * np.sin(angle) - 0.5)), 0, 19)
        columns = np.clip(np.arange(24) + int(np.ceil(step * np.cos(angle) - 0.5)), 0, 23)
        expected += np.float32(weight) * image[:, rows][:, :, columns]
    assert blur_along_lines(image, 9, 2.5, np.array([degrees])) == pytest.approx(expected, abs=1e-5)


def test_zoom_enlarges_about_the_middle() -> None:
    image = np.random.default_rng(0).random((2, 32, 32, 3)).astype(np.float32)
    assert zoom_in(image, 1.0) == pytest.approx(image, abs=1e-6)
    x = np.broadcast_to(np.arange(32, dtype=np.float32), (1, 32, 32))[..., None]
    enlarged = zoom_in(x, 2.0)
    # 16 columns (8..23) become 32, corner on corner.
    assert enlarged[0, 5, :, 0] == pytest.approx(8 + np.arange(32) * 15 / 31, abs=1e-4)
    assert enlarged[0, :, 9, 0] == pytest.approx(np.full(32, enlarged[0, 0, 9, 0]))


@pytest.mark.parametrize(("severity", "added"), list(zip(SEVERITIES, (0.05, 0.1, 0.15, 0.2, 0.3), strict=True)))
def test_brightness_adds_to_v_and_keeps_hue_and_saturation(severity: int, added: float) -> None:
    images = scenes(10)
    changed = corrupt(images, "brightness", severity, 0)
    before, after = (
        np.stack([cv2.cvtColor(i.astype(np.float32) / 255, cv2.COLOR_BGR2HSV) for i in s]) for s in (images, changed)
    )
    assert after[..., 2] == pytest.approx(np.minimum(before[..., 2] + added, 1), abs=0.6 / 255)
    clear = (before[..., 1] > 0.3) & (before[..., 2] > 0.3)
    assert clear.any()
    turn = np.abs(after[..., 0] - before[..., 0])[clear]
    assert np.minimum(turn, 360 - turn).max() < 5  # degrees, from rounding to whole levels
    assert np.abs(after[..., 1] - before[..., 1])[clear].max() < 0.02
    black = corrupt(flat(0, 0, 0), "brightness", severity, 0)
    assert (black == round(added * 255)).all()


@pytest.mark.parametrize(("severity", "factor"), list(zip(SEVERITIES, (0.75, 0.5, 0.4, 0.3, 0.15), strict=True)))
def test_contrast_shrinks_about_the_mean_of_each_channel(severity: int, factor: float) -> None:
    images = scenes(10)
    changed = corrupt(images, "contrast", severity, 0)
    mean = images.mean(axis=(1, 2), keepdims=True)
    assert changed == pytest.approx((images - mean) * factor + mean, abs=0.501)


@pytest.mark.parametrize(("severity", "share"), list(zip(SEVERITIES, (0.95, 0.9, 0.85, 0.75, 0.65), strict=True)))
@pytest.mark.parametrize("size", [(32, 32), (40, 28)], ids=str)  # odd sizes: samples on edges, rounding decides
def test_pixelate_agrees_with_pillow(severity: int, share: float, size: tuple[int, int]) -> None:
    images = scenes(5, *size)
    height, width = size
    for image, changed in zip(images, corrupt(images, "pixelate", severity, 0), strict=True):
        small = Image.fromarray(image).resize((int(width * share), int(height * share)), Image.Resampling.BOX)
        again = np.asarray(small.resize((width, height), Image.Resampling.BOX))
        assert np.abs(changed.astype(int) - again).max() <= 1  # Pillow rounds after every pass


@pytest.mark.parametrize(("severity", "quality"), list(zip(SEVERITIES, (80, 65, 58, 50, 40), strict=True)))
def test_jpeg_is_the_encoder_at_the_published_quality(severity: int, quality: int) -> None:
    images = scenes(5)
    for image, changed in zip(images, corrupt(images, "jpeg_compression", severity, 0), strict=True):
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert np.array_equal(changed, cv2.imdecode(data, cv2.IMREAD_COLOR))


@pytest.mark.parametrize(("severity", "thickness"), list(zip(SEVERITIES, (0.2, 0.5, 0.75, 1.0, 1.5), strict=True)))
def test_fog_is_scaled_back_to_the_brightest_value(severity: int, thickness: float) -> None:
    assert (corrupt(flat(0, 0, 0), "fog", severity, 0) == 0).all()
    white = corrupt(flat(255, 255, 255, count=5), "fog", severity, 0)
    # The height map runs from 0 to 1 over the whole image: both ends are reached.
    assert (white.max(axis=(1, 2, 3)) == 255).all()
    assert np.abs(white.min(axis=(1, 2, 3)) - 255 / (1 + thickness)).max() <= 0.501  # 255 / 1.2 lies on a half
    assert np.array_equal(white[..., 0], white[..., 2])


def test_fog_is_smoother_than_noise_and_differs_from_place_to_place() -> None:
    fog = corrupt(flat(255, 255, 255, count=20), "fog", 1, 0)[..., 0].astype(float)
    step = np.abs(np.diff(fog, axis=2)).mean()
    assert fog.std(axis=(1, 2)).min() > 3
    assert step < 0.3 * fog.std(axis=(1, 2)).mean()


def test_snow_never_darkens_and_falls_twice() -> None:
    images = scenes(20)
    for severity in SEVERITIES:
        added = corrupt(images, "snow", severity, 0).astype(int) - images
        assert added.min() >= 0
        assert added.max() > 60
        # The flakes are laid on twice, the second time upside down.
        alone = corrupt(flat(0, 0, 0, count=5), "snow", severity, 0)
        assert alone.max() > alone.min() + 60
        assert np.array_equal(alone, alone[:, ::-1, ::-1])


def test_snow_weighs_the_colours_in_bgr_order() -> None:
    # Without a flake, a missing channel rises by 0.05 x (0.5 + 1.5 x luma): luma 0.114 for blue, 0.299 for red.
    assert corrupt(flat(255, 0, 0, count=5), "snow", 1, 0)[..., 1].min() == round(255 * 0.05 * (0.5 + 1.5 * 0.114))
    assert corrupt(flat(0, 0, 255, count=5), "snow", 1, 0)[..., 1].min() == round(255 * 0.05 * (0.5 + 1.5 * 0.299))


def test_frost_adds_ice_with_the_published_weights() -> None:
    black, grey = flat(0, 0, 0, count=60), flat(100, 100, 100, count=60)
    for severity, (weight, ice) in enumerate(((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)), start=1):
        layer = corrupt(black, "frost", severity, 0).astype(float)
        assert layer.max() <= round(255 * ice)
        assert layer.mean() == pytest.approx(ice * 162, rel=0.1)  # 162: mean level of the five looks
        together = corrupt(grey, "frost", severity, 0)
        assert np.abs(together - (100 * weight + layer)).max() <= 1


def test_frost_is_bluish_textured_and_varied() -> None:
    ice = corrupt(flat(0, 0, 0, count=60), "frost", 5, 0).astype(float)
    assert ice[..., 0].mean() > ice[..., 2].mean() + 5
    assert ice.std(axis=(1, 2)).min() > 2
    assert len({tuple(np.round(patch.mean(axis=(0, 1)) / 15)) for patch in ice}) >= 4
    # The grain is as fine as a pixel, and the whole is not: crystals and blotches span many.
    step = np.diff(ice, axis=2).std()
    assert 0.3 * ice.std() < step < 1.2 * ice.std()


def test_elastic_at_severity_1_is_an_affine_map_and_later_is_not() -> None:
    y, x = np.mgrid[0:64, 0:64]
    plane = np.stack([3 * x + 30, 3 * y + 30, x + 2 * y + 30], axis=-1).astype(np.uint8)[None]
    middle = np.stack([x, y, np.ones_like(x)], axis=-1)[16:48, 16:48].reshape(-1, 3)

    def bend(severity: int) -> float:
        """Largest deviation (levels) from a plane in the middle of a picture of planes."""
        found = corrupt(plane, "elastic_transform", severity, 3)[0, 16:48, 16:48].reshape(-1, 3).astype(float)
        fitted = middle @ np.linalg.lstsq(middle, found, rcond=None)[0]
        return float(np.abs(found - fitted).max())

    assert bend(1) < 0.8
    assert bend(5) > 2


@pytest.mark.parametrize("name", VOLUME_CORRUPTIONS)
def test_volumes_are_corrupted_slice_by_slice_and_stay_grey(name: str) -> None:
    grey = scenes(2 * 3, 20, 24).mean(axis=3).astype(np.uint8)
    volumes = np.repeat(grey.reshape(2, 60, 24, 1), 3, axis=3)
    changed = corrupt(volumes, name, 5, 0, depth=3)
    assert changed.shape == volumes.shape
    assert (changed == changed[..., :1]).all()
    assert (changed != volumes).any()
    assert np.array_equal(corrupt(volumes[1:], name, 5, 0, depth=3, first_index=1), changed[1:])
    # Another second slice leaves the first and the third as they were.
    other = volumes.copy()
    other[:, 20:40] = 255 - other[:, 20:40]
    again = corrupt(other, name, 5, 0, depth=3)
    assert np.array_equal(again[:, :20], changed[:, :20])
    assert np.array_equal(again[:, 40:], changed[:, 40:])
    if name in DETERMINISTIC:
        slices = np.repeat(grey[..., None], 3, axis=3)
        assert np.abs(corrupt(slices, name, 5, 0).reshape(volumes.shape).astype(int) - changed).max() <= 1


def test_noise_differs_from_slice_to_slice_and_motion_does_not() -> None:
    slice_ = scenes(1, 20, 24).mean(axis=3).astype(np.uint8)
    volume = np.repeat(np.tile(slice_, (1, 4, 1))[..., None], 3, axis=3)
    noisy = corrupt(volume, "gaussian_noise", 3, 0, depth=4).reshape(4, 20, 24, 3)
    moved = corrupt(volume, "motion_blur", 3, 0, depth=4).reshape(4, 20, 24, 3)
    assert (noisy[0] != noisy[1]).any()
    assert (moved == moved[0]).all()


def test_no_images_give_no_images() -> None:
    for name in CORRUPTIONS:
        assert corrupt(np.empty((0, 32, 32, 3), np.uint8), name, 1, 0).shape == (0, 32, 32, 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "rain"}, "'rain' asked for, which is not known; known are gaussian_noise, shot_noise"),
        ({"severity": 0}, "severity 0 given"),
        ({"severity": 6}, "severity 6 given"),
        ({"severity": 2.0}, "severity 2.0 given"),
        ({"seed": -1}, "seed -1"),
        ({"first_index": -1}, "first index -1"),
        ({"images": np.zeros((2, 32, 32, 3), np.float32)}, r"images are float32 \(2, 32, 32, 3\)"),
        ({"images": np.zeros((32, 32, 3), np.uint8)}, r"images are uint8 \(32, 32, 3\)"),
        ({"images": np.zeros((2, 3, 32, 32), np.uint8)}, r"expected uint8 \(N, h, w, 3\)"),
        ({"images": [1, 2]}, "images are list"),
        ({"images": np.zeros((2, 15, 32, 3), np.uint8)}, "32x15 pixels, expected at least 16x16"),
        ({"depth": 3}, "depth 3 given, but the height 32"),
        ({"depth": 0}, "depth 0 given"),
        ({"depth": 2, "name": "fog"}, "fog is not defined for volumes; use one of gaussian_noise"),
        ({"depth": 2, "images": np.random.default_rng(0).integers(0, 255, (1, 32, 32, 3), np.uint8)}, "must be grey"),
    ],
    ids=str,
)
def test_bad_input_is_one_clear_line(change: dict[str, object], said: str) -> None:
    arguments = {"images": flat(1, 1, 1), "name": "contrast", "severity": 1, "seed": 0} | change
    with pytest.raises(UsageError, match=said) as caught:
        corrupt(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
