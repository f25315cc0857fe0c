from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from framegate.models.pixels import PixelInput, to_images, to_pixels
from framegate.models.predict import to_tensor
from framegate.models.registry import architecture
from framegate.runtime.preprocess import PreprocessSpec

SAME = architecture("simplecnn").preprocess
ENLARGED = architecture("hybrid").preprocess
VOLUME = architecture("hybrid3d").preprocess
BGR = PreprocessSpec(32, 32, "area", "stretch", "bgr", (10.0, 20.0, 30.0), (50.0, 60.0, 70.0))


def frames(height: int, width: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


@pytest.mark.parametrize("spec", [SAME, BGR])
def test_without_resizing_it_is_the_runtime_input(spec):
    images = frames(32, 32)
    found = PixelInput(spec)(to_pixels(images))
    np.testing.assert_allclose(found.numpy(), to_tensor(images, spec).numpy(), atol=1e-5)


@pytest.mark.parametrize(("spec", "size"), [(ENLARGED, (32, 32)), (ENLARGED, (120, 50)), (BGR, (64, 96))])
def test_resized_it_differs_from_the_runtime_input_by_rounding_only(spec, size):
    images = frames(*size)
    found = PixelInput(spec)(to_pixels(images)).numpy()
    # The runtime rounds the resized image to whole pixel values (cv2 computes in steps of 1/2048, so up to 1 off).
    np.testing.assert_allclose(found * np.mean(spec.std), to_tensor(images, spec).numpy() * np.mean(spec.std), atol=2.5)
    assert np.abs(found * np.mean(spec.std) - to_tensor(images, spec).numpy() * np.mean(spec.std)).mean() < 0.5


def test_volumes_are_read_slice_by_slice():
    stack = np.random.default_rng(1).integers(0, 256, (2, 28, 28, 28), np.uint8)
    strips = np.repeat(stack.reshape(2, 28 * 28, 28, 1), 3, axis=3)
    pixels = to_pixels(strips, depth=28)
    np.testing.assert_allclose(pixels.numpy()[:, 0], stack / 255, atol=1e-6)
    np.testing.assert_allclose(PixelInput(VOLUME)(pixels).numpy(), to_tensor(strips, VOLUME).numpy(), atol=1e-5)
    small = PixelInput(replace(VOLUME, width=14, height=14))(pixels)
    assert small.shape == (2, 1, 28, 14, 14)


def test_images_survive_the_way_to_pixels_and_back():
    images = frames(8, 9)
    np.testing.assert_array_equal(to_images(to_pixels(images)), images)
    strips = np.repeat(frames(6 * 8, 8)[..., :1], 3, axis=3)
    np.testing.assert_array_equal(to_images(to_pixels(strips, depth=6)), strips)


def test_the_gradient_reaches_the_pixels():
    pixels = to_pixels(frames(32, 32)).requires_grad_(True)
    PixelInput(ENLARGED)(pixels).square().sum().backward()
    assert torch.isfinite(pixels.grad).all()
    assert (pixels.grad != 0).float().mean() > 0.9
