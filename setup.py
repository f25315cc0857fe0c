"""What pyproject.toml cannot say yet: the compiled part of the runtime, which may be missing."""

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext


class PlainLibrary(build_ext):
    """Builds what ctypes loads: nothing of Python is in it, so one file, ``_native.so``, serves every Python.

    The other one, ``_fast_path.abi3.so``, is a module for every Python from 3.11 on; it is not used where it cannot be
    imported.
    """

    def get_ext_filename(self, fullname: str) -> str:
        """The file's path, without the version of a Python that setuptools would put into it."""
        return fullname.replace(".", "/") + (".abi3.so" if fullname.endswith("_fast_path") else ".so")


class PlatformWheel(bdist_wheel):
    """A wheel for any Python 3 on this platform, in place of one for this Python only."""

    def get_tag(self) -> tuple[str, str, str]:
        """Python, ABI and platform."""
        return "py3", "none", super().get_tag()[2]


setup(
    cmdclass={"build_ext": PlainLibrary, "bdist_wheel": PlatformWheel},
    ext_modules=[
        # A plain library for ctypes, not a Python module. Without a C compiler it is left out, and NumPy does the same.
        Extension(
            "framegate.runtime.native._native",
            sources=[
                "src/framegate/runtime/health/rows.c",
                "src/framegate/runtime/health/content.c",
                "src/framegate/runtime/health/beside.c",
                "src/framegate/runtime/native/frame_scores.c",
                "src/framegate/runtime/native/preprocess.c",
                "src/framegate/runtime/replay/verdicts.c",
                "src/framegate/runtime/handover/c/native.c",
            ],
            depends=[
                "src/framegate/runtime/native/native.h",
                "src/framegate/runtime/native/preprocess.h",
                "src/framegate/runtime/health/rows.h",
                "src/framegate/runtime/handover/c/framegate_verdict.h",
            ],
            libraries=["m"],
            # No contraction: a product and a sum in one rounding would not be what Python computes.
            extra_compile_args=["-O3", "-ffp-contract=off"],
            optional=True,
        ),
        Extension(
            "framegate.runtime.native._fast_path",
            sources=["src/framegate/runtime/native/fast_path.c"],
            depends=["src/framegate/runtime/native/native.h", "src/framegate/runtime/native/preprocess.h"],
            libraries=["m"],
            extra_compile_args=["-O3"],
            py_limited_api=True,
            optional=True,
        ),
    ],
)
