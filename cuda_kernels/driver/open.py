"""The CUDA layer: the few calls that framegate makes on a GPU, whichever Python package makes them.

Either of two packages is used: cuda-bindings (module `bindings`) or PyCUDA (module `pycuda_driver`). Both open the
device's primary context, which TensorRT, PyTorch and the CUDA runtime use as well, so pointers and streams may be
exchanged.

    with open_driver() as gpu:
        logits = gpu.allocate(4000)
        stream = gpu.create_stream(priority=-1)
        module = gpu.load_module(fatbin)
        kernel = gpu.get_function(module, "softmax_entropy")
        with gpu.capture(stream) as capture:
            gpu.launch(kernel, (1, 1, 1), (128, 1, 1), [ctypes.c_void_p(logits), ctypes.c_int32(1000)], stream)
        gpu.launch_graph(capture.graph, stream)
        gpu.synchronize(stream)

Handles (streams, events, modules, functions, graphs) and device pointers are plain ints, as TensorRT takes them. What
was created is released by its own call or by `close`, which releases all that is left. A thread other than the one
that opened the driver calls `make_current` before anything else.

Errors: what the driver refuses is a `CudaError`; an argument that cannot be right is a ValueError or TypeError before
the driver is asked. cuda_kernels must not import runtime, so the exceptions live here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from framegate.cuda_kernels.driver.base import Capture, DeviceInfo, Driver, HostMemory
from framegate.cuda_kernels.driver.checks import CudaError

__all__ = ["DRIVERS", "Capture", "CudaError", "DeviceInfo", "Driver", "HostMemory", "open_driver"]

DRIVERS = {
    "bindings": ("framegate.cuda_kernels.driver.bindings", "BindingsDriver", "pip install 'framegate[cuda]'"),
    "pycuda": ("framegate.cuda_kernels.driver.pycuda_driver", "PycudaDriver", "`make pycuda` builds its wheel"),
}
"""Name -> module, class, how to get the package behind it; ``auto`` tries them in this order."""


def open_driver(name: str = "auto", device: int = 0) -> Driver:
    """Open a GPU.

    Args:
        name: ``bindings`` or ``pycuda``, which never falls back to the other; ``auto`` takes the first whose package
            is installed.
        device: ordinal of the GPU.

    Raises:
        ValueError: an unknown name or a negative device.
        CudaError: no package, no driver, too old a driver, no such GPU, or the context could not be opened.
    """
    if name not in ("auto", *DRIVERS):
        raise ValueError(f"driver: asked for {name!r}, there are: auto, {', '.join(DRIVERS)}")
    if device < 0:
        raise ValueError(f"device: asked for {device}, it must be >= 0")
    missing = []
    for candidate in DRIVERS if name == "auto" else (name,):
        module_name, class_name, remedy = DRIVERS[candidate]
        module = importlib.import_module(module_name)
        try:
            return _opened(getattr(module, class_name), device)
        except CudaError as error:
            # Only a missing package is a reason to try the next: an installed one that fails tells what is wrong.
            if error.name != "NO_PACKAGE" or name != "auto":
                raise
            missing.append(f"{candidate}: {error.meaning}; {remedy}")
    raise CudaError("NO_PACKAGE", "; ".join(missing), "looking for a Python package that reaches the CUDA driver")


def _opened(kind: Callable[[int], Driver], device: int) -> Driver:
    return kind(device)
