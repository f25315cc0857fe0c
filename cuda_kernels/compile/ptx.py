"""PTX of a kernel source, which TensorRT puts into an engine and a driver compiles for its GPU.

Unlike a cubin, PTX knows no minor-version compatibility: a driver for CUDA 12.6 refuses the PTX of a 12.8 compiler,
whatever the GPU. So a compiler that is newer than the driver is not used.
"""

from __future__ import annotations

from pathlib import Path

from framegate.cuda_kernels.compile.build import NO_COMPILER, compile_cached, find_source, target_path
from framegate.cuda_kernels.compile.cache import default_cache, entry_folder, write_atomically
from framegate.cuda_kernels.compile.compiler import ARCHITECTURES, CompilerError, Nvcc, Nvrtc
from framegate.cuda_kernels.compile.sources import FOLDER


def load_ptx(
    name: str, architecture: int, driver_version: tuple[int, int], folder: Path = FOLDER, cache: Path | None = None
) -> bytes:
    """Return the PTX of one source, compiled now or taken from the cache.

    Args:
        name: Of the source, see `kernel_sources`.
        architecture: The oldest that it must run on, 87 for compute capability 8.7; it runs on newer ones, too.
        driver_version: The newest CUDA release that the driver supports, (major, minor).
        folder: Where the folders with the sources are.
        cache: Where compiled images live; default `default_cache`.

    Raises:
        CompilerError: No compiler here makes PTX that this driver can read; the message gives the reason for each.
    """
    source = find_source(name, folder)
    refused: list[str] = []
    for maker in (_by_nvcc, _by_nvrtc):
        path = maker(source, architecture, driver_version, cache or default_cache(), refused)
        if path is not None:
            return path.read_bytes()
    reasons = "; ".join(refused)  # an error is shown as one line
    raise CompilerError(f"no PTX of {name} for sm_{architecture} and this driver: {reasons}")


def _by_nvcc(
    source: Path, architecture: int, driver_version: tuple[int, int], cache: Path, refused: list[str]
) -> Path | None:
    nvcc = Nvcc.find()
    if nvcc is None:
        refused.append(NO_COMPILER)
        return None
    if nvcc.release > driver_version:
        refused.append(_too_new(nvcc.identity, nvcc.release, driver_version))
        return None
    try:
        nearest = max(nvcc.known(tuple(a for a in {*ARCHITECTURES, architecture} if a <= architecture)))
    except CompilerError as error:
        refused.append(str(error))
        return None
    entry, target = entry_folder(source, nvcc.identity, cache), f"compute_{nearest}"
    compile_cached(nvcc, source, target, entry)
    return target_path(entry, target)


def _by_nvrtc(
    source: Path, architecture: int, driver_version: tuple[int, int], cache: Path, refused: list[str]
) -> Path | None:
    try:
        nvrtc = Nvrtc()
    except CompilerError as error:
        refused.append(str(error))
        return None
    if nvrtc.release > driver_version:
        refused.append(_too_new(nvrtc.identity, nvrtc.release, driver_version))
        return None
    path = target_path(entry_folder(source, nvrtc.identity, cache), f"compute_{architecture}")
    if not path.is_file():
        content = nvrtc.ptx(source, architecture)

        def produce(temporary: Path) -> None:
            temporary.write_bytes(content)

        write_atomically(path, produce)
    return path


def _too_new(what: str, release: tuple[int, int], driver_version: tuple[int, int]) -> str:
    return (
        f"{what}: the driver is for CUDA {driver_version[0]}.{driver_version[1]} and cannot read PTX of "
        f"{release[0]}.{release[1]}; update the driver or use an older toolkit"
    )
