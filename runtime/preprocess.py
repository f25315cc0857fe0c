"""From a camera crop to the network's input tensor, the same way in training, calibration and at run time.

Resizing differences between training and deployment move decisions (a 2-tap bilinear resize of a large image
does not match an antialiased one), so the mode is written in the bundle and everybody uses this module.

A network for volumes takes one tall image, the slices one below the other. A folder of them for ``framegate run`` is
made, from each uint8 array ``volume`` (depth, height, width), by

    cv2.imwrite("0001.png", np.concatenate(volume, axis=0))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from framegate.runtime.errors import BundleError, DataError
from framegate.runtime.native.preprocess import Resize, bilinear

# area falls back to bilinear when it enlarges: cv2 defines INTER_AREA for shrinking only.
INTERPOLATION = {"bilinear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}
"""``resize`` -> cv2's flag."""
# Which plane of the resized image each channel of the network reads; a grey image has one.
_CHANNELS = {"rgb": (2, 1, 0), "bgr": (0, 1, 2), "grey": (0,)}
_MAX_DEPTH = 1024


@dataclass(frozen=True)
class PreprocessSpec:
    """How pixels become the network's input.

    The network sees ``(pixel - mean) / std`` per channel with pixels in [0, 255].

    Attributes:
        width: Input width in pixels.
        height: Input height in pixels; of one slice, if there are several.
        resize: ``bilinear`` (2 x 2 taps) or ``area`` (pixel-area average when shrinking, bilinear when enlarging).
        fit: ``stretch``: both axes are scaled to the input size, the aspect ratio is not kept.
        colour: Channel order the network was trained with, ``rgb`` or ``bgr``, or ``grey``: one channel, the luma
            0.299 R + 0.587 G + 0.114 B, rounded (ITU-R BT.601), which leaves equal channels as they are.
        mean: Per channel, in the network's channel order, in pixel units [0, 255].
        std: Per channel, in the network's channel order, in pixel units, positive.
        depth: Slices of a volume, 1 for an image. The frame is then a column of so many grey slices of equal height,
            and each is brought to the input size by itself.
    """

    width: int
    height: int
    resize: str
    fit: str
    colour: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    depth: int = 1

    def __post_init__(self) -> None:
        """Reject values this version cannot honour, rather than guess.

        Raises:
            BundleError: A field has a value outside the documented range.
        """
        if not (0 < self.width <= 8192 and 0 < self.height <= 8192):
            raise BundleError(f"preprocess size is {self.width}x{self.height}; expected 1..8192 in both directions")
        for name, value, known in (
            ("resize", self.resize, tuple(INTERPOLATION)),
            ("fit", self.fit, ("stretch",)),
            ("colour", self.colour, tuple(_CHANNELS)),
        ):
            if value not in known:
                raise BundleError(f"preprocess {name} is {value!r}; this version knows {', '.join(known)}")
        if not 1 <= self.depth <= _MAX_DEPTH:
            raise BundleError(f"preprocess depth is {self.depth}; expected 1..{_MAX_DEPTH} slices")
        if self.depth > 1 and self.colour != "grey":
            raise BundleError(f"preprocess colour is {self.colour!r} at depth {self.depth}; volumes are grey")
        channels = len(_CHANNELS[self.colour])
        if len(self.mean) != channels or len(self.std) != channels:
            count = "three numbers" if channels == 3 else "one number"
            raise BundleError(f"preprocess mean and std need {count} each for colour {self.colour!r}")
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
                mean=tuple(float(v) for v in record["mean"]),
                std=tuple(float(v) for v in record["std"]),
                depth=int(record.get("depth", 1)),  # bundles from before there were volumes do not say it
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise BundleError(f"manifest preprocess section is not usable: {error!r}") from error


def input_shape(spec: PreprocessSpec, count: int = 1) -> tuple[int, ...]:
    """The shape of the input tensor of ``count`` crops."""
    shape = (spec.height, spec.width) if spec.depth == 1 else (spec.depth, spec.height, spec.width)
    return (count, len(_CHANNELS[spec.colour]), *shape)


class Preprocessor:
    """Applies a `PreprocessSpec` without allocating: crop -> resized BGR -> normalised float32.

    Args:
        spec: How pixels become input.
        tensor: Where to write it, C-contiguous float32 of `input_shape`, e.g. one row of a batch; None: an array of its
            own.

    Attributes:
        small: (depth * H, W, 3) uint8 BGR, the resized crop of the latest call. Camera health reads it.
        tensor: float32, the network input of the latest call, overwritten by the next: (1, 3, H, W), (1, 1, H, W) for
            ``grey``, (1, 1, depth, H, W) for volumes.
        compiled: Does all of it in one call; None where there is no compiled code, or none for this spec.
    """

    def __init__(self, spec: PreprocessSpec, tensor: npt.NDArray[np.float32] | None = None) -> None:
        self.spec = spec
        rows, channels = spec.depth * spec.height, _CHANNELS[spec.colour]
        self.small = np.zeros((rows, spec.width, 3), np.uint8)
        self.tensor = np.zeros(input_shape(spec), np.float32) if tensor is None else tensor
        self._size = (spec.width, spec.height)
        self._interpolation = INTERPOLATION[spec.resize]
        # One 256-entry table per plane: the normalisation is then a single gather per channel,
        # and the result does not depend on how a compiler orders the arithmetic.
        pixels = np.arange(256, dtype=np.float64)
        self._plane = [np.zeros((rows, spec.width), np.uint8) for _ in channels]
        self._gathers = [
            (self._plane[channel], ((pixels - mean) / std).astype(np.float32), target)
            for channel, mean, std, target in zip(
                channels, spec.mean, spec.std, self.tensor.reshape(len(channels), rows, spec.width), strict=True
            )
        ]
        self._grey = spec.colour == "grey"
        self.compiled: Resize | None = None
        if spec.resize == "bilinear" and len(channels) == 3:
            tables = [table for _, table, _ in self._gathers]
            self.compiled = bilinear(channels, tables, spec.mean, spec.std, self.small, self.tensor)
        self._slices = np.split(self.small, spec.depth) if spec.depth > 1 else []  # views, top to bottom

    def __call__(self, crop: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return `tensor`, filled from ``crop`` ((h, w, 3) uint8 BGR, any size of at least 1x1).

        Raises:
            DataError: The network takes volumes, and the crop's height is no multiple of its number of slices.
        """
        if self.compiled is not None and self.compiled(crop):
            return self.tensor
        if self._slices:
            self._resize_slices(crop)
        else:
            cv2.resize(crop, self._size, dst=self.small, interpolation=self._interpolation)
        if self._grey:
            cv2.cvtColor(self.small, cv2.COLOR_BGR2GRAY, dst=self._plane[0])
        else:
            cv2.split(self.small, self._plane)
        for plane, table, target in self._gathers:
            cv2.LUT(plane, table, dst=target)
        return self.tensor

    def _resize_slices(self, crop: npt.NDArray[np.uint8]) -> None:
        """Fill `small` slice by slice, so that the resize mixes no pixels of two slices."""
        if crop.shape == self.small.shape:
            np.copyto(self.small, crop)
            return
        height, rest = divmod(crop.shape[0], self.spec.depth)
        if rest or not height:
            raise DataError(
                f"a volume of {self.spec.depth} slices, one below the other, was expected; "
                f"{crop.shape[0]} rows cannot be divided into that many"
            )
        for k, target in enumerate(self._slices):
            source = crop[k * height : (k + 1) * height]
            cv2.resize(source, self._size, dst=target, interpolation=self._interpolation)
