"""What both drivers share: the exception, the constants, and the checks that come before a call.

A wrong argument is refused here, with a message that says what is wrong. The driver would answer
CUDA_ERROR_INVALID_VALUE at best; at worst a kernel would write to a wrong address.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

Dimensions = tuple[int, int, int]

# One ctypes value a kernel parameter (pointer, integer, float or a structure passed by value).
Argument = Any

MINIMUM_CUDA = (12, 0)
"""The oldest driver that is accepted, as the CUDA release it supports; JetPack 6 has 12.6."""

SCHED_SPIN = 0x01
MAP_HOST = 0x08
CONTEXT_FLAGS = SCHED_SPIN | MAP_HOST
"""Waiting threads spin, because a sleeping one wakes late (on Jetson the default may be to sleep); host memory can be
mapped into the device's address space, which a context of the driver API doesn't have by default."""

HOST_ALLOC_DEVICEMAP = 0x02
STREAM_NON_BLOCKING = 0x01
EVENT_BLOCKING_SYNC = 0x01
CAPTURE_THREAD_LOCAL = 1
MAX_DYNAMIC_SHARED_ATTRIBUTE = 8
NOT_READY = 600
"""What cuEventQuery answers while the stream has not reached the event."""
TIMEOUT = "TIMEOUT"
"""Name of the `CudaError` of a wait that was given up."""
UNEXPLAINED = "a number that this driver does not explain"
SHARED_BYTES_WITHOUT_REQUEST = 48 * 1024


class CudaError(RuntimeError):
    """The CUDA driver, or what is needed to reach it, refused.

    Attributes:
        name: CUDA's own (``CUDA_ERROR_OUT_OF_MEMORY``), or NO_DRIVER, DRIVER_TOO_OLD, NO_DEVICE,
            NO_PACKAGE, BROKEN_PACKAGE, TIMEOUT.
        meaning: what the name means, in words.
        doing: what was being done.
    """

    def __init__(self, name: str, meaning: str, doing: str) -> None:
        super().__init__(f"{doing}: {name} ({meaning})")
        self.name, self.meaning, self.doing = name, meaning, doing

    def __reduce__(self) -> tuple[type[CudaError], tuple[str, str, str]]:
        return type(self), (self.name, self.meaning, self.doing)


def check_driver_version(version: int) -> tuple[int, int]:
    """Turn CUDA's 12060 into (12, 6); refuse a driver older than MINIMUM_CUDA."""
    found = (version // 1000, version % 1000 // 10)
    if found < MINIMUM_CUDA:
        needed = ".".join(str(n) for n in MINIMUM_CUDA)
        meaning = f"the driver supports CUDA {found[0]}.{found[1]}, framegate needs {needed}: update the NVIDIA driver"
        raise CudaError("DRIVER_TOO_OLD", meaning, "opening the CUDA driver")
    return found


def check_launch(function: int, grid: Dimensions, block: Dimensions, shared_bytes: int) -> None:
    """Refuse a launch that no GPU can do, with a message that says why."""
    if not function:
        raise ValueError("launch: the function handle is 0; get it from get_function")
    limits = (2**31 - 1, 65535, 65535)
    if len(grid) != 3 or not all(1 <= n <= limit for n, limit in zip(grid, limits, strict=True)):
        raise ValueError(f"launch: grid must be three numbers from 1 to {limits}, got {grid}")
    if len(block) != 3 or min(block) < 1 or block[0] * block[1] * block[2] > 1024 or block[2] > 64:
        raise ValueError(f"launch: block must be three numbers >= 1 with a product <= 1024, got {block}")
    if shared_bytes < 0:
        raise ValueError(f"launch: shared_bytes must be >= 0, got {shared_bytes}")


def check_size(nbytes: int, what: str) -> None:
    """Refuse a size that cannot be allocated or copied."""
    if nbytes <= 0:
        raise ValueError(f"{what}: the size must be > 0 bytes, got {nbytes}")


def check_pointer(pointer: int, what: str) -> None:
    """Refuse a null pointer."""
    if not pointer:
        raise ValueError(f"{what}: the pointer is null")


def host_address(array: NDArray[Any], what: str, writable: bool = False) -> int:
    """Return the address of an array that a copy can use as one run of bytes."""
    if not array.flags.c_contiguous:
        raise ValueError(f"{what}: the array must be C-contiguous, got strides {array.strides} for {array.shape}")
    if writable and not array.flags.writeable:
        raise ValueError(f"{what}: the array is read-only")
    check_size(array.nbytes, what)
    return int(array.ctypes.data)


def packed(arguments: Sequence[Argument]) -> ctypes.Array[ctypes.c_void_p]:
    """Return the array of addresses that cuLaunchKernel takes. It is valid as long as the arguments live."""
    for position, argument in enumerate(arguments):
        if not isinstance(argument, ctypes._SimpleCData | ctypes.Structure | ctypes.Array):
            kind = type(argument).__name__
            raise TypeError(f"launch: argument {position} must be a ctypes value (its width matters), got {kind}")
    return (ctypes.c_void_p * len(arguments))(*(ctypes.addressof(argument) for argument in arguments))


DEVICE_ATTRIBUTES = {"multiprocessors": 16, "integrated": 18, "l2_bytes": 38, "major": 75, "minor": 76}
"""Numbers of CUdevice_attribute, which are part of CUDA's binary interface."""
