"""Resize, look-up table and layout of `framegate.runtime.preprocess` in one call of compiled code (preprocess.c)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from framegate.runtime.native import fast_path_module, library

_P, _I, _F = ctypes.c_void_p, ctypes.c_int32, ctypes.c_float
_MOST = 2**31 // 8
"""Bytes of a row up to which offsets within it are known to fit."""


class _Plan(ctypes.Structure):
    """See preprocess.c."""

    _fields_ = (
        ("width", _I),
        ("height", _I),
        ("planes", _I * 3),
        ("known_width", _I),
        ("linear", _I),
        ("means", _F * 3),
        ("deviations", _F * 3),
        ("tables", _P),
        ("small", _P),
        ("tensor", _P),
        ("taps", _P),
        ("weights", _P),
        ("lines", _P),
    )


class Resize:
    """Fills ``small`` and ``tensor`` from a crop.

    Args:
        code: From `framegate.runtime.native.library`.
        planes: Which of blue, green and red each of the three channels of ``tensor`` reads.
        tables: The value of each level, (256,), for each channel.
        means: Of each channel, in levels; what ``tables`` were made with.
        deviations: Of each channel, in levels, above 0.
        small: (H, W, 3) for the resized crop, C-contiguous.
        tensor: (1, 3, H, W), C-contiguous.

    Attributes:
        at: Address of what stays the same for every crop (preprocess.c); it holds as long as this object lives.
        size: (W, H).
        linear: Every table is a difference and a quotient in float32, bit for bit: they are computed, eight at once.
    """

    def __init__(
        self,
        code: ctypes.CDLL,
        planes: Sequence[int],
        tables: Sequence[npt.NDArray[np.float32]],
        means: Sequence[float],
        deviations: Sequence[float],
        small: npt.NDArray[np.uint8],
        tensor: npt.NDArray[np.float32],
    ) -> None:
        height, width = small.shape[:2]
        self.linear = all(map(_is_linear, tables, means, deviations))
        plan = _Plan(width, height, (_I * 3)(*planes), 0, self.linear, (_F * 3)(*means), (_F * 3)(*deviations))
        kept: dict[str, npt.NDArray[Any]] = {
            "tables": np.ascontiguousarray(np.stack(tables), np.float32),
            "small": small,
            "tensor": tensor,
            "taps": np.zeros(width, np.int32),
            "weights": np.zeros((width, 2), np.int16),
            "lines": np.zeros((2, 2, width, 4), np.int16),
        }
        for name, array in kept.items():
            setattr(plan, name, array.ctypes.data)
        self._kept = plan, kept  # whose memory the addresses are
        self._call, self.at, self.size = code.framegate_preprocess, ctypes.addressof(plan), (width, height)
        module = fast_path_module()  # whose calls are the shorter ones
        self._resize: Callable[[int, object], bool] | None = None if module is None else module.resize

    @staticmethod
    def takes(crop: npt.NDArray[np.uint8]) -> bool:
        """Whether this crop's pixels lie as the compiled code reads them; a mirrored view's do not, for example."""
        if crop.ndim != 3 or crop.dtype != np.uint8 or not crop.size:
            return False
        return crop.strides[1:] == (3, 1) and crop.shape[2] == 3 and crop.shape[1] * 3 <= _MOST

    def __call__(self, crop: npt.NDArray[np.uint8]) -> bool:
        """Fill the tensor; False, and nothing done, if this crop is not for it."""
        if self._resize is not None:
            return self._resize(self.at, crop)
        if not self.takes(crop):
            return False
        rows, columns, _ = crop.shape
        self._call(self.at, crop.ctypes.data, crop.strides[0], columns, rows)
        return True


def _is_linear(table: npt.NDArray[np.float32], mean: float, deviation: float) -> bool:
    """Whether a difference and a quotient in float32 give this table's numbers, bit for bit."""
    levels = np.arange(256, dtype=np.float32)
    with np.errstate(all="ignore"):  # a deviation that is 0 or infinite in float32
        found = (levels - np.float32(mean)) / np.float32(deviation)
    return bool(found.tobytes() == table.tobytes())  # 0 and -0 are not the same bits


def bilinear(
    planes: Sequence[int],
    tables: Sequence[npt.NDArray[np.float32]],
    means: Sequence[float],
    deviations: Sequence[float],
    small: npt.NDArray[np.uint8],
    tensor: npt.NDArray[np.float32],
) -> Resize | None:
    """What fills ``small`` and ``tensor`` from a crop, see `Resize`; None without the compiled code."""
    code, _ = library()
    if code is None or not (small.flags.c_contiguous and tensor.flags.c_contiguous):
        return None
    return Resize(code, planes, tables, means, deviations, small, tensor)
