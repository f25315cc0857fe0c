"""The GPU's part of ``framegate doctor``: what is there, what can be built and run, and what to install."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from framegate.cuda_kernels.compile.compiler import CompilerError, Nvcc, Nvrtc
from framegate.cuda_kernels.compile.sources import kernel_sources
from framegate.cuda_kernels.driver.library import DriverLibrary
from framegate.cuda_kernels.driver.open import CudaError, DeviceInfo, open_driver
from framegate.runtime.backends.tensorrt.gpu import ABSENT, driver_present
from framegate.runtime.backends.tensorrt.library import MODULES, TensorRt, install_line, is_jetson, load_tensorrt
from framegate.runtime.backends.tensorrt.store import engine_folder
from framegate.runtime.errors import FramegateError

Finding = tuple[str, bool, str]
"""(what, usable, explanation)."""

_DRIVER_FILES = ("/proc/driver/nvidia/version", "/dev/nvidia0", "/dev/nvhost-gpu", "/dev/nvgpu")


def gpu_findings() -> list[Finding]:
    """Look at GPU, driver, CUDA layer, kernels and both flavours of TensorRT; nothing here raises."""
    info, gpu = _gpu()
    board = [_jetson()] if is_jetson() else []
    return [*board, gpu, _cuda_package(info), _kernels(info), *(_tensorrt(flavour, info) for flavour in MODULES)]


def _jetson() -> Finding:
    release = Path("/etc/nv_tegra_release").read_text(encoding="utf-8", errors="replace")
    found = re.search(r"R(\d+).*REVISION: ([\d.]+)", release)
    return "Jetson", True, f"L4T {found[1]}.{found[2]}" if found else release.splitlines()[0]


def _gpu() -> tuple[DeviceInfo | None, Finding]:
    what = "NVIDIA GPU"
    try:
        with open_driver() as gpu:
            info = gpu.info
    except CudaError as error:
        return None, (what, False, _why_no_gpu(error))
    memory = "shares the CPU's memory" if info.integrated else f"{info.memory_bytes / 2**30:.0f} GiB"
    cuda = ".".join(map(str, info.driver_version))
    return info, (what, True, f"{info.name}, sm_{info.architecture}, {memory}; its driver supports CUDA {cuda}")


def _why_no_gpu(error: CudaError) -> str:
    if error.name == "NO_PACKAGE" and driver_present():
        return f"a driver is loaded, but no Python package reaches it; pip install {_bindings()}"
    if error.name in (*ABSENT, "NO_PACKAGE"):
        if any(Path(path).exists() for path in _DRIVER_FILES):
            return (
                "a driver is loaded, but this process cannot reach a GPU (in a container: --gpus all, --runtime nvidia)"
            )
        return "no NVIDIA driver is loaded; frames run on the CPU"
    return str(error)


def _cuda_package(info: DeviceInfo | None) -> Finding:
    what = "CUDA layer"
    if importlib.util.find_spec("cuda") is not None and importlib.util.find_spec("cuda.bindings") is not None:
        return what, info is not None, "cuda-bindings is installed" + ("" if info else ", and finds no GPU")
    if importlib.util.find_spec("pycuda") is not None:
        return what, info is not None, "PyCUDA is installed" + ("" if info else ", and finds no GPU")
    text = f"neither cuda-bindings nor PyCUDA is installed; pip install {_bindings()}"
    return what, False, f"{text}, or pip install 'framegate[pycuda]' with the wheel of `make pycuda`"


def _bindings() -> str:
    """The release of cuda-bindings that belongs to the driver: one for CUDA 13 expects a driver for CUDA 13."""
    try:
        version = DriverLibrary().number("reading the driver's version", "cuDriverGetVersion")
    except CudaError:
        return "'framegate[cuda]'"
    return f"'framegate[cuda]' 'cuda-bindings=={version // 1000}.*'"


def _kernels(info: DeviceInfo | None) -> Finding:
    what = "CUDA kernels"
    if all(source.with_suffix(".fatbin").is_file() for source in kernel_sources().values()):
        return what, info is not None, "shipped compiled"
    nvcc = Nvcc.find()
    if nvcc is not None:
        return what, info is not None, f"are compiled on first use by {nvcc.identity}"
    try:
        return what, info is not None, f"are compiled on first use by {Nvrtc().identity}"
    except CompilerError:
        return what, False, f"not shipped compiled, and no compiler is here; pip install {_nvrtc(info)}"


def _nvrtc(info: DeviceInfo | None) -> str:
    return "nvidia-cuda-nvrtc-cu12" if info is not None and info.driver_version[0] == 12 else "nvidia-cuda-nvrtc"


def _tensorrt(flavour: str, info: DeviceInfo | None) -> Finding:
    what = f"backend {flavour}"
    if importlib.util.find_spec(MODULES[flavour]) is None:
        line = install_line(flavour, None if info is None else info.driver_version[0])
        return what, False, f"not installed; {line}"
    try:
        trt = load_tensorrt(flavour)
        if info is not None:
            trt.runtime(trt.logger())
    except FramegateError as error:
        return what, False, str(error)
    return what, _runs(trt, info), f"{trt.version}; {_abilities(trt, info)}"


def _runs(trt: TensorRt, info: DeviceInfo | None) -> bool:
    return info is not None and (not trt.rtx or info.architecture in trt.compute_capabilities())


def _abilities(trt: TensorRt, info: DeviceInfo | None) -> str:
    capabilities = ", ".join(f"sm_{number}" for number in trt.compute_capabilities())
    if info is None:
        builds = f"builds engines for {capabilities} without a GPU" if trt.rtx else "builds engines on a GPU only"
        return f"{builds}; runs none here: no GPU"
    if trt.rtx and info.architecture not in trt.compute_capabilities():
        return f"builds for {capabilities}; sm_{info.architecture} is not among them, so runs are not to be counted on"
    stored = len(list(engine_folder().glob(f"*/*-{trt.flavour.replace('-', '_')}-{trt.version}-*.engine")))
    return f"builds and runs engines here; {stored} stored in {engine_folder()} (framegate engine BUNDLE builds more)"
