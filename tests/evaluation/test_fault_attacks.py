"""Attacks as faults: they aim at the regions that are classified, and at nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from framegate.evaluation.fault_attacks import RADII, fgsm, pgd
from framegate.evaluation.frames.network import Network
from framegate.models.pixels import to_pixels
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.errors import UsageError
from framegate.runtime.faults.plugins import load_plugins
from framegate.runtime.roi import Roi

ROIS = (Roi.parse("a=10,20,40,40"), Roi.parse("b=90,5,60,50"))


@pytest.fixture(scope="module")
def bundle(bundle_path) -> Bundle:
    return Bundle.open(bundle_path)


@pytest.fixture(scope="module")
def scene(colours) -> np.ndarray:
    """A picture with a coloured tile in each region."""
    images = colours(2, 5, "tiles").images
    picture = np.random.default_rng(0).integers(0, 255, (120, 160, 3)).astype(np.uint8)
    for roi, tile in zip(ROIS, images, strict=True):
        crop = roi.crop(picture)
        crop[...] = np.tile(tile, (2, 2, 1))[: crop.shape[0], : crop.shape[1]]
    return picture


def margins(bundle: Bundle, image: np.ndarray, labels: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """How far each region's logit of its clean label is above the best other one, and the labels."""
    network = Network.from_bundle(bundle)
    with torch.no_grad():
        logits = torch.cat([network(to_pixels(roi.crop(image)[None].copy())) for roi in ROIS])
    labels = logits.argmax(1) if labels is None else labels
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    return own - others, labels


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_regions_are_attacked_within_the_radius_and_the_rest_stays(bundle, scene, attack):
    before = scene.copy()
    clean, labels = margins(bundle, scene)
    found = attack(bundle, ROIS)(scene, 3)
    np.testing.assert_array_equal(scene, before)
    difference = np.abs(found.astype(int) - scene)
    assert difference.max() <= RADII[3]
    inside = np.zeros(scene.shape[:2], bool)
    for roi in ROIS:
        roi.crop(inside)[...] = True
        assert roi.crop(difference).max() > 0
    assert difference[~inside].max() == 0
    assert (margins(bundle, found, labels)[0] < clean).all()


def test_severity_is_the_radius(bundle, scene):
    attack = fgsm(bundle, ())
    largest = [int(np.abs(attack(scene, severity).astype(int) - scene).max()) for severity in RADII]
    assert largest == list(RADII.values())


@pytest.mark.parametrize("shape", [(0, 0, 3), (8, 8), (8, 8, 3)])
def test_what_is_no_picture_passes_unchanged(bundle, shape):
    image = np.zeros(shape, np.uint8 if len(shape) == 2 or not shape[0] else np.uint16)
    np.testing.assert_array_equal(fgsm(bundle, ())(image, 3), image)


def test_they_are_found_by_their_entry_points(bundle):
    assert sorted(load_plugins(["fgsm", "pgd", "black"], bundle, ROIS)) == ["fgsm", "pgd"]


def test_volumes_are_refused(bundle):
    with pytest.raises(UsageError, match="colour images"):
        fgsm(replace(bundle, preprocess=replace(bundle.preprocess, colour="grey", mean=(1.0,), std=(1.0,))), ())
