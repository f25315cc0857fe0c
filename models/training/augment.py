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


def _turned(image: Images, rng: np.random.Generator, share: float = 1.0) -> Images:
    """Seen from elsewhere: rotation to 15 degrees, scale 0.75 to 1.2, corners moved by up to 8 % of the side.

    Args:
        image: (h, w, 3).
        rng: Draws.
        share: Of these changes, in (0, 1].
    """
    height, width = image.shape[:2]
    centre = np.array([width, height], np.float32) / 2
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    angle, scale = np.deg2rad(rng.uniform(-15, 15) * share), 1 + share * rng.uniform(-0.25, 0.2)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = (corners - centre) @ turn.T + centre + rng.uniform(-0.08, 0.08, 2) * share * centre * 2
    moved += rng.uniform(-0.08, 0.08, (4, 2)) * share * centre * 2
    matrix = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    return np.asarray(cv2.warpPerspective(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101), np.uint8)


def _blurred(image: Images, rng: np.random.Generator) -> Images:
    """Out of focus, far away, or neither."""
    draw = rng.random()
    height, width = image.shape[:2]
    if draw < 0.25:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.5)), np.uint8)
    if draw < 0.5:
        side = int(rng.integers(width // 3, width))
        small = cv2.resize(image, (side, side * height // width), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    return image


def _exposed(image: Images, rng: np.random.Generator) -> Images:
    """In another light: contrast about the image's own mean, exposure, and a gain of its own for every channel."""
    mean = float(image.mean())
    level = mean + rng.uniform(0.5, 1.5) * (np.arange(256) - mean)
    gains = np.exp(rng.uniform(-0.6, 0.6)) * rng.uniform(0.88, 1.12, 3)
    table = np.clip(level[:, None] * gains, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table.reshape(1, 256, 3)), np.uint8)


def signs(images: Images, rng: np.random.Generator) -> Images:
    """Other viewpoints, strong light changes, blur, noise, a covered patch; never mirrored: traffic signs."""
    views = np.empty_like(images)
    height, width = images.shape[1:3]
    for k, image in enumerate(images):
        view = _exposed(_blurred(_turned(image, rng), rng), rng)
        if rng.random() < 0.3:
            noise = rng.normal(0, rng.uniform(2, 15), view.shape)
            view = np.clip(view + noise, 0, 255).astype(np.uint8)
        if rng.random() < 0.25:
            side = int(rng.integers(height // 8, height // 3))
            top, left = rng.integers(0, height - side), rng.integers(0, width - side)
            view = view.copy()
            view[top : top + side, left : left + side] = rng.integers(0, 256, 3)
        views[k] = view
    return views


def mild(images: Images, rng: np.random.Generator) -> Images:
    """Shifts by a sixteenth and another brightness: what a network with little capacity to spare can learn from."""
    views = np.empty_like(images)
    for k, image in enumerate(images):
        views[k] = _relit(_shifted(image, images.shape[2] // 16, rng), 0.2, 15, rng)
    return views


def moderate_signs(images: Images, rng: np.random.Generator) -> Images:
    """Most of the other viewpoints and all of the light of `signs`: for small networks that learn signs with bounds.

    They learn the training tracks by heart, and nothing is hidden from them that decides.
    """
    views = np.empty_like(images)
    for k, image in enumerate(images):
        view = _turned(image, rng, 0.8)
        views[k] = _exposed(_blurred(view, rng) if rng.random() < 0.3 else view, rng)
    return views


def mirrored(augment: Augmentation) -> Augmentation:
    """Every second view mirrored; not for data whose mirror image has another label."""

    def mirror(images: Images, rng: np.random.Generator) -> Images:
        views = augment(images, rng)
        turned = rng.random(len(views)) < 0.5
        views[turned] = views[turned, :, ::-1]
        return views

    return mirror


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
