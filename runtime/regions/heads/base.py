"""What the heads of detectors have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Outputs = Mapping[str, Array]
"""Name of each output -> its values for one image, the leading axis of length 1 included, in the network's order."""
Shapes = Mapping[str, tuple[int, ...]]
"""The same with shapes; -1 for a length that is known only when the network has run."""


class Decoded(NamedTuple):
    """Boxes before overlapping ones are suppressed.

    Attributes:
        corners: (N, 4) float32 left, top, right, bottom in pixels of the network's input.
        scores: (N, C) float32 of each class, in [0, 1].
        exclusive: A box is of one class at most (a softmax); otherwise each class is a question of its own.
    """

    corners: Array
    scores: Array
    exclusive: bool = False


@dataclass(frozen=True)
class Head:
    """One kind of output.

    Attributes:
        name: What the command line and bundles call it.
        about: One line for people, with the source of the arithmetic.
        fits: Whether outputs of these shapes are its: called with shapes, number of classes, width and height.
        decode: From outputs to boxes: called with outputs, number of classes, width and height of the input.
        fit: How a frame is brought to the input's size in that project, see `framegate.runtime.regions.fit`.
        colour: Order of its channels.
        mean: Per channel, in pixels 0 to 255.
        std: The same.
        resize: ``bilinear`` or ``area``.
        suppress: Whether overlapping boxes of one class have to be suppressed.
        score: The smallest score of a box that is usual there.
        overlap: The largest intersection over union of two boxes of a class that is usual there.
    """

    name: str
    about: str
    fits: Callable[[Shapes, int, int, int], bool]
    decode: Callable[[Outputs, int, int, int], Decoded]
    fit: str = "letterbox"
    colour: str = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    resize: str = "bilinear"
    suppress: bool = True
    score: float = 0.4
    overlap: float = 0.45


def from_centres(x: Array, y: Array, width: Array, height: Array) -> Array:
    """(N, 4) corners from centres and sizes, (N,) each."""
    return np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1).astype(np.float32)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without an overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)), np.float32)


def softmax(x: Array) -> Array:
    """Softmax over the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True), np.float32)


def cells(width: int, height: int, strides: tuple[int, ...]) -> tuple[Array, Array, Array]:
    """Column, row and stride of every cell of a pyramid, (N,) each: fine strides first, row by row.

    The last row and column of a level may reach over the input's edge: their number is rounded up.
    """
    parts = []
    for stride in strides:
        rows, columns = np.mgrid[: -(-height // stride), : -(-width // stride)]
        parts.append((columns.ravel(), rows.ravel(), np.full(rows.size, stride)))
    column, row, stride_of = (np.concatenate(each).astype(np.float32) for each in zip(*parts, strict=True))
    return column, row, stride_of


def cell_count(width: int, height: int, strides: tuple[int, ...]) -> int:
    """How many cells `cells` gives."""
    return sum(-(-height // stride) * -(-width // stride) for stride in strides)


def only(shapes: Shapes) -> tuple[int, ...]:
    """The shape of the only output; empty if there are several."""
    return next(iter(shapes.values())) if len(shapes) == 1 else ()
