"""ONNX Runtime on the CPU with bound input and output buffers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort

from framegate.runtime.backends.base import CpuBackend
from framegate.runtime.backends.int8 import adds_int8_exactly
from framegate.runtime.backends.thread_choice import SMALL_S, fastest_s
from framegate.runtime.bundle.onnx_file import read_onnx_facts
from framegate.runtime.errors import BackendError, BundleError
from framegate.runtime.monitor import POOLED
from framegate.runtime.scores import Tensor


class OnnxRuntimeBackend(CpuBackend):
    """See `framegate.runtime.backends.base.Backend`.

    Args:
        model: The ONNX file.
        threads: That compute; None: one, or all processors for networks that take one more than 2.5 ms.
    """

    name = "onnxruntime"

    def __init__(self, model: Path, threads: int | None) -> None:
        self.engine = f"onnxruntime {ort.__version__}"
        self._name = str(model)
        try:
            content = model.read_bytes()
        except OSError as error:
            raise BackendError(f"onnxruntime cannot read {model}: {error}") from error
        # The files may be gone when an input is bound, and how many threads compute is found out then. So a network
        # whose weights lie in another file, as those in float16 do, is not tried on one thread.
        tried = threads is None and not _has_weights_elsewhere(content)
        self._session = self._open(str(model), 1 if tried else threads)
        self._undecided = content if tried else None
        self._input = self._session.get_inputs()[0]
        first, *others = self._session.get_outputs()
        self._outputs = [first, *(output for output in others if output.name == POOLED)]
        self.classes = int(self._outputs[0].shape[1])
        self.pooled: Tensor | None = None
        self._binding: ort.IOBinding | None = None

    def bind(self, tensor: Tensor) -> None:
        """See `Backend.bind`."""
        expected = self._input.shape
        if len(expected) != tensor.ndim or any(
            isinstance(e, int) and e != t for e, t in zip(expected, tensor.shape, strict=True)
        ):
            raise BackendError(f"onnxruntime: the model takes {expected}, the input is {tensor.shape}")
        self._bind(tensor)
        content, self._undecided = self._undecided, None
        if content is not None and fastest_s(self.finish) > SMALL_S:
            self._session = self._open(content, None)
            self._bind(tensor)

    def _open(self, model: str | bytes, threads: int | None) -> ort.InferenceSession:
        """The network, a file or its content, on so many threads; with None all processors compute.

        Raises:
            BackendError: It cannot be loaded.
        """
        options = ort.SessionOptions()
        options.log_severity_level = 3
        # Threads that wait for the next frame would turn in a loop, for most of the processor's time, and take it from
        # whoever else computes; at a camera's pace they win nothing by it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not adds_int8_exactly():
            options.add_session_config_entry("session.x64quantprecision", "1")  # sums in 32 bits: slower, and right
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BackendError(f"onnxruntime cannot load {self._name}: {_first_line(error)}") from error

    def _bind(self, tensor: Tensor) -> None:
        """Let the session read this array, and write arrays of ours."""
        self._tensor = tensor
        # Classifiers give (N, C), dense networks (N, C, rows, columns).
        found = [np.zeros((len(tensor), *map(int, output.shape[1:])), np.float32) for output in self._outputs]
        binding = self._session.io_binding()
        # Bound by address, so the arrays must stay alive: they are attributes.
        binding.bind_input(self._input.name, "cpu", 0, np.float32, tensor.shape, tensor.ctypes.data)
        for output, array in zip(self._outputs, found, strict=True):
            binding.bind_output(output.name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        self._output, self.pooled = found[0], (found[1] if len(found) > 1 else None)
        self._binding = binding

    def share(self) -> OnnxRuntimeBackend:
        """See `Backend.share`: other buffers on the same session, which may run in several threads."""
        other = copy.copy(self)
        other._binding = other.pooled = None
        return other

    def finish(self) -> Tensor:
        """See `Backend.finish`."""
        if self._binding is None:
            raise BackendError("onnxruntime: bind an input first")
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:
            raise BackendError(f"onnxruntime failed: {_first_line(error)}") from error
        return self._output


def as_written(model: Path) -> Callable[[Tensor], Tensor]:
    """A network computed node by node as its file says: slow, and INT8 layers in float32 on the same rounded numbers.

    Returns:
        Gives the first output for an input.

    Raises:
        BackendError: It cannot be loaded.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BackendError(f"onnxruntime cannot load {model}: {_first_line(error)}") from error
    taken, given = session.get_inputs()[0].name, session.get_outputs()[0].name

    def computed(tensor: Tensor) -> Tensor:
        try:
            found: Tensor = session.run([given], {taken: tensor})[0]
        except Exception as error:
            raise BackendError(f"onnxruntime failed: {_first_line(error)}") from error
        return found

    return computed


def _has_weights_elsewhere(content: bytes) -> bool:
    """Whether the ONNX file needs others beside it; False for what is none, about which the engine says more."""
    try:
        return bool(read_onnx_facts(content).external)
    except BundleError:
        return False


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def load(name: str, model: Path, threads: int | None, network: str) -> OnnxRuntimeBackend:
    """Entry point of the table in `framegate.runtime.backends.choice`."""
    del name, network
    return OnnxRuntimeBackend(model, threads)
