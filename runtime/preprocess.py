"""From a camera crop to the network's input tensor, the same way in training, calibration and at run time.

Resizing differences between training and deployment move decisions (a 2-tap bilinear resize of a large image
does not match an antialiased one), so the mode is written in the bundle and everybody uses this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from framegate.runtime.errors import BundleError

# area falls back to bilinear when it enlarges: cv2 defines INTER_AREA for shrinking only.
_INTERPOLATION = {"bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}
_CHANNELS = {"rgb": (2, 1, 0), "bgr": (0, 1, 2)}


@dataclass(frozen=True)
class PreprocessSpec:
    """How pixels become the network's input.

    The network sees ``(pixel - mean) / std`` per channel with pixels in [0, 255].

    Attributes:
        width: Input width in pixels.
        height: Input height in pixels.
        resize: ``bilinear`` (2 x 2 taps) or ``area`` (pixel-area average when shrinking, bilinear when enlarging).
        fit: ``stretch``: both axes are scaled to the input size, the aspect ratio is not kept.
        colour: Channel order the network was trained with, ``rgb`` or ``bgr``.
        mean: Per channel, in the network's channel order, in pixel units [0, 255].
        std: Per channel, in the network's channel order, in pixel units, positive.
    """

    width: int
    height: int
    resize: str
    fit: str
    colour: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        """Reject values this version cannot honour, rather than guess.

        Raises:
            BundleError: A field has a value outside the documented range.
        """
        if not (0 < self.width <= 8192 and 0 < self.height <= 8192):
            raise BundleError(f"preprocess size is {self.width}x{self.height}; expected 1..8192 in both directions")
        for name, value, known in (
            ("resize", self.resize, tuple(_INTERPOLATION)),
            ("fit", self.fit, ("stretch",)),
            ("colour", self.colour, tuple(_CHANNELS)),
        ):
            if value not in known:
                raise BundleError(f"preprocess {name} is {value!r}; this version knows {', '.join(known)}")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise BundleError("preprocess mean and std need three numbers each")
        if not (np.isfinite(self.mean).all() and np.isfinite(self.std).all() and min(self.std) > 0):
            raise BundleError(f"preprocess mean {self.mean} and std {self.std} must be finite, std positive")

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> PreprocessSpec:
        """Read the ``preprocess`` object of a manifest.

        Raises:
            BundleError: A field is missing or has an unknown value.
        """
        try:
            return cls(
                width=int(record["width"]),
                height=int(record["height"]),
                resize=str(record["resize"]),
                fit=str(record["fit"]),
                colour=str(record["colour"]),
                mean=tuple(float(v) for v in record["mean"]),  # type: ignore[arg-type]
                std=tuple(float(v) for v in record["std"]),  # type: ignore[arg-type]
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"manifest preprocess section is not usable: {error!r}") from error


class Preprocessor:
    """Applies a `PreprocessSpec` without allocating: crop -> resized BGR -> normalised 1x3xHxW float32.

    Attributes:
        small: (H, W, 3) uint8 BGR, the resized crop of the latest call. Camera health reads it.
        tensor: (1, 3, H, W) float32, the network input of the latest call, overwritten by the next.
    """

    def __init__(self, spec: PreprocessSpec) -> None:
        self.spec = spec
        self.small = np.zeros((spec.height, spec.width, 3), np.uint8)
        self.tensor = np.zeros((1, 3, spec.height, spec.width), np.float32)
        self._size = (spec.width, spec.height)
        self._interpolation = _INTERPOLATION[spec.resize]
        # One 256-entry table per plane: the normalisation is then a single gather per channel,
        # and the result does not depend on how a compiler orders the arithmetic.
        pixels = np.arange(256, dtype=np.float64)
        self._planes = [
            (channel, ((pixels - mean) / std).astype(np.float32))
            for channel, mean, std in zip(_CHANNELS[spec.colour], spec.mean, spec.std, strict=True)
        ]
        self._plane = [np.zeros((spec.height, spec.width), np.uint8) for _ in range(3)]

    def __call__(self, crop: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return `tensor`, filled from ``crop`` ((h, w, 3) uint8 BGR, any size of at least 1x1)."""
        cv2.resize(crop, self._size, dst=self.small, interpolation=self._interpolation)
        cv2.split(self.small, self._plane)
        for target, (channel, table) in zip(self.tensor[0], self._planes, strict=True):
            cv2.LUT(self._plane[channel], table, dst=target)
        return self.tensor
