"""Our kernel as a TensorRT plugin of the kind that TensorRT asks this process for (IPluginV3, TensorRT 10.3 and later).

An engine that was built with it holds the plugin's name only: whoever opens the engine must have registered a creator
of that name before, which `register_plugin` does. TensorRT then calls `enqueue` in Python for every launch; with a
captured CUDA graph that happens once, at the capture. From TensorRT 10.9 on a build takes the other kind instead, which
leaves the kernel's PTX in the engine (`framegate.export.engines.aot`) and needs nothing of this at run time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from framegate.cuda_kernels.driver.open import Driver
from framegate.cuda_kernels.kernels import Kernels
from framegate.cuda_kernels.softmax_entropy.plugin_launch import OUTPUTS, SOURCE, plan_plugin
from framegate.runtime.backends.tensorrt.library import TensorRt
from framegate.runtime.errors import BackendError

NAMESPACE, NAME, VERSION = "framegate", "SoftmaxEntropy", "1"
"""Of the plugin; the first two are also domain and name of the ONNX function with the same outputs."""

REGISTERED, AHEAD_OF_TIME = "registered", "ahead of time"
"""What an engine's header says of its plugin."""

_creators: dict[str, Any] = {}  # by module: the registry keeps no reference to a Python object
_registered: set[str] = set()  # modules whose registry holds it now


class _Behaviour:
    """What the plugin does; TensorRT calls all of this. The base classes come with the flavour (`plugin_class`)."""

    _module: Any
    _kernels: Kernels

    def get_capability_interface(self, kind: Any) -> Any:
        return self

    def get_output_data_types(self, input_types: Sequence[Any]) -> list[Any]:
        return [self._module.DataType.FLOAT] * len(OUTPUTS)

    def get_output_shapes(self, inputs: Any, shape_inputs: Any, expression_builder: Any) -> list[Any]:
        shape = self._module.DimsExprs
        single = [shape([inputs[0][0], expression_builder.constant(1)]) for _ in OUTPUTS[1:]]
        return [shape(inputs[0]), *single]

    def supports_format_combination(self, position: int, in_out: Any, num_inputs: int) -> bool:
        described, module = in_out[position].desc, self._module
        return (described.type, described.format) == (module.DataType.FLOAT, module.TensorFormat.LINEAR)

    def configure_plugin(self, inputs: Any, outputs: Any) -> None:
        plan_plugin(int(inputs[0].desc.dims[1]))  # refuses what no kernel takes while it is still a build

    def get_workspace_size(self, inputs: Any, outputs: Any) -> int:
        return 0

    def on_shape_change(self, inputs: Any, outputs: Any) -> None:
        """Nothing depends on the shape: a launch is planned each time, and once for a captured graph."""

    def set_tactic(self, tactic: int) -> None:
        """There is only one."""

    def get_fields_to_serialize(self) -> Any:
        return self._module.PluginFieldCollection([])

    def enqueue(
        self,
        input_desc: Any,
        output_desc: Any,
        inputs: Sequence[int],
        outputs: Sequence[int],
        workspace: int,
        stream: int,
    ) -> None:
        rows, classes = (int(side) for side in input_desc[0].dims)
        plan = plan_plugin(classes)
        arguments = plan.arguments(inputs, rows, outputs)
        self._kernels.call(plan.kernel, (plan.blocks(rows), 1, 1), (plan.threads, 1, 1), arguments, stream)


def plugin_class(module: Any) -> Any:
    """Make the plugin's class of a flavour's own base classes.

    Its instances take the `Kernels` that they launch, which are those of one open GPU.
    """
    bases = (module.IPluginV3, module.IPluginV3OneCore, module.IPluginV3OneBuild, module.IPluginV3OneRuntime)

    class SoftmaxEntropyPlugin(_Behaviour, *bases):  # type: ignore[misc]
        def __init__(self, kernels: Kernels) -> None:
            for base in bases:
                base.__init__(self)  # pybind11 has no super()
            self.plugin_namespace, self.plugin_name, self.plugin_version = NAMESPACE, NAME, VERSION
            self.num_outputs = len(OUTPUTS)
            self._module, self._kernels = module, kernels

        def attach_to_context(self, context: Any) -> Any:
            return self.clone()

        def clone(self) -> Any:
            return SoftmaxEntropyPlugin(self._kernels)

    return SoftmaxEntropyPlugin


def creator_class(module: Any) -> Any:
    """Make the class of the creator that TensorRT asks for a plugin; its ``kernels`` are those of the open GPU."""
    plugin = plugin_class(module)

    class SoftmaxEntropyCreator(module.IPluginCreatorV3One):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IPluginCreatorV3One.__init__(self)
            self.name, self.plugin_namespace, self.plugin_version = NAME, NAMESPACE, VERSION
            self.field_names = module.PluginFieldCollection([])
            self.kernels: Kernels | None = None

        def create_plugin(self, name: str, fields: Any, phase: Any) -> Any:
            return plugin(self.kernels)

    return SoftmaxEntropyCreator


def register_plugin(trt: TensorRt, gpu: Driver) -> Any:
    """Register the creator, once a process, and let the plugins that it makes from now on launch on this GPU.

    Returns:
        The creator, for `deregister_plugin`.

    Raises:
        BackendError: This flavour takes no plugins, or its registry refuses ours.
        CompilerError: There is no machine code of the kernel for this GPU.
        CudaError: The driver refuses to load it.
    """
    if not trt.takes_plugins():
        raise BackendError(f"{trt.engine} takes no plugins, and the engine needs {NAMESPACE}::{NAME}")
    kernels = Kernels(gpu, SOURCE)
    flavour = trt.module.__name__
    creator = _creators.get(flavour)
    if creator is None:
        creator = _creators[flavour] = creator_class(trt.module)()
    creator.kernels = kernels
    registry = plugin_registry(trt)
    if flavour not in _registered:
        if not registry.register_creator(creator, NAMESPACE):
            raise BackendError(
                f"{trt.engine} refuses framegate's plugin {NAMESPACE}::{NAME}: another one of that name is registered "
                "in this process"
            )
        _registered.add(flavour)
    if registry.get_creator(NAME, VERSION, NAMESPACE) is None:
        raise BackendError(f"{trt.engine} did not register the plugin {NAMESPACE}::{NAME}, which the engine needs")
    return creator


def deregister_plugin(trt: TensorRt, creator: Any) -> None:
    """Take a creator out of the registry: a parser may prefer a registered plugin to a function of the same name."""
    plugin_registry(trt).deregister_creator(creator)
    _registered.discard(trt.module.__name__)


def plugin_registry(trt: TensorRt) -> Any:
    """TensorRT's registry of this process.

    Raises:
        BackendError: It has none.
    """
    registry = trt.module.get_plugin_registry()
    if registry is None:
        raise BackendError(f"{trt.engine} has no plugin registry in this process")
    return registry
