"""TensorRT's runtime side over the stub of libcuda.so.1, for tests of what surrounds it.

It runs one network, "colour_network" of tests/cuda_kernels/stub_libcuda.c, on whatever stream it is given, so that a
captured inference is really captured. It has the names of `framegate.runtime.tensorrt_names`, which other tests hold
against the real bindings, and no others.

FAKE_TENSORRT=word,word: ``execute`` fails every inference, ``capturable`` denies that it can be captured, ``hostcode``
allows host code, ``nan`` is a network that gives NaN.
"""

from __future__ import annotations

import ctypes
import enum
import os
from types import SimpleNamespace
from typing import Any

from framegate.runtime.tensorrt_names import COMMON

CUDA = ctypes.CDLL("libcuda.so.1")
PLAN = b"PLAN of the colour network"


def wanted(word: str) -> bool:
    return word in os.environ.get("FAKE_TENSORRT", "").split(",")


class DataType(enum.Enum):
    FLOAT, HALF = range(2)


class TensorIOMode(enum.Enum):
    INPUT, OUTPUT = range(2)


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING = range(3)

    def log(self, severity: int, message: str) -> None:
        raise NotImplementedError


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine, self._addresses, self._memory = engine, {}, 0
        module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
        assert not CUDA.cuModuleLoadData(ctypes.byref(module), b"IMAGE")
        assert not CUDA.cuModuleGetFunction(ctypes.byref(self._function), module, b"colour_network")

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shape = tuple(shape)
        return name == "image" and self._shape[1:] == (3, 32, 32) and 1 <= self._shape[0] <= 8

    def infer_shapes(self) -> list[str]:
        return []

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shape if name == "image" else (self._shape[0], 3)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return name in ("image", "logits")

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % 256 == 0
        assert size >= self._engine.device_memory_size_v2
        self._memory = memory

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert self._memory, "the scratch memory was never given"
        assert stream_handle, "the default stream"
        if wanted("execute"):
            self._engine.logger.log(ILogger.ERROR, "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime")
            return False
        pixels = 0 if wanted("nan") else 32 * 32
        values = [ctypes.c_void_p(self._addresses["image"]), ctypes.c_void_p(self._addresses["logits"])]
        values.append(ctypes.c_int(pixels))
        pointers = (ctypes.c_void_p * 3)(*(ctypes.addressof(value) for value in values))
        stream, nothing = ctypes.c_void_p(stream_handle), ctypes.c_void_p()
        return CUDA.cuLaunchKernel(self._function, 1, 1, 1, 32, 1, 1, 0, stream, pointers, nothing) == 0


class ICudaEngine:
    num_io_tensors, num_layers, device_memory_size_v2 = 2, 1, 1000

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def get_tensor_name(self, index: int) -> str:
        return ("image", "logits")[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name == "image" else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.FLOAT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 3, 32, 32) if name == "image" else (-1, 3)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(1, 3, 32, 32), (1, 3, 32, 32), (8, 3, 32, 32)]

    def create_execution_context(self, strategy: Any) -> IExecutionContext:
        assert strategy == "user managed"
        return IExecutionContext(self)

    def create_engine_inspector(self) -> None:
        raise NotImplementedError


class Runtime:
    DLA_core, engine_host_code_allowed = 0, False

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self.engine_host_code_allowed = wanted("hostcode")

    def deserialize_cuda_engine(self, plan: bytes) -> ICudaEngine | None:
        if plan != PLAN:
            self._logger.log(ILogger.ERROR, "IRuntime::deserializeCudaEngine: Error Code 1: Serialization")
            return None
        return ICudaEngine(self._logger)


def module_names() -> dict[str, Any]:
    """Every class of COMMON: those above, and empty shells of the builder's side, which a test never calls."""
    names: dict[str, Any] = {
        kind: type(kind, (), dict.fromkeys(members)) for kind, members in COMMON.items() if kind not in globals()
    }
    names |= {kind: globals()[kind] for kind in COMMON if kind in globals()}
    names["ExecutionContextAllocationStrategy"] = SimpleNamespace(USER_MANAGED="user managed")
    return names
