"""What pyproject.toml cannot say yet: the compiled part of the runtime, which may be missing."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        # A plain library for ctypes, not a Python module. Without a C compiler it is left out, and NumPy does the same.
        Extension(
            "framegate.runtime._native",
            sources=["src/framegate/runtime/health/rows.c", "src/framegate/runtime/frame_scores.c"],
            depends=["src/framegate/runtime/native.h"],
            libraries=["m"],
            extra_compile_args=["-O3"],
            optional=True,
        )
    ]
)
