"""Every TensorRT name that framegate touches, in two tables.

TensorRT 11 removed names that most code still uses, so which ones may be used is not left to memory: the tests import
the real bindings of four releases and of TensorRT-RTX and check that each name in `COMMON` exists in all of them, and
that each one in `OPTIONAL` exists in some. Code may use an OPTIONAL name only after asking `TensorRt.has`.
"""

from __future__ import annotations

__all__ = ["COMMON", "FUNCTIONS", "OPTIONAL", "PLUGIN_PACKAGE", "missing_names"]

COMMON: dict[str, tuple[str, ...]] = {
    "Builder": (
        "create_network",
        "create_builder_config",
        "create_optimization_profile",
        "build_serialized_network",
        "num_DLA_cores",
    ),
    "BuilderFlag": ("TF32", "GPU_FALLBACK"),
    "DataType": ("FLOAT", "HALF"),
    "DynamicPluginTensorDesc": ("desc",),
    "DeviceType": ("DLA",),
    "EngineInspector": ("get_engine_information",),
    "ExecutionContextAllocationStrategy": ("USER_MANAGED",),
    "HardwareCompatibilityLevel": ("NONE", "AMPERE_PLUS"),
    "IBuilderConfig": (
        "set_flag",
        "clear_flag",
        "set_memory_pool_limit",
        "builder_optimization_level",
        "max_aux_streams",
        "profiling_verbosity",
        "hardware_compatibility_level",
        "progress_monitor",
        "create_timing_cache",
        "set_timing_cache",
        "get_timing_cache",
        "add_optimization_profile",
        "default_device_type",
        "DLA_core",
    ),
    "ICudaEngine": (
        "num_io_tensors",
        "num_layers",
        "get_tensor_name",
        "get_tensor_mode",
        "get_tensor_dtype",
        "get_tensor_shape",
        "get_tensor_profile_shape",
        "device_memory_size_v2",
        "create_engine_inspector",
        "create_execution_context",
    ),
    "IExprBuilder": ("constant",),
    "IExecutionContext": (
        "set_input_shape",
        "infer_shapes",
        "get_tensor_shape",
        "set_tensor_address",
        "set_device_memory",
        "execute_async_v3",
    ),
    "ILayer": ("type", "num_outputs", "get_output"),
    "ILogger": ("log", "ERROR", "INTERNAL_ERROR"),
    "INetworkDefinition": (
        "num_inputs",
        "num_outputs",
        "num_layers",
        "get_input",
        "get_output",
        "get_layer",
    ),
    "IOptimizationProfile": ("set_shape",),
    "IPluginCreatorV3One": ("create_plugin", "field_names", "name", "plugin_namespace", "plugin_version"),
    "IPluginRegistry": ("deregister_creator", "get_creator", "register_creator"),
    "IPluginV3": ("clone", "get_capability_interface"),
    "IPluginV3OneBuild": (
        "configure_plugin",
        "get_output_data_types",
        "get_output_shapes",
        "get_workspace_size",
        "num_outputs",
        "supports_format_combination",
    ),
    "IPluginV3OneCore": ("plugin_name", "plugin_namespace", "plugin_version"),
    "IPluginV3OneRuntime": (
        "attach_to_context",
        "enqueue",
        "get_fields_to_serialize",
        "on_shape_change",
        "set_tactic",
    ),
    "IProgressMonitor": ("phase_start", "step_complete", "phase_finish"),
    "ITensor": ("name", "shape", "dtype"),
    "ITimingCache": ("serialize",),
    "LayerInformationFormat": ("JSON",),
    "LayerType": ("CAST", "CONSTANT", "DEQUANTIZE", "PLUGIN_V3", "QUANTIZE", "SHUFFLE"),
    "MemoryPoolType": ("WORKSPACE",),
    "OnnxParser": ("parse", "num_errors", "get_error", "set_flag"),
    "ParserError": ("desc", "node_name", "node_operator"),
    "PluginFieldCollection": ("append",),
    "PluginTensorDesc": ("dims", "format", "type"),
    "ProfilingVerbosity": ("DETAILED",),
    "Runtime": ("deserialize_cuda_engine", "engine_host_code_allowed", "DLA_core"),
    "TensorFormat": ("LINEAR",),
    "TensorIOMode": ("INPUT",),
}
"""Class -> members that exist in TensorRT 10.3 to 11.4 and in TensorRT-RTX 1.7."""

OPTIONAL: dict[str, tuple[str, ...]] = {
    "BuilderFlag": ("REQUIRE_USER_ALLOCATION",),
    "ComputeCapability": ("CURRENT",),
    "CudaGraphStrategy": ("DISABLED",),
    "DynamicShapesKernelSpecializationStrategy": ("EAGER",),
    "HardwareCompatibilityLevel": ("SAME_COMPUTE_CAPABILITY",),
    "IBuilderConfig": ("set_compute_capability", "num_compute_capabilities"),
    "ICudaEngine": ("create_runtime_config",),
    "IExecutionContext": ("is_stream_capturable",),
    "IRuntimeCache": ("deserialize", "serialize"),
    "IRuntimeConfig": (
        "dynamic_shapes_kernel_specialization_strategy",
        "create_runtime_cache",
        "set_runtime_cache",
        "cuda_graph_strategy",
        "set_execution_context_allocation_strategy",
    ),
    "INetworkDefinition": ("add_plugin_v3",),
    "NetworkDefinitionCreationFlag": ("STRONGLY_TYPED", "PREFER_AOT_PYTHON_PLUGINS"),
    "OnnxParserFlag": ("ENABLE_PLUGIN_OVERRIDE",),
    "QuickPluginCreationRequest": ("PREFER_AOT",),
}
"""Class -> members that some of these releases lack."""

FUNCTIONS: tuple[str, ...] = ("get_plugin_registry",)
"""Functions of the module itself; all releases have them."""

PLUGIN_PACKAGE: dict[str, tuple[str, ...]] = {
    "": ("register", "aot_impl", "cdiv", "from_shape_expr"),
    "KernelLaunchParams": ("block_x", "grid_x"),
    "ShapeExpr": ("constant_value", "is_constant", "is_fake"),
    "SymExprs": (),
    "SymInt32": (),
    "SymIntExprs": (),
    "TensorDesc": ("shape_expr", "dtype", "like"),
}
"""Class (or the module itself) -> members of the package ``plugin`` inside TensorRT, where it has ``aot_impl``."""


def missing_names(module: object) -> list[str]:
    """Return the names of `COMMON` that a TensorRT module does not have, as ``Class.member``."""
    return [
        f"{kind}.{member}"
        for kind, members in COMMON.items()
        for member in members
        if not hasattr(getattr(module, kind, None), member)
    ]
