"""What TensorRT-RTX has besides: a compiler at run time, whose work can be kept."""

from types import SimpleNamespace

import fake_runtime
from fake_runtime import module_names

__version__ = "1.7.1.116"
globals().update(module_names())
CudaGraphStrategy = SimpleNamespace(DISABLED="disabled")
DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager", LAZY="lazy")


class IRuntimeCache:
    content = b""

    def deserialize(self, blob):
        self.content = bytes(blob)
        return True

    def serialize(self):
        return b"compiled " + self.content


class IRuntimeConfig:
    cuda_graph_strategy = None
    dynamic_shapes_kernel_specialization_strategy = "lazy"

    def set_execution_context_allocation_strategy(self, strategy):
        assert strategy == "user managed"

    def create_runtime_cache(self):
        return IRuntimeCache()

    def set_runtime_cache(self, cache):
        self.cache = cache


class IExecutionContext(fake_runtime.IExecutionContext):
    def is_stream_capturable(self, stream):
        return not fake_runtime.wanted("capturable")


class ICudaEngine(fake_runtime.ICudaEngine):
    def create_runtime_config(self):
        return IRuntimeConfig()

    def create_execution_context(self, config):
        assert config.cuda_graph_strategy == "disabled"
        assert config.dynamic_shapes_kernel_specialization_strategy == "eager"
        print("runtime cache:", config.cache.content.decode())
        return IExecutionContext(self)


class Runtime(fake_runtime.Runtime):
    def deserialize_cuda_engine(self, plan):
        engine = super().deserialize_cuda_engine(plan)
        return None if engine is None else ICudaEngine(engine.logger, engine.scored)
