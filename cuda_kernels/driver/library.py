"""libcuda.so.1 through ctypes, for the calls that PyCUDA does not have."""

from __future__ import annotations

import ctypes
from typing import Any

from framegate.cuda_kernels.driver.checks import NOT_READY, UNEXPLAINED, CudaError

LIBRARY = "libcuda.so.1"
_HIGHEST_ERROR = 999  # CUDA_ERROR_UNKNOWN


class DriverLibrary:
    """Calls functions of the CUDA driver API by their exported names and turns their results into `CudaError`.

    Integers that are passed must be ctypes values where the parameter is wider than an int: ctypes would cut them.
    """

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise CudaError("NO_DRIVER", str(error), f"loading the CUDA driver, {LIBRARY}") from error

    def call(self, doing: str, function: str, *arguments: Any) -> None:
        """Call a function.

        Raises:
            CudaError: it is not in this driver (too old), or it did not return CUDA_SUCCESS.
        """
        try:
            entry = getattr(self._library, function)
        except AttributeError as error:
            raise CudaError("DRIVER_TOO_OLD", f"{LIBRARY} has no {function}", doing) from error
        result = int(entry(*arguments))
        if result:
            raise self.error(result, doing)

    def done(self, doing: str, function: str, *arguments: Any) -> bool:
        """Call a function that answers CUDA_ERROR_NOT_READY for no; return whether it answered yes."""
        result = int(getattr(self._library, function)(*arguments))
        if result not in (0, NOT_READY):
            raise self.error(result, doing)
        return result == 0

    def handle(self, doing: str, function: str, *arguments: Any) -> int:
        """Call a function whose first parameter receives a handle or an address; return that."""
        out = ctypes.c_void_p()
        self.call(doing, function, ctypes.byref(out), *arguments)
        return out.value or 0

    def number(self, doing: str, function: str, *arguments: Any) -> int:
        """Call a function whose first parameter receives an int; return that."""
        out = ctypes.c_int()
        self.call(doing, function, ctypes.byref(out), *arguments)
        return out.value

    def error(self, result: int, doing: str) -> CudaError:
        """Turn a result into an exception with the driver's name and explanation of it."""
        name, meaning = self._words("cuGetErrorName", result), self._words("cuGetErrorString", result)
        if not name:
            return CudaError(f"CUDA_ERROR_{result}", UNEXPLAINED, doing)
        return CudaError(name, meaning, doing)

    def error_named(self, meaning: str, doing: str) -> CudaError:
        """Turn the driver's explanation of a result into an exception: PyCUDA keeps no number."""
        for result in range(1, _HIGHEST_ERROR + 1):
            if self._words("cuGetErrorString", result) == meaning:
                return self.error(result, doing)
        return CudaError("CUDA_ERROR_UNKNOWN", meaning, doing)

    def _words(self, function: str, result: int) -> str:
        text = ctypes.c_char_p()
        getattr(self._library, function)(ctypes.c_int(result), ctypes.byref(text))
        return (text.value or b"").decode(errors="replace")
