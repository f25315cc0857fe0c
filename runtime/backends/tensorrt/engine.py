"""An opened engine: fixed addresses, its own scratch memory, and one call per frame."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Any

from framegate.cuda_kernels.compile.cache import write_atomically
from framegate.cuda_kernels.driver.open import Driver
from framegate.runtime.backends.tensorrt.library import TensorRt
from framegate.runtime.backends.tensorrt.plugin import REGISTERED, register_plugin
from framegate.runtime.backends.tensorrt.scores import KERNEL, SCORES, TEMPERATURE
from framegate.runtime.backends.tensorrt.store import StoredEngine
from framegate.runtime.errors import BackendError
from framegate.runtime.monitor import POOLED

_ITEM_BYTES = {"FLOAT": 4, "HALF": 2, "BF16": 2, "INT32": 4, "INT64": 8, "INT8": 1, "UINT8": 1, "BOOL": 1}


class OpenedEngine:
    """TensorRT's engine and its one execution context. Not thread-safe.

    Attributes:
        input: Name of the image's input.
        logits: Name of the output that holds the logits.
        own_scores: Whether it outputs the scores, too, and takes the temperature as an input.
    """

    def __init__(self, trt: TensorRt, stored: StoredEngine, gpu: Driver) -> None:
        """Deserialise a plan whose hashes have been checked.

        Raises:
            BackendError: TensorRT refuses it, with its words.
            CudaError: No memory is left for its scratch space.
        """
        self._trt, self._gpu, self._stored = trt, gpu, stored
        self._context: Any = None
        self._cache: Any = None
        self._engine: Any = None
        self._runtime: Any = None
        self._messages = trt.logger()
        self._runtime = trt.runtime(self._messages)
        if self._runtime.engine_host_code_allowed:
            # A plan with host code is a program that runs in this process; ours never hold any.
            raise BackendError(f"{trt.engine} would run host code out of engines; framegate does not use it so")
        core = stored.header["options"]["dla_core"]
        if core is not None:
            self._runtime.DLA_core = core
        if stored.header.get("plugin") == REGISTERED:
            register_plugin(trt, gpu)
        self._engine = self._runtime.deserialize_cuda_engine(stored.plan)
        if self._engine is None:
            raise BackendError(f"{trt.engine} refuses engine {stored.path}: {self._said()}; {self.rebuild_hint()}")
        network = stored.header["network"]
        self.input, self.logits = network["inputs"][0]["name"], network["outputs"][0]["name"]
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == trt.module.TensorIOMode.INPUT]
        # Scores at a temperature that nobody can set are not the calibration's: without that input the kernel runs.
        self.own_scores = TEMPERATURE in inputs and set(SCORES) <= set(names)
        if set(inputs) - {TEMPERATURE if self.own_scores else ""} != {self.input} or self.logits not in names:
            raise BackendError(f"engine {stored.path} has tensors {names}, its header says {self.input}, {self.logits}")
        way = stored.header["options"].get("scores", KERNEL)
        if self.own_scores != (way != KERNEL):
            raise BackendError(
                f"engine {stored.path}: its header says that the scores come from the {way}, its tensors are {names}; "
                f"{self.rebuild_hint()}"
            )
        read = (self.logits, *(SCORES if self.own_scores else ()), *({POOLED} & set(names)))
        for name in (*inputs, *read):  # the host takes them for float32, and copies as many bytes
            if self._engine.get_tensor_dtype(name) != trt.module.DataType.FLOAT:
                raise BackendError(f"engine {stored.path}: {name} is not float32; {self.rebuild_hint()}")
        self._outputs = [name for name in names if name not in inputs]
        self._context = self._make_context()
        if self._context is None:
            raise BackendError(f"{trt.engine} cannot make a context of {stored.path}: {self._said()}")
        # Ours, so that it is there before the first frame and an exhausted GPU says so in bytes.
        nbytes = max(int(self._engine.device_memory_size_v2), 256)
        self._scratch = gpu.allocate(nbytes)
        self._context.set_device_memory(self._scratch, nbytes)

    def rebuild_hint(self) -> str:
        """What to type to get a fresh engine."""
        return "framegate engine BUNDLE --force builds it again"

    def _make_context(self) -> Any:
        user_managed = self._trt.module.ExecutionContextAllocationStrategy.USER_MANAGED
        if not self._trt.has("IRuntimeConfig", "create_runtime_cache"):
            return self._engine.create_execution_context(user_managed)
        # TensorRT-RTX compiles the kernels now; with the cache of an earlier run it need not.
        config = self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(user_managed)
        config.cuda_graph_strategy = self._trt.module.CudaGraphStrategy.DISABLED  # the graph is ours
        # Of an engine with a dynamic batch the kernels would be compiled in the background, and a graph that is
        # captured before they are ready would keep the slow ones for good.
        if self._trt.has("DynamicShapesKernelSpecializationStrategy", "EAGER"):
            eager = self._trt.module.DynamicShapesKernelSpecializationStrategy.EAGER
            config.dynamic_shapes_kernel_specialization_strategy = eager
        self._cache = config.create_runtime_cache()
        with suppress(OSError):
            self._cache.deserialize(self._cache_path.read_bytes())  # False if it does not fit: then it stays empty
        config.set_runtime_cache(self._cache)
        return self._engine.create_execution_context(config)

    @property
    def _cache_path(self) -> Any:
        return self._stored.path.with_suffix(".runtime-cache")

    def save_runtime_cache(self) -> None:
        """Keep what TensorRT-RTX compiled for the next start; nothing to do on TensorRT, and no harm if it fails."""
        if self._cache is None:
            return
        content = bytes(self._cache.serialize())
        with suppress(OSError):
            if not (self._cache_path.exists() and self._cache_path.read_bytes() == content):
                write_atomically(self._cache_path, lambda temporary: _write(temporary, content))

    def shape_for(self, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Fix the input's shape; return each output's.

        Raises:
            BackendError: The engine was not built for this shape.
        """
        if self.own_scores and not self._context.set_input_shape(TEMPERATURE, (1,)):
            raise BackendError(f"{self._trt.engine}: the engine takes no single temperature; {self.rebuild_hint()}")
        if not self._context.set_input_shape(self.input, shape) or self._context.infer_shapes():
            least, _, most = self._engine.get_tensor_profile_shape(self.input, 0)
            raise BackendError(
                f"{self._trt.engine}: the engine takes {self.input} from {tuple(least)} to {tuple(most)}, "
                f"the input is {shape}"
            )
        return {name: tuple(self._context.get_tensor_shape(name)) for name in self._outputs}

    def output_bytes(self, name: str, shape: tuple[int, ...]) -> int:
        """Size of an output."""
        count = 1
        for side in shape:
            count *= side
        return max(1, count * _ITEM_BYTES[self._engine.get_tensor_dtype(name).name])

    def place(self, name: str, address: int) -> None:
        """Say where an input or output lies, for every later call.

        Raises:
            BackendError: TensorRT refuses the address.
        """
        if not self._context.set_tensor_address(name, address):
            raise BackendError(f"{self._trt.engine} refuses address {address:#x} for {name}: {self._said()}")

    def enqueue(self, stream: int) -> None:
        """Give the stream one inference.

        Raises:
            BackendError: TensorRT refuses, with its words.
        """
        if not self._context.execute_async_v3(stream):
            raise BackendError(f"{self._trt.engine} failed: {self._said()}")

    def why_not_capturable(self, stream: int) -> str:
        """Why this engine cannot be captured into a CUDA graph; empty if nothing is known against it."""
        if self._trt.has("IExecutionContext", "is_stream_capturable") and not self._context.is_stream_capturable(
            stream
        ):
            return f"{self._trt.engine} says that this engine is not capturable"
        return ""

    def close(self) -> None:
        """Let go of everything, context first. May be called twice.

        While the GPU hangs TensorRT's objects stay for good, also at the end of the process: they wait when they go.
        """
        if self._gpu.hangs():
            for one in (self._context, self._cache, self._engine, self._runtime):
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))
        self._context = self._cache = self._engine = self._runtime = None

    def __del__(self) -> None:
        self.close()

    def _said(self) -> str:
        return self._messages.take() or "no reason given"


def _write(path: Any, content: bytes) -> None:
    path.write_bytes(content)
