"""The host's side of ``preprocess.cu``: which kernel, which grid, which taps, and every check before a launch.

    plan = plan_preprocess("nv12", (1920, 1080), (224, 224), mode="antialias", dtype="float16")
    # once: copy plan.taps to the device, allocate plan.workspace_bytes of device memory and fill them with zeros
    parameters = plan.parameters(planes=(y, uv), pitches=(1920, 1920), output=..., taps=..., workspace=..., record=...)
    driver.launch(driver.get_function(module, plan.kernel), plan.grid, plan.block, [parameters], stream)
    totals = FrameTotals(...)   # of the record: `totals_of_record`

A plan holds no address, so it can be made and checked without a GPU. Launches that may run at the same time need a
workspace and a record each.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from framegate.cuda_kernels.camera_preprocess.filter_weights import AxisTaps, place, resize_taps
from framegate.cuda_kernels.camera_preprocess.reference import (
    BT601_LIMITED,
    FrameTotals,
    Normalisation,
    YuvMatrix,
    check_region,
    plane_shapes,
)

__all__ = ["RECORD_WORDS", "Parameters", "PreprocessPlan", "plan_preprocess", "totals_of_record"]

THREADS = 128
RECORD_WORDS = 9
"""64-bit words of the record: the fields of `FrameTotals` in their order, then the frame's sequence number."""
_BILINEAR_TILE = (32, 4)
_FILTER_TILE = (16, 8)
_STRIP = (4 * THREADS, 16)
_TOTALS = 8
_DTYPES = {"float32": "f32", "float16": "f16"}

_TAPS = ("x_first", "x_count", "x_weights", "y_first", "y_count", "y_weights")
_POINTERS = ("plane0", "plane1", "output", *_TAPS, "partials", "ticket", "record", "sequence")
_INTEGERS = (
    *("width", "height", "region_x", "region_y", "out_width", "out_height"),
    *("place_x", "place_y", "place_width", "place_height", "resize_blocks", "statistics_blocks", "aligned"),
    *("saturated_level", "dark_level", "offset", "cy", "cub", "cug", "cvg", "cvr", "reversed"),
)


class Parameters(ctypes.Structure):
    """``PreprocessParameters`` of preprocess.cu, field by field."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_uint64) for name in ("pitch0", "pitch1")),
        *((name, ctypes.c_int) for name in _INTEGERS),
        *((name, ctypes.c_float * 3) for name in ("mean", "inverse_std", "pad")),
    )


@dataclass(frozen=True, slots=True, eq=False)
class PreprocessPlan:
    """All that a launch needs except addresses.

    Attributes:
        kernel: Name in preprocess.cu.
        grid: Blocks in x, y, z.
        block: Threads in x, y, z.
        output_shape: (3, height, width).
        output_dtype: ``float32`` or ``float16``.
        taps: int32 words to copy to the device once: of x and then of y, first, count, and the bits of the weights.
        workspace_bytes: Device memory, filled with zeros before the first launch; 0 without statistics.
        row_bytes: Bytes of a row of each plane, the smallest pitch.
    """

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    output_shape: tuple[int, int, int]
    output_dtype: str
    taps: NDArray[np.int32]
    workspace_bytes: int
    row_bytes: tuple[int, ...]
    _template: Parameters  # everything but the addresses; the taps' are offsets

    def parameters(
        self,
        *,
        planes: Sequence[int],
        pitches: Sequence[int],
        output: int,
        taps: int,
        workspace: int = 0,
        record: int = 0,
        sequence: int = 0,
    ) -> Parameters:
        """Put addresses, as the device sees them, into the one parameter of the kernel.

        Args:
            planes: Of each plane of the frame; any alignment (multiples of 4, pitches too, are faster).
            pitches: Bytes from row to row of each plane.
            output: Of `output_shape` numbers.
            taps: Where `taps` was copied to.
            workspace: Of `workspace_bytes` bytes; with statistics only.
            record: Of RECORD_WORDS 64-bit words, in device or mapped host memory; with statistics only.
            sequence: Of a 64-bit sequence number that goes into the record; 0: there is none.

        Raises:
            ValueError: an address is missing or misaligned, or a pitch is shorter than a row.
        """
        if len(planes) != len(self.row_bytes) or len(pitches) != len(self.row_bytes):
            wanted = len(self.row_bytes)
            raise ValueError(
                f"{self.kernel}: asked for {wanted} planes, found {len(planes)} and {len(pitches)} pitches"
            )
        for row, pitch in zip(self.row_bytes, pitches, strict=True):
            if pitch < row:
                raise ValueError(f"{self.kernel}: asked for a pitch of at least {row} bytes, found {pitch}")
        size = np.dtype(self.output_dtype).itemsize
        needed = [*((f"plane {i}", plane, 1) for i, plane in enumerate(planes)), ("output", output, size)]
        needed.append(("taps", taps, 4))
        if self.workspace_bytes:
            needed += [("workspace", workspace, 8), ("record", record, 8)]
        for name, address, alignment in needed:
            if address <= 0 or address % alignment:
                raise ValueError(f"{self.kernel}: asked for a {name} at a multiple of {alignment}, found {address:#x}")
        if sequence % 8:
            raise ValueError(f"{self.kernel}: asked for a sequence number at a multiple of 8, found {sequence:#x}")
        result = Parameters.from_buffer_copy(self._template)
        result.plane0, result.plane1, result.output = planes[0], planes[-1], output
        result.pitch0, result.pitch1 = pitches[0], pitches[-1]
        result.aligned = int(all(number % 4 == 0 for number in (*planes, *pitches)))
        for name in _TAPS:
            setattr(result, name, taps + (getattr(self._template, name) or 0))  # ctypes reads 0 as None
        if self.workspace_bytes:
            result.partials, result.ticket = workspace, workspace + self.workspace_bytes - 8
            result.record, result.sequence = record, sequence
        return result


def totals_of_record(record: NDArray[np.uint64]) -> FrameTotals:
    """Read the first eight words of a record.

    Raises:
        ValueError: it is not RECORD_WORDS 64-bit words.
    """
    if record.shape != (RECORD_WORDS,) or record.dtype != np.uint64:
        raise ValueError(f"record: asked for {RECORD_WORDS} uint64, found {record.dtype} {record.shape}")
    words = [int(word) for word in record[:_TOTALS]]
    words[3] -= (words[3] >> 63) << 64  # the sum of the Laplacian is signed
    return FrameTotals(*words)


def plan_preprocess(
    pixel_format: str,
    size: tuple[int, int],
    output: tuple[int, int],
    *,
    region: tuple[int, int, int, int] | None = None,
    mode: str = "bilinear",
    fit: str = "stretch",
    normalisation: Normalisation | None = None,
    matrix: YuvMatrix = BT601_LIMITED,
    dtype: str = "float32",
    statistics: bool = True,
    saturated_level: int = 235,
    dark_level: int = 16,
) -> PreprocessPlan:
    """Decide everything about a launch; what the arguments mean is said in `preprocess_reference.preprocess`.

    Args:
        pixel_format: ``nv12``, ``yuyv`` or ``bgr``.
        size: (width, height) of the frame.
        output: (width, height) of the network's input.
        region: (x, y, width, height) in the frame; None: all of it.
        mode: ``bilinear``, ``antialias`` or ``area``.
        fit: ``stretch`` or ``letterbox``.
        normalisation: Channel order, mean, std, pad; None: RGB in [0, 255].
        matrix: The YUV matrix.
        dtype: ``float32`` or ``float16``.
        statistics: Whether the frame's totals and hash are computed too.
        saturated_level: Luma from which on a pixel counts as saturated.
        dark_level: Luma up to which a pixel counts as dark.

    Raises:
        ValueError: something is unknown or out of range, or a normalised pixel would not fit in the output's type.
    """
    width, height = size
    shapes = plane_shapes(pixel_format, width, height)
    region = (0, 0, width, height) if region is None else region
    check_region(region, width, height)
    if dtype not in _DTYPES:
        raise ValueError(f"output type: asked for one of {', '.join(_DTYPES)}, found {dtype!r}")
    spot = place(region[2:], output, fit)
    along = resize_taps(region[2:], (spot.width, spot.height), mode)
    # cv2's area rule has two taps a side where it enlarges, which is what the bilinear kernel does with any weights.
    bilinear = mode == "bilinear" or (mode == "area" and (spot.width > region[2] or spot.height > region[3]))
    template = Parameters(
        width=width,
        height=height,
        region_x=region[0],
        region_y=region[1],
        out_width=output[0],
        out_height=output[1],
        place_x=spot.x,
        place_y=spot.y,
        place_width=spot.width,
        place_height=spot.height,
        resize_blocks=_tiles(output, _BILINEAR_TILE if bilinear else _FILTER_TILE),
        statistics_blocks=_tiles(size, _STRIP) if statistics else 0,
        saturated_level=saturated_level,
        dark_level=dark_level,
    )
    _set_colours(template, Normalisation() if normalisation is None else normalisation, matrix, dtype)
    taps = _set_taps(template, along)
    return PreprocessPlan(
        kernel=f"preprocess_{pixel_format}_{'bilinear' if bilinear else 'filter'}_{_DTYPES[dtype]}",
        grid=(template.resize_blocks + template.statistics_blocks, 1, 1),
        block=(THREADS, 1, 1),
        output_shape=(3, output[1], output[0]),
        output_dtype=dtype,
        taps=taps,
        # The ticket has the last eight bytes.
        workspace_bytes=template.statistics_blocks * _TOTALS * 8 + 8 if statistics else 0,
        row_bytes=tuple(int(np.prod(shape[1:])) for shape in shapes),
        _template=template,
    )


def _tiles(area: tuple[int, int], tile: tuple[int, int]) -> int:
    return -(-area[0] // tile[0]) * -(-area[1] // tile[1])


def _set_colours(template: Parameters, norm: Normalisation, matrix: YuvMatrix, dtype: str) -> None:
    # The kernel adds up in 32 bits.
    gains = (matrix.cub, abs(matrix.cug) + abs(matrix.cvg), matrix.cvr)
    largest_sum = (255 - min(matrix.offset, 0)) * abs(matrix.cy) + 128 * max(map(abs, gains)) + (1 << 19)
    if largest_sum >= 1 << 31:
        raise ValueError(f"YUV matrix {matrix}: asked for sums below 2**31, found up to {largest_sum}")
    inverse_std = tuple(1.0 / s for s in norm.std)
    pad = tuple((p - m) / s for p, m, s in zip(norm.pad, norm.mean, norm.std, strict=True))
    ends = [(pixel - m) / s for pixel in (0.0, 255.0) for m, s in zip(norm.mean, norm.std, strict=True)]
    largest = max(map(abs, (*pad, *ends)))
    if not (
        largest <= float(np.finfo(dtype).max)
        and max(*inverse_std, *map(abs, norm.mean)) <= float(np.finfo(np.float32).max)
    ):
        raise ValueError(
            f"mean {norm.mean}, std {norm.std}, pad {norm.pad}: asked for what {dtype} holds, found up to {largest:g}"
        )
    for name in ("offset", "cy", "cub", "cug", "cvg", "cvr"):
        setattr(template, name, getattr(matrix, name))
    for name, triple in (("mean", norm.mean), ("inverse_std", inverse_std), ("pad", pad)):
        setattr(template, name, (ctypes.c_float * 3)(*triple))
    template.reversed = int(norm.colour == "rgb")


def _set_taps(template: Parameters, along: tuple[AxisTaps, AxisTaps]) -> NDArray[np.int32]:
    """Put the byte at which each array begins into the template, and return the arrays one after the other."""
    parts: list[NDArray[np.int32]] = []
    for axis in along:
        # Weights of neighbouring output samples side by side: neighbouring threads then read neighbouring words.
        parts += [axis.first, axis.count, np.ascontiguousarray(axis.weights.T, np.float32).view(np.int32).ravel()]
    begins = np.cumsum([0, *(part.nbytes for part in parts)])
    for name, begin in zip(_TAPS, begins[:-1], strict=True):
        setattr(template, name, int(begin))
    return np.concatenate(parts)
