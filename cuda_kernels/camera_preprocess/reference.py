"""The reference of camera preprocessing: NumPy, float64. The kernel is compared with it.

A frame goes  camera bytes -> 8-bit BGR -> resize -> (pixel - mean) / std -> channels first.

1. Colour. NV12 becomes 8-bit BGR in whole numbers, equal to cv2.cvtColor bit for bit (ITU-R BT.601, limited range):

       y = max(0, Y - 16) CY + 2**19           B = clip((y + CUB (U - 128)) >> 20)
       G = clip((y + CUG (U - 128) + CVG (V - 128)) >> 20)       R = clip((y + CVR (V - 128)) >> 20)

   Chroma is upsampled by repetition, as cv2 does: pixel (x, y) takes the chroma sample (x // 2, y // 2).
2. Resize, by the weights of `filter_weights`, in real numbers. Nothing is rounded to 8 bits, where cv2 rounds once (and
   its two coefficients of a bilinear resize to 1/2048, besides): the reference stays within 1/255 of it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from framegate.cuda_kernels.camera_preprocess.filter_weights import MAX_SIDE, resize_weights

__all__ = ["CameraFrame", "Normalisation", "plane_shapes", "preprocess", "to_bgr"]

PIXEL_FORMATS = ("nv12", "bgr")
_FRACTION_BITS = 20
_BLACK = 16  # the code of black in limited range
_CY, _CUB, _CUG, _CVG, _CVR = 1220542, 2116026, -409993, -852492, 1673527
"""1.164, 2.018, -0.391, -0.813 and 1.596 in units of 2**-20, as in cv2."""

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class CameraFrame:
    """One frame as the camera gives it.

    Attributes:
        pixel_format: ``nv12`` or ``bgr``.
        width: Pixels; may be odd, the last chroma sample then serves one column.
        height: Rows; may be odd, the last chroma row then serves one row.
        planes: uint8. nv12: (H, W) luma and (ceil(H/2), ceil(W/2), 2) U, V. bgr: (H, W, 3).
    """

    pixel_format: str
    width: int
    height: int
    planes: tuple[Bytes, ...]

    def __post_init__(self) -> None:
        """Refuse planes that are not what the format says.

        Raises:
            ValueError: the format is unknown, a side is not in 1..16384, or a plane has another shape or type.
        """
        shapes = plane_shapes(self.pixel_format, self.width, self.height)
        found = tuple(plane.shape for plane in self.planes)
        if found != shapes or any(plane.dtype != np.uint8 for plane in self.planes):
            types = ", ".join(str(plane.dtype) for plane in self.planes)
            kind = f"{self.pixel_format} {self.width}x{self.height}"
            raise ValueError(f"{kind}: asked for uint8 planes {shapes}, found {types} planes {found}")


def plane_shapes(pixel_format: str, width: int, height: int) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of the planes of a frame, see `CameraFrame`.

    Raises:
        ValueError: the format is unknown or a side is not in 1..16384.
    """
    if pixel_format not in PIXEL_FORMATS:
        raise ValueError(f"pixel format: asked for one of {', '.join(PIXEL_FORMATS)}, found {pixel_format!r}")
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise ValueError(f"frame: asked for sides of 1..{MAX_SIDE} pixels, found {width}x{height}")
    if pixel_format == "bgr":
        return ((height, width, 3),)
    return ((height, width), ((height + 1) // 2, (width + 1) // 2, 2))


def _integers(array: Bytes) -> Integers:
    return array.astype(np.int64)


def to_bgr(frame: CameraFrame) -> Bytes:
    """Return step 1 above: (H, W, 3) uint8 BGR of the whole frame."""
    if frame.pixel_format == "bgr":
        return frame.planes[0]
    chroma = _integers(frame.planes[1]).repeat(2, axis=0)[: frame.height].repeat(2, axis=1)[:, : frame.width] - 128
    u, v = chroma[..., 0], chroma[..., 1]
    y = np.maximum(0, _integers(frame.planes[0]) - _BLACK) * _CY + (1 << (_FRACTION_BITS - 1))
    bgr = np.stack([y + _CUB * u, y + _CUG * u + _CVG * v, y + _CVR * v], axis=-1)
    return (bgr >> _FRACTION_BITS).clip(0, 255).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Normalisation:
    """From pixels to the network's numbers; every triple in the network's channel order and in pixel units [0, 255].

    Attributes:
        colour: ``rgb`` or ``bgr``.
        mean: Subtracted.
        std: Divided by, positive.
    """

    colour: str = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        """Refuse what has no meaning.

        Raises:
            ValueError: the colour order is unknown, a number is not finite, or a std is not positive.
        """
        if self.colour not in ("rgb", "bgr"):
            raise ValueError(f"colour: asked for rgb or bgr, found {self.colour!r}")
        if any(len(triple) != 3 for triple in (self.mean, self.std)):
            raise ValueError(f"mean, std: asked for three numbers each, found {self.mean}, {self.std}")
        if not (np.isfinite([self.mean, self.std]).all() and min(self.std) > 0):
            raise ValueError(f"mean {self.mean}, std {self.std}: asked for finite numbers and std > 0")


def preprocess(
    frame: CameraFrame, output: tuple[int, int], *, mode: str = "bilinear", normalisation: Normalisation | None = None
) -> NDArray[np.float64]:
    """Compute the network's input from a frame: (3, height, width) float64.

    Args:
        frame: The camera's bytes.
        output: (width, height) of the network's input, pixels. The frame is stretched to it.
        mode: ``bilinear`` or ``area``, see `filter_weights`.
        normalisation: Channel order, mean and std; None: RGB in [0, 255].

    Raises:
        ValueError: the mode or a size is unknown or out of range.
    """
    norm = Normalisation() if normalisation is None else normalisation
    along_x, along_y = resize_weights((frame.width, frame.height), output, mode)
    pixels = to_bgr(frame).astype(np.float64)
    result = np.empty((3, output[1], output[0]))
    for channel, (mean, std) in enumerate(zip(norm.mean, norm.std, strict=True)):
        plane = pixels[..., 2 - channel if norm.colour == "rgb" else channel]
        result[channel] = (along_y.matrix() @ plane @ along_x.matrix().T - mean) / std
    return result
