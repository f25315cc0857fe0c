"""TensorRT's building side, release by release, as far as framegate's own code meets it.

The parser reads the ONNX file for real and has the three behaviours that the releases have for a node whose name is
both a model-local function and a registered plugin (onnx-tensorrt, ModelImporter.cpp; TensorRT's change log for 10.7,
10.10 and 10.15). Nothing is compiled: the plan is a list of what the network holds.
"""

from __future__ import annotations

import enum
import json
from contextlib import contextmanager
from types import SimpleNamespace

import onnx

from framegate.runtime.backends.tensorrt.library import TensorRt

ORDINARY = {
    "GlobalAveragePool": "REDUCE", "Flatten": "SHUFFLE", "Gemm": "MATRIX_MULTIPLY", "Identity": "IDENTITY",
    "Constant": "CONSTANT", "ReduceMax": "REDUCE", "ReduceSum": "REDUCE", "Sub": "ELEMENTWISE", "Div": "ELEMENTWISE",
    "Mul": "ELEMENTWISE", "Add": "ELEMENTWISE", "Exp": "UNARY", "Log": "UNARY", "Neg": "UNARY", "TopK": "TOPK",
    "Slice": "SLICE",
}  # fmt: skip
LayerType = enum.Enum(
    "LayerType", [*sorted(set(ORDINARY.values())), "CAST", "PLUGIN_V3", "QUANTIZE", "DEQUANTIZE", "CONVOLUTION"]
)
DataType = enum.Enum("DataType", ["FLOAT", "HALF"])


class Registry:
    """Plugin creators by name, version and namespace."""

    def __init__(self):
        self.creators = {}

    def register_creator(self, creator, plugin_namespace=""):
        key = (creator.name, creator.plugin_version, plugin_namespace)
        return self.creators.setdefault(key, creator) is creator

    def deregister_creator(self, creator):
        known = {key: value for key, value in self.creators.items() if value is not creator}
        found, self.creators = len(known) < len(self.creators), known
        return found

    def get_creator(self, name, version, plugin_namespace=""):
        return self.creators.get((name, version, plugin_namespace))


class Parser:
    """See the top of this file."""

    release = (0, 0)

    def __init__(self, network, logger):
        self.network, self.flags, self.errors = network, set(), []

    def set_flag(self, flag):
        self.flags.add(flag)

    @property
    def num_errors(self):
        return len(self.errors)

    def get_error(self, index):
        return self.errors[index]

    def parse(self, content, path=None):
        model = onnx.load_model_from_string(content)
        self.functions = {function.name: function for function in model.functions}
        for value in model.graph.input:
            self.network.inputs.append(tensor(value))
        for node in model.graph.node:
            if not self.add(node):
                return False
        for value in model.graph.output:
            self.network.outputs.append(tensor(value))
        return True

    def add(self, node):
        which = self.choose(node)
        if which is None:
            said = SimpleNamespace(
                desc=lambda: "Plugin not found, are the plugin name, version, and namespace correct?",
                node_name=lambda: node.name,
                node_operator=lambda: node.op_type,
            )
            self.errors.append(said)
            return False
        if which == "function":
            return all(self.add(inner) for inner in self.functions[node.op_type].node)
        kind = "PLUGIN_V3" if which == "plugin" else ORDINARY[node.op_type]
        output = SimpleNamespace(dtype=DataType.FLOAT)
        self.network.layers.append(
            SimpleNamespace(type=LayerType[kind], num_outputs=1, get_output=lambda index: output)
        )
        return True

    def choose(self, node):
        """The order in which a release looks for what a node is."""
        if node.op_type in ORDINARY:
            return "ordinary"
        text = {attribute.name: attribute.s.decode() for attribute in node.attribute}
        namespace = text.get("plugin_namespace", "")
        names = {namespace, node.domain if self.release >= (10, 10) and not namespace else namespace}
        creators = self.network.registry.creators
        plugin = any((node.op_type, text.get("plugin_version", "1"), name) in creators for name in names)
        function = node.op_type in self.functions
        if self.release < (10, 7):
            order = ["function", "plugin"]
        elif self.release < (10, 15):
            order = ["plugin", "function"]
        else:
            preferred = "ENABLE_PLUGIN_OVERRIDE" in self.flags or namespace
            order = ["plugin", "function"] if preferred else ["function", "plugin"]
        there = {"function": function, "plugin": plugin}
        return next((which for which in order if there[which]), None)


def tensor(value):
    shape = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim]
    return SimpleNamespace(name=value.name, shape=shape, dtype=DataType.FLOAT)


class Network:
    """What a parser filled."""

    def __init__(self, registry, flags):
        self.registry, self.flags = registry, flags
        self.inputs, self.outputs, self.layers = [], [], []

    num_layers = property(lambda self: len(self.layers))
    num_inputs = property(lambda self: len(self.inputs))
    num_outputs = property(lambda self: len(self.outputs))

    def get_layer(self, index):
        return self.layers[index]

    def get_input(self, index):
        return self.inputs[index]

    def get_output(self, index):
        return self.outputs[index]


class TimingCache:
    """Bytes, as the library takes and gives them."""

    def __init__(self, content):
        self.content = bytes(content)

    def serialize(self):
        return memoryview(self.content)


class Config:
    """IBuilderConfig with a timing cache that a build adds to."""

    accepts = staticmethod(lambda content: True)

    def __init__(self):
        self.flags, self.profiles, self.offered, self.cache = set(), [], [], None

    def clear_flag(self, flag):
        self.flags.discard(flag)

    def set_flag(self, flag):
        self.flags.add(flag)

    def set_memory_pool_limit(self, pool, nbytes):
        self.limit = nbytes

    def add_optimization_profile(self, profile):
        self.profiles.append(profile)

    def create_timing_cache(self, content):
        self.offered.append(bytes(content))
        return TimingCache(content)

    def set_timing_cache(self, cache, ignore_mismatch):
        if not self.accepts(cache.content):
            return False
        self.cache = cache
        return True

    def get_timing_cache(self):
        return self.cache


class Release:
    """One release of TensorRT.

    Attributes:
        trt: What framegate sees.
        registry: The process's plugins.
        during: What was registered when the build ran.
        described: What the inspector says; None is an engine that cannot be opened.
        networks: Every network that was made.
        configs: Every configuration that was made.
    """

    def __init__(self, version, described='{"Layers": ["conv"]}', accepts=lambda content: True):
        self.registry, self.described = Registry(), described
        self.networks, self.configs, self.during = [], [], []
        number = tuple(int(part) for part in version.split(".")[:2])
        one = type("Parser", (Parser,), {"release": number})
        kind = type("Config", (Config,), {"accepts": staticmethod(accepts)})
        override = {"ENABLE_PLUGIN_OVERRIDE": "ENABLE_PLUGIN_OVERRIDE"} if number >= (10, 15) else {}
        ahead = {"PREFER_AOT_PYTHON_PLUGINS": 5} if number >= (10, 9) else {}
        bases = ("IPluginV3", "IPluginV3OneCore", "IPluginV3OneBuild", "IPluginV3OneRuntime", "IPluginCreatorV3One")
        names = SimpleNamespace
        module = names(
            __name__=f"tensorrt-{version}",
            ILogger=type("ILogger", (), {"INTERNAL_ERROR": 0, "ERROR": 1}),
            IProgressMonitor=type("IProgressMonitor", (), {}),
            Builder=self._builder(kind),
            OnnxParser=one,
            OnnxParserFlag=names(NATIVE_INSTANCENORM=0, **override),
            LayerType=LayerType,
            DataType=DataType,
            IBuilderConfig=kind,
            INetworkDefinition=names(add_plugin_v3=None),
            NetworkDefinitionCreationFlag=names(STRONGLY_TYPED=1, **ahead),
            BuilderFlag=names(TF32=0, GPU_FALLBACK=1),
            ProfilingVerbosity=names(DETAILED=2),
            MemoryPoolType=names(WORKSPACE=0),
            HardwareCompatibilityLevel=names(NONE=0, AMPERE_PLUS=1),
            LayerInformationFormat=names(JSON="json"),
            Runtime=self._runtime(),
            PluginFieldCollection=list,
            get_plugin_registry=lambda: self.registry,
            **{base: type(base, (), {}) for base in bases},
            **({"QuickPluginCreationRequest": names(PREFER_AOT=0)} if number >= (10, 9) else {}),
        )
        package = AheadPackage(self.registry) if number >= (10, 9) else None
        fake = type("Fake", (TensorRt,), {"plugin_package": lambda self: package})
        self.trt = fake("tensorrt", module, version)
        self.package = package

    def _builder(self, config):
        release = self

        class Builder:
            num_DLA_cores = 0  # noqa: N815 - TensorRT's name

            def __init__(self, logger):
                self.logger = logger

            def create_network(self, flags):
                release.networks.append(Network(release.registry, flags))
                return release.networks[-1]

            def create_builder_config(self):
                release.configs.append(config())
                return release.configs[-1]

            def create_optimization_profile(self):
                return Profile()

            def build_serialized_network(self, network, config):
                release.during = sorted(release.registry.creators)
                if config.cache is not None:
                    config.cache.content += b"+timed"
                return json.dumps([layer.type.name for layer in network.layers]).encode()

        return Builder

    def _runtime(self):
        release = self

        class Runtime:
            DLA_core = -1

            def __init__(self, logger):
                self.logger = logger

            def deserialize_cuda_engine(self, plan):
                needs = "PLUGIN_V3" in json.loads(plan) and release.package is None
                if release.described is None or (needs and not release.registry.creators):
                    self.logger.log(1, "Error Code 1: Serialization")
                    return None
                inspector = SimpleNamespace(get_engine_information=lambda form: release.described)
                return SimpleNamespace(create_engine_inspector=lambda: inspector)

        return Runtime


class Profile(dict):
    """Shapes by tensor."""

    def set_shape(self, name, *shapes):
        self[name] = shapes


class AheadPackage:
    """The package ``plugin``: its decorators, which register a creator as the real ones do."""

    TensorDesc, KernelLaunchParams, SymExprs = (type(name, (), {}) for name in ("D", "K", "S"))

    def __init__(self, registry):
        self.registry, self.implemented = registry, []

    def register(self, identity):
        namespace, name = identity.split("::")
        creator = SimpleNamespace(name=name, plugin_version="1")

        def decorate(function):
            assert self.registry.register_creator(creator, namespace)
            return function

        return decorate

    def aot_impl(self, identity):
        def decorate(function):
            self.implemented.append(identity)
            return function

        return decorate


@contextmanager
def no_gpu():
    """Stands for an opened GPU: the plugin's kernels are not launched by this builder."""
    yield "gpu"
