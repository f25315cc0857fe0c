"""Filter taps of a resize, computed once on the host, and where the resized image lies in the network's input.

Every resize here is separable: output sample i of an axis is the sum of ``count`` neighbouring source samples from
``first[i]`` on, times ``weights[i]``, which sum to 1. The four rules below are the ones of the library that a model was
most likely trained with; with n source and m output samples, scale = n / m, in float64:

    bilinear     cv2.INTER_LINEAR: 2 taps around (i + 0.5) scale - 0.5, source coordinates clamped to the border.
                 No low-pass filter: shrinking by more than 2 aliases.
    antialias    PIL BILINEAR (and torchvision antialias=True): triangle of half width max(scale, 1) around
                 (i + 0.5) scale, cut at the border and normalised again (Pillow's precompute_coeffs).
    area         cv2.INTER_AREA when no axis is enlarged: the share of each source sample in [i scale, (i + 1) scale].
                 cv2 drops shares below 0.001 samples, we do not, so that the weights sum to 1.
    area, when either axis is enlarged: cv2 uses 2 taps on both axes, s = floor(i scale) with the fraction
                 max(0, (i + 1) - (s + 1) / scale), of which only the part behind the point is kept.
"""

from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

__all__ = ["FITS", "RESIZE_MODES", "AxisTaps", "Placement", "axis_taps", "place", "resize_taps"]

RESIZE_MODES = ("bilinear", "antialias", "area")
FITS = ("stretch", "letterbox")
MAX_SIDE = 16384
"""Longest side of a source or an output, pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class AxisTaps:
    """The taps of one axis.

    Attributes:
        first: (m,) int32, index of the first source sample of each output sample.
        count: (m,) int32, how many samples from there on count; first + count <= source.
        weights: (m, k) float64, k the largest count; zero from ``count`` on; each row sums to 1.
        source: Source samples n.
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


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the resized image lies in the output, pixels."""

    x: int
    y: int
    width: int
    height: int


def _check_side(name: str, value: int) -> None:
    if not 1 <= value <= MAX_SIDE:
        raise ValueError(f"{name}: asked for 1..{MAX_SIDE} pixels, found {value!r}")


def place(source: tuple[int, int], output: tuple[int, int], fit: str) -> Placement:
    """Where a source of (width, height) comes to lie in an output of (width, height).

    ``stretch`` fills the output. ``letterbox`` keeps the aspect ratio, rounds the free side half up in whole numbers
    and centres it; an odd rest is one pixel larger at the right or the bottom.

    Raises:
        ValueError: a side is not in 1..16384, or the fit is unknown.
    """
    for name, (width, height) in (("source", source), ("output", output)):
        _check_side(f"{name} width", width)
        _check_side(f"{name} height", height)
    if fit not in FITS:
        raise ValueError(f"fit: asked for one of {', '.join(FITS)}, found {fit!r}")
    (w, h), (out_w, out_h) = source, output
    if fit == "stretch":
        return Placement(0, 0, out_w, out_h)
    if w * out_h >= h * out_w:  # the width is what limits
        width, height = out_w, max(1, (2 * h * out_w + w) // (2 * w))
    else:
        width, height = max(1, (2 * w * out_h + h) // (2 * h)), out_h
    return Placement((out_w - width) // 2, (out_h - height) // 2, width, height)


def resize_taps(source: tuple[int, int], output: tuple[int, int], mode: str) -> tuple[AxisTaps, AxisTaps]:
    """Taps along x and along y from a source of (width, height) to an output of (width, height).

    Raises:
        ValueError: a side is not in 1..16384, or the mode is unknown.
    """
    # cv2 decides for both axes together: area only if none is enlarged.
    enlarges = any(n < m for n, m in zip(source, output, strict=True))
    rule = "area-enlarging" if mode == "area" and enlarges else mode
    return axis_taps(source[0], output[0], rule), axis_taps(source[1], output[1], rule)


def axis_taps(source: int, output: int, rule: str) -> AxisTaps:
    """Taps of one axis by one of the rules above; ``area-enlarging`` names the last.

    Args:
        source: Source samples n, 1..16384.
        output: Output samples m, 1..16384.
        rule: ``bilinear``, ``antialias``, ``area`` (n >= m only) or ``area-enlarging``.

    Raises:
        ValueError: a size or the rule is not one of these.
    """
    _check_side("source", source)
    _check_side("output", output)
    if rule not in _RULES:
        raise ValueError(f"resize mode: asked for one of {', '.join(_RULES)}, found {rule!r}")
    if rule == "area" and source < output:
        raise ValueError(f"area: asked for a source no smaller than the output, found {source} -> {output}")
    taps = [_RULES[rule](i, source, output) for i in range(output)]
    first = np.array([start for start, _ in taps], np.int32)
    count = np.array([len(weights) for _, weights in taps], np.int32)
    weights = np.zeros((output, int(count.max())))
    for row, (_, values) in zip(weights, taps, strict=True):
        row[: len(values)] = values
        row /= row.sum()
    return AxisTaps(first, count, weights, source)


def _two_taps(low: int, fraction: float, n: int) -> tuple[int, list[float]]:
    """Samples low and low + 1, each clamped to the border."""
    if low < 0:
        return 0, [1.0]
    if low >= n - 1 or fraction == 0.0:
        return min(low, n - 1), [1.0]
    return low, [1.0 - fraction, fraction]


def _bilinear(i: int, n: int, m: int) -> tuple[int, list[float]]:
    # One division of whole numbers: float64 rounds once, and a source point that lies on a sample stays there.
    point = ((2 * i + 1) * n - m) / (2 * m)
    return _two_taps(floor(point), point - floor(point), n)


def _area_enlarging(i: int, n: int, m: int) -> tuple[int, list[float]]:
    # The fraction jumps where i scale is a whole number, and there cv2's rounding of 1 / (m / n) decides which sample
    # is taken (54 -> 58, i = 29: the 26th, where exact arithmetic says the 27th). So this follows its arithmetic.
    inverse_scale = m / n
    low = floor(i * (1.0 / inverse_scale))
    fraction = float(np.float32((i + 1) - (low + 1) * inverse_scale))
    return _two_taps(low, fraction - floor(fraction) if fraction > 0.0 else 0.0, n)


def _antialias(i: int, n: int, m: int) -> tuple[int, list[float]]:
    scale = n / m
    half_width = max(scale, 1.0)
    centre = (i + 0.5) * scale
    start = max(int(centre - half_width + 0.5), 0)
    stop = min(int(centre + half_width + 0.5), n)
    weights = [max(0.0, 1.0 - abs(x - centre + 0.5) / half_width) for x in range(start, stop)]
    return start, weights


def _area(i: int, n: int, m: int) -> tuple[int, list[float]]:
    # In units of 1 / m samples all borders are whole numbers, so no sliver appears that is only rounding.
    start, stop = i * n, (i + 1) * n
    cells = range(start // m, ceil(stop / m))
    return cells[0], [(min(stop, (x + 1) * m) - max(start, x * m)) / n for x in cells]


_RULES = {"bilinear": _bilinear, "antialias": _antialias, "area": _area, "area-enlarging": _area_enlarging}
