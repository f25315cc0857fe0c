"""OpenVINO on the CPU: one synchronous request on shared memory."""

from __future__ import annotations

import copy
import ctypes
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

from framegate.runtime.backends.base import CpuBackend
from framegate.runtime.backends.int8 import adds_int8_exactly
from framegate.runtime.backends.no_telemetry import no_telemetry
from framegate.runtime.backends.thread_choice import SMALL_S, fastest_s
from framegate.runtime.errors import BackendError
from framegate.runtime.monitor import POOLED
from framegate.runtime.scores import Tensor

with no_telemetry():
    import openvino as ov

_MANY = 20_000_000
"""Multiplications of a network that is tried on all processors first: seen are 0.6 ms on one thread for 12 million, and
2.4 ms for 56 million. It decides which trial comes first, and not what is chosen."""
_CORES: dict[int, ov.Core] = {}
"""By process; see `core`."""


class OpenVinoBackend(CpuBackend):
    """See `framegate.runtime.backends.base.Backend`.

    Args:
        model: The ONNX file.
        threads: That compute; None: one, or all processors for networks that take one more than 1 ms.
    """

    name = "openvino"

    def __init__(self, model: Path, threads: int | None) -> None:
        self.engine = f"openvino {ov.__version__.split('-')[0]}"
        # One stream: the latency of a single frame counts, not throughput.
        config = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
        # Left alone, OpenVINO computes float32 layers in bfloat16 where the processor can: logits then move by whole
        # units, and a threshold calibrated on one machine would not hold on another.
        config["INFERENCE_PRECISION_HINT"] = "f32"
        if not adds_int8_exactly():
            # Quantised layers are then computed in float32 on the same rounded numbers: slower, and right.
            config["LP_TRANSFORMS_MODE"] = "NO"
        try:
            self._model = core().read_model(model)
            self._config = config
            self._threads = threads
            self.classes = int(self._model.output(0).get_partial_shape()[1].get_length())
        except RuntimeError as error:
            raise BackendError(f"openvino cannot read {model}: {_first_line(error)}") from error
        self._too_much = [sys.maxsize]
        """So many numbers of input took one thread too long: a larger batch is not tried on one, and compiled once
        instead of twice. A list, so that backends that share the network know it of one another."""
        self._compiled: ov.CompiledModel | None = None
        self._request: ov.InferRequest | None = None
        self.pooled: Tensor | None = None

    def bind(self, tensor: Tensor) -> None:
        """See `Backend.bind`."""
        try:
            if self._compiled is None or tuple(self._compiled.input(0).shape) != tensor.shape:
                shape = self._model.input(0).get_partial_shape()
                if not shape.is_static or tuple(shape.to_shape()) != tensor.shape:
                    self._model.reshape(list(tensor.shape))
                self._compiled = self._compile(self._threads) if self._threads else self._compile_for(tensor)
            self._request = self._request_on(tensor, self._compiled)
            self._infer = _plain_call(self._request)
            # Bind the output too: reading it through the request costs more than the copy it saves.
            self._output = self._request.get_output_tensor(0).data
            pooled = [k for k, output in enumerate(self._model.outputs) if POOLED in output.get_names()]
            self.pooled = self._request.get_output_tensor(pooled[0]).data if pooled else None
            give_back_memory()
        except RuntimeError as error:
            raise BackendError(f"openvino cannot run this model on {tensor.shape}: {_first_line(error)}") from error

    def _compile_for(self, tensor: Tensor) -> ov.CompiledModel:
        """The network on one thread if that takes at most `SMALL_S`, else on all processors.

        Compiling takes most of the start-up, so the likelier of the two comes first. One thread is not faster than
        all on a large network, so one that takes all of them longer than `SMALL_S` needs no second trial.
        """
        if tensor.size >= self._too_much[0]:
            return self._compile(None)
        everywhere = None
        if _products(self._model) > _MANY:
            everywhere = self._compile(None)
            if fastest_s(self._request_on(tensor, everywhere).infer) > SMALL_S:
                self._too_much[0] = tensor.size
                return everywhere
        alone = self._compile(1)
        if fastest_s(self._request_on(tensor, alone).infer) <= SMALL_S:
            return alone
        self._too_much[0] = tensor.size
        return everywhere or self._compile(None)

    def _compile(self, threads: int | None) -> ov.CompiledModel:
        """The network for the present shape; with None all processors compute."""
        config = self._config if threads is None else {**self._config, "INFERENCE_NUM_THREADS": str(threads)}
        return core().compile_model(self._model, "CPU", config)

    def _request_on(self, tensor: Tensor, compiled: ov.CompiledModel) -> ov.InferRequest:
        """A request whose input is this array."""
        request = compiled.create_infer_request()
        request.set_input_tensor(ov.Tensor(tensor, shared_memory=True))
        return request

    def share(self) -> OpenVinoBackend:
        """See `Backend.share`: another request on the same compiled network."""
        other = copy.copy(self)
        other._request = other.pooled = None
        return other

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


def load(name: str, model: Path, threads: int | None) -> OpenVinoBackend:
    """Entry point of the table in `framegate.runtime.backends.choice`."""
    del name
    return OpenVinoBackend(model, threads)
