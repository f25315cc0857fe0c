"""The interface of the CUDA layer, which both drivers implement; `framegate.cuda_kernels.driver.open` opens one."""

from __future__ import annotations

import atexit
import ctypes
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from framegate.cuda_kernels.driver.checks import TIMEOUT, Argument, CudaError, Dimensions

_SPIN_S = 0.005  # a frame is done by then; longer spinning in Python would keep other threads waiting
_SLEEP_S = 5e-5


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """The GPU and its driver.

    Attributes:
        name: as the driver reports it.
        architecture: 90 for compute capability 9.0.
        multiprocessors: their number.
        memory_bytes: device memory in total.
        l2_bytes: second-level cache.
        integrated: True where CPU and GPU share their memory (Jetson).
        driver_version: the newest CUDA release that the driver supports, (major, minor).
        context_flags: those of the primary context. SCHED_SPIN is missing if another library opened the context first.
    """

    name: str
    architecture: int
    multiprocessors: int
    memory_bytes: int
    l2_bytes: int
    integrated: bool
    driver_version: tuple[int, int]
    context_flags: int


@dataclass(frozen=True, slots=True, eq=False)
class HostMemory:
    """Pinned host memory that the device can address.

    Attributes:
        array: (nbytes,) uint8, the host's view; ``.view(dtype)`` gives others. Not to be used after it was freed.
        device_pointer: the same bytes for a kernel.
    """

    array: NDArray[np.uint8]
    device_pointer: int


@dataclass(slots=True)
class Capture:
    """Receives the graph when the ``with`` block of `Driver.capture` ends."""

    graph: int = 0


class Driver(ABC):
    """One GPU's primary context."""

    name: str
    info: DeviceInfo
    _late: ClassVar[list[tuple[Driver, int]]] = []  # waits of this process that were given up, whoever waited

    def __init__(self) -> None:
        self._owned: dict[tuple[str, int], Callable[[], object]] = {}
        # PyCUDA crashes in its own clean-up if its context is still there when the interpreter ends.
        atexit.register(self._close_at_exit)

    @abstractmethod
    def make_current(self) -> None:
        """Make the context current in the calling thread."""

    @abstractmethod
    def _release_context(self) -> None:
        """Release the primary context and make the context current that was current before."""

    def close(self) -> None:
        """Release everything that was created here, newest first, then the context. May be called twice.

        Nothing is released while the GPU hangs: the driver would wait for ever.

        Raises:
            CudaError: the first refusal, after everything was tried.
        """
        if self.hangs():
            # Nor by Python: PyCUDA's objects free what they stand for when they go.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))
            return
        atexit.unregister(self._close_at_exit)
        refusals: list[CudaError] = []
        # The context goes last: without it nothing else can be released.
        for release in (*(self._owned[key] for key in reversed(self._owned)), self._release_context):
            try:
                release()
            except CudaError as error:
                refusals.append(error)
        self._owned.clear()
        if refusals:
            raise refusals[0]

    @staticmethod
    def hangs() -> bool:
        """Whether work that somebody in this process gave up waiting for is still under way.

        What frees memory or destroys something waits for all work in the context, whoever gave it.
        """
        for entry in list(Driver._late):
            driver, event = entry
            with suppress(CudaError):  # it has ended, badly
                driver.make_current()
                if not driver.event_done(event):
                    continue
            with suppress(ValueError):  # another thread was faster
                Driver._late.remove(entry)
        return bool(Driver._late)

    def _close_at_exit(self) -> None:
        with suppress(CudaError):
            self.close()

    def _own(self, kind: str, handle: int, release: Callable[[], object]) -> int:
        self._owned[kind, handle] = release
        return handle

    def _disown(self, kind: str, handle: int) -> None:
        release = self._owned.pop((kind, handle), None)
        if release is None:
            raise ValueError(f"{kind} {handle:#x}: not created by this driver, or released before")
        release()

    @abstractmethod
    def allocate(self, nbytes: int) -> int:
        """Return the pointer of fresh, uninitialised device memory, aligned to 256 bytes or more."""

    def free(self, pointer: int) -> None:
        """Free device memory."""
        self._disown("device memory", pointer)

    @abstractmethod
    def allocate_host(self, nbytes: int) -> HostMemory:
        """Return pinned host memory, mapped into the device's address space."""

    def free_host(self, memory: HostMemory) -> None:
        """Free pinned host memory."""
        self._disown("host memory", memory.array.ctypes.data)

    @abstractmethod
    def copy_to_device(self, destination: int, source: NDArray[Any], stream: int) -> None:
        """Copy a C-contiguous array to the device, in stream order. The array must live until the copy is done."""

    @abstractmethod
    def copy_to_host(self, destination: NDArray[Any], source: int, stream: int) -> None:
        """Copy device memory into a C-contiguous, writable array, in stream order."""

    @abstractmethod
    def copy_on_device(self, destination: int, source: int, nbytes: int, stream: int) -> None:
        """Copy device memory to device memory, in stream order."""

    @abstractmethod
    def create_stream(self, priority: int = 0) -> int:
        """Create a stream that doesn't wait for the default one; lower priority numbers run first."""

    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream."""
        self._disown("stream", stream)

    @abstractmethod
    def synchronize(self, stream: int) -> None:
        """Wait until a stream has done all its work; errors of its kernels are raised here."""

    @abstractmethod
    def create_event(self, blocking: bool = False) -> int:
        """Create an event that takes time stamps; whoever waits for a ``blocking`` one sleeps instead of spinning."""

    def destroy_event(self, event: int) -> None:
        """Destroy an event."""
        self._disown("event", event)

    @abstractmethod
    def record_event(self, event: int, stream: int) -> None:
        """Note the time at which the stream reaches this point."""

    @abstractmethod
    def wait_event(self, event: int) -> None:
        """Wait until the stream has reached the event's record; errors of the kernels before it are raised here."""

    @abstractmethod
    def event_done(self, event: int) -> bool:
        """Return at once whether the event's record has been reached; errors of the kernels before it are raised."""

    def wait_event_within(self, event: int, seconds: float, sleeping: bool = False) -> None:
        """Wait for an event, but not for ever, as `wait_event` does on a GPU that hangs.

        Args:
            event: Recorded.
            seconds: The longest wait.
            sleeping: Sleep between two looks, which leaves the core to others and costs up to a tenth of a millisecond.

        Raises:
            CudaError: The kernels before it failed, or (TIMEOUT) the time is over.
        """
        started = time.monotonic()
        while not self.event_done(event):
            waited = time.monotonic() - started
            if waited > seconds:
                meaning = f"the GPU was not done after {seconds:g} s"
                self._late.append((self, event))
                raise CudaError(TIMEOUT, meaning, "waiting for an event")
            if sleeping or waited > _SPIN_S:
                time.sleep(_SLEEP_S)

    @abstractmethod
    def elapsed_ms(self, start: int, end: int) -> float:
        """Wait for the end event; return milliseconds between two recorded events."""

    @abstractmethod
    def load_module(self, image: bytes) -> int:
        """Load a fat binary, cubin or PTX."""

    def unload_module(self, module: int) -> None:
        """Unload a module; its functions are gone."""
        self._disown("module", module)

    @abstractmethod
    def get_function(self, module: int, name: str) -> int:
        """Return a kernel of a module."""

    @abstractmethod
    def launch(
        self,
        function: int,
        grid: Dimensions,
        block: Dimensions,
        arguments: Sequence[Argument],
        stream: int,
        shared_bytes: int = 0,
    ) -> None:
        """Launch a kernel; arguments are ctypes values of exactly the kernel's parameter types."""

    @abstractmethod
    def begin_capture(self, stream: int) -> None:
        """Record what this thread enqueues on the stream from now on, instead of running it."""

    @abstractmethod
    def end_capture(self, stream: int) -> int:
        """End the recording and return an executable graph."""

    @abstractmethod
    def launch_graph(self, graph: int, stream: int) -> None:
        """Run a graph."""

    def destroy_graph(self, graph: int) -> None:
        """Destroy a graph."""
        self._disown("graph", graph)

    @contextmanager
    def capture(self, stream: int) -> Iterator[Capture]:
        """Capture the block into a graph. If the block raises, the recording is ended and dropped."""
        recording = Capture()
        self.begin_capture(stream)
        try:
            yield recording
        except BaseException:
            self._abandon_capture(stream)
            raise
        recording.graph = self.end_capture(stream)

    def _abandon_capture(self, stream: int) -> None:
        # An invalidated capture ends with an error of its own; what the block raised says more, and is raised next.
        with suppress(CudaError):
            self.destroy_graph(self.end_capture(stream))

    def __enter__(self) -> Driver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except CudaError:
            # After a failed kernel every further call fails too; the first error is the one to see.
            if error is None:
                raise
