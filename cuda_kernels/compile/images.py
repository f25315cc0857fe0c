"""Find or compile the machine code of a kernel source for this machine's GPU."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from framegate.cuda_kernels.compile.build import NO_COMPILER, compile_cached, find_source, target_path
from framegate.cuda_kernels.compile.cache import default_cache, entry_folder, source_hash, write_atomically
from framegate.cuda_kernels.compile.compiler import ARCHITECTURES, CompilerError, Nvcc, Nvrtc, runs_machine_code
from framegate.cuda_kernels.compile.sources import FOLDER, kernel_name


def load_image(
    name: str, architecture: int, driver_version: tuple[int, int], folder: Path = FOLDER, cache: Path | None = None
) -> bytes:
    """Return what the driver loads for one source: the shipped fat binary, else a fresh or cached compilation.

    Args:
        name: of the source, see `kernel_sources`.
        architecture: of the GPU, 87 for compute capability 8.7.
        driver_version: the newest CUDA release that the driver supports, (major, minor).
        folder: where the folders with the sources and the shipped fat binaries are.
        cache: where compiled images live; default `default_cache`.

    Raises:
        CompilerError: there is no usable fat binary and no usable compiler; the message gives the reason for each, or
            what the compiler refused.
    """
    source = find_source(name, folder)
    refused: list[str] = []
    for maker in (_shipped, _by_nvcc, _by_nvrtc):
        try:
            image = maker(source, architecture, driver_version, cache or default_cache(), refused)
        except OSError as error:
            refused.append(f"{error}; make room, or set XDG_CACHE_HOME to a folder that this user may write")
            continue
        if image is not None:
            return image
    reasons = "; ".join(refused)  # an error is shown as one line
    raise CompilerError(f"no machine code of {name} for sm_{architecture} and this driver: {reasons}")


def _shipped(
    source: Path, architecture: int, driver_version: tuple[int, int], cache: Path, refused: list[str]
) -> bytes | None:
    del cache
    image, name = source.with_suffix(".fatbin"), f"fat binary of {kernel_name(source)}"
    record_path = Path(f"{image}.json")
    if not image.is_file() or not record_path.is_file():
        refused.append(f"{name}: not shipped; `make kernels` builds it where there is nvcc")
        return None
    record = json.loads(record_path.read_text(encoding="utf-8"))
    if record["source_hash"] != source_hash(source):
        refused.append(f"{name}: stale, {source.name} or a header that it includes has changed since")
    elif not _runs_on(record["architectures"], architecture):
        held = f"holds sm_{record['architectures']} and PTX of the last"
        refused.append(f"{name}: {held}, nothing for sm_{architecture}")
    elif not _loadable(record["release"], driver_version):
        refused.append(_too_new(name, record["release"], driver_version))
    else:
        return image.read_bytes()
    return None


def _runs_on(architectures: Sequence[int], architecture: int) -> bool:
    """Whether a GPU has something to run: machine code (`runs_machine_code`), or PTX of an older one, the last's."""
    return any(runs_machine_code(a, architecture) for a in architectures) or max(architectures) <= architecture


def _by_nvcc(
    source: Path, architecture: int, driver_version: tuple[int, int], cache: Path, refused: list[str]
) -> bytes | None:
    nvcc = Nvcc.find()
    if nvcc is None:
        refused.append(NO_COMPILER)
        return None
    if not _loadable(nvcc.release, driver_version):
        refused.append(_too_new(nvcc.identity, nvcc.release, driver_version))
        return None
    # The nearest older sibling will do for a GPU that is newer than this nvcc.
    siblings = [a for a in {*ARCHITECTURES, architecture} if runs_machine_code(a, architecture)]
    try:
        nearest = max(nvcc.known(tuple(siblings)))
    except CompilerError as error:
        refused.append(str(error))
        return None
    folder, target = entry_folder(source, nvcc.identity, cache), f"sm_{nearest}"
    if not target_path(folder, target).is_file():
        print(f"framegate: compiling {kernel_name(source)} for {target}, once; it may take a minute", file=sys.stderr)
    compile_cached(nvcc, source, target, folder)
    return target_path(folder, target).read_bytes()


def _by_nvrtc(
    source: Path, architecture: int, driver_version: tuple[int, int], cache: Path, refused: list[str]
) -> bytes | None:
    try:
        nvrtc = Nvrtc()
    except CompilerError as error:
        refused.append(str(error))
        return None
    if not _loadable(nvrtc.release, driver_version):
        refused.append(_too_new(nvrtc.identity, nvrtc.release, driver_version))
        return None
    image = target_path(entry_folder(source, nvrtc.identity, cache), f"sm_{architecture}")
    if not image.is_file():
        compiled = nvrtc.compile(source, architecture)

        def produce(temporary: Path) -> None:
            temporary.write_bytes(compiled.image)

        write_atomically(image, produce)
    return image.read_bytes()


def _loadable(release: tuple[int, int], driver_version: tuple[int, int]) -> bool:
    # CUDA's minor-version compatibility: within one major version a driver loads cubins of later toolkits too.
    return release[0] <= driver_version[0]


def _too_new(what: str, release: tuple[int, int], driver_version: tuple[int, int]) -> str:
    return (
        f"{what}: CUDA {release[0]}.{release[1]} machine code needs a driver for CUDA {release[0]}, this one is for "
        f"CUDA {driver_version[0]}.{driver_version[1]}; update the driver or use an older toolkit"
    )
