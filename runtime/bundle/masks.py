"""Squares that hide a part of the network's input, such that every patch of a stated size lies inside one of them.

The geometry of the patch certificate; its proof is in docs/certificates.md. Lengths are whole pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from framegate.runtime.errors import UsageError

_ROUNDING = 1e-3
"""Source pixels by which OpenCV's and this module's rounding of a position may differ; far more than they do."""


@dataclass(frozen=True)
class MaskGrid:
    """Masks of ``side`` x ``side`` pixels at every ``stride`` pixels, and at the far border.

    Attributes:
        width: Of the network's input.
        height: Of the network's input.
        patch: Side of the squares of which every one lies inside a mask.
        side: Side of the masks, at least ``patch + stride - 1``.
        stride: Between two masks; a smaller one covers each place more often and costs more views.
    """

    width: int
    height: int
    patch: int
    side: int
    stride: int

    def __post_init__(self) -> None:
        """Check that every square is covered.

        Raises:
            UsageError: It is not, or a mask is larger than the input or hides all of it.
        """
        numbers = (self.width, self.height, self.patch, self.side, self.stride)
        if not all(type(number) is int and number >= 1 for number in numbers):
            raise UsageError(
                f"masks of side {self.side} and stride {self.stride} for a patch of {self.patch} in {self.width}x"
                f"{self.height} pixels: expected whole numbers, at least 1"
            )
        if self.side > min(self.width, self.height) or self.side == max(self.width, self.height):
            raise UsageError(
                f"masks of {self.side} pixels hide an input of {self.width}x{self.height}, so a patch of {self.patch} "
                "cannot be certified with them: give a smaller budget or smaller masks"
            )
        if self.side < self.patch + self.stride - 1:
            raise UsageError(
                f"masks of {self.side} pixels every {self.stride} leave patches of {self.patch} pixels uncovered; "
                f"give masks of at least {self.patch + self.stride - 1}"
            )

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> MaskGrid:
        """Read a record that ``dataclasses.asdict`` wrote."""
        return cls(*(record[name] for name in ("width", "height", "patch", "side", "stride")))

    @cached_property
    def columns(self) -> tuple[int, ...]:
        """First columns of the masks."""
        return _starts(self.width, self.side, self.stride)

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """First rows of the masks."""
        return _starts(self.height, self.side, self.stride)

    @property
    def views(self) -> int:
        """How many masks there are."""
        return len(self.rows) * len(self.columns)

    def hide(self, tensor: npt.NDArray[np.float32], views: npt.NDArray[np.float32]) -> None:
        """Write every masked view of one input.

        The masked pixels become 0, which is the mean colour after normalisation.

        Args:
            tensor: (1, channels, height, width) the network's input.
            views: (`views`, channels, height, width), written; row by row of masks.
        """
        views[:] = tensor
        number = 0
        for top in self.rows:
            for left in self.columns:
                views[number, :, top : top + self.side, left : left + self.side] = 0.0
                number += 1

    @cached_property
    def _covers(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """For rows and columns: (places, masks), 1 where the mask covers the place; each set of masks once."""
        return _covering(self.rows, self.height, self.patch, self.side), _covering(
            self.columns, self.width, self.patch, self.side
        )

    def means(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Mean over the views that cover a place, for every place where a patch can be.

        Args:
            values: (`views`, classes), finite. Views that do not cover a place are multiplied by 0, so whatever finite
                value they have they change nothing there; what is not finite spreads as NaN, and NaN certifies nothing.

        Returns:
            (places, classes).
        """
        down, across = self._covers
        grid = values.reshape(len(self.rows), len(self.columns), -1)
        sums = np.einsum("pi,qj,ijc->pqc", down, across, grid, optimize=["einsum_path", (0, 2), (0, 1)])
        counts = down.sum(1)[:, None] * across.sum(1)[None, :]
        means: npt.NDArray[np.float64] = (sums / counts[..., None]).reshape(-1, grid.shape[2])
        return means


def _starts(size: int, side: int, stride: int) -> tuple[int, ...]:
    return tuple(sorted({*range(0, size - side + 1, stride), size - side}))


def _covering(starts: tuple[int, ...], size: int, patch: int, side: int) -> npt.NDArray[np.float64]:
    at = np.arange(size - patch + 1)[:, None]
    first = np.array(starts)[None, :]
    covers = (first <= at) & (at + patch <= first + side)
    return np.unique(covers, axis=0).astype(np.float64)


def _reads(source: int, target: int, resize: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First and last source pixel that each target pixel of a resize may depend on, along one axis."""
    at = np.arange(target)
    if source == target:
        return at, at
    scale = source / target
    # Bilinear: two neighbours of the centre (at + 1/2) scale - 1/2. Enlarging by area: two neighbours of at scale.
    low, high = (at + 0.5) * scale - 0.5, (at + 0.5) * scale - 0.5 + 1
    if resize == "area":
        low, high = np.minimum(low, at * scale), np.maximum(high, at * scale + 1)
        if scale > 1:
            high = np.maximum(high, (at + 1) * scale)
    first = np.floor(low - _ROUNDING).astype(np.int64)
    last = np.floor(high + _ROUNDING).astype(np.int64)
    return first.clip(0, source - 1), last.clip(0, source - 1)


@lru_cache(maxsize=4096)
def touched(patch: int, source: int, target: int, resize: str) -> int:
    """How many pixels of the network's input, along one axis, a patch of the region's own pixels can change.

    Args:
        patch: Pixels of the region, at least 1.
        source: Pixels of the region along this axis.
        target: Pixels of the network's input along it.
        resize: ``bilinear`` or ``area``.

    Returns:
        The largest number over all places of the patch; ``target`` where the patch is as large as the region.
    """
    if patch >= source:
        return target
    first, last = _reads(source, target, resize)
    at = np.arange(source - patch + 1)
    begin = np.searchsorted(last, at, side="left")
    end = np.searchsorted(first, at + patch - 1, side="right")
    return int((end - begin).max())
