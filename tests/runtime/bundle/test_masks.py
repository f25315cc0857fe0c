"""The geometry of the patch certificate, exhaustively on small images, and what OpenCV's resize does to a patch."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from framegate.runtime.bundle.masks import MaskGrid, touched
from framegate.runtime.errors import UsageError

GRIDS = [
    (32, 32, 5, 10, 3),
    (32, 32, 5, 10, 6),
    (32, 24, 3, 8, 3),
    (8, 8, 3, 3, 1),
    (9, 7, 1, 2, 2),
    (40, 40, 17, 24, 7),
]


@pytest.mark.parametrize("numbers", GRIDS)
def test_every_patch_lies_inside_a_mask_whose_view_is_averaged(numbers):
    grid = MaskGrid(*numbers)
    assert grid.columns[-1] + grid.side == grid.width
    assert grid.rows[-1] + grid.side == grid.height
    hidden = np.zeros((grid.views, grid.height, grid.width), bool)
    views = np.ones((grid.views, 1, grid.height, grid.width), np.float32)
    grid.hide(np.ones((1, 1, grid.height, grid.width), np.float32), views)
    hidden = views[:, 0] == 0
    # One-hot values: the mean of view k's own column says with which weight k is averaged at each place.
    means = grid.means(np.eye(grid.views))
    for top in range(grid.height - grid.patch + 1):
        for left in range(grid.width - grid.patch + 1):
            hides = hidden[:, top : top + grid.patch, left : left + grid.patch].all((1, 2))
            assert hides.any(), (top, left)
            wanted = hides / hides.sum()
            assert (np.abs(means - wanted).max(1) < 1e-12).any(), (top, left)


def test_a_view_that_does_not_hide_the_patch_changes_no_mean_there():
    grid = MaskGrid(8, 8, 3, 4, 2)
    values = np.random.default_rng(0).normal(size=(grid.views, 5))
    wild = values.copy()
    wild[0] = [1e30, -1e30, 1e300, -1e300, 7.0]  # the view whose mask hides the upper left corner
    covered = grid.means(np.eye(grid.views))[:, 0] > 0
    assert covered.any()
    np.testing.assert_array_equal(grid.means(values)[~covered], grid.means(wild)[~covered])


def test_fault_a_view_that_is_not_finite_certifies_nothing():
    grid = MaskGrid(8, 8, 3, 4, 2)
    for bad in (np.nan, np.inf, -np.inf):
        values = np.zeros((grid.views, 3))
        values[0, 1] = bad
        with np.errstate(invalid="ignore"):
            lowest = grid.means(values).min(0)
        assert not lowest[1] >= -0.5


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        ((32, 32, 5, 6, 3), "uncovered"),
        ((8, 8, 5, 9, 2), "cannot be certified"),
        ((8, 8, 3, 8, 2), "cannot be certified"),  # it would hide everything
        ((8, 8, 0, 3, 1), "at least 1"),
    ],
)
def test_masks_that_leave_a_patch_uncovered_are_refused(numbers, says):
    with pytest.raises(UsageError, match=says):
        MaskGrid(*numbers)


@pytest.mark.parametrize("resize", ["bilinear", "area"])
def test_no_patch_touches_more_pixels_of_the_resized_image_than_are_counted(resize):
    """Every place, on small images: what OpenCV computes from other pixels of a patch differs only that far."""
    rng = np.random.default_rng(1)
    flag = {"bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}[resize]
    tight = 0
    for source, target in [(7, 12), (12, 7), (32, 96), (33, 32), (40, 20), (13, 13), (9, 32), (61, 32), (5, 3)]:
        for patch in (1, 2, 3):
            most = 0
            for left in range(source - patch + 1):
                row = rng.integers(0, 256, (4, source, 3)).astype(np.uint8)
                changed = row.copy()
                changed[:, left : left + patch] = 255 * (row[:, left : left + patch] < 128)
                a, b = (cv2.resize(each, (target, 4), interpolation=flag) for each in (row, changed))
                columns = np.flatnonzero((a != b).any((0, 2)))
                if len(columns):
                    most = max(most, int(columns[-1] - columns[0]) + 1)
            assert most <= touched(patch, source, target, resize), (source, target, patch)
            tight += most == touched(patch, source, target, resize)
    assert tight > 5  # the count is no wild exaggeration


def test_a_patch_as_large_as_the_region_touches_everything():
    assert touched(5, 5, 32, "bilinear") == 32
    assert touched(5, 32, 32, "bilinear") == 5


def _pairs() -> np.ndarray:
    """Every pair of levels, as rows of two pixels."""
    first, second = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    return np.stack([first.ravel(), second.ravel()], 1).astype(np.uint8)


@pytest.mark.parametrize("flag", [cv2.INTER_LINEAR, cv2.INTER_AREA])
@pytest.mark.parametrize("levels", [1, 2])
def test_a_resize_keeps_order_and_adds_at_most_one_level_to_a_change(flag, levels):
    """Exhaustively on two pixels, at random on more: what the L-infinity budget of resized regions rests on."""
    rng, cases = np.random.default_rng(2), []
    for pairs in np.split(_pairs(), 4):  # OpenCV takes fewer than 32,768 rows
        low, high = (np.clip(pairs.astype(int) + k, 0, 255).astype(np.uint8) for k in (-levels, levels))
        cases += [(pairs, low, high, (width, len(pairs))) for width in (1, 3, 5, 7)]
    for _ in range(150):
        image = rng.integers(0, 256, (*rng.integers(1, 50, 2), 3)).astype(np.uint8)
        ends = [np.clip(image.astype(int) + k, 0, 255).astype(np.uint8) for k in (-levels, levels)]
        cases.append((image, *ends, tuple(int(side) for side in rng.choice([8, 17, 32, 96], 2))))
    for image, lowest, highest, size in cases:
        middle, below, above = (
            cv2.resize(each, size, interpolation=flag).astype(int) for each in (image, lowest, highest)
        )
        assert (below <= middle).all()
        assert (middle <= above).all()
        assert (above - middle).max() <= levels + 1
        assert (middle - below).max() <= levels + 1
