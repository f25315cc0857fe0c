"""OpenVINO on the CPU: requests on shared memory, one for an image, two halves of a large batch side by side."""

from __future__ import annotations

import copy
import ctypes
import math
import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from framegate.runtime.backends.base import CpuBackend
from framegate.runtime.backends.compiled import CompiledNetworks
from framegate.runtime.backends.int8 import adds_int8_exactly
from framegate.runtime.backends.no_telemetry import no_telemetry
from framegate.runtime.backends.thread_choice import SMALL_S, alone_s, fastest_s
from framegate.runtime.errors import BackendError
from framegate.runtime.monitor import POOLED
from framegate.runtime.native.processors import processors
from framegate.runtime.scores import Tensor

with no_telemetry():
    import openvino as ov

_MANY = 60_000_000
"""Multiplications of a network that is tried on all processors first: seen are 0.6 ms on one thread for 12 million, and
2.4 ms for 56 million. It decides which trial comes first, and not what is chosen."""
_LEAST_HALVED = 4
"""Images of a batch that is computed in two halves, each on half of the processors: they wait for one another once,
where all processors on one batch wait at every layer."""
_CORES: dict[int, ov.Core] = {}
"""By process; see `core`."""


class OpenVinoBackend(CpuBackend):
    """See `framegate.runtime.backends.base.Backend`.

    Args:
        model: The ONNX file.
        threads: That compute; None: one, or all processors for networks that take one more than 2.5 ms.
        network: Digest of its files: what it is compiled to may be kept (`framegate.runtime.backends.compiled`). Empty:
            it is compiled each time.
    """

    name = "openvino"

    def __init__(self, model: Path, threads: int | None, network: str = "") -> None:
        self.engine = f"openvino {ov.__version__.split('-')[0]}"
        config = {"PERFORMANCE_HINT": "LATENCY"}
        # Left alone, OpenVINO computes float32 layers in bfloat16 where the processor can: logits then move by whole
        # units, and a threshold calibrated on one machine would not hold on another.
        config["INFERENCE_PRECISION_HINT"] = "f32"
        if not adds_int8_exactly():
            # Quantised layers are then computed in float32 on the same rounded numbers: slower, and right.
            config["LP_TRANSFORMS_MODE"] = "NO"
        self._config = config
        self._threads = threads
        self._kept = CompiledNetworks(network, ov.__version__)
        self._network = _Network(model, self._kept)
        self._too_much = [sys.maxsize]
        """So many numbers of input took one thread too long: a larger batch is not tried on one, and compiled once
        instead of twice. A list, so that backends that share the network know it of one another."""
        self.kept_in = ""
        """The folder from which compiled networks were read; empty if all were compiled here."""
        self._compiled: ov.CompiledModel | None = None
        self._compiled_as: tuple[tuple[int, ...], int] = ((), 1)
        """For inputs of which shape, and how many requests side by side."""
        self._request: ov.InferRequest | None = None
        self._halves: _SideBySide | None = None
        self.pooled: Tensor | None = None

    @property
    def classes(self) -> int:
        """See `Backend.classes`."""
        if self._compiled is None:
            return self._network.classes
        return int(self._compiled.output(0).get_partial_shape()[1].get_length())

    def bind(self, tensor: Tensor) -> None:
        """See `Backend.bind`."""
        parts = np.split(tensor, 2) if self._is_halved(tensor) else [tensor]
        try:
            if self._compiled is None or self._compiled_as != (parts[0].shape, len(parts)):
                self._compiled, self._compiled_as = self._compile_for(parts), (parts[0].shape, len(parts))
            requests = [self._request_on(part, self._compiled) for part in parts]
            # Bind the outputs too: reading them through the request costs more than the copy it saves.
            output = _output_of(requests, 0)
            places = [k for k, each in enumerate(self._compiled.outputs) if POOLED in each.get_names()]
            pooled = _output_of(requests, places[0]) if places else None
            halves = None
            if len(requests) > 1:
                arrays = [tensor, output] if pooled is None else [tensor, output, pooled]
                halves = _SideBySide(requests, len(parts[0]), arrays)
            infer = _plain_call(requests[0]) if halves is None else halves.finish
            self._request, self._halves, self._infer = requests[0], halves, infer
            self._output, self.pooled = output, pooled
            give_back_memory()
        except RuntimeError as error:
            raise BackendError(f"openvino cannot run this model on {tensor.shape}: {_first_line(error)}") from error

    def _is_halved(self, tensor: Tensor) -> bool:
        """Whether a batch is computed in two halves side by side: one that is worth more than one thread."""
        if len(tensor) < _LEAST_HALVED or len(tensor) % 2:
            return False
        return processors() > 1 and tensor.size >= self._too_much[0] if self._threads is None else self._threads > 1

    def _compile_for(self, parts: Sequence[Tensor]) -> ov.CompiledModel:
        """The network for so many inputs at once."""
        if len(parts) > 1 or self._threads is not None:
            return self._compile(parts[0], self._threads, len(parts))
        return self._on_one_thread_or_all(parts[0])

    def _on_one_thread_or_all(self, tensor: Tensor) -> ov.CompiledModel:
        """The network on one thread if that takes at most `SMALL_S`, else on all processors.

        Compiling takes most of the start-up, so the likelier of the two comes first, and the second trial is left out
        where the first says enough.
        """
        if tensor.size >= self._too_much[0]:
            return self._compile(tensor, None)
        everywhere = None
        if self._is_large(tensor):
            everywhere = self._compile(tensor, None)
            if alone_s(fastest_s(self._request_on(tensor, everywhere).infer)) > SMALL_S:
                self._too_much[0] = tensor.size
                return everywhere
        alone = self._compile(tensor, 1)
        if fastest_s(self._request_on(tensor, alone).infer) <= SMALL_S:
            return alone
        self._too_much[0] = tensor.size
        return everywhere or self._compile(tensor, None)

    def _is_large(self, tensor: Tensor) -> bool:
        """Whether all processors are likely to compute it; what an earlier process tried first says that, too."""
        together, alone = (self._kept.path(tensor.shape, self._configuration(threads)) for threads in (None, 1))
        # Not Path.exists, which raises where a folder above may not be entered.
        if together is not None and alone is not None and (os.path.exists(together) or os.path.exists(alone)):
            return os.path.exists(together)
        return self._network.products(tensor.shape) > _MANY

    def _configuration(self, threads: int | None, requests: int = 1) -> dict[str, str]:
        config = {**self._config, "NUM_STREAMS": str(requests)}
        return config if threads is None else {**config, "INFERENCE_NUM_THREADS": str(threads)}

    def _compile(self, tensor: Tensor, threads: int | None, requests: int = 1) -> ov.CompiledModel:
        """The network for inputs like this one, from the cache if it is there.

        Args:
            tensor: An input.
            threads: That compute; None: all processors.
            requests: That share them, side by side.
        """
        config = self._configuration(threads, requests)
        path = self._kept.path(tensor.shape, config)
        kept = None if path is None else self._kept.read(path)
        if path is not None and kept is not None:
            with suppress(RuntimeError):  # whatever it has against it: the network is compiled anew
                compiled = core().import_model(kept, "CPU", config)
                if tuple(compiled.input(0).shape) == tensor.shape:
                    self.kept_in = str(path.parent)
                    return compiled
        compiled = self._network.compile(tensor.shape, config)
        if path is not None:
            with suppress(RuntimeError):  # not every network can be written
                self._kept.keep(path, compiled.export_model().getvalue())
        return compiled

    def _request_on(self, tensor: Tensor, compiled: ov.CompiledModel) -> ov.InferRequest:
        """A request whose input is this array."""
        request = compiled.create_infer_request()
        request.set_input_tensor(ov.Tensor(tensor, shared_memory=True))
        return request

    def share(self) -> OpenVinoBackend:
        """See `Backend.share`: another request on the same compiled network."""
        other = copy.copy(self)
        other._request = other._halves = other.pooled = None
        return other

    def _forget_started(self) -> None:
        if self._halves is not None:
            self._halves.stop()

    def start_filled(self, fill: Callable[[int, int], object]) -> None:
        """See `Backend.start_filled`: the first half of a batch is computed while the second is filled."""
        if self._halves is None:
            super().start_filled(fill)
            return
        try:
            self._halves.start(fill)
        except RuntimeError as error:
            raise BackendError(f"openvino failed: {_first_line(error)}") from error

    def finish(self) -> Tensor:
        """See `Backend.finish`."""
        if self._request is None:
            raise BackendError("openvino: bind an input first")
        try:
            self._infer()
        except RuntimeError as error:
            raise BackendError(f"openvino failed: {_first_line(error)}") from error
        output: Tensor = self._output
        return output


class _Network:
    """An ONNX file, for one thread after the other. Where compiled forms are kept it is read only if one is missing.

    Args:
        file: It may be gone afterwards.
        kept: What keeps compiled forms.

    Raises:
        BackendError: OpenVINO cannot read it; said when it is read.
    """

    def __init__(self, file: Path, kept: CompiledNetworks) -> None:
        self._file = file
        self._opened: IO[bytes] | None = None
        self._model: ov.Model | None = None
        # Sessions on the same network, each in a thread of its own, reshape the same model.
        self._lock = threading.Lock()
        # Weights that lie in files of their own are found only beside it. An open file can be read when it is gone.
        if kept.active and len(list(file.parent.iterdir())) == 1:
            self._opened = file.open("rb")
            weakref.finalize(self, self._opened.close)
        else:
            self._model = self._read(file)

    @property
    def classes(self) -> int:
        """Values of the first output for each image."""
        with self._lock:
            return int(self._loaded().output(0).get_partial_shape()[1].get_length())

    def products(self, shape: Sequence[int]) -> int:
        """See `_products`, for inputs of a shape."""
        with self._lock:
            return _products(self._of_shape(shape))

    def compile(self, shape: Sequence[int], config: dict[str, str]) -> ov.CompiledModel:
        """The network, compiled for inputs of a shape."""
        with self._lock:
            return core().compile_model(self._of_shape(shape), "CPU", config)

    def _loaded(self) -> ov.Model:
        if self._model is None:
            assert self._opened is not None
            descriptor = self._opened.fileno()
            # Not read(), which moves a place in the file that child processes share.
            self._model = self._read(os.pread(descriptor, os.fstat(descriptor).st_size, 0))
            self._opened.close()
        return self._model

    def _of_shape(self, shape: Sequence[int]) -> ov.Model:
        model = self._loaded()
        found = model.input(0).get_partial_shape()
        if not found.is_static or tuple(found.to_shape()) != tuple(shape):
            model.reshape(list(shape))
        return model

    def _read(self, source: Path | bytes) -> ov.Model:
        try:
            return core().read_model(source)
        except RuntimeError as error:
            raise BackendError(f"openvino cannot read {self._file}: {_first_line(error)}") from error


def core() -> ov.Core:
    """OpenVINO's one core of this process, which is never let go.

    Its CPU plugin gives the thread that loads it a stack for signal handlers (room for the registers of AMX), and takes
    it away when the last core is gone, without looking whether a thread still has it: after a core that was dropped in
    another thread, or before a younger one, the next Ctrl-C ended the process with a segmentation fault.
    """
    process = os.getpid()  # a core does not survive a fork
    if process not in _CORES:
        _CORES.setdefault(process, ov.Core())
    return _CORES[process]


def give_back_memory() -> None:
    """Give the system what compiling a network took for a moment, 6 MiB of a small one; glibc keeps it otherwise."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # musl has none
        trim(0)


def _plain_call(request: ov.InferRequest) -> Callable[[], object]:
    """One synchronous call of a request whose input and outputs are bound already.

    `ov.InferRequest.infer` looks for inputs to be copied and makes a dictionary with copies of all outputs, a fifth of
    the time of a small network. What it calls itself does without, if it is asked to share its outputs.
    """
    plain = getattr(super(ov.InferRequest, request), "infer", None)

    def call() -> object:
        return plain({}, share_outputs=True, decode_strings=False)  # type: ignore[misc]

    try:
        call()
    except TypeError:  # another version of OpenVINO: what is documented
        documented: Callable[[], object] = request.infer
        return documented
    return call


class _SideBySide:
    """Requests that compute at the same time, each some rows of a batch.

    Args:
        requests: Each on its own rows of the batch, in order.
        rows: Of each.
        arrays: What they read and write, and do not keep themselves.
    """

    def __init__(self, requests: Sequence[ov.InferRequest], rows: int, arrays: Sequence[Tensor]) -> None:
        # In this order: to let go of a request waits until it has ended, and then of what it writes.
        self._requests, self._rows = requests, rows
        self._arrays = arrays
        self._running = False

    def start(self, fill: Callable[[int, int], object]) -> None:
        """Fill the rows of each request and start it. If that fails, none is running afterwards."""
        self.stop()
        begun: list[ov.InferRequest] = []
        try:
            for k, request in enumerate(self._requests):
                fill(k * self._rows, (k + 1) * self._rows)
                request.start_async()
                begun.append(request)
        except BaseException:
            for request in begun:
                with suppress(Exception):
                    request.wait()
            raise
        self._running = True

    def finish(self) -> None:
        """Wait for all requests, also where one fails; start them before, where nobody has."""
        if not self._running:
            self.start(lambda first, last: None)
        self._running, failed = False, None
        for request in self._requests:
            try:
                request.wait()
            except Exception as error:  # noqa: BLE001 - whatever it is, the others must be waited for
                failed = error
        if failed is not None:
            raise failed

    def stop(self) -> None:
        """Wait for what was started and never finished (Ctrl-C), and forget it: nothing may be filled meanwhile."""
        if self._running:
            with suppress(Exception):
                self.finish()


def _output_of(requests: Sequence[ov.InferRequest], number: int) -> Tensor:
    """The array that an output is written to, the rows of several requests one below the other."""
    found: Tensor = requests[0].get_output_tensor(number).data
    if len(requests) == 1:
        return found
    rows = len(found)
    together = np.zeros((rows * len(requests), *found.shape[1:]), found.dtype)
    for k, request in enumerate(requests):
        part = together[k * rows : (k + 1) * rows]
        request.set_output_tensor(number, ov.Tensor(part, shared_memory=True))
    return together


def _products(model: ov.Model) -> int:
    """About how many multiplications the network makes: those of its convolutions and matrix products."""
    total = 0
    for operation in model.get_ops():
        kind = operation.get_type_name()
        if kind != "MatMul" and "Convolution" not in kind:
            continue
        weights, found = operation.input(1).get_partial_shape(), operation.output(0).get_partial_shape()
        if weights.is_dynamic or found.is_dynamic:
            continue
        made, filters = math.prod(found.to_shape()), math.prod(weights.to_shape())
        # Every output is as many products as a filter has weights; a matrix product meets each weight once.
        total += filters if kind == "MatMul" else made * filters // max(1, found.to_shape()[1])
    return total


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def load(name: str, model: Path, threads: int | None, network: str) -> OpenVinoBackend:
    """Entry point of the table in `framegate.runtime.backends.choice`."""
    del name
    return OpenVinoBackend(model, threads, network)
