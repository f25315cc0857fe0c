from fake_runtime import module_names

__version__ = "10.13.3.9"
globals().update(module_names())
