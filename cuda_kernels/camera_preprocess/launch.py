"""The host's side of ``kernel.cu``: which kernel, which grid, which filter weights, and every check before a launch.

    plan = plan_preprocess("nv12", (1920, 1080), (224, 224), mode="area")
    # once: copy plan.weights to the device
    parameters = plan.parameters(planes=(y, uv), output=..., weights=...)
    kernels.launch(plan.kernel, plan.grid, plan.block, parameters, stream)

A plan holds no address, so it can be made and checked without a GPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from framegate.cuda_kernels.camera_preprocess.filter_weights import AxisWeights, enlarges, resize_weights
from framegate.cuda_kernels.camera_preprocess.reference import Normalisation, plane_shapes

__all__ = ["Parameters", "PreprocessPlan", "plan_preprocess"]

_THREADS = 128
_BILINEAR_TILE = (32, 4)
_FILTER_TILE = (16, 8)

_WEIGHTS = ("x_first", "x_count", "x_weights", "y_first", "y_count", "y_weights")
_LARGEST = float(np.finfo(np.float32).max)


class Parameters(ctypes.Structure):
    """``CameraPreprocessParameters`` of parameters.h, field by field."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("plane0", "plane1", "output", *_WEIGHTS)),
        *((name, ctypes.c_int32) for name in ("width", "height", "out_width", "out_height", "reversed")),
        *((name, ctypes.c_float * 3) for name in ("mean", "inverse_std")),
    )


@dataclass(frozen=True, slots=True, eq=False)
class PreprocessPlan:
    """All that a launch needs except addresses.

    Attributes:
        kernel: Name in kernel.cu.
        grid: Blocks in x, y, z.
        block: Threads in x, y, z.
        output_shape: (3, height, width), float32.
        weights: int32 words to copy to the device once: of x and then of y, first, count, and the bits of the weights.
        plane_bytes: Bytes of each plane of the frame.
    """

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    output_shape: tuple[int, int, int]
    weights: NDArray[np.int32]
    plane_bytes: tuple[int, ...]
    _template: Parameters  # everything but the addresses; those of the weights are offsets

    def parameters(self, *, planes: Sequence[int], output: int, weights: int) -> Parameters:
        """Put addresses, as the device sees them, into the one parameter of the kernel.

        Args:
            planes: Of each plane of the frame, of any alignment; rows lie directly one behind the other.
            output: Of `output_shape` float32 numbers.
            weights: Where `weights` was copied to.

        Raises:
            ValueError: an address is missing or misaligned.
        """
        if len(planes) != len(self.plane_bytes):
            raise ValueError(f"{self.kernel}: asked for {len(self.plane_bytes)} planes, found {len(planes)}")
        needed = [*((f"plane {i}", plane, 1) for i, plane in enumerate(planes)), ("output", output, 4)]
        for name, address, alignment in (*needed, ("weights", weights, 4)):
            if address <= 0 or address % alignment:
                raise ValueError(f"{self.kernel}: asked for a {name} at a multiple of {alignment}, found {address:#x}")
        result = Parameters.from_buffer_copy(self._template)
        result.plane0, result.plane1, result.output = planes[0], planes[-1], output
        for name in _WEIGHTS:
            setattr(result, name, weights + (getattr(self._template, name) or 0))  # ctypes reads 0 as None
        return result


def plan_preprocess(
    pixel_format: str,
    size: tuple[int, int],
    output: tuple[int, int],
    *,
    mode: str = "bilinear",
    normalisation: Normalisation | None = None,
) -> PreprocessPlan:
    """Decide everything about a launch; what the arguments mean is said in `reference.preprocess`.

    Args:
        pixel_format: ``nv12`` or ``bgr``.
        size: (width, height) of the frame.
        output: (width, height) of the network's input; the frame is stretched to it.
        mode: ``bilinear`` or ``area``.
        normalisation: Channel order, mean, std; None: RGB in [0, 255].

    Raises:
        ValueError: something is unknown or out of range, or a normalised pixel would not fit in float32.
    """
    shapes = plane_shapes(pixel_format, *size)
    along = resize_weights(size, output, mode)
    # Where it enlarges, cv2's area rule takes two samples a side, and the bilinear kernel does so with any weights.
    bilinear = mode == "bilinear" or enlarges(size, output)
    template = Parameters(width=size[0], height=size[1], out_width=output[0], out_height=output[1])
    _set_normalisation(template, Normalisation() if normalisation is None else normalisation)
    weights = _set_weights(template, along)
    return PreprocessPlan(
        kernel=f"camera_preprocess_{pixel_format}_{'bilinear' if bilinear else 'filter'}",
        grid=(_tiles(output, _BILINEAR_TILE if bilinear else _FILTER_TILE), 1, 1),
        block=(_THREADS, 1, 1),
        output_shape=(3, output[1], output[0]),
        weights=weights,
        plane_bytes=tuple(int(np.prod(shape)) for shape in shapes),
        _template=template,
    )


def _tiles(area: tuple[int, int], tile: tuple[int, int]) -> int:
    return -(-area[0] // tile[0]) * -(-area[1] // tile[1])


def _set_normalisation(template: Parameters, norm: Normalisation) -> None:
    inverse_std = tuple(1.0 / s for s in norm.std)
    ends = [(pixel - m) / s for pixel in (0.0, 255.0) for m, s in zip(norm.mean, norm.std, strict=True)]
    largest = max(map(abs, (*ends, *inverse_std, *norm.mean)))
    if not largest <= _LARGEST:
        raise ValueError(
            f"mean {norm.mean}, std {norm.std}: asked for what float32 holds, found numbers up to {largest:g}"
        )
    for name, triple in (("mean", norm.mean), ("inverse_std", inverse_std)):
        setattr(template, name, (ctypes.c_float * 3)(*triple))
    template.reversed = int(norm.colour == "rgb")


def _set_weights(template: Parameters, along: tuple[AxisWeights, AxisWeights]) -> NDArray[np.int32]:
    """Put the byte at which each array begins into the template, and return the arrays one after the other."""
    parts: list[NDArray[np.int32]] = []
    for axis in along:
        # Weights of neighbouring output samples side by side: neighbouring threads then read neighbouring words.
        parts += [axis.first, axis.count, np.ascontiguousarray(axis.weights.T, np.float32).view(np.int32).ravel()]
    begins = np.cumsum([0, *(part.nbytes for part in parts)])
    for name, begin in zip(_WEIGHTS, begins[:-1], strict=True):
        setattr(template, name, int(begin))
    return np.concatenate(parts)
