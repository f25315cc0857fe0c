"""Filter weights of a resize, computed once on the host.

Every resize here is separable: output sample i of an axis is the sum of ``count[i]`` neighbouring source samples, from
``first[i]`` on, each times its weight; the weights of one output sample sum to 1. The rules are those of cv2.resize.
With n source samples, m output samples and scale = n / m, in float64:

    bilinear   cv2.INTER_LINEAR: two samples around (i + 0.5) scale - 0.5; source coordinates are clamped to the border.
               There is no low-pass filter: shrinking by more than 2 aliases.
    area       cv2.INTER_AREA when no axis is enlarged: the share of each source sample in [i scale, (i + 1) scale].
               cv2 drops shares below 0.001 samples; this module keeps them, so that the weights sum to 1.
    area, when either axis is enlarged: cv2 takes two samples on both axes, from s = floor(i scale) on, with the
               fraction max(0, (i + 1) - (s + 1) / scale), of which only the part behind the point is kept.
"""

from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

__all__ = ["RESIZE_MODES", "AxisWeights", "axis_weights", "resize_weights"]

RESIZE_MODES = ("bilinear", "area")
MAX_SIDE = 16384
"""Longest side of a source or an output, pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class AxisWeights:
    """The filter weights of one axis.

    Attributes:
        first: (m,) int32, index of the first source sample of each output sample.
        count: (m,) int32, how many source samples each output sample takes; first + count <= source.
        weights: (m, k) float64, where k is the largest count; zero from ``count`` on; each row sums to 1.
        source: Number of source samples, n.
    """

    first: NDArray[np.int32]
    count: NDArray[np.int32]
    weights: NDArray[np.float64]
    source: int

    def matrix(self) -> NDArray[np.float64]:
        """Return the (m, n) matrix that resizes this axis."""
        dense = np.zeros((len(self.first), self.source))
        for row, first, count, weights in zip(dense, self.first, self.count, self.weights, strict=True):
            row[first : first + count] = weights[:count]
        return dense


def _check_side(name: str, value: int) -> None:
    if not 1 <= value <= MAX_SIDE:
        raise ValueError(f"{name}: asked for 1..{MAX_SIDE} pixels, found {value!r}")


def enlarges(source: tuple[int, int], output: tuple[int, int]) -> bool:
    """Return whether an output of (width, height) is larger than its source along either axis."""
    return any(n < m for n, m in zip(source, output, strict=True))


def resize_weights(source: tuple[int, int], output: tuple[int, int], mode: str) -> tuple[AxisWeights, AxisWeights]:
    """Return the weights along x and along y from a source of (width, height) to an output of (width, height).

    Raises:
        ValueError: a side is not in 1..16384, or the mode is unknown.
    """
    if mode not in RESIZE_MODES:
        raise ValueError(f"resize mode: asked for one of {', '.join(RESIZE_MODES)}, found {mode!r}")
    # cv2 decides for both axes together: area only if none is enlarged.
    rule = "area-enlarging" if mode == "area" and enlarges(source, output) else mode
    return axis_weights(source[0], output[0], rule), axis_weights(source[1], output[1], rule)


def axis_weights(source: int, output: int, rule: str) -> AxisWeights:
    """Return the weights of one axis by one of the rules above; ``area-enlarging`` is the last.

    Args:
        source: Number of source samples n, 1..16384.
        output: Number of output samples m, 1..16384.
        rule: ``bilinear``, ``area`` (n >= m only) or ``area-enlarging``.

    Raises:
        ValueError: a size or the rule is not one of these.
    """
    _check_side("source", source)
    _check_side("output", output)
    if rule not in _RULES:
        raise ValueError(f"resize rule: asked for one of {', '.join(_RULES)}, found {rule!r}")
    if rule == "area" and source < output:
        raise ValueError(f"area: asked for a source no smaller than the output, found {source} -> {output}")
    samples = [_RULES[rule](i, source, output) for i in range(output)]
    first = np.array([start for start, _ in samples], np.int32)
    count = np.array([len(values) for _, values in samples], np.int32)
    weights = np.zeros((output, int(count.max())))
    for row, (_, values) in zip(weights, samples, strict=True):
        row[: len(values)] = values
        row /= row.sum()
    return AxisWeights(first, count, weights, source)


def _two_samples(low: int, fraction: float, n: int) -> tuple[int, list[float]]:
    """Return samples low and low + 1, each clamped to the border."""
    if low < 0:
        return 0, [1.0]
    if low >= n - 1 or fraction == 0.0:
        return min(low, n - 1), [1.0]
    return low, [1.0 - fraction, fraction]


def _bilinear(i: int, n: int, m: int) -> tuple[int, list[float]]:
    # One division of whole numbers: float64 rounds once, and a source point that lies on a sample stays there.
    point = ((2 * i + 1) * n - m) / (2 * m)
    return _two_samples(floor(point), point - floor(point), n)


def _area_enlarging(i: int, n: int, m: int) -> tuple[int, list[float]]:
    # The fraction jumps where i scale is a whole number, and there cv2's rounding of 1 / (m / n) decides which sample
    # is taken (54 -> 58, i = 29: the 26th, where exact arithmetic says the 27th). So this follows its arithmetic.
    inverse_scale = m / n
    low = floor(i * (1.0 / inverse_scale))
    fraction = float(np.float32((i + 1) - (low + 1) * inverse_scale))
    return _two_samples(low, fraction - floor(fraction) if fraction > 0.0 else 0.0, n)


def _area(i: int, n: int, m: int) -> tuple[int, list[float]]:
    # In units of 1 / m samples all borders are whole numbers, so no sliver appears that is only rounding.
    start, stop = i * n, (i + 1) * n
    cells = range(start // m, ceil(stop / m))
    return cells[0], [(min(stop, (x + 1) * m) - max(start, x * m)) / n for x in cells]


_RULES = {"bilinear": _bilinear, "area": _area, "area-enlarging": _area_enlarging}
