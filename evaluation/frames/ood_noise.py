"""The made frames of `framegate.evaluation.frames.ood.noise_set`: noise, colours, gradients and checkerboards.

Each is a random field over (depth, h, w, channels), so that images (depth 1) and volumes take one path.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Shape = tuple[int, int, int, int]
Field = npt.NDArray[np.float64]


def _uniform(shape: Shape, rng: np.random.Generator) -> Field:
    return rng.integers(0, 256, shape).astype(np.float64)


def _gaussian(shape: Shape, rng: np.random.Generator) -> Field:
    return rng.normal(127.5, 64.0, shape)


def _smooth(shape: Shape, rng: np.random.Generator) -> Field:
    """Power-law noise: amplitude falls with frequency to the power 1.5 to 3, so there is no one size of blob."""
    frequency = np.sqrt(sum(axis**2 for axis in np.meshgrid(*map(np.fft.fftfreq, shape[:3]), indexing="ij")))
    frequency[0, 0, 0] = np.inf
    spectrum = np.fft.fftn(rng.standard_normal(shape), axes=(0, 1, 2))
    field = np.fft.ifftn(spectrum * frequency[..., None] ** -rng.uniform(1.5, 3.0), axes=(0, 1, 2)).real
    return np.asarray(127.5 + rng.uniform(30, 70) * field / field.std(axis=(0, 1, 2)))


def _plain(shape: Shape, rng: np.random.Generator) -> Field:
    return np.broadcast_to(rng.uniform(0, 255, shape[3]), shape).copy()


def _grid(shape: Shape) -> npt.NDArray[np.float64]:
    """(3, depth, h, w) coordinates z, y, x; the longer side of an image runs from -0.5 to 0.5."""
    middle = (np.array(shape[:3]).reshape(3, 1, 1, 1) - 1) / 2
    return np.asarray((np.indices(shape[:3]) - middle) / max(shape[1:3]))


def _two_colours(channels: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    first = rng.uniform(0, 255, channels)
    return np.stack([first, (first + rng.uniform(64, 192, channels)) % 256])


def _gradient(shape: Shape, rng: np.random.Generator) -> Field:
    """A gradient around a point: from one colour to another, once or several times, with the distance."""
    centre = rng.uniform(-0.5, 0.5, (3, 1, 1, 1))
    distance = np.sqrt(((_grid(shape) - centre) ** 2).sum(axis=0))
    share = 0.5 - 0.5 * np.cos(np.pi * rng.uniform(0.8, 4.0) * distance[..., None])
    first, second = _two_colours(shape[3], rng)
    return np.asarray(first + share * (second - first))


def _checker(shape: Shape, rng: np.random.Generator) -> Field:
    """A checkerboard of two colours, turned by any angle, 2 to 8 fields across; fields alternate in depth as well."""
    z, y, x = _grid(shape)
    angle, offset = rng.uniform(0, np.pi / 2), rng.uniform(0, 1, 3)
    fields = rng.uniform(2, 8)
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    number = sum(np.floor(fields * axis + shift) for axis, shift in zip((z, along, across), offset, strict=True))
    return _two_colours(shape[3], rng)[np.asarray(number).astype(np.int64) % 2]


_NOISE: dict[str, Callable[[Shape, np.random.Generator], Field]] = {
    "uniform": _uniform,
    "gaussian": _gaussian,
    "smooth": _smooth,
    "plain": _plain,
    "gradient": _gradient,
    "checker": _checker,
}
NOISE_SETS = tuple(_NOISE)
"""Kinds of noise."""
RESEMBLES_EXPOSURE = frozenset(NOISE_SETS) - {"checker"}
"""Kinds of which a network trained with outlier exposure has seen something similar."""


def draw_noise(kind: str, shape: Shape, rng: np.random.Generator) -> Field:
    """One random field.

    Args:
        kind: One of `NOISE_SETS`.
        shape: (depth, h, w, channels).
        rng: Source of randomness.

    Returns:
        float64 of that shape; values may lie outside [0, 255] and are to be clipped.
    """
    return _NOISE[kind](shape, rng)
