"""TensorRT and TensorRT-RTX: one stream, one CUDA graph a frame, results through mapped memory.

    tensor or camera frame in pinned memory -> (copy) -> (preprocessing kernel) -> engine -> softmax-entropy kernel
                                                                                              -> 32-byte record

An engine that outputs the scores itself (``framegate engine --scores ...``) is recognised from its tensors, and the
kernel stays away. Only camera frames (`bind_frames`) and dense networks (`bind_dense`) take their scores from the GPU,
too; arrays give logits, also of several images at once, up to the largest batch of the engine's profile.

After a GPU fault nothing that comes from the GPU is used: the frame in flight and every later one fail until
`TensorRtBackend.reinitialise`, which opens the GPU anew. A fault such as an illegal address ends the process's CUDA
context; if another library (PyTorch) holds it too, it cannot be renewed, and every frame stays rejected.

A GPU that hangs gives no error at all, so waiting for a frame ends after a limit, which is a fault like the others.
What hangs cannot be freed either (the driver would wait for it): as long as it hangs, nothing is released and
`reinitialise` refuses.

Environment: FRAMEGATE_CUDA_GRAPH=0 launches kernel by kernel; FRAMEGATE_GPU_WAIT=block sleeps while the GPU works;
FRAMEGATE_GPU_LIMIT is the longest wait for a frame in seconds (default 2).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from framegate.cuda_kernels.compile.compiler import CompilerError
from framegate.cuda_kernels.driver.open import CudaError, Driver, open_driver
from framegate.cuda_kernels.softmax_entropy.launch import LARGEST_CHANNELS, Record
from framegate.runtime.backends.base import ALL_ROWS, PixelMaps
from framegate.runtime.backends.tensorrt.engine import OpenedEngine
from framegate.runtime.backends.tensorrt.feed import frame_feed, plan_frame, tensor_feed
from framegate.runtime.backends.tensorrt.graph import WAIT_LIMIT_S, FrameGraph, SideOutput, Slot, allocate_outputs
from framegate.runtime.backends.tensorrt.library import load_tensorrt
from framegate.runtime.backends.tensorrt.scores import (
    TEMPERATURE,
    DenseKernel,
    EngineOutputs,
    KernelRecord,
    PlainLogits,
    ScoreSource,
)
from framegate.runtime.backends.tensorrt.store import engine_folder, find_engine
from framegate.runtime.bundle.bundle import sha256_file
from framegate.runtime.errors import BackendError, UsageError
from framegate.runtime.monitor import POOLED
from framegate.runtime.preprocess import PreprocessSpec
from framegate.runtime.scores import FrameScores, Tensor, frame_scores, not_finite
from framegate.runtime.verdict import BGR, NV12, Image

Result = TypeVar("Result")
_SCORE_TOLERANCE = 5e-3  # far above rounding and far below a wrong kernel's
_URGENT = -5  # of what streams may have; the driver takes the nearest that the GPU knows


class TensorRtBackend:
    """See `framegate.runtime.backends.base.Backend`.

    Attributes:
        fault: Why nothing is computed any more; empty while nothing is wrong.
        graph: The graph of the bound input; None before `bind` or `bind_frames`.
        own_scores: Whether the engine itself gives the scores.
    """

    takes_frames = True

    def __init__(self, flavour: str, model: Path, network: str = "") -> None:
        """Open the engine.

        Args:
            flavour: ``tensorrt`` or ``tensorrt-rtx``.
            model: The ONNX file.
            network: Its SHA-256; empty: as it is now. Whatever lies there later, this network is the one that labels
                and calibration in memory belong to.
        """
        self.name = flavour
        self._model = model
        self._network = network or sha256_file(model)
        self._trt = load_tensorrt(flavour)
        self.engine = self._trt.engine
        self.fault = ""
        self.scores: FrameScores | None = None
        self.maps: PixelMaps | None = None
        self.graph: FrameGraph | None = None
        self._rebind: Callable[[], None] | None = None
        self._turn = 0
        self._flying: Slot | None = None
        self._tensor: Tensor | None = None
        self._frame_shape: tuple[int, ...] | None = None
        self._dense: DenseKernel | None = None
        self._gpu: Driver | None = None
        self._open()

    def _open(self) -> None:
        if Driver.hangs():
            raise BackendError(f"{self.name}: the GPU still hangs; a new start of the process or the machine may help")
        try:
            self._open_engine()
        except BaseException:
            self.close()
            raise

    def _open_engine(self) -> None:
        try:
            self._gpu = open_driver()
            info, flavour = self._gpu.info, self._trt.flavour
            stored = find_engine(self._model, flavour, self._trt.version, info, engine_folder(), self._network)
            self._engine = OpenedEngine(self._trt, stored, self._gpu)
            self._stream = self._gpu.create_stream(_URGENT)
        except (CudaError, CompilerError) as error:
            raise BackendError(f"{self.name}: {error}; framegate doctor says what is missing") from error
        self.classes = int(stored.header["network"]["outputs"][0]["shape"][1])
        self.own_scores = self._engine.own_scores
        self.pooled: Tensor | None = None

    def close(self) -> None:
        """Give everything back, unless the GPU hangs. May be called twice."""
        graph, flying = self.graph, self._flying
        self.graph = self._flying = None
        if self._gpu is None:
            return
        with suppress(CudaError, BackendError):  # after a fault the driver refuses to free anything
            self._gpu.make_current()
            if graph is not None and flying is not None:  # TensorRT's objects must not go while they compute
                graph.wait(flying)
        if hasattr(self, "_engine"):
            self._engine.close()  # before its memory and its context go
        with suppress(CudaError):
            self._gpu.close()
        self._gpu = None

    def bind(self, tensor: Tensor) -> None:
        """See `Backend.bind`. The array is copied into pinned memory at each call."""
        self._check_environment()

        def build() -> None:
            self._build(tensor.shape, tensor.nbytes, slots=1, frame=None, temperature=1.0)

        self._start(build)
        self._tensor, self._frame_shape = tensor, None

    def bind_dense(self, tensor: Tensor, temperature: float) -> None:
        """See `Backend.bind_dense`: up to 32 labels our kernel scores every pixel; of more there are logits only."""
        self._check_environment()

        def build() -> None:
            self._build(tensor.shape, tensor.nbytes, slots=1, frame=None, temperature=temperature)

        self._start(build)
        self._tensor, self._frame_shape = tensor, None

    def bind_frames(
        self,
        spec: PreprocessSpec,
        width: int,
        height: int,
        temperature: float,
        pixel_format: str = BGR,
    ) -> None:
        """See `Backend.bind_frames`."""
        self._check_environment()
        plan = plan_frame(spec, width, height, pixel_format)
        rows = (height * 3 // 2, width) if pixel_format == NV12 else (height, width, 3)
        shape = (1, 3, spec.height, spec.width)

        def build() -> None:
            self._build(shape, int(np.prod(rows)), slots=2, frame=plan, temperature=temperature)

        self._start(build)
        self._tensor, self._frame_shape = None, rows

    def start(self, frame: Image | None = None) -> None:
        """See `Backend.start`. A frame that was started and never finished (Ctrl-C) is waited for and forgotten.

        Raises:
            BackendError: The GPU has failed, or this is not what was bound.
        """
        graph = self._ready()
        if self._flying is not None:
            self.finish()
        pixels = self._tensor if frame is None else frame
        bound = self._frame_shape if self._tensor is None else self._tensor.shape
        if pixels is None or pixels.shape != bound or (frame is None) != (self._frame_shape is None):
            given = "the bound array" if frame is None else f"a frame of shape {frame.shape}"
            raise BackendError(f"{self.name}: asked to compute {given}, but {bound} is bound")
        slot = graph.slots[self._turn]
        # One call of NumPy into pinned memory, which the copy engine or the GPU reads.
        np.copyto(slot.input.array.view(pixels.dtype).reshape(pixels.shape), pixels)
        self._guarded(lambda: graph.submit(slot))
        self._flying, self._turn = slot, (self._turn + 1) % len(graph.slots)

    def start_filled(self, fill: Callable[[int, int], object]) -> None:
        """See `Backend.start_filled`: it starts when all rows are filled."""
        fill(0, ALL_ROWS)
        self.start()

    def finish(self) -> Tensor:
        """See `Backend.finish`.

        Raises:
            BackendError: The GPU failed on it, or nothing was started.
        """
        self.scores = self.maps = None
        graph, slot = self._ready(), self._flying
        if slot is None:
            raise BackendError(f"{self.name}: start a frame before finishing it")
        self._flying = None
        self.pooled = graph.side_of(slot)
        record = self._guarded(lambda: graph.wait(slot))
        if self._frame_shape is not None:
            self.scores = _scores(record, slot)
        if self._dense is not None:
            labels, maps = self._dense.maps_of(slot.result)
            self.maps = PixelMaps(labels, **maps)
        return slot.logits.reshape(self._logits_shape)

    def share(self) -> TensorRtBackend:
        """See `Backend.share`: the engine is loaded again, its weights are not shared."""
        return TensorRtBackend(self.name, self._model, self._network)

    def reinitialise(self) -> None:
        """Open GPU, engine and graph anew after a fault.

        Raises:
            BackendError: It did not work; the backend stays faulted.
        """
        self.fault = self.fault or "being re-initialised"
        if not Driver.hangs():  # `_open` says so; until then nothing is given back
            self.close()
        self._flying, self._turn = None, 0
        self._open()
        if self._rebind is not None:
            self._bound(self._rebind)
        self.fault = ""

    def _start(self, build: Callable[[], None]) -> None:
        if self.fault:
            raise BackendError(f"{self.name}: not used since the GPU failed: {self.fault}")
        if self.graph is not None or self._gpu is None:  # another size: its buffers go with everything else
            self.close()
            self._open()
        self._flying, self._turn = None, 0
        self._rebind = build
        self._bound(build)

    def _build(self, shape: Sequence[int], nbytes: int, *, slots: int, frame: Any, temperature: float) -> None:
        gpu = self._current_gpu()
        shapes = self._engine.shape_for(tuple(shape))
        self._logits_shape = given = shapes[self._engine.logits]
        if given[:2] != (shape[0], self.classes) or len(given) not in (2, 4) or (len(given) == 4 and shape[0] != 1):
            raise BackendError(f"{self.name}: the engine gives {self._engine.logits} {given} for {tuple(shape)}")
        if frame is not None and given != (1, self.classes):
            raise BackendError(f"{self.name}: whole frames go to a classifier, one at a time; the engine gives {given}")
        scores, outputs = self._score_source(gpu, shapes, temperature)
        side = SideOutput(outputs[POOLED], shapes[POOLED]) if POOLED in outputs else None
        if frame is None:
            feed = tensor_feed(gpu, self._engine, self._stream, nbytes)
        else:
            network_input = gpu.allocate(4 * int(np.prod(shape)))
            self._engine.place(self._engine.input, network_input)
            feed = frame_feed(gpu, self._stream, frame, nbytes, network_input)
        self.graph = FrameGraph(
            gpu,
            self._engine,
            self._stream,
            input_bytes=nbytes,
            slots=slots,
            feed=feed,
            logits=outputs[self._engine.logits],
            scores=scores,
            capture=os.environ.get("FRAMEGATE_CUDA_GRAPH", "1") != "0",
            blocking=os.environ.get("FRAMEGATE_GPU_WAIT", "spin") == "block",
            limit_s=_limit(),
            side=side,
        )
        slot = self.graph.slots[0]
        self.pooled = self.graph.side_of(slot)
        if frame is not None:
            self._require_scores(self.graph, slot, temperature)
        self._engine.save_runtime_cache()

    def _require_scores(self, graph: FrameGraph, slot: Slot, temperature: float) -> None:
        """Compare the scores that the GPU gives with those of its logits, once: nobody else looks at the kernel.

        Raises:
            BackendError: They differ.
        """
        graph.submit(slot)
        found = _scores(graph.wait(slot), slot)
        wanted = frame_scores(slot.logits[None], temperature)
        if not np.allclose(found, wanted, rtol=_SCORE_TOLERANCE, atol=_SCORE_TOLERANCE, equal_nan=True):
            raise BackendError(f"the GPU gives {tuple(found)}, and {tuple(wanted)} are those of the logits beside them")

    def _score_source(
        self, gpu: Driver, shapes: Mapping[str, Sequence[int]], temperature: float
    ) -> tuple[ScoreSource, dict[str, int]]:
        """Place every output; what computes the scores follows from which ones there are.

        Returns:
            What computes the scores, and output -> device address.
        """
        engine = self._engine
        self._dense = None
        if not engine.own_scores:
            outputs = allocate_outputs(gpu, engine, shapes)
            return self._behind(gpu, outputs[engine.logits], shapes[engine.logits], temperature), outputs
        source: ScoreSource
        if shapes[engine.logits][0] > 1:
            outputs = allocate_outputs(gpu, engine, shapes)
            source = PlainLogits(gpu, outputs[engine.logits], math.prod(shapes[engine.logits]))
        else:
            source = EngineOutputs(gpu, engine.logits, self.classes)
            for name, address in source.addresses.items():
                engine.place(name, address)
            others = {name: shape for name, shape in shapes.items() if name not in source.addresses}
            outputs = {**source.addresses, **allocate_outputs(gpu, engine, others)}
        address = gpu.allocate(256)
        gpu.copy_to_device(address, np.array([temperature], np.float32), self._stream)
        gpu.synchronize(self._stream)
        engine.place(TEMPERATURE, address)
        return source, outputs

    def _behind(self, gpu: Driver, logits: int, shape: Sequence[int], temperature: float) -> ScoreSource:
        """What runs behind an engine that gives nothing but logits of this shape, at this address."""
        if len(shape) == 4 and shape[1] <= LARGEST_CHANNELS:
            self._dense = DenseKernel(gpu, logits, (shape[1], shape[2], shape[3]), temperature)
            return self._dense
        if len(shape) == 4 or shape[0] > 1:
            return PlainLogits(gpu, logits, math.prod(shape))
        return KernelRecord(gpu, logits, self.classes, temperature)

    def _check_environment(self) -> None:
        for name, known in (("FRAMEGATE_CUDA_GRAPH", ("0", "1")), ("FRAMEGATE_GPU_WAIT", ("spin", "block"))):
            value = os.environ.get(name, known[0])
            if value not in known:
                raise UsageError(f"environment variable {name} is {value!r}; expected {' or '.join(known)}")
        _limit()

    def _ready(self) -> FrameGraph:
        if self.fault:
            raise BackendError(f"{self.name}: not used since the GPU failed: {self.fault}")
        if self.graph is None:
            raise BackendError(f"{self.name}: bind an input first")
        self._guarded(self._current_gpu)
        return self.graph

    def _current_gpu(self) -> Driver:
        if self._gpu is None:
            raise BackendError(f"{self.name}: closed")
        # A context is current per thread, and anybody may have changed that: another backend that was closed, or a
        # thread that has ended and left its number to this one. Asking costs as much as setting it.
        self._gpu.make_current()
        return self._gpu

    def _guarded(self, work: Callable[[], Result]) -> Result:
        """Do something on the GPU; whatever goes wrong is a fault that stays."""
        try:
            return work()
        except (CudaError, BackendError) as error:
            self.fault = str(error)
            raise BackendError(f"{self.name}: the GPU failed: {error}") from error
        except BaseException as error:
            # Ctrl-C in the middle of a frame, say: what is under way now belongs to nobody.
            self.fault = f"interrupted by {type(error).__name__}"
            raise

    def _bound(self, build: Callable[[], None]) -> None:
        """Build the graph; what was allocated for one that cannot be built is given back."""
        try:
            build()
        except BaseException as error:
            self.close()
            if isinstance(error, CudaError | CompilerError):
                raise BackendError(f"{self.name}: {error}") from error
            raise


def _limit() -> float:
    """The longest wait for a frame in seconds."""
    text = os.environ.get("FRAMEGATE_GPU_LIMIT", str(WAIT_LIMIT_S))
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    if not 0 < limit < math.inf:
        raise UsageError(f"environment variable FRAMEGATE_GPU_LIMIT is {text!r}; expected a number of seconds above 0")
    return limit


def _scores(record: Record, slot: Slot) -> FrameScores:
    if record.argmax < 0 or not np.isfinite(slot.logits).all():
        return not_finite()
    if record.argmax != slot.logits.argmax():
        raise BackendError(f"the GPU's label {record.argmax} is not the one of the logits beside them")
    return FrameScores(record.argmax, record.max_probability, record.entropy, record.margin, record.energy)


def load(name: str, model: Path, threads: int | None, network: str) -> TensorRtBackend:
    """Entry point of the table in `framegate.runtime.backends.choice`; ``threads`` means nothing on a GPU."""
    del threads
    return TensorRtBackend(name, model, network)
