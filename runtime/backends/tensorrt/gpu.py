"""Whether this machine has a usable NVIDIA GPU, for those who only want to know."""

from __future__ import annotations

from framegate.cuda_kernels.driver.library import DriverLibrary
from framegate.cuda_kernels.driver.open import CudaError, DeviceInfo, open_driver
from framegate.runtime.errors import BackendError

ABSENT = ("NO_DRIVER", "NO_DEVICE", "CUDA_ERROR_NO_DEVICE")
"""Names of a `CudaError` that means: no GPU here; any other is a GPU that cannot be used."""


def find_gpu() -> DeviceInfo | None:
    """The first GPU, or None if this machine has none.

    Raises:
        BackendError: There is one, but it cannot be used.
    """
    try:
        gpu = open_driver()
    except CudaError as error:
        if error.name in ABSENT or (error.name == "NO_PACKAGE" and not driver_present()):
            return None
        raise BackendError(f"there is a GPU, but it cannot be used: {error}") from error
    info = gpu.info
    gpu.close()
    return info


def driver_present() -> bool:
    """Whether an NVIDIA driver answers, asked without any Python package for CUDA."""
    try:
        DriverLibrary().call("initialising the CUDA driver", "cuInit", 0)
    except CudaError as error:
        return error.name not in ABSENT
    return True
