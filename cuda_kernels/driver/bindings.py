"""The CUDA layer over NVIDIA's cuda-bindings (``cuda.bindings.driver``)."""

from __future__ import annotations

import ctypes
import importlib
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from framegate.cuda_kernels.driver.base import DeviceInfo, Driver, HostMemory
from framegate.cuda_kernels.driver.checks import (
    CAPTURE_THREAD_LOCAL,
    CONTEXT_FLAGS,
    DEVICE_ATTRIBUTES,
    EVENT_BLOCKING_SYNC,
    HOST_ALLOC_DEVICEMAP,
    MAX_DYNAMIC_SHARED_ATTRIBUTE,
    SHARED_BYTES_WITHOUT_REQUEST,
    STREAM_NON_BLOCKING,
    UNEXPLAINED,
    Argument,
    CudaError,
    Dimensions,
    check_driver_version,
    check_launch,
    check_pointer,
    check_size,
    host_address,
    packed,
)


class BindingsDriver(Driver):
    """Every call goes to the driver API through cuda-bindings; handles are turned into ints and back."""

    name = "bindings"

    def __init__(self, device: int = 0) -> None:
        self._context: Any = None
        super().__init__()
        doing = "loading cuda-bindings"
        try:
            self._cuda: Any = importlib.import_module("cuda.bindings.driver")
        except ModuleNotFoundError as error:
            raise CudaError("NO_PACKAGE", str(error), doing) from error
        except ImportError as error:
            raise CudaError("BROKEN_PACKAGE", str(error), doing) from error
        try:
            # The first call looks for libcuda.so.1. What it raises without one differs between releases.
            (result,) = self._cuda.cuInit(0)
        except RuntimeError as error:
            raise CudaError("NO_DRIVER", str(error), "loading the CUDA driver, libcuda.so.1") from error
        self._checked("initialising the CUDA driver", result)
        version = check_driver_version(self._call("reading the driver's version", "cuDriverGetVersion"))
        count = self._call("counting GPUs", "cuDeviceGetCount")
        if device >= count:
            raise CudaError("NO_DEVICE", f"there are {count} GPUs, counted from 0", f"opening GPU {device}")
        self._device = self._call(f"opening GPU {device}", "cuDeviceGet", device)
        self._previous = self._call("reading the current context", "cuCtxGetCurrent")
        self._open_context()
        try:
            self.info = self._describe(version)
        except BaseException:
            self._release_context()
            raise

    def _open_context(self) -> None:
        doing = "setting the primary context's flags"
        (result,) = self._answer(doing, "cuDevicePrimaryCtxSetFlags", self._device, CONTEXT_FLAGS)
        # Whoever opened it first (PyTorch, say) chose its flags; it works without ours, only waiting differs.
        if result != self._cuda.CUresult.CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE:
            self._checked(doing, result)
        self._context = self._call("opening the primary context", "cuDevicePrimaryCtxRetain", self._device)
        self.make_current()

    def _describe(self, version: tuple[int, int]) -> DeviceInfo:
        doing = "reading the GPU's properties"
        kind = self._cuda.CUdevice_attribute
        found = {
            field: int(self._call(doing, "cuDeviceGetAttribute", kind(number), self._device))
            for field, number in DEVICE_ATTRIBUTES.items()
        }
        name = self._call(doing, "cuDeviceGetName", 256, self._device)
        flags, _ = self._calls(doing, "cuDevicePrimaryCtxGetState", self._device)
        return DeviceInfo(
            name=name.split(b"\0")[0].decode(errors="replace"),
            architecture=10 * found["major"] + found["minor"],
            multiprocessors=found["multiprocessors"],
            memory_bytes=int(self._call(doing, "cuDeviceTotalMem", self._device)),
            l2_bytes=found["l2_bytes"],
            integrated=bool(found["integrated"]),
            driver_version=version,
            context_flags=int(flags),
        )

    def _checked(self, doing: str, result: Any) -> None:
        if result == self._cuda.CUresult.CUDA_SUCCESS:
            return
        (known, name), (_, meaning) = self._cuda.cuGetErrorName(result), self._cuda.cuGetErrorString(result)
        if known != self._cuda.CUresult.CUDA_SUCCESS or name is None:
            raise CudaError(f"CUDA_ERROR_{int(result)}", UNEXPLAINED, doing)
        raise CudaError(name.decode(), meaning.decode(), doing)

    def _answer(self, doing: str, function: str, *arguments: Any) -> tuple[Any, ...]:
        """The driver's result, whatever it is, and what it gives."""
        try:
            return tuple(getattr(self._cuda, function)(*arguments))
        except ValueError as error:
            # A newer driver's result that this release of cuda-bindings has no name for.
            number = re.match(r"(\d+) is not a valid CUresult", str(error))
            if number is None:
                raise
            raise CudaError(f"CUDA_ERROR_{number[1]}", UNEXPLAINED, doing) from error
        except RuntimeError as error:
            # A newer cuda-bindings' function that this driver does not have.
            raise CudaError("DRIVER_TOO_OLD", f"{error}: take the cuda-bindings of the driver's CUDA", doing) from error

    def _calls(self, doing: str, function: str, *arguments: Any) -> tuple[Any, ...]:
        result, *values = self._answer(doing, function, *arguments)
        self._checked(doing, result)
        return tuple(values)

    def _call(self, doing: str, function: str, *arguments: Any) -> Any:
        values = self._calls(doing, function, *arguments)
        return values[0] if values else None

    def make_current(self) -> None:  # noqa: D102
        self._call("making the context current", "cuCtxSetCurrent", self._context)

    def _release_context(self) -> None:
        if self._context is None:
            return
        self._context = None
        try:
            self._call("restoring the previous context", "cuCtxSetCurrent", self._previous)
        finally:  # after a fault the driver may refuse the former; a context that is kept keeps the fault
            self._call("releasing the primary context", "cuDevicePrimaryCtxRelease", self._device)

    def allocate(self, nbytes: int) -> int:  # noqa: D102
        check_size(nbytes, "device memory")
        pointer = int(self._call(f"allocating {nbytes} bytes of device memory", "cuMemAlloc", nbytes))
        return self._own("device memory", pointer, partial(self._call, "freeing device memory", "cuMemFree", pointer))

    def allocate_host(self, nbytes: int) -> HostMemory:  # noqa: D102
        check_size(nbytes, "host memory")
        doing = f"allocating {nbytes} bytes of pinned host memory"
        address = int(self._call(doing, "cuMemHostAlloc", nbytes, HOST_ALLOC_DEVICEMAP))
        self._own("host memory", address, partial(self._call, "freeing host memory", "cuMemFreeHost", address))
        pointer = int(self._call("mapping host memory into the device", "cuMemHostGetDevicePointer", address, 0))
        view = (ctypes.c_uint8 * nbytes).from_address(address)
        return HostMemory(np.ctypeslib.as_array(view), pointer)

    def copy_to_device(self, destination: int, source: NDArray[Any], stream: int) -> None:  # noqa: D102
        address = host_address(source, "copy to the device")
        check_pointer(destination, "copy to the device")
        doing = f"copying {source.nbytes} bytes to the device"
        self._call(doing, "cuMemcpyHtoDAsync", destination, address, source.nbytes, stream)

    def copy_to_host(self, destination: NDArray[Any], source: int, stream: int) -> None:  # noqa: D102
        address = host_address(destination, "copy to the host", writable=True)
        check_pointer(source, "copy to the host")
        doing = f"copying {destination.nbytes} bytes to the host"
        self._call(doing, "cuMemcpyDtoHAsync", address, source, destination.nbytes, stream)

    def copy_on_device(self, destination: int, source: int, nbytes: int, stream: int) -> None:  # noqa: D102
        check_size(nbytes, "copy on the device")
        check_pointer(destination, "copy on the device")
        check_pointer(source, "copy on the device")
        doing = f"copying {nbytes} bytes on the device"
        self._call(doing, "cuMemcpyDtoDAsync", destination, source, nbytes, stream)

    def create_stream(self, priority: int = 0) -> int:  # noqa: D102
        doing = f"creating a stream of priority {priority}"
        stream = int(self._call(doing, "cuStreamCreateWithPriority", STREAM_NON_BLOCKING, priority))
        return self._own("stream", stream, partial(self._call, "destroying a stream", "cuStreamDestroy", stream))

    def synchronize(self, stream: int) -> None:  # noqa: D102
        self._call("waiting for a stream", "cuStreamSynchronize", stream)

    def create_event(self, blocking: bool = False) -> int:  # noqa: D102
        event = int(self._call("creating an event", "cuEventCreate", EVENT_BLOCKING_SYNC if blocking else 0))
        return self._own("event", event, partial(self._call, "destroying an event", "cuEventDestroy", event))

    def record_event(self, event: int, stream: int) -> None:  # noqa: D102
        self._call("recording an event", "cuEventRecord", event, stream)

    def wait_event(self, event: int) -> None:  # noqa: D102
        self._call("waiting for an event", "cuEventSynchronize", event)

    def event_done(self, event: int) -> bool:  # noqa: D102
        doing = "looking whether an event was reached"
        (result,) = self._answer(doing, "cuEventQuery", event)
        if result == self._cuda.CUresult.CUDA_ERROR_NOT_READY:
            return False
        self._checked(doing, result)
        return True

    def elapsed_ms(self, start: int, end: int) -> float:  # noqa: D102
        self._call("waiting for an event", "cuEventSynchronize", end)
        return float(self._call("reading the time between events", "cuEventElapsedTime", start, end))

    def load_module(self, image: bytes) -> int:  # noqa: D102
        buffer = ctypes.create_string_buffer(image, len(image) + 1)  # PTX is text: it must end with a zero byte
        doing = f"loading a module of {len(image)} bytes"
        module = int(self._call(doing, "cuModuleLoadData", ctypes.addressof(buffer)))
        return self._own("module", module, partial(self._call, "unloading a module", "cuModuleUnload", module))

    def get_function(self, module: int, name: str) -> int:  # noqa: D102
        return int(self._call(f"looking for the kernel {name!r}", "cuModuleGetFunction", module, name.encode()))

    def launch(  # noqa: D102
        self,
        function: int,
        grid: Dimensions,
        block: Dimensions,
        arguments: Sequence[Argument],
        stream: int,
        shared_bytes: int = 0,
    ) -> None:
        check_launch(function, grid, block, shared_bytes)
        addresses = packed(arguments)
        if shared_bytes > SHARED_BYTES_WITHOUT_REQUEST:
            attribute = self._cuda.CUfunction_attribute(MAX_DYNAMIC_SHARED_ATTRIBUTE)
            doing = f"asking for {shared_bytes} bytes of shared memory"
            self._call(doing, "cuFuncSetAttribute", function, attribute, shared_bytes)
        doing = f"launching a kernel, grid {grid}, block {block}"
        where = ctypes.addressof(addresses)
        self._call(doing, "cuLaunchKernel", function, *grid, *block, shared_bytes, stream, where, 0)

    def begin_capture(self, stream: int) -> None:  # noqa: D102
        mode = self._cuda.CUstreamCaptureMode(CAPTURE_THREAD_LOCAL)
        self._call("beginning to capture a graph", "cuStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:  # noqa: D102
        template = self._call("ending the capture of a graph", "cuStreamEndCapture", stream)
        try:
            graph = int(self._call("instantiating a graph", "cuGraphInstantiate", template, 0))
        finally:
            self._call("destroying a graph's template", "cuGraphDestroy", template)
        return self._own("graph", graph, partial(self._call, "destroying a graph", "cuGraphExecDestroy", graph))

    def launch_graph(self, graph: int, stream: int) -> None:  # noqa: D102
        self._call("launching a graph", "cuGraphLaunch", graph, stream)
