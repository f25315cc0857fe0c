from fake_runtime import module_names

__version__ = "10.13.3.9"
globals().update(module_names())
INetworkDefinition.add_plugin_v3 = None  # noqa: F821 - TensorRT-RTX has none
