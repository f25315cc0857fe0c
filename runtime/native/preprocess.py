"""Resize, look-up table and layout of `framegate.runtime.preprocess` in one call of compiled code (preprocess.c)."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from framegate.runtime.native import library

_P, _I = ctypes.c_void_p, ctypes.c_int32
_MOST = 2**31 // 8
"""Bytes of a row up to which offsets within it are known to fit."""

Resize = Callable[[npt.NDArray[np.uint8]], bool]
"""Fills the tensor from a crop; False if this one is not for it."""


class _Plan(ctypes.Structure):
    """See preprocess.c."""

    _fields_ = (
        ("width", _I),
        ("height", _I),
        ("planes", _I * 3),
        ("known_width", _I),
        ("tables", _P),
        ("small", _P),
        ("tensor", _P),
        ("taps", _P),
        ("weights", _P),
    )


def bilinear(
    planes: Sequence[int],
    tables: Sequence[npt.NDArray[np.float32]],
    small: npt.NDArray[np.uint8],
    tensor: npt.NDArray[np.float32],
) -> Resize | None:
    """What fills ``small`` and ``tensor`` from a crop; None without the compiled code.

    Args:
        planes: Which of blue, green and red each of the three channels of ``tensor`` reads.
        tables: The value of each level, (256,), for each channel.
        small: (H, W, 3) for the resized crop.
        tensor: (1, 3, H, W), C-contiguous.
    """
    code, _ = library()
    if code is None or not (small.flags.c_contiguous and tensor.flags.c_contiguous):
        return None
    height, width = small.shape[:2]
    table = np.ascontiguousarray(np.stack(tables), np.float32)
    taps, weights = np.zeros(width, np.int32), np.zeros((width, 2), np.int16)
    plan = _Plan(width, height, (_I * 3)(*planes), 0)
    kept: dict[str, npt.NDArray[Any]] = {
        "tables": table,
        "small": small,
        "tensor": tensor,
        "taps": taps,
        "weights": weights,
    }
    for name, array in kept.items():
        setattr(plan, name, array.ctypes.data)
    call, at = code.framegate_preprocess, ctypes.addressof(plan)

    def resize(crop: npt.NDArray[np.uint8], _kept: object = (plan, kept)) -> bool:  # whose memory the addresses are
        if crop.ndim != 3 or crop.dtype != np.uint8 or not crop.size:
            return False
        rows, columns, _ = crop.shape
        row_bytes, *pixel = crop.strides
        if pixel != [3, 1] or crop.shape[2] != 3 or columns * 3 > _MOST:
            return False  # a mirrored view, for example
        call(at, crop.ctypes.data, row_bytes, columns, rows)
        return True

    return resize
