"""The one numeric truth of camera preprocessing and frame statistics: NumPy, float64, no other room needed.

A frame goes  camera bytes -> 8-bit BGR -> crop -> resize -> (pixel - mean) / std -> channels first.

1. Colour. NV12 and YUYV become 8-bit BGR in whole numbers, equal to cv2.cvtColor bit for bit with the default matrix:

       y = max(0, Y - offset) cy + 2**19       B = clip((y + cub (U - 128)) >> 20)
       G = clip((y + cug (U - 128) + cvg (V - 128)) >> 20)       R = clip((y + cvr (V - 128)) >> 20)

   Chroma is upsampled by repetition, as cv2 does: pixel (x, y) takes the chroma sample (x // 2, y // 2) of NV12 and
   (x // 2, y) of YUYV, counted from the corner of the frame, also where the region starts at an odd pixel.
2. Region and resize: the crop is resized as if nothing lay around it, by the taps of `preprocess_taps`, in real
   numbers. Nothing is rounded to 8 bits, where cv2 rounds once (its 2-tap coefficients to 1/2048, besides) and Pillow
   after each axis: the truth stays within 1/255 of both.
3. Letterbox borders hold ``pad`` before the normalisation.

Statistics are of the luma ``a`` of the whole frame, not of the region: they are about the camera. Luma is the Y byte as
it is, or for BGR cv2's (3735 B + 19235 G + 9798 R + 2**14) >> 15. Neighbours beyond the border repeat the border pixel
(cv2.BORDER_REPLICATE). All sums are whole numbers, hence exact, and the same in any order: see `FrameTotals`.

The content hash covers every byte of every plane, but not the padding of a pitch: rows are numbered through the planes,
each is cut in little-endian 32-bit words (the last filled with zeros), W words a row, and word k of row r adds

    mix(2**32 (r W + k) + word)   modulo 2**64,   mix = the finaliser of splitmix64 (Steele, Lea, Flood 2014)

mix is a bijection of 64-bit numbers and its argument is unique to position and content, so that one changed byte always
changes the hash, and frames that differ in more have equal hashes with probability about 2**-64. It is no defence
against someone who builds two frames of one hash.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from framegate.cuda_kernels.camera_preprocess.filter_weights import MAX_SIDE, place, resize_taps

__all__ = [
    "BT601_LIMITED",
    "CameraFrame",
    "FrameStatistics",
    "FrameTotals",
    "Normalisation",
    "YuvMatrix",
    "content_hash",
    "frame_totals",
    "luma",
    "preprocess",
    "to_bgr",
]

PIXEL_FORMATS = ("nv12", "yuyv", "bgr")
_FRACTION_BITS = 20
_MASK64 = (1 << 64) - 1
_LUMA_WEIGHTS = np.array([3735, 19235, 9798])  # of B, G, R, in 1/2**15; cv2.COLOR_BGR2GRAY

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class YuvMatrix:
    """Y'CbCr to R'G'B' in units of 2**-20, see the formula above.

    Attributes:
        offset: The code of black: 16 in limited range, 0 in full range.
        cy: Gain of luma.
        cub: From U to blue.
        cug: From U to green.
        cvg: From V to green.
        cvr: From V to red.
    """

    offset: int
    cy: int
    cub: int
    cug: int
    cvg: int
    cvr: int

    @classmethod
    def of(cls, standard: str = "bt601", full_range: bool = False) -> "YuvMatrix":
        """The matrix of a standard, ``bt601`` or ``bt709`` (ITU-R BT.601-7 and BT.709-6).

        BT.601 in limited range, what cameras send if they say nothing, is the one that cv2 knows; its coefficients
        are rounded to three decimals there, and taken over here so that both give the same pixels.

        Raises:
            ValueError: the standard is unknown.
        """
        luma_share = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
        if standard not in luma_share:
            raise ValueError(f"colour standard: asked for one of {', '.join(luma_share)}, found {standard!r}")
        if standard == "bt601" and not full_range:
            return BT601_LIMITED
        red, blue = luma_share[standard]
        green = 1.0 - red - blue
        luma_gain, chroma_gain = (1.0, 1.0) if full_range else (255 / 219, 255 / 224)
        to_blue, to_red = 2 * (1 - blue) * chroma_gain, 2 * (1 - red) * chroma_gain
        gains = (luma_gain, to_blue, -to_blue * blue / green, -to_red * red / green, to_red)
        return cls(0 if full_range else 16, *(round(gain * (1 << _FRACTION_BITS)) for gain in gains))


BT601_LIMITED = YuvMatrix(offset=16, cy=1220542, cub=2116026, cug=-409993, cvg=-852492, cvr=1673527)
"""1.164, 2.018, -0.391, -0.813 and 1.596, as in cv2."""


@dataclass(frozen=True, slots=True, eq=False)
class CameraFrame:
    """One frame as the camera gives it.

    Attributes:
        pixel_format: ``nv12``, ``yuyv`` or ``bgr``.
        width: Pixels; may be odd, the last chroma sample then serves one column.
        height: Rows; may be odd, the last NV12 chroma row then serves one row.
        planes: uint8. nv12: (H, W) luma and (ceil(H/2), ceil(W/2), 2) U, V. yuyv: (H, ceil(W/2), 4) Y, U, Y, V.
            bgr: (H, W, 3). Rows may lie further apart than they are long (a pitch).
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
    """Shapes of the planes of a frame, see `CameraFrame`.

    Raises:
        ValueError: the format is unknown or a side is not in 1..16384.
    """
    if pixel_format not in PIXEL_FORMATS:
        raise ValueError(f"pixel format: asked for one of {', '.join(PIXEL_FORMATS)}, found {pixel_format!r}")
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise ValueError(f"frame: asked for sides of 1..{MAX_SIDE} pixels, found {width}x{height}")
    pairs = (width + 1) // 2
    return {
        "nv12": ((height, width), ((height + 1) // 2, pairs, 2)),
        "yuyv": ((height, pairs, 4),),
        "bgr": ((height, width, 3),),
    }[pixel_format]


def _integers(array: Bytes) -> Integers:
    return array.astype(np.int64)


def luma(frame: CameraFrame) -> Integers:
    """The luma that statistics are taken of, (H, W) int64 in [0, 255]."""
    first = _integers(frame.planes[0])
    if frame.pixel_format == "nv12":
        return first
    if frame.pixel_format == "yuyv":
        return first[:, :, ::2].reshape(frame.height, -1)[:, : frame.width]
    result: Integers = (first @ _LUMA_WEIGHTS + (1 << 14)) >> 15
    return result


def to_bgr(frame: CameraFrame, matrix: YuvMatrix = BT601_LIMITED) -> Bytes:
    """Step 1 above: (H, W, 3) uint8 BGR of the whole frame."""
    if frame.pixel_format == "bgr":
        return frame.planes[0]
    if frame.pixel_format == "nv12":
        chroma = _integers(frame.planes[1]).repeat(2, axis=0)[: frame.height]
    else:
        chroma = _integers(frame.planes[0][:, :, 1::2])
    chroma = chroma.repeat(2, axis=1)[:, : frame.width] - 128
    u, v = chroma[..., 0], chroma[..., 1]
    y = np.maximum(0, luma(frame) - matrix.offset) * matrix.cy + (1 << (_FRACTION_BITS - 1))
    bgr = np.stack([y + matrix.cub * u, y + matrix.cug * u + matrix.cvg * v, y + matrix.cvr * v], axis=-1)
    return (bgr >> _FRACTION_BITS).clip(0, 255).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Normalisation:
    """From pixels to the network's numbers; every triple in the network's channel order and in pixel units [0, 255].

    Attributes:
        colour: ``rgb`` or ``bgr``.
        mean: Subtracted.
        std: Divided by, positive.
        pad: What letterbox borders hold, before the normalisation.
    """

    colour: str = "rgb"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    pad: tuple[float, float, float] = (114.0, 114.0, 114.0)

    def __post_init__(self) -> None:
        """Refuse what has no meaning.

        Raises:
            ValueError: the colour order is unknown, a number is not finite, or a std is not positive.
        """
        if self.colour not in ("rgb", "bgr"):
            raise ValueError(f"colour: asked for rgb or bgr, found {self.colour!r}")
        if any(len(triple) != 3 for triple in (self.mean, self.std, self.pad)):
            raise ValueError(f"mean, std, pad: asked for three numbers each, found {self.mean}, {self.std}, {self.pad}")
        if not (np.isfinite([self.mean, self.std, self.pad]).all() and min(self.std) > 0):
            raise ValueError(f"mean {self.mean}, std {self.std}, pad {self.pad}: asked for finite numbers and std > 0")


def check_region(region: tuple[int, int, int, int], width: int, height: int) -> None:
    """Raise ValueError unless (x, y, width, height) lies within the frame and holds a pixel."""
    x, y, w, h = region
    if not (x >= 0 and y >= 0 and w >= 1 and h >= 1 and x + w <= width and y + h <= height):
        raise ValueError(f"region (x, y, width, height) {region}: asked for one inside the {width}x{height} frame")


def preprocess(
    frame: CameraFrame,
    output: tuple[int, int],
    *,
    region: tuple[int, int, int, int] | None = None,
    mode: str = "bilinear",
    fit: str = "stretch",
    normalisation: Normalisation | None = None,
    matrix: YuvMatrix = BT601_LIMITED,
) -> NDArray[np.float64]:
    """Compute the network's input from a frame: (3, height, width) float64.

    Args:
        frame: The camera's bytes.
        output: (width, height) of the network's input, pixels.
        region: (x, y, width, height) in the frame; None: all of it.
        mode: ``bilinear``, ``antialias`` or ``area``, see `preprocess_taps`.
        fit: ``stretch`` or ``letterbox``, see `preprocess_taps.place`.
        normalisation: Channel order, mean, std and pad value; None: RGB in [0, 255].
        matrix: The YUV matrix; not used for BGR.

    Raises:
        ValueError: a mode, fit or size is unknown or out of range, or the region leaves the frame.
    """
    region = (0, 0, frame.width, frame.height) if region is None else region
    norm = Normalisation() if normalisation is None else normalisation
    check_region(region, frame.width, frame.height)
    x, y, width, height = region
    spot = place((width, height), output, fit)
    along_x, along_y = resize_taps((width, height), (spot.width, spot.height), mode)
    crop = to_bgr(frame, matrix)[y : y + height, x : x + width].astype(np.float64)
    canvas = np.empty((3, output[1], output[0]))
    for channel, (mean, std, pad) in enumerate(zip(norm.mean, norm.std, norm.pad, strict=True)):
        plane = crop[..., 2 - channel if norm.colour == "rgb" else channel]
        canvas[channel] = pad
        resized = along_y.matrix() @ plane @ along_x.matrix().T
        canvas[channel, spot.y : spot.y + spot.height, spot.x : spot.x + spot.width] = resized
        canvas[channel] = (canvas[channel] - mean) / std
    return canvas


@dataclass(frozen=True, slots=True)
class FrameStatistics:
    """What the luma of a frame says about the camera; units of grey levels [0, 255].

    Attributes:
        mean: Mean luma.
        saturated_share: Share of pixels at or above the saturation level, in [0, 1].
        dark_share: Share of pixels at or below the dark level, in [0, 1].
        laplacian_variance: Variance of the 4-neighbour Laplacian (cv2.Laplacian, ksize 1); low means blurred.
        total_variation: Mean of |a(x+1, y) - a(x, y)| + |a(x, y+1) - a(x, y)|.
        high_frequency_energy: Mean of (a - box3(a))**2, box3 the mean of 3 x 3 pixels; high means noisy.
        content_hash: 64 bits over the camera's bytes; equal for frozen content.
    """

    mean: float
    saturated_share: float
    dark_share: float
    laplacian_variance: float
    total_variation: float
    high_frequency_energy: float
    content_hash: int


@dataclass(frozen=True, slots=True)
class FrameTotals:
    """The exact sums of a frame that its statistics come from; what the kernel writes, field by field.

    Attributes:
        luma: Sum of a.
        saturated: Pixels with a >= the saturation level.
        dark: Pixels with a <= the dark level.
        laplacian: Sum of L = left + right + up + down - 4 a; signed.
        laplacian_squared: Sum of L**2.
        total_variation: Sum of the absolute forward differences along x and y.
        high_frequency: Sum of (9 a - sum of the 3 x 3 pixels)**2, 81 times the energy.
        content_hash: See the top of this file.
    """

    luma: int
    saturated: int
    dark: int
    laplacian: int
    laplacian_squared: int
    total_variation: int
    high_frequency: int
    content_hash: int

    def statistics(self, pixels: int) -> FrameStatistics:
        """Turn sums over this many pixels into statistics. Python's own integers: nothing is lost before the division.

        Raises:
            ValueError: pixels is not positive.
        """
        if pixels < 1:
            raise ValueError(f"pixels: asked for a positive number, found {pixels!r}")
        return FrameStatistics(
            mean=self.luma / pixels,
            saturated_share=self.saturated / pixels,
            dark_share=self.dark / pixels,
            laplacian_variance=(self.laplacian_squared * pixels - self.laplacian**2) / pixels**2,
            total_variation=self.total_variation / pixels,
            high_frequency_energy=self.high_frequency / (81 * pixels),
            content_hash=self.content_hash,
        )


def frame_totals(frame: CameraFrame, *, saturated_level: int = 235, dark_level: int = 16) -> FrameTotals:
    """Sum up the whole frame. The default levels are white and black of limited range; 255 and 0 are those of full."""
    a = luma(frame)
    padded = np.pad(a, 1, mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    laplacian = padded[1:-1, :-2] + padded[1:-1, 2:] + padded[:-2, 1:-1] + padded[2:, 1:-1] - 4 * a
    return FrameTotals(
        luma=int(a.sum()),
        saturated=int((a >= saturated_level).sum()),
        dark=int((a <= dark_level).sum()),
        laplacian=int(laplacian.sum()),
        laplacian_squared=int((laplacian**2).sum()),
        total_variation=int(np.abs(np.diff(a, axis=0)).sum() + np.abs(np.diff(a, axis=1)).sum()),
        high_frequency=int(((9 * a - box) ** 2).sum()),
        content_hash=content_hash(frame),
    )


def content_hash(frame: CameraFrame) -> int:
    """The 64-bit hash of all the camera's bytes, see the top of this file."""
    # nv12's planes have rows of W and 2 ceil(W/2) bytes: the same number of words, so row numbers simply go on.
    rows = [plane.reshape(len(plane), -1) for plane in frame.planes]
    words_per_row = -(-rows[0].shape[1] // 4)
    words = np.zeros((sum(map(len, rows)), words_per_row * 4), np.uint8)
    at = 0
    for plane in rows:
        words[at : at + len(plane), : plane.shape[1]] = plane
        at += len(plane)
    z = words.view("<u4").astype(np.uint64).ravel()
    z |= np.arange(z.size, dtype=np.uint64) << np.uint64(32)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return int(z.sum(dtype=np.uint64)) & _MASK64
