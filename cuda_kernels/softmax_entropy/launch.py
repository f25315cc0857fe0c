"""How to launch the entropy kernels: parameter structures, kernel names, grids; and refusals before any launch.

The structures are those of parameters.h. Nothing here touches a GPU: addresses come in as integers and go out inside
a structure, so the same plans drive the CUDA driver and the host emulation in tests.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntFlag

__all__ = [
    "ELEMENT_SIZES",
    "LARGEST_CHANNELS",
    "LARGEST_CLASSES",
    "DenseParameters",
    "Launch",
    "Limits",
    "PixelFlags",
    "Record",
    "RowsParameters",
    "plan_dense",
    "plan_rows",
    "read_record",
]

ELEMENT_SIZES = {"f16": 2, "bf16": 2, "f32": 4}
LARGEST_CLASSES = 65_536
LARGEST_THREAD_CLASSES = 32
LARGEST_LANES8_CLASSES = 120
LARGEST_LANES16_CLASSES = 504
LARGEST_WARP_CLASSES = 1016
DENSE_BOUNDS = (4, 8, 12, 16, 20, 24, 32)
LARGEST_CHANNELS = DENSE_BOUNDS[-1]
_RECORD_CHECK = 0x46474154
_GRID_X, _GRID_Y = 2**31 - 1, 65_535


RECORD_BYTES = 32


class PixelFlags(IntFlag):
    """What is said of a pixel of a dense output; USABLE stands alone or not at all."""

    USABLE = 1
    INVALID = 2
    ENTROPY_OVER = 4
    PROBABILITY_UNDER = 8
    MARGIN_UNDER = 16
    ENERGY_OVER = 32


class Limits(ctypes.Structure):
    """SoftmaxEntropyLimits: what a usable pixel must satisfy; by default every pixel with a distribution is usable."""

    _fields_ = (
        ("entropy_at_most", ctypes.c_float),
        ("max_probability_at_least", ctypes.c_float),
        ("margin_at_least", ctypes.c_float),
        ("energy_at_most", ctypes.c_float),
    )

    def __init__(
        self,
        entropy_at_most: float = math.inf,
        max_probability_at_least: float = -math.inf,
        margin_at_least: float = -math.inf,
        energy_at_most: float = math.inf,
    ) -> None:
        super().__init__(entropy_at_most, max_probability_at_least, margin_at_least, energy_at_most)


class RowsParameters(ctypes.Structure):
    """SoftmaxEntropyRows."""

    _fields_ = (
        ("logits", ctypes.c_void_p),
        ("row_stride", ctypes.c_uint64),
        ("entropy", ctypes.c_void_p),
        ("max_probability", ctypes.c_void_p),
        ("margin", ctypes.c_void_p),
        ("energy", ctypes.c_void_p),
        ("argmax", ctypes.c_void_p),
        ("probabilities", ctypes.c_void_p),
        ("sequence", ctypes.c_void_p),
        ("records", ctypes.c_void_p),
        ("rows", ctypes.c_uint32),
        ("classes", ctypes.c_uint32),
        ("temperature", ctypes.c_float),
        ("inverse_temperature", ctypes.c_float),
        ("log_classes", ctypes.c_float),
        ("copy", ctypes.c_void_p),
    )


class DenseParameters(ctypes.Structure):
    """SoftmaxEntropyDense."""

    _fields_ = (
        ("logits", ctypes.c_void_p),
        ("entropy", ctypes.c_void_p),
        ("argmax", ctypes.c_void_p),
        ("flags", ctypes.c_void_p),
        ("max_probability", ctypes.c_void_p),
        ("margin", ctypes.c_void_p),
        ("energy", ctypes.c_void_p),
        ("probabilities", ctypes.c_void_p),
        ("channels", ctypes.c_uint32),
        ("pixels", ctypes.c_uint32),
        ("temperature", ctypes.c_float),
        ("inverse_temperature", ctypes.c_float),
        ("log_channels", ctypes.c_float),
        ("limits", Limits),
    )


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel, its grid and block, and its one parameter (keep it alive until the launch is enqueued)."""

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    parameters: ctypes.Structure


@dataclass(frozen=True, slots=True)
class Record:
    """The scores of one frame as the host reads them.

    Attributes:
        sequence: Number of the frame.
        argmax: The class with the largest logit; -1 for a frame without a distribution, whose scores are NaN.
        entropy: Nats, in [0, log C].
        max_probability: In [1/C, 1].
        margin: Largest minus second largest probability.
        energy: -T logsumexp(x / T), in the unit of the logits.
    """

    sequence: int
    argmax: int
    entropy: float
    max_probability: float
    margin: float
    energy: float


def read_record(memory: bytes | bytearray | memoryview, sequence: int) -> Record | None:
    """Return the record of frame `sequence`, or None: not written yet, another frame's, or torn. None means REJECT.

    Args:
        memory: RECORD_BYTES of mapped memory.
        sequence: the number that was in *sequence when the kernel was launched.
    """
    words = struct.unpack("<8I", bytes(memory))  # one copy, then judged: the device may still be writing
    check = _RECORD_CHECK
    for word in words[:6]:
        check ^= word
    if words[0] != sequence or words[6] != check:
        return None
    argmax, *scores = struct.unpack("<i4f", struct.pack("<5I", *words[1:6]))
    return Record(words[0], argmax, *scores)


def _checked_temperature(temperature: float) -> float:
    if not 1e-30 <= temperature <= 1e30:  # beyond, 1 / T or T log Z leaves fp32
        raise ValueError(f"temperature: asked for a number in [1e-30, 1e30], found {temperature!r}")
    return temperature


def _factors(temperature: float) -> dict[str, float]:
    """T and 1 / T as the kernels get them; 1 / T of the float32 that T becomes."""
    inverse = 1 / ctypes.c_float(_checked_temperature(temperature)).value
    return {"temperature": temperature, "inverse_temperature": inverse}


def _pointers(addresses: Mapping[str, int], known: tuple[str, ...], sizes: Mapping[str, int]) -> dict[str, int]:
    for name, address in addresses.items():
        if name not in known:
            raise ValueError(f"outputs: asked for any of {', '.join(known)}, found {name!r}")
        if address == 0 or address % sizes[name] != 0:
            raise ValueError(f"{name}: asked for an address aligned to {sizes[name]} bytes, found {address:#x}")
    return dict(addresses)


def _element_size(dtype: str) -> int:
    if dtype not in ELEMENT_SIZES:
        raise ValueError(f"dtype: asked for one of {', '.join(ELEMENT_SIZES)}, found {dtype!r}")
    return ELEMENT_SIZES[dtype]


def _rows_output(names: set[str]) -> str:
    if names & {"records", "sequence", "copy"}:
        if names - {"copy"} != {"records", "sequence"}:
            raise ValueError(f"outputs: records and sequence go together and alone, found {', '.join(sorted(names))}")
        return "record"
    if "probabilities" in names:
        return "probabilities"
    if not names:
        raise ValueError("outputs: asked for at least one, found none")
    return "entropy" if names == {"entropy"} else "scores"


def _rows_layout(output: str, rows: int, classes: int, size: int, *, gapless: bool) -> tuple[str, int, int]:
    """Who computes a row, how many blocks that takes, and threads a block; the bounds are those of kernel.cu."""
    alone = output == "entropy"
    if alone and gapless and classes <= LARGEST_THREAD_CLASSES:
        return "thread", -(-rows // 128), 128
    if classes <= LARGEST_LANES8_CLASSES:
        return "lanes8", -(-rows // 16), 128
    if alone and classes <= LARGEST_LANES16_CLASSES:
        return "lanes16", -(-rows // 8), 128
    if classes <= LARGEST_WARP_CLASSES:
        # One frame alone needs one warp; three idle ones beside it would only take part in the launch.
        return "warp", -(-rows // 4), 128 if rows > 1 else 32
    # Four 16-byte windows a thread are under way at once: threads enough to take the row in one go, if possible.
    windows = -(-classes * size // 64)
    return "block", rows, min(512, max(64, 1 << (windows - 1).bit_length()))


def plan_rows(
    logits: int,
    dtype: str,
    rows: int,
    classes: int,
    outputs: Mapping[str, int],
    temperature: float = 1.0,
    row_stride: int | None = None,
) -> Launch:
    """Plan a launch over rows [N, C].

    Args:
        logits: device address, aligned to one element.
        dtype: "f16", "bf16" or "f32".
        rows: N >= 1.
        classes: C in [1, 65536].
        outputs: device addresses by name: entropy, max_probability, margin, energy (fp32 [N]), argmax (int32 [N]),
            probabilities ([N, C] of the logits' type); or records (32 bytes a row, aligned to 32) with sequence (a
            uint32), both in mapped host memory, and nothing else but, if wanted, copy ([N, C] of the logits' type),
            where the logits are written as they were read.
        temperature: T in softmax(x / T), in [1e-30, 1e30].
        row_stride: elements from row to row, >= C; None for contiguous rows.

    Raises:
        ValueError: whatever a kernel cannot do, with what was asked and found.
    """
    size = _element_size(dtype)
    stride = classes if row_stride is None else row_stride
    if not 1 <= classes <= LARGEST_CLASSES:
        raise ValueError(f"classes: asked for 1 to {LARGEST_CLASSES}, found {classes}")
    if not 1 <= rows <= _GRID_X:
        raise ValueError(f"rows: asked for 1 to {_GRID_X}, found {rows}")
    if stride < classes:
        raise ValueError(f"row_stride: asked for at least C = {classes} elements, found {stride}")
    if logits == 0 or logits % size != 0:
        raise ValueError(f"logits: asked for an address aligned to {size} bytes, found {logits:#x}")
    sizes = {"probabilities": size, "copy": size, "records": RECORD_BYTES} | dict.fromkeys(
        ("entropy", "max_probability", "margin", "energy", "argmax", "sequence"), 4
    )
    pointers = _pointers(outputs, tuple(sizes), sizes)
    output = _rows_output(set(pointers))
    parameters = RowsParameters(
        logits=logits,
        row_stride=stride,
        rows=rows,
        classes=classes,
        log_classes=math.log(classes),
        **_factors(temperature),
        **pointers,
    )
    layout, blocks, threads = _rows_layout(output, rows, classes, size, gapless=stride == classes)
    return Launch(f"softmax_entropy_{layout}_{dtype}_{output}", (blocks, 1, 1), (threads, 1, 1), parameters)


def plan_dense(
    logits: int,
    dtype: str,
    images: int,
    channels: int,
    pixels: int,
    outputs: Mapping[str, int],
    temperature: float = 1.0,
    limits: Limits | None = None,
) -> Launch:
    """Plan a launch over channel-major logits [N, C, H, W], contiguous, with pixels = H * W.

    Args:
        logits: device address, aligned to one element.
        dtype: "f16", "bf16" or "f32".
        images: N in [1, 65535].
        channels: C in [1, `LARGEST_CHANNELS`].
        pixels: H * W >= 1.
        outputs: device addresses by name. entropy and argmax (uint8) alone give the fast kernel, whose entropy is fp16
            for 16-bit logits. With any of flags (uint8), max_probability, margin, energy (fp32) or probabilities (the
            logits' type), entropy is fp32.
        temperature: T in softmax(x / T), in [1e-30, 1e30].
        limits: for the flags; None: every pixel with a distribution is usable.

    Raises:
        ValueError: whatever a kernel cannot do, with what was asked and found.
    """
    size = _element_size(dtype)
    if not 1 <= channels <= LARGEST_CHANNELS:
        raise ValueError(f"channels: asked for 1 to {LARGEST_CHANNELS}, found {channels}; more classes go as rows")
    if not 1 <= images <= _GRID_Y:
        raise ValueError(f"images: asked for 1 to {_GRID_Y}, found {images}")
    if not 1 <= pixels < 2**32:
        raise ValueError(f"pixels: asked for 1 to {2**32 - 1}, found {pixels}")
    if logits == 0 or logits % size != 0:
        raise ValueError(f"logits: asked for an address aligned to {size} bytes, found {logits:#x}")
    labels = set(outputs) <= {"entropy", "argmax"}
    sizes = {"entropy": size if labels else 4, "argmax": 1, "flags": 1, "probabilities": size}
    sizes |= dict.fromkeys(("max_probability", "margin", "energy"), 4)
    pointers = _pointers(outputs, tuple(sizes), sizes)
    if not pointers:
        raise ValueError("outputs: asked for at least one, found none")
    pairs = pixels % 2 == 0 and logits % (2 * size) == 0
    pairs = pairs and all(address % (2 * sizes[name]) == 0 for name, address in pointers.items())
    bound = f"c{next(b for b in DENSE_BOUNDS if b >= channels)}" if pairs else "unaligned"
    threads = -(-pixels // (2 if pairs else 1))
    parameters = DenseParameters(
        logits=logits,
        channels=channels,
        pixels=pixels,
        log_channels=math.log(channels),
        limits=limits or Limits(),
        **_factors(temperature),
        **pointers,
    )
    kernel = f"softmax_entropy_dense_{dtype}_{bound}_{'labels' if labels else 'scores'}"
    return Launch(kernel, (-(-threads // 128), images, 1), (128, 1, 1), parameters)
