"""Weather: four of the common corruptions of CIFAR-10-C (Hendrycks and Dietterich 2019, arXiv:1903.12261).

Frost differs from the published set (see `frost`); the others follow the published definitions. Channels are BGR.
Signatures as in `framegate.evaluation.corruptions.noise`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from framegate.evaluation.corruptions.blur import blur_along_lines, zoom_in
from framegate.evaluation.corruptions.noise import Generators, Pixels

_BRIGHTNESS = (0.05, 0.1, 0.15, 0.2, 0.3)
_FOG = ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75))
"""Thickness; by how much the roughness falls from one scale to the next finer one."""
_FROST = ((1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))
"""Weight of the image, weight of the frost."""
_LUMA_BGR = np.array([0.114, 0.587, 0.299], np.float32)


@dataclass(frozen=True)
class _Snow:
    """Mean and spread of the flakes' noise, zoom, threshold, radius and sigma of the fall (pixels), image's weight."""

    mean: float
    spread: float
    zoom: float
    threshold: float
    radius: int
    sigma: float
    keep: float


_SNOW = (
    _Snow(0.1, 0.2, 1.0, 0.6, 8, 3, 0.95),
    _Snow(0.1, 0.2, 1.0, 0.5, 10, 4, 0.9),
    _Snow(0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
    _Snow(0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
    _Snow(0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
)


def brightness(images: Pixels, severity: int, rngs: Generators) -> Pixels:
    """Too much light: 0.05 to 0.3 is added to V of HSV, which is cut at 1; hue and saturation stay.

    V is the largest channel, so the change is one factor on all channels (and grey where the pixel was black).
    """
    del rngs
    value = images.max(axis=3, keepdims=True)
    raised = np.minimum(value + np.float32(_BRIGHTNESS[severity - 1]), np.float32(1))
    black = value == 0
    scaled = images * (raised / np.where(black, np.float32(1), value))
    return np.asarray(np.where(black, raised, scaled), np.float32)


def _plasma(side: int, decay: float, rngs: Generators) -> Pixels:
    """Diamond-square height maps, periodic, each stretched to [0, 1]: (N, side, side); ``side`` is a power of two.

    Every new point is the mean of its four neighbours plus uniform noise, whose amplitude falls by ``decay`` squared
    from one scale to the next.
    """
    draws = np.stack([rng.uniform(-1, 1, (side, side)) for rng in rngs])
    height = np.zeros_like(draws)
    step, amplitude = side, 1.0
    while step >= 2:
        half = step // 2
        corners = height[:, ::step, ::step]
        right = np.roll(corners, -1, 2)
        centres = (corners + right + np.roll(corners + right, -1, 1)) / 4 + amplitude * draws[:, half::step, half::step]
        height[:, half::step, half::step] = centres
        across = (corners + right + centres + np.roll(centres, 1, 1)) / 4
        height[:, ::step, half::step] = across + amplitude * draws[:, ::step, half::step]
        along = (corners + np.roll(corners, -1, 1) + centres + np.roll(centres, 1, 2)) / 4
        height[:, half::step, ::step] = along + amplitude * draws[:, half::step, ::step]
        step, amplitude = half, amplitude / decay**2
    height -= height.min(axis=(1, 2), keepdims=True)
    return np.asarray(height / height.max(axis=(1, 2), keepdims=True), np.float32)


def fog(images: Pixels, severity: int, rngs: Generators) -> Pixels:
    """Patchy fog from a diamond-square plasma, added and scaled back so that the brightest value keeps its place."""
    thickness, decay = _FOG[severity - 1]
    height, width = images.shape[1:3]
    plasma = _plasma(1 << (max(height, width) - 1).bit_length(), decay, rngs)[:, :height, :width, None]
    brightest = images.max(axis=(1, 2, 3), keepdims=True)
    foggy = (images + np.float32(thickness) * plasma) * (brightest / (brightest + np.float32(thickness)))
    return np.asarray(foggy, np.float32)


def snow(images: Pixels, severity: int, rngs: Generators) -> Pixels:
    """Flakes: thresholded noise, enlarged and blurred along a steep line; the scene itself turns paler.

    The flakes' blur is the one of `framegate.evaluation.corruptions.blur.motion_blur`, in place of ImageMagick.
    """
    c = _SNOW[severity - 1]
    height, width = images.shape[1:3]
    noise = np.stack([rng.standard_normal((height, width, 1), np.float32) for rng in rngs])
    flakes = zoom_in(noise * np.float32(c.spread) + np.float32(c.mean), c.zoom)
    flakes = np.clip(np.where(flakes < c.threshold, 0, flakes), 0, 1).astype(np.float32)
    flakes = blur_along_lines(flakes, c.radius, c.sigma, np.array([rng.uniform(-135, -45) for rng in rngs]))
    luma = (images * _LUMA_BGR).sum(axis=3, keepdims=True)
    paler = np.maximum(images, luma * np.float32(1.5) + np.float32(0.5))
    keep = np.float32(c.keep)
    snowy = keep * images + (1 - keep) * paler + flakes + flakes[:, ::-1, ::-1]
    return np.asarray(snowy, np.float32)


_FROST_LOOKS = (
    ((0.65, 0.58, 0.31), 0.07),
    ((0.84, 0.80, 0.79), 0.09),
    ((0.84, 0.80, 0.79), 0.09),
    ((0.65, 0.60, 0.54), 0.12),
    ((0.53, 0.48, 0.44), 0.17),
)
"""Mean colour (BGR) and spread of each texture: those measured on the five photographs of the original, rounded."""
_FROST_DRAWN = 768
_FROST_EXTENT = 6


def _draw_crystal(canvas: npt.NDArray[np.uint8], rng: np.random.Generator) -> None:
    """An ice crystal: six stems with side branches at 60 degrees that shorten outwards."""
    start, length = rng.uniform(0, _FROST_DRAWN, 2), rng.uniform(10, 110)
    shade = int(rng.uniform(80, 255))
    for arm in rng.uniform(0, np.pi) + np.arange(6) * np.pi / 3:
        stem = length * rng.uniform(0.5, 1.0)
        lines = [(start, arm, stem)]
        for share in np.arange(0.2, 0.95, 0.12):
            foot = start + share * stem * np.array([np.cos(arm), np.sin(arm)])
            side = 0.45 * stem * (1 - share) * rng.uniform(0.6, 1.2)
            lines += [(foot, arm + np.pi / 3, side), (foot, arm - np.pi / 3, side)]
        for foot, angle, reach in lines:
            tip = foot + reach * np.array([np.cos(angle), np.sin(angle)])
            first, second = (tuple(np.rint(16 * point).astype(int).tolist()) for point in (foot, tip))
            cv2.line(canvas, first, second, shade, 2, cv2.LINE_AA, 4)  # 4: coordinates in 1/16 pixel


@lru_cache(maxsize=len(_FROST_LOOKS))
def _ice(look: int) -> Pixels:
    """Crystals, fine grain and blotches on a large square; always the same for one style."""
    rng = np.random.default_rng([1903, look])
    drawing = np.zeros((_FROST_DRAWN, _FROST_DRAWN), np.uint8)
    for _ in range(120):
        _draw_crystal(drawing, rng)
    grain = rng.standard_normal((_FROST_DRAWN // 4, _FROST_DRAWN // 4), np.float32)
    blotches = cv2.GaussianBlur(rng.standard_normal(drawing.shape, np.float32), (0, 0), 40)
    crystals = drawing.astype(np.float32)
    ice = (crystals - crystals.mean()) / crystals.std() + 0.5 * blotches / blotches.std()
    return np.asarray(ice + 0.8 * cv2.resize(grain, drawing.shape, interpolation=cv2.INTER_CUBIC), np.float32)


@lru_cache(maxsize=16)
def _frost_texture(look: int, side: int) -> npt.NDArray[np.uint8]:
    """A frozen window, (side, side, 3) uint8 BGR."""
    shrinks = side < _FROST_DRAWN
    ice = np.asarray(cv2.resize(_ice(look), (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC))
    colour, spread = _FROST_LOOKS[look]
    shades = np.array(colour) + spread * ((ice - ice.mean()) / ice.std())[..., None]
    return np.asarray(np.rint(np.clip(shades, 0, 1) * 255), np.uint8)


def frost(images: Pixels, severity: int, rngs: Generators) -> Pixels:
    """Ice on the lens: a random part of one of five frost textures is added to the dimmed image.

    **This one differs from the published set**, which takes its frost from five photographs. None are shipped here:
    the textures are drawn (branching crystals, grain, blotches) with the photographs' mean colours and spreads. The
    weights of image and frost are the published ones; figures for frost must not be compared with published ones.
    The texture grows with the image: it is six times as wide.
    """
    weight, ice = _FROST[severity - 1]
    height, width = images.shape[1:3]
    side = _FROST_EXTENT * max(height, width)
    layers = []
    for rng in rngs:
        texture = _frost_texture(int(rng.integers(len(_FROST_LOOKS))), side)
        top, left = rng.integers(0, (side - height, side - width))
        layers.append(texture[top : top + height, left : left + width])
    return np.float32(weight) * images + np.float32(ice / 255) * np.stack(layers)
