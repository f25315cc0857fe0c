"""The 15 common corruptions of CIFAR-10-C at five severities (Hendrycks and Dietterich 2019, arXiv:1903.12261).

Written after the published definitions with the published 32x32 parameters, in NumPy and OpenCV; no photograph and no
further package is needed. Where they differ from the published set:

- ``frost`` is drawn, not photographed: its figures cannot be compared with published ones;
- the random draws are others, so images agree in distribution, not one by one;
- values are rounded to the nearest of 256 levels; the published set cuts the fraction off, half a level darker;
- motion blur and snow use ImageMagick's kernel without ImageMagick, JPEG uses OpenCV's encoder.

Lengths in pixels are those for 32x32 images and do not grow with the image, except for ``elastic_transform``,
``pixelate`` and ``frost``.

A higher severity does not always mean a larger mean squared difference from the clean images. It does not, with the
published parameters, for ``glass_blur`` (1 to 3 shuffle once and 4 and 5 twice, under more and more smoothing),
``motion_blur`` (3 and 4 are the same blur, cut off at six and at eight standard deviations), ``frost`` (from 4 on the
image is dimmed as much as ice is added) and ``elastic_transform`` (the affine part shrinks). For the others it does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from framegate.evaluation.corruptions import blur, digital, noise, weather
from framegate.evaluation.corruptions.noise import Generators, Pixels
from framegate.runtime.errors import UsageError

_FUNCTIONS: dict[str, Callable[[Pixels, int, Generators], Pixels]] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": weather.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}
CORRUPTIONS = tuple(_FUNCTIONS)
"""Names of all corruptions, in the published order: noise, blur, weather, digital."""
SEVERITIES = (1, 2, 3, 4, 5)
VOLUME_CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "motion_blur",
    "brightness",
    "contrast",
    "pixelate",
)
"""Those that mean something for a stack of depth slices: no weather, no lens in front of a scene, no colour codec."""
MIN_SIDE = 16
_CHUNK_VALUES = 1 << 18


def corrupt(
    images: npt.NDArray[np.uint8], name: str, severity: int, seed: int, *, depth: int = 1, first_index: int = 0
) -> npt.NDArray[np.uint8]:
    """Corrupted copies of images or volumes.

    The draws for an image depend on ``seed``, ``name`` and its index alone: not on the other images of the call, and
    not on the severity, so that severities of one image can be compared.

    Args:
        images: (N, h, w, 3) uint8 BGR, at least 16x16; for volumes (N, depth * h, w, 3), the slices one below the
            other, grey (the same value in all three channels).
        name: One of `CORRUPTIONS`; of `VOLUME_CORRUPTIONS` if ``depth`` is above 1.
        severity: 1 (weak) to 5 (strong).
        seed: Not negative.
        depth: Slices of a volume, each corrupted by itself (motion blur: all in one direction); 1 for images.
        first_index: Index of ``images[0]`` in the whole set, if the set is corrupted in parts.

    Returns:
        A new array, same shape, uint8.

    Raises:
        UsageError: An argument is outside what is said above.
    """
    _check(images, name, severity, seed, depth, first_index)
    if depth > 1:
        slices = images[..., :1].reshape(-1, images.shape[1] // depth, *images.shape[2:3], 1)
        corrupted = _corrupt(slices, name, severity, seed, depth, first_index)
        return np.repeat(corrupted.reshape(*images.shape[:3], 1), 3, axis=3)
    return _corrupt(images, name, severity, seed, 1, first_index)


def _corrupt(
    images: npt.NDArray[np.uint8], name: str, severity: int, seed: int, depth: int, first_index: int
) -> npt.NDArray[np.uint8]:
    result = np.empty(images.shape, np.uint8)
    chunk = max(1, _CHUNK_VALUES // images[:1].size) if len(images) else 1
    for start in range(0, len(images), chunk):
        part = images[start : start + chunk]
        rngs = []
        for k in range(start, start + len(part)):
            index, layer = divmod(k, depth)
            layer = 0 if name == "motion_blur" else layer
            rngs.append(np.random.default_rng([seed, CORRUPTIONS.index(name), first_index + index, layer]))
        changed = _FUNCTIONS[name](part.astype(np.float32) / np.float32(255), severity, rngs)
        result[start : start + chunk] = np.rint(np.clip(changed, 0, 1) * np.float32(255))
    return result


def _check(images: npt.NDArray[np.uint8], name: str, severity: int, seed: int, depth: int, first_index: int) -> None:
    if name not in CORRUPTIONS:
        raise UsageError(f"corruption {name!r} asked for, which is not known; known are {', '.join(CORRUPTIONS)}")
    if not isinstance(severity, int | np.integer) or severity not in SEVERITIES:
        raise UsageError(f"corruption {name}: severity {severity!r} given, expected a whole number from 1 to 5")
    if seed < 0 or first_index < 0:
        raise UsageError(f"corruption {name}: seed {seed} and first index {first_index} given, expected 0 or more")
    _check_images(images, name, depth)


def _check_images(images: npt.NDArray[np.uint8], name: str, depth: int) -> None:
    shape, dtype = getattr(images, "shape", None), getattr(images, "dtype", None)
    if shape is None or len(shape) != 4 or shape[3] != 3 or dtype != np.uint8:
        found = f"{dtype} {shape}" if shape is not None else type(images).__name__
        raise UsageError(f"corruption {name}: images are {found}, expected uint8 (N, h, w, 3) in BGR order")
    if depth < 1 or shape[1] % depth:
        raise UsageError(f"corruption {name}: depth {depth} given, but the height {shape[1]} is no multiple of it")
    if shape[1] // depth < MIN_SIDE or shape[2] < MIN_SIDE:
        size = f"{shape[2]}x{shape[1] // depth}"
        raise UsageError(f"corruption {name}: images are {size} pixels, expected at least {MIN_SIDE}x{MIN_SIDE}")
    if depth > 1:
        _check_volume(images, name)


def _check_volume(images: npt.NDArray[np.uint8], name: str) -> None:
    if name not in VOLUME_CORRUPTIONS:
        raise UsageError(f"corruption {name} is not defined for volumes; use one of {', '.join(VOLUME_CORRUPTIONS)}")
    if not ((images[..., 0] == images[..., 1]) & (images[..., 0] == images[..., 2])).all():
        raise UsageError(f"corruption {name}: volumes must be grey, but the three channels differ")
