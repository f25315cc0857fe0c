"""How the kernels of plugin.cu are launched, by TensorRT itself or by a plugin of ours.

TensorRT passes a layer's inputs, extra 32-bit integers, and its outputs, in this order; `PARAMETERS` is that list.
Nothing here touches a GPU.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

from framegate.cuda_kernels.softmax_entropy.launch import LARGEST_CLASSES, LARGEST_LANES8_CLASSES, LARGEST_WARP_CLASSES

__all__ = ["INPUTS", "INTEGERS", "OUTPUTS", "PARAMETERS", "SOURCE", "PluginLaunch", "plan_plugin"]

SOURCE = "softmax_entropy_plugin"
INPUTS = ("logits", "temperature")
"""float32, [N, C] and [1]."""
INTEGERS = ("rows", "classes")
"""int32, N and C."""
OUTPUTS = ("probabilities", "entropy", "margin", "energy")
"""float32, [N, C] and three times [N, 1]."""
PARAMETERS = (*INPUTS, *INTEGERS, *OUTPUTS)


@dataclass(frozen=True, slots=True)
class PluginLaunch:
    """A kernel and its launch for any number of rows.

    Attributes:
        kernel: Its name in the source.
        classes: C, which the kernel was chosen for.
        rows_per_block: The grid is ceil(N / rows_per_block) in x.
        threads: Of a block.
    """

    kernel: str
    classes: int
    rows_per_block: int
    threads: int

    def blocks(self, rows: int) -> int:
        """Blocks in x for N rows."""
        return -(-rows // self.rows_per_block)

    def arguments(
        self, inputs: Sequence[int], rows: int, outputs: Sequence[int]
    ) -> list[ctypes.c_void_p | ctypes.c_int32]:
        """The kernel's parameters in their order.

        Args:
            inputs: Device addresses of `INPUTS`.
            rows: N.
            outputs: Device addresses of `OUTPUTS`.

        Raises:
            ValueError: Not as many addresses as the kernel has parameters, a null pointer, or no row.
        """
        if (len(inputs), len(outputs)) != (len(INPUTS), len(OUTPUTS)):
            raise ValueError(f"{self.kernel}: asked for {PARAMETERS}, found {len(inputs)} and {len(outputs)} addresses")
        if not all((*inputs, *outputs)):
            raise ValueError(f"{self.kernel}: asked for addresses, found a null pointer in {inputs}, {outputs}")
        if rows < 1:
            raise ValueError(f"{self.kernel}: asked for 1 row or more, found {rows}")
        return [
            *(ctypes.c_void_p(address) for address in inputs),
            ctypes.c_int32(rows),
            ctypes.c_int32(self.classes),
            *(ctypes.c_void_p(address) for address in outputs),
        ]


def plan_plugin(classes: int) -> PluginLaunch:
    """Choose the kernel for C classes.

    Raises:
        ValueError: No kernel takes so many.
    """
    if not 1 <= classes <= LARGEST_CLASSES:
        raise ValueError(f"classes: asked for 1 to {LARGEST_CLASSES}, found {classes}")
    if classes <= LARGEST_LANES8_CLASSES:
        return PluginLaunch(f"{SOURCE}_lanes8", classes, 16, 128)
    if classes <= LARGEST_WARP_CLASSES:
        return PluginLaunch(f"{SOURCE}_warp", classes, 4, 128)
    # As in launch.py: four 16-byte windows a thread at once.
    windows = -(-classes * 4 // 64)
    return PluginLaunch(f"{SOURCE}_block", classes, 1, min(1024, max(64, 1 << (windows - 1).bit_length())))
