"""TensorRT's runtime side over the stub of libcuda.so.1, for tests of what surrounds it.

It runs one network, "colour_network" of tests/helpers/stub_libcuda.c, on whatever stream it is given, so that a
captured inference is really captured. Two more plans give the scores, too, and take the temperature: in one of them
the kernel is the plan's own, as with a plugin that was compiled ahead of time; the other one needs a registered plugin,
asks its creator for it, and calls it where TensorRT would. A fourth one is dense: its logits are eight times its input.
It takes up to 16 images at once. It has the names of
`framegate.runtime.backends.tensorrt.names`, which other tests hold against the real bindings, and no others.

FAKE_TENSORRT=word,word: ``execute`` fails every inference, ``capturable`` denies that it can be captured, ``hostcode``
allows host code, ``nan`` is a network that gives NaN, ``nocuda`` is a TensorRT for a newer CUDA than the driver's.
"""

from __future__ import annotations

import ctypes
import enum
import math
import os
from types import SimpleNamespace
from typing import Any

from framegate.cuda_kernels.softmax_entropy.plugin_launch import plan_plugin
from framegate.runtime.backends.tensorrt.names import COMMON

CUDA = ctypes.CDLL("libcuda.so.1")
PLAN = b"PLAN of the colour network"
SCORED, PLUGGED = PLAN + b" with scores", PLAN + b" with a plugin"
DENSE = b"PLAN of the dense network"
IMAGE, LOGITS = {"image": (-1, 3, 32, 32)}, {"logits": (-1, 3)}
SCORES = {"probabilities": (-1, 3), "entropy": (-1, 1), "margin": (-1, 1), "energy": (-1, 1)}


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


class PluginFieldCollection(list):
    """As in the bindings, a list."""


class Registry:
    def __init__(self) -> None:
        self.creators: dict[tuple[str, str, str], Any] = {}

    def register_creator(self, creator: Any, plugin_namespace: str = "") -> bool:
        key = (creator.name, creator.plugin_version, plugin_namespace)
        return self.creators.setdefault(key, creator) is creator

    def deregister_creator(self, creator: Any) -> bool:
        self.creators = {key: value for key, value in self.creators.items() if value is not creator}
        return True

    def get_creator(self, name: str, version: str, plugin_namespace: str = "") -> Any:
        return self.creators.get((name, version, plugin_namespace))


REGISTRY = Registry()


def get_plugin_registry() -> Registry | None:
    return None if wanted("noregistry") else REGISTRY


def function_of(name: bytes) -> ctypes.c_void_p:
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    assert not CUDA.cuModuleLoadData(ctypes.byref(module), b"IMAGE")
    assert not CUDA.cuModuleGetFunction(ctypes.byref(function), module, name)
    return function


def launch(function: ctypes.c_void_p, stream: int, grid: int, block: int, values: list[Any]) -> bool:
    pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
    nothing = ctypes.c_void_p()
    where = ctypes.c_void_p(stream)
    return CUDA.cuLaunchKernel(function, grid, 1, 1, block, 1, 1, 0, where, pointers, nothing) == 0


def native() -> Any:
    """What a context is in C++: destroyed when nothing refers to it any more, and not by the garbage collector."""
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return make(1, None, ctypes.cast(CUDA.stub_context_destroyed, ctypes.c_void_p))


class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        self._native = native()
        self._engine, self._addresses, self._memory = engine, {}, 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._function = function_of(b"colour_network")
        self._plugin = engine.plugin and engine.plugin.attach_to_context(None)
        self._kernel = function_of(plan_plugin(3).kernel.encode()) if engine.scored and not self._plugin else None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = tuple(shape)
        if name == "temperature":
            return self._engine.scored and tuple(shape) == (1,)
        most = 1 if self._engine.dense else 16
        return name == "image" and tuple(shape)[1:] == (3, 32, 32) and 1 <= shape[0] <= most

    def infer_shapes(self) -> list[str]:
        return []

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        batch = self._shapes["image"][0]
        return tuple(batch if side < 0 else side for side in self._engine.get_tensor_shape(name))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return name in self._engine.tensors and memory % 4 == 0

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % 256 == 0
        assert size >= self._engine.device_memory_size_v2
        self._memory = memory

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert self._memory, "the scratch memory was never given"
        assert stream_handle, "the default stream"
        assert set(self._addresses) == set(self._engine.tensors), "a tensor without an address"
        if wanted("execute"):
            self._engine.logger.log(ILogger.ERROR, "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime")
            return False
        pixels, image, logits = 32 * 32, self._addresses["image"], self._addresses["logits"]
        if self._engine.dense:
            factor = ctypes.c_float(math.nan if wanted("nan") else 8)
            values = [ctypes.c_void_p(image), ctypes.c_void_p(logits), factor, ctypes.c_int(3 * pixels)]
            return launch(function_of(b"scale"), stream_handle, 1, 32, values)
        done = True
        for row in range(self._shapes["image"][0]):
            values = [ctypes.c_void_p(image + 12 * pixels * row), ctypes.c_void_p(logits + 12 * row)]
            count = ctypes.c_int(0 if wanted("nan") else pixels)
            done &= launch(self._function, stream_handle, 1, 32, [*values, count])
        return done and (not self._engine.scored or self._score(stream_handle))

    def _score(self, stream: int) -> bool:
        inputs = [self._addresses["logits"], self._addresses["temperature"]]
        outputs = [self._addresses[name] for name in SCORES]
        if self._plugin:
            described = [SimpleNamespace(dims=self.get_tensor_shape(name)) for name in ("logits", *SCORES)]
            self._plugin.enqueue([described[0], SimpleNamespace(dims=(1,))], described[1:], inputs, outputs, 0, stream)
            return True
        plan, rows = plan_plugin(3), self.get_tensor_shape("logits")[0]
        return launch(self._kernel, stream, plan.blocks(rows), plan.threads, plan.arguments(inputs, rows, outputs))


class ICudaEngine:
    num_layers, device_memory_size_v2 = 1, 1000

    def __init__(self, logger: Any, scored: bool = False, plugin: Any = None, dense: bool = False) -> None:
        self.logger, self.scored, self.plugin, self.dense = logger, scored, plugin, dense
        self.tensors: dict[str, tuple[int, ...]] = {**IMAGE, **LOGITS}
        if scored:
            self.tensors = {**IMAGE, "temperature": (1,), **LOGITS, **SCORES}
        if dense:
            self.tensors = {**IMAGE, "logits": (-1, 3, 32, 32)}

    num_io_tensors = property(lambda self: len(self.tensors))

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in ("image", "temperature") else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType.HALF if wanted(f"half-{name}") else DataType.FLOAT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(1, 3, 32, 32), (1, 3, 32, 32), (16, 3, 32, 32)]

    def create_execution_context(self, strategy: Any) -> IExecutionContext:
        assert strategy == "user managed"
        return IExecutionContext(self)

    def create_engine_inspector(self) -> None:
        raise NotImplementedError


class Runtime:
    DLA_core, engine_host_code_allowed = 0, False

    def __init__(self, logger: Any) -> None:
        if wanted("nocuda"):
            logger.log(ILogger.ERROR, "createInferRuntime: Error Code 6: CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger
        self.engine_host_code_allowed = wanted("hostcode")

    def deserialize_cuda_engine(self, plan: bytes) -> ICudaEngine | None:
        plugin = None
        if plan == PLUGGED:
            creator = REGISTRY.get_creator("SoftmaxEntropy", "1", "framegate")
            if creator is None:
                self._logger.log(ILogger.ERROR, "IRuntime::deserializeCudaEngine: no plugin creator SoftmaxEntropy")
                return None
            plugin = creator.create_plugin("scores", PluginFieldCollection([]), "runtime")
        elif plan not in (PLAN, SCORED, DENSE):
            self._logger.log(ILogger.ERROR, "IRuntime::deserializeCudaEngine: Error Code 1: Serialization")
            return None
        return ICudaEngine(self._logger, plan in (SCORED, PLUGGED), plugin, plan == DENSE)


def module_names() -> dict[str, Any]:
    """Every class of COMMON: those above, and empty shells of the builder's side, which a test never calls."""
    names: dict[str, Any] = {
        kind: type(kind, (), dict.fromkeys(members)) for kind, members in COMMON.items() if kind not in globals()
    }
    names |= {kind: globals()[kind] for kind in COMMON if kind in globals()}
    names["get_plugin_registry"] = get_plugin_registry
    names["ExecutionContextAllocationStrategy"] = SimpleNamespace(USER_MANAGED="user managed")
    return names
