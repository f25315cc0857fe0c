"""Out-of-distribution sets: what they hold, that a seed repeats them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from framegate.evaluation.frames import ood
from framegate.runtime.errors import DataError, SourceError, UsageError

EXPOSED = {"uniform", "gaussian", "smooth", "plain", "gradient"}


def write_clip(path: Path, frames: int = 6, width: int = 64, height: int = 48) -> Path:
    """A clip whose frames have one grey level each: 20, 50, 80, ..."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (width, height))
    assert writer.isOpened()
    for k in range(frames):
        writer.write(np.full((height, width, 3), 20 + 30 * k, np.uint8))
    writer.release()
    return path


def test_a_frame_set_has_no_right_label() -> None:
    frames = ood.FrameSet("some", np.zeros((3, 8, 8, 3), np.uint8))
    assert len(frames) == 3
    assert frames.labels.tolist() == [-1, -1, -1]
    assert frames.labels.dtype == np.int64


@pytest.mark.parametrize("array", [np.zeros((3, 8, 8), np.uint8), np.zeros((3, 8, 8, 3), np.float32)], ids=str)
def test_a_frame_set_refuses_what_is_no_frames(array: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"expected uint8 \(N, h, w, 3\)"):
        ood.FrameSet("some", array)


def test_a_frame_set_refuses_to_be_empty() -> None:
    with pytest.raises(DataError, match="not one frame"):
        ood.FrameSet("some", np.zeros((0, 8, 8, 3), np.uint8))


def test_images_are_brought_to_the_size() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), np.uint8)
    same = ood.from_images("other", images, (32, 48))
    assert same.name == "other"
    assert np.array_equal(same.images, images)
    smaller = ood.from_images("other", images, (16, 24)).images
    blocks = images.reshape(2, 16, 2, 24, 2, 3).astype(float).mean(axis=(2, 4))
    assert np.abs(smaller - blocks).max() <= 0.5  # an area average, not samples
    assert ood.from_images("other", images, (64, 20)).images.shape == (2, 64, 20, 3)


def test_slices_of_volumes_do_not_mix() -> None:
    levels = np.array([0, 200, 90], np.uint8)
    volume = np.repeat(np.repeat(levels, 20)[None, :, None, None], 16, axis=2).repeat(3, axis=3)
    resized = ood.from_images("volumes", volume, (8, 8), depth=3).images
    assert resized.shape == (1, 24, 8, 3)
    assert np.array_equal(resized[0, :, 0, 0], np.repeat(levels, 8))


def test_a_folder_gives_the_middle_of_each_photograph(tmp_path: Path) -> None:
    wide = np.zeros((40, 80, 3), np.uint8)
    wide[:, 20:60] = (10, 120, 250)  # only the middle is coloured
    cv2.imwrite(str(tmp_path / "photo2.png"), wide)
    cv2.imwrite(str(tmp_path / "photo10.png"), np.full((30, 30), 77, np.uint8))  # grey
    cv2.imwrite(str(tmp_path / "photo1.jpg"), np.full((200, 100, 3), 128, np.uint8))
    (tmp_path / "notes.txt").write_text("not a picture")
    found = ood.from_folder(tmp_path, (32, 32))
    assert found.name == f"photographs-{tmp_path.name}"
    assert found.images.shape == (3, 32, 32, 3)
    assert found.images[1, 3, 3].tolist() == [10, 120, 250]
    assert (found.images[1] == found.images[1, 0, 0]).all()
    assert (found.images[2] == 77).all()
    assert len(ood.from_folder(tmp_path, (32, 32), limit=2)) == 2
    assert ood.from_folder(tmp_path, (20, 60)).images.shape == (3, 20, 60, 3)


def test_a_damaged_photograph_is_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20, 3), np.uint8))
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"b\.png cannot be read"):
        ood.from_folder(tmp_path, (32, 32))
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((20, 20, 3), np.uint16))
    with pytest.raises(DataError, match=r"b\.png has uint16 pixels, expected 8 bits"):
        ood.from_folder(tmp_path, (32, 32))


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no image among"):
        ood.from_folder(tmp_path, (32, 32))
    with pytest.raises(SourceError, match="no such file or folder"):
        ood.from_folder(tmp_path / "nowhere", (32, 32))
    with pytest.raises(UsageError, match="limit 0"):
        ood.from_folder(tmp_path, (32, 32), limit=0)


def test_patches_come_from_all_over_the_clip_and_the_seed_repeats_them(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "road.avi")
    found = ood.from_clip(clip, 60, (16, 24), seed=1)
    assert found.name == "clip-road"
    assert found.images.shape == (60, 16, 24, 3)
    levels = found.images.mean(axis=(1, 2, 3))
    assert {round((level - 20) / 30) for level in levels} == set(range(6))
    assert np.abs((levels - 20) / 30 - np.round((levels - 20) / 30)).max() < 0.1
    assert np.array_equal(ood.from_clip(clip, 60, (16, 24), seed=1).images, found.images)
    assert not np.array_equal(ood.from_clip(clip, 60, (16, 24), seed=2).images, found.images)


def test_patches_differ_in_place_and_scale(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.linspace(0, 255, 128).astype(np.uint8)[:, None], (96, 128, 3))
    writer = cv2.VideoWriter(str(tmp_path / "ramp.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, (128, 96))
    for _ in range(3):
        writer.write(np.ascontiguousarray(ramp))
    writer.release()
    patches = ood.from_clip(tmp_path / "ramp.avi", 100, (16, 16)).images.astype(float)
    steps = (patches[:, :, -1] - patches[:, :, 0]).mean(axis=(1, 2))
    # A patch of the wanted size spans 16 of 128 columns (30 levels), one of the whole height 96 (190 levels).
    assert steps.min() < 45
    assert steps.max() > 150
    assert np.ptp(patches.mean(axis=(1, 2, 3))) > 100
    assert ood.from_clip(tmp_path / "ramp.avi", 3, (300, 300)).images.shape == (3, 300, 300, 3)  # larger than the clip


def test_what_is_no_clip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "road.mp4").write_text("no video")
    with pytest.raises(SourceError, match="no decoder recognises it"):
        ood.from_clip(tmp_path / "road.mp4", 3, (32, 32))
    with pytest.raises(UsageError, match="count 0"):
        ood.from_clip(tmp_path / "road.mp4", 0, (32, 32))


@pytest.mark.parametrize("depth", [1, 5])
@pytest.mark.parametrize("kind", ood.NOISE_SETS)
def test_noise_has_the_size_asked_for_and_the_seed_repeats_it(kind: str, depth: int) -> None:
    found = ood.noise_set(kind, 6, (24, 20), seed=4, depth=depth)
    assert found.name == f"noise-{kind}"
    assert found.images.shape == (6, depth * 24, 20, 3)
    assert np.array_equal(ood.noise_set(kind, 6, (24, 20), seed=4, depth=depth).images, found.images)
    # Frame k is the same in a smaller set, and no two are alike.
    assert np.array_equal(ood.noise_set(kind, 2, (24, 20), seed=4, depth=depth).images, found.images[:2])
    assert not np.array_equal(ood.noise_set(kind, 6, (24, 20), seed=5, depth=depth).images, found.images)
    assert len({image.tobytes() for image in found.images}) == 6
    grey = (found.images == found.images[..., :1]).all()
    assert grey == (depth > 1)


def neighbours(images: np.ndarray) -> float:
    """Correlation of horizontally neighbouring values over a set."""
    left, right = images[:, :, :-1].astype(float).ravel(), images[:, :, 1:].astype(float).ravel()
    return float(np.corrcoef(left, right)[0, 1])


def test_uniform_and_gaussian_noise_have_their_distributions() -> None:
    uniform = ood.noise_set("uniform", 30, (32, 32)).images
    counts = np.bincount(uniform.ravel(), minlength=256)
    expected = uniform.size / 256
    assert ((counts - expected) ** 2 / expected).sum() < 350  # chi-square, 255 degrees of freedom: p < 0.0001 above
    gaussian = ood.noise_set("gaussian", 30, (32, 32)).images.astype(float)
    inside = (gaussian > 127.5 - 64) & (gaussian < 127.5 + 64)
    assert inside.mean() == pytest.approx(0.683, abs=0.01)
    assert abs(neighbours(uniform)) < 0.02
    assert abs(neighbours(gaussian)) < 0.02


def test_smooth_noise_is_smooth_but_not_flat() -> None:
    smooth = ood.noise_set("smooth", 30, (32, 32)).images
    assert neighbours(smooth) > 0.8
    assert smooth.std(axis=(1, 2)).min() > 15


def test_plain_frames_have_one_colour_and_checkers_two() -> None:
    plain, checker = (ood.noise_set(kind, 40, (32, 32)).images for kind in ("plain", "checker"))
    assert all(len(np.unique(image.reshape(-1, 3), axis=0)) == 1 for image in plain)
    for image in checker:
        colours, counts = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
        assert len(colours) == 2
        assert counts.min() > 0.3 * 32 * 32  # about as much of one as of the other
        assert np.abs(colours[0].astype(int) - colours[1]).min() >= 60  # and far apart
    edges = [(image[:, 1:] != image[:, :-1]).any(-1).mean() for image in checker]
    assert min(edges) < 0.1 < max(edges)  # coarse ones and fine ones


def test_gradients_run_around_a_point() -> None:
    for image in ood.noise_set("gradient", 20, (32, 32)).images.astype(float):
        assert np.abs(np.diff(image, axis=1)).max() < 60
        assert np.ptp(image, axis=(0, 1)).max() > 20
        flat = np.stack([*np.mgrid[0:32, 0:32], np.ones((32, 32))], axis=-1).reshape(-1, 3)
        rest = image.reshape(-1, 3) - flat @ np.linalg.lstsq(flat, image.reshape(-1, 3), rcond=None)[0]
        assert np.abs(rest).max() > 3  # unlike the linear ones of outlier exposure


@pytest.mark.parametrize(
    ("kind", "related"), [("smooth", True), ("gradient", True), ("plain", True), ("uniform", False)]
)
def test_volumes_are_continuous_in_depth_where_they_are_in_the_plane(kind: str, related: bool) -> None:
    slices = ood.noise_set(kind, 12, (20, 20), depth=10).images[..., 0].reshape(12, 10, 400).astype(float)
    above, below = slices[:, :-1].ravel(), slices[:, 1:].ravel()
    assert (np.corrcoef(above, below)[0, 1] > 0.8) == related


def test_checkers_alternate_in_depth() -> None:
    volumes = ood.noise_set("checker", 10, (20, 20), depth=20).images[..., 0].reshape(10, 20, 20, 20)
    assert all((volume[0] != volume).any() for volume in volumes)
    assert all(len(np.unique(volume)) == 2 for volume in volumes)


def test_what_outlier_exposure_has_seen_is_said() -> None:
    assert set(ood.RESEMBLES_EXPOSURE) == EXPOSED
    assert set(ood.RESEMBLES_EXPOSURE) < set(ood.NOISE_SETS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "pink"}, "'pink' asked for, which is not known; known are uniform, gaussian"),
        ({"count": 0}, "count 0"),
        ({"seed": -1}, "seed -1"),
        ({"size": (0, 32)}, r"size \(0, 32\)"),
        ({"size": (32,)}, r"size \(32,\)"),
        ({"depth": 0}, "depth 0"),
    ],
    ids=str,
)
def test_bad_noise_arguments_are_one_clear_line(change: dict[str, object], said: str) -> None:
    arguments = {"kind": "plain", "count": 1, "size": (32, 32)} | change
    with pytest.raises(UsageError, match=said) as caught:
        ood.noise_set(**arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_depth_that_does_not_divide_the_height_is_refused() -> None:
    with pytest.raises(UsageError, match="depth 3 given, but the height 32"):
        ood.from_images("other", np.zeros((1, 32, 32, 3), np.uint8), (8, 8), depth=3)
