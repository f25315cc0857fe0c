"""One frame on the GPU as one CUDA graph: input -> (preprocessing) -> engine -> scores, in memory that the host reads.

    graph = FrameGraph(gpu, engine, steps...)          # buffers, warm-up, capture: everything that may fail or be slow
    slot = graph.slots[0]
    slot.input.array[...] = ...                        # pinned memory
    graph.submit(slot)                                 # microseconds
    record = graph.wait(slot)                          # raises unless the record is of this very submission

What comes behind the engine is a `framegate.runtime.backends.tensorrt.scores.ScoreSource`.

Addresses never change after the capture. Slots share the device's buffers, because one stream runs them one after the
other; each has its own host memory, so the host can fill one while the GPU works on the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from framegate.cuda_kernels.driver.open import CudaError, Driver, HostMemory
from framegate.cuda_kernels.softmax_entropy.launch import Record
from framegate.runtime.backends.tensorrt.engine import OpenedEngine
from framegate.runtime.backends.tensorrt.scores import ScoreSource
from framegate.runtime.console import to_stderr
from framegate.runtime.errors import BackendError

WAIT_LIMIT_S = 2.0
"""A frame takes milliseconds; after this long the GPU hangs."""
_UNWRITTEN = 0xFF  # four of these bytes are a NaN that no computation leaves behind


@dataclass(eq=False)
class Slot:
    """The host's side of one frame in flight.

    Attributes:
        input: What the GPU reads: a frame, or a preprocessed tensor.
        result: What the score source leaves, the logits among it.
        logits: Float32 view of the result memory, one logit behind the other.
        event: Recorded behind each submission.
        graph: The captured graph; 0 where launches go to the stream one by one.
        number: Sequence number of the latest submission.
        side: The side output, if there is one.
    """

    input: HostMemory
    result: HostMemory
    logits: npt.NDArray[np.float32]
    event: int
    graph: int = 0
    number: int = 0
    side: HostMemory | None = None


@dataclass(frozen=True)
class SideOutput:
    """An output of the engine that the host reads as it is.

    Attributes:
        address: Device address.
        shape: Of its float32 values, the images first.
    """

    address: int
    shape: Sequence[int]

    @property
    def nbytes(self) -> int:
        """Its size."""
        return 4 * math.prod(self.shape)


Feed = Callable[[Slot], None]
"""Enqueues whatever brings a slot's input to the engine's input."""


class FrameGraph:
    """The buffers, the stream and the graphs of one engine on inputs of one size.

    Attributes:
        slots: One or more; use them in turn.
        captured: Whether each submission is one graph launch.
    """

    def __init__(
        self,
        gpu: Driver,
        engine: OpenedEngine,
        stream: int,
        *,
        input_bytes: int,
        slots: int,
        feed: Feed,
        logits: int,
        scores: ScoreSource,
        capture: bool = True,
        blocking: bool = False,
        limit_s: float = WAIT_LIMIT_S,
        side: SideOutput | None = None,
    ) -> None:
        """Allocate, warm up and capture.

        Args:
            gpu: The open GPU.
            engine: Opened, with shapes and addresses set.
            stream: Where everything runs.
            input_bytes: Size of a slot's input.
            slots: How many frames may be in flight.
            feed: Enqueues the slot's way to the engine's input.
            logits: Device address of the engine's output.
            scores: Comes behind the engine.
            capture: False for stream launches on purpose.
            blocking: Waiting sleeps instead of spinning: later by tens of microseconds, but a free core.
            side: A further output that is copied to the host with each frame, if there is one.
            limit_s: Seconds after which a frame that is not done counts as never done; of the warm-up at least
                `WAIT_LIMIT_S`, because the first inferences load kernels.

        Raises:
            CudaError: Out of memory, or the GPU failed during the warm-up.
            BackendError: The engine failed during the warm-up, or does not run in the graph.
        """
        self._gpu, self._engine, self._stream = gpu, engine, stream
        self._feed, self._scores = feed, scores
        self._sequence = 0
        self._side = side
        self._limit_s, self._blocking = max(limit_s, WAIT_LIMIT_S), blocking
        self.captured = False
        self.slots = [self._make_slot(input_bytes, blocking) for _ in range(slots)]
        problem = "" if capture else "stream launches were asked for"
        for slot in self.slots:
            # Lazily loaded code and shape updates must be through before a capture.
            self.submit(slot)
            self.wait(slot)
            problem = problem or engine.why_not_capturable(stream) or self._capture(slot)
        if problem:
            for slot in self.slots:
                slot.graph = 0
            if capture:
                to_stderr(f"framegate: no CUDA graph ({problem}); launching each kernel, which is slower")
        for slot in self.slots:  # a graph's first launch uploads it, and shows whether it works at all
            self._require_outputs(slot, logits)
        self.captured = not problem
        self._limit_s = limit_s

    def _make_slot(self, input_bytes: int, blocking: bool) -> Slot:
        result = self._gpu.allocate_host(self._scores.result_bytes)
        result.array[:] = 0
        memory = self._gpu.allocate_host(input_bytes)
        memory.array[:] = 0
        side = self._gpu.allocate_host(self._side.nbytes) if self._side is not None else None
        logits = self._scores.logits_of(result)
        return Slot(memory, result, logits, self._gpu.create_event(blocking), side=side)

    def _capture(self, slot: Slot) -> str:
        """Capture a slot's graph; return what went wrong."""
        try:
            with self._gpu.capture(self._stream) as capture:
                self._enqueue(slot)
        except (CudaError, BackendError) as error:
            return f"capture failed: {error}"
        slot.graph = capture.graph
        return ""

    def _require_outputs(self, slot: Slot, logits: int) -> None:
        """Run a slot's frame over outputs that hold nothing: what the engine leaves out would be an earlier frame's.

        Raises:
            CudaError: The GPU failed.
            BackendError: The engine wrote none, or not all, of its outputs.
        """
        side = 0 if self._side is None else self._side.nbytes
        nothing = np.full(max(slot.logits.nbytes, side), _UNWRITTEN, np.uint8)
        self._gpu.copy_to_device(logits, nothing[: slot.logits.nbytes], self._stream)
        if self._side is not None:
            self._gpu.copy_to_device(self._side.address, nothing[:side], self._stream)
        self.submit(slot)
        self.wait(slot)
        found = {"logits": slot.logits.view(np.uint32)}
        if slot.side is not None:
            found["second output"] = slot.side.array.view(np.uint32)
        for what, words in found.items():
            if (words == nothing[:4].view(np.uint32)).any():
                how = "in the CUDA graph of a frame" if slot.graph else "in a frame"
                raise BackendError(f"the engine left no {what} {how}: it does not run where it should")

    def _enqueue(self, slot: Slot) -> None:
        self._feed(slot)
        self._engine.enqueue(self._stream)
        self._scores.enqueue(slot.result, self._stream)
        if self._side is not None and slot.side is not None:
            self._gpu.copy_to_host(slot.side.array, self._side.address, self._stream)

    def submit(self, slot: Slot) -> None:
        """Start a slot's frame. Its input must not change until `wait` returns.

        Raises:
            CudaError: The GPU, or an earlier frame on it, failed.
            BackendError: The engine failed.
        """
        self._sequence = self._sequence % 0xFFFFFFFF + 1  # never 0, which fresh memory holds
        slot.number = self._sequence
        self._scores.mark(slot.result, slot.number)
        if slot.side is not None:  # what is not written must not look like the last frame's
            slot.side.array.view(np.float32).fill(np.nan)
        if slot.graph:
            self._gpu.launch_graph(slot.graph, self._stream)
        else:
            self._enqueue(slot)
        self._gpu.record_event(slot.event, self._stream)

    def wait(self, slot: Slot) -> Record:
        """Wait for a slot's frame and return its record.

        Raises:
            CudaError: The GPU failed, or is not done after the limit.
            BackendError: The record is not of this frame, or torn.
        """
        self._gpu.wait_event_within(slot.event, self._limit_s, sleeping=self._blocking)
        record = self._scores.read(slot.result, slot.number)
        if record is None:
            raise BackendError(f"the GPU left no whole record of submission {slot.number}")
        return record

    def side_of(self, slot: Slot) -> npt.NDArray[np.float32] | None:
        """(images, count) values of the side output of a slot's frame, valid until its next one; None without."""
        if slot.side is None or self._side is None:
            return None
        return slot.side.array.view(np.float32).reshape(self._side.shape[0], -1)


def allocate_outputs(gpu: Driver, engine: OpenedEngine, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Give outputs of an engine device memory of their own; return name -> address."""
    addresses: dict[str, int] = {}
    for name, shape in shapes.items():
        addresses[name] = gpu.allocate(engine.output_bytes(name, tuple(shape)))
        engine.place(name, addresses[name])
    return addresses
