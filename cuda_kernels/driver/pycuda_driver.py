"""The CUDA layer over PyCUDA, for programs that use PyCUDA already.

PyCUDA opens the primary context and owns device and host memory, so its allocations and arrays can be mixed with those
made here. What carries a stream goes to libcuda.so.1 through ctypes instead: PyCUDA has no graphs, no stream
priorities and no flags for the primary context, its calls accept only streams that it made itself, and its functions
don't reveal the handle that a launch into such a stream needs.

PyCUDA keeps a stack of contexts a thread and aborts the process if one is left on it at exit. So a context is pushed
around each call of PyCUDA only, and popped; for the ctypes calls it is made current in the ordinary way. With PyCUDA's
own start-up modules use ``pycuda.autoprimaryctx``; ``pycuda.autoinit`` opens a second context, whose pointers and
streams are not valid here.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

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
from framegate.cuda_kernels.driver.library import DriverLibrary

_PRIMARY_CONTEXT_ACTIVE = "CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE"

Result = TypeVar("Result")


class PycudaDriver(Driver):
    """PyCUDA for the context and the memory, libcuda.so.1 through ctypes for everything that carries a stream."""

    name = "pycuda"

    def __init__(self, device: int = 0) -> None:
        self._context: Any = None
        super().__init__()
        if importlib.util.find_spec("pycuda") is None:
            raise CudaError("NO_PACKAGE", "No module named 'pycuda'", "loading PyCUDA")
        self._library = DriverLibrary()
        self._library.call("initialising the CUDA driver", "cuInit", 0)
        version = check_driver_version(self._library.number("reading the driver's version", "cuDriverGetVersion"))
        count = self._library.number("counting GPUs", "cuDeviceGetCount")
        if device >= count:
            raise CudaError("NO_DEVICE", f"there are {count} GPUs, counted from 0", f"opening GPU {device}")
        try:
            self._pycuda: Any = importlib.import_module("pycuda.driver")
        except ImportError as error:
            raise CudaError("BROKEN_PACKAGE", str(error), "loading PyCUDA") from error
        self._ordinal = self._library.number(f"opening GPU {device}", "cuDeviceGet", device)
        self._previous = self._library.handle("reading the current context", "cuCtxGetCurrent")
        self._open_context(device)
        try:
            self.info = self._describe(version)
        except BaseException:
            self._release_context()
            raise

    def _open_context(self, device: int) -> None:
        try:
            doing = "setting the primary context's flags"
            self._library.call(doing, "cuDevicePrimaryCtxSetFlags_v2", self._ordinal, CONTEXT_FLAGS)
        except CudaError as error:
            # Whoever opened it first chose its flags; it works without ours, only waiting differs.
            if error.name != _PRIMARY_CONTEXT_ACTIVE:
                raise
        doing = "opening the primary context"
        self._explained(doing, self._pycuda.init)
        self._device = self._explained(doing, lambda: self._pycuda.Device(device))
        self._context = self._explained(doing, self._device.retain_primary_context)
        self.make_current()

    def _describe(self, version: tuple[int, int]) -> DeviceInfo:
        doing = "reading the GPU's properties"
        found = {
            field: self._library.number(doing, "cuDeviceGetAttribute", number, self._ordinal)
            for field, number in DEVICE_ATTRIBUTES.items()
        }
        flags, active = ctypes.c_uint(), ctypes.c_int()
        arguments = (self._ordinal, ctypes.byref(flags), ctypes.byref(active))
        self._library.call(doing, "cuDevicePrimaryCtxGetState", *arguments)
        return DeviceInfo(
            name=self._explained(doing, self._device.name),
            architecture=10 * found["major"] + found["minor"],
            multiprocessors=found["multiprocessors"],
            memory_bytes=int(self._explained(doing, self._device.total_memory)),
            l2_bytes=found["l2_bytes"],
            integrated=bool(found["integrated"]),
            driver_version=version,
            context_flags=flags.value,
        )

    def _explained(self, doing: str, action: Callable[[], Result]) -> Result:
        try:
            return action()
        except self._pycuda.Error as error:
            # "cuMemAlloc failed: out of memory", sometimes followed by " - " and more.
            meaning = str(error).partition(" failed: ")[2].partition(" - ")[0]
            raise self._library.error_named(meaning or str(error), doing) from error

    def _in_context(self, doing: str, action: Callable[[], Result]) -> Result:
        self._explained(doing, self._context.push)
        try:
            return self._explained(doing, action)
        finally:
            self._pycuda.Context.pop()

    def make_current(self) -> None:  # noqa: D102
        context = ctypes.c_void_p(self._context.handle)
        self._library.call("making the context current", "cuCtxSetCurrent", context)

    def _release_context(self) -> None:
        if self._context is None:
            return
        context, self._context = self._context, None
        previous = ctypes.c_void_p(self._previous)
        try:
            self._library.call("restoring the previous context", "cuCtxSetCurrent", previous)
        finally:  # after a fault the driver may refuse the former; a context that is kept keeps the fault
            self._explained("releasing the primary context", context.detach)

    def allocate(self, nbytes: int) -> int:  # noqa: D102
        check_size(nbytes, "device memory")
        doing = f"allocating {nbytes} bytes of device memory"
        allocation = self._in_context(doing, lambda: self._pycuda.mem_alloc(nbytes))
        release = partial(self._in_context, "freeing device memory", allocation.free)
        return self._own("device memory", int(allocation), release)

    def allocate_host(self, nbytes: int) -> HostMemory:  # noqa: D102
        check_size(nbytes, "host memory")

        def allocate() -> tuple[NDArray[np.uint8], int]:
            array = self._pycuda.pagelocked_empty(nbytes, np.uint8, mem_flags=HOST_ALLOC_DEVICEMAP)
            return array, int(array.base.get_device_pointer())

        array, pointer = self._in_context(f"allocating {nbytes} bytes of pinned host memory", allocate)
        base: Any = array.base
        self._own("host memory", array.ctypes.data, partial(self._in_context, "freeing host memory", base.free))
        return HostMemory(array, pointer)

    def copy_to_device(self, destination: int, source: NDArray[Any], stream: int) -> None:  # noqa: D102
        address = host_address(source, "copy to the device")
        check_pointer(destination, "copy to the device")
        doing = f"copying {source.nbytes} bytes to the device"
        self._library.call(doing, "cuMemcpyHtoDAsync_v2", *_wide(destination, address, source.nbytes, stream))

    def copy_to_host(self, destination: NDArray[Any], source: int, stream: int) -> None:  # noqa: D102
        address = host_address(destination, "copy to the host", writable=True)
        check_pointer(source, "copy to the host")
        doing = f"copying {destination.nbytes} bytes to the host"
        self._library.call(doing, "cuMemcpyDtoHAsync_v2", *_wide(address, source, destination.nbytes, stream))

    def copy_on_device(self, destination: int, source: int, nbytes: int, stream: int) -> None:  # noqa: D102
        check_size(nbytes, "copy on the device")
        check_pointer(destination, "copy on the device")
        check_pointer(source, "copy on the device")
        doing = f"copying {nbytes} bytes on the device"
        self._library.call(doing, "cuMemcpyDtoDAsync_v2", *_wide(destination, source, nbytes, stream))

    def create_stream(self, priority: int = 0) -> int:  # noqa: D102
        doing = f"creating a stream of priority {priority}"
        stream = self._library.handle(doing, "cuStreamCreateWithPriority", STREAM_NON_BLOCKING, priority)
        return self._own_handle("stream", stream, "cuStreamDestroy_v2")

    def synchronize(self, stream: int) -> None:  # noqa: D102
        self._library.call("waiting for a stream", "cuStreamSynchronize", *_wide(stream))

    def create_event(self, blocking: bool = False) -> int:  # noqa: D102
        event = self._library.handle("creating an event", "cuEventCreate", EVENT_BLOCKING_SYNC if blocking else 0)
        return self._own_handle("event", event, "cuEventDestroy_v2")

    def record_event(self, event: int, stream: int) -> None:  # noqa: D102
        self._library.call("recording an event", "cuEventRecord", *_wide(event, stream))

    def wait_event(self, event: int) -> None:  # noqa: D102
        self._library.call("waiting for an event", "cuEventSynchronize", *_wide(event))

    def event_done(self, event: int) -> bool:  # noqa: D102
        return self._library.done("looking whether an event was reached", "cuEventQuery", *_wide(event))

    def elapsed_ms(self, start: int, end: int) -> float:  # noqa: D102
        self._library.call("waiting for an event", "cuEventSynchronize", *_wide(end))
        out = ctypes.c_float()
        doing = "reading the time between events"
        self._library.call(doing, "cuEventElapsedTime", ctypes.byref(out), *_wide(start, end))
        return out.value

    def load_module(self, image: bytes) -> int:  # noqa: D102
        doing = f"loading a module of {len(image)} bytes"
        # A c_char_p ends with a zero byte, which PTX needs.
        module = self._library.handle(doing, "cuModuleLoadData", ctypes.c_char_p(image))
        return self._own_handle("module", module, "cuModuleUnload")

    def get_function(self, module: int, name: str) -> int:  # noqa: D102
        text = ctypes.c_char_p(name.encode())
        return self._library.handle(f"looking for the kernel {name!r}", "cuModuleGetFunction", *_wide(module), text)

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
        (entry, where) = _wide(function, stream)
        if shared_bytes > SHARED_BYTES_WITHOUT_REQUEST:
            doing = f"asking for {shared_bytes} bytes of shared memory"
            self._library.call(doing, "cuFuncSetAttribute", entry, MAX_DYNAMIC_SHARED_ATTRIBUTE, shared_bytes)
        doing = f"launching a kernel, grid {grid}, block {block}"
        self._library.call(doing, "cuLaunchKernel", entry, *grid, *block, shared_bytes, where, addresses, None)

    def begin_capture(self, stream: int) -> None:  # noqa: D102
        doing = "beginning to capture a graph"
        self._library.call(doing, "cuStreamBeginCapture_v2", *_wide(stream), CAPTURE_THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:  # noqa: D102
        doing = "ending the capture of a graph"
        template = ctypes.c_void_p()
        self._library.call(doing, "cuStreamEndCapture", *_wide(stream), ctypes.byref(template))
        try:
            doing, no_flags = "instantiating a graph", ctypes.c_ulonglong(0)
            graph = self._library.handle(doing, "cuGraphInstantiateWithFlags", template, no_flags)
        finally:
            self._library.call("destroying a graph's template", "cuGraphDestroy", template)
        return self._own_handle("graph", graph, "cuGraphExecDestroy")

    def launch_graph(self, graph: int, stream: int) -> None:  # noqa: D102
        self._library.call("launching a graph", "cuGraphLaunch", *_wide(graph, stream))

    def _own_handle(self, kind: str, handle: int, function: str) -> int:
        return self._own(kind, handle, partial(self._library.call, f"destroying a {kind}", function, *_wide(handle)))


def _wide(*values: int) -> list[ctypes.c_void_p]:
    """Pass handles, addresses and sizes at full width: ctypes cuts a plain int to 32 bits."""
    return [ctypes.c_void_p(value) for value in values]
