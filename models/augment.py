"""Random views of training images.

Which changes keep the label depends on the data: a mirrored car is a car, a mirrored traffic sign is another sign.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Augmentation = Callable[[Images, np.random.Generator], Images]
"""(N, h, w, 3) uint8 -> the same shape, one random view of each image."""


def _shifted(image: Images, reach: int, rng: np.random.Generator) -> Images:
    height, width = image.shape[:2]
    padded = cv2.copyMakeBorder(image, reach, reach, reach, reach, cv2.BORDER_REFLECT_101)
    top, left = rng.integers(0, 2 * reach + 1, 2)
    return np.asarray(padded[top : top + height, left : left + width], np.uint8)


def _relit(image: Images, contrast: float, brightness: float, rng: np.random.Generator) -> Images:
    alpha, beta = rng.uniform(1 - contrast, 1 + contrast), rng.uniform(-brightness, brightness)
    return np.asarray(np.clip(image * alpha + beta, 0, 255), np.uint8)


def objects(images: Images, rng: np.random.Generator) -> Images:
    """Shift by an eighth, mirror, brightness and contrast: photographs of things."""
    views = np.empty_like(images)
    reach = images.shape[2] // 8
    for k, image in enumerate(images):
        view = _shifted(image, reach, rng)
        if rng.random() < 0.5:
            view = view[:, ::-1]
        views[k] = _relit(view, 0.3, 25, rng) if rng.random() < 0.5 else view
    return views


def signs(images: Images, rng: np.random.Generator) -> Images:
    """Rotation to 12 degrees, scale 0.85 to 1.15, shift, strong light changes, blur; never mirrored: traffic signs."""
    views = np.empty_like(images)
    height, width = images.shape[1:3]
    for k, image in enumerate(images):
        turn = np.asarray(
            cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-12, 12), rng.uniform(0.85, 1.15)), np.float64
        )
        turn[:, 2] += rng.uniform(-0.1, 0.1, 2) * np.array([width, height], np.float64)
        view = cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REFLECT_101)
        if rng.random() < 0.25:
            view = cv2.GaussianBlur(view, (0, 0), rng.uniform(0.4, 1.2))
        views[k] = _relit(np.asarray(view, np.uint8), 0.5, 40, rng)
    return views


def volumes(depth: int) -> Augmentation:
    """Mirroring along each of the three axes and shifts by up to 2 voxels, for volumes of ``depth`` stacked slices."""

    def augment(images: Images, rng: np.random.Generator) -> Images:
        count, rows, width, channels = images.shape
        stacks = images.reshape(count, depth, rows // depth, width, channels)
        views = np.empty_like(stacks)
        for k, stack in enumerate(stacks):
            view = stack
            for axis in range(3):
                if rng.random() < 0.5:
                    view = np.flip(view, axis)
                view = np.roll(view, int(rng.integers(-2, 3)), axis)
            views[k] = view
        return views.reshape(images.shape)

    return augment
