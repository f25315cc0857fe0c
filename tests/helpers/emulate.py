"""Compile a .cu source with g++ and run its kernels on the CPU; what is emulated and how: emulation/cuda_emulation.h.

    def test_it(emulate):                                        # fixture of tests/cuda_kernels/conftest.py
        module = emulate.compile("cuda_kernels/my/kernel.cu")    # path from the repository root, or absolute
        x = np.ones(1000, np.float32)
        module.launch("my_kernel", grid=(4,), block=(256,), arguments=(x, np.uint32(1000)), order=1)

An argument is a NumPy array (passed as a pointer to its first element), None (null pointer), a NumPy scalar, a ctypes
structure or number (passed by value), or `emulate.Pointer(address)`. Python's own numbers are refused: their size is
not that of the parameter. `emulate.aligned` makes arrays with a chosen misalignment.

Sanitizers: with FRAMEGATE_EMULATION_SANITIZE=1 `compile` builds with -fsanitize=address,undefined, and python must have
been started with the address sanitizer preloaded. `emulate.run_sanitized(test_file, expression)` does both: it runs the
selected tests of a file once more in such a process.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from framegate.cuda_kernels.compile.sources import include_folders, included_headers, kernel_name

REPOSITORY = Path(__file__).resolve().parents[2]
EMULATION = Path(__file__).resolve().parent / "emulation"
SANITIZE = os.environ.get("FRAMEGATE_EMULATION_SANITIZE") == "1"

_COMMON = ["-std=c++17", "-x", "c++", "-DFRAMEGATE_EMULATION=1", "-fPIC", "-fvisibility=hidden", "-fno-gnu-unique"]
# Strict floating point: no contraction, no fast math. FORTIFY's longjmp would take a switch of fibres for an attack.
_COMMON += [
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-U_FORTIFY_SOURCE",
    "-Wall",
    "-Wextra",
    "-Wno-unknown-pragmas",
    "-Wno-unused-function",
]
_PLAIN = ["-O1", "-fsanitize=alignment"]  # the handler is in cuda_emulation_functions.h
_SANITIZED = ["-O0", "-g1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
_KERNEL = re.compile(r'extern\s+"C"\s+__attribute__\(\(visibility\("default"\)\)\)\s+void\s+(\w+)\s*\(')


class EmulationError(RuntimeError):
    """The kernel did what a GPU leaves undefined, or the launch was refused; the message says which thread and what."""


class Pointer(ctypes.c_void_p):
    """An address to pass as it is, such as the middle of an array: Pointer(array.ctypes.data + 4)."""


def compiler() -> str | None:
    """Return the path of g++, or None: then skip."""
    return shutil.which("g++")


def _checked(command: Sequence[str]) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # g++ needs no sanitizer
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise EmulationError(f"{' '.join(command)}\nfailed with exit code {done.returncode}:\n{done.stderr[-6000:]}")
    return done.stdout


def _cache() -> Path:
    default = Path(tempfile.gettempdir()) / f"framegate-emulation-{os.getuid()}"
    folder = Path(os.environ.get("FRAMEGATE_EMULATION_CACHE", default))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise EmulationError(f"{folder} belongs to someone else: set FRAMEGATE_EMULATION_CACHE to a folder of your own")
    return folder


@functools.cache
def _version(gxx: str) -> str:
    return _checked([gxx, "--version"])


def compile(source: str | Path, defines: Mapping[str, str | int] | None = None) -> Module:
    """Compile a .cu for the host, or take it from the cache, and load it.

    The key of the cache holds the source, the headers it includes, the emulation's headers, the flags and the compiler,
    but not where the repository lies.

    Args:
        source: path of the .cu; relative paths start at the repository root.
        defines: macros, as -Dname=value.

    Raises:
        EmulationError: no g++, a compile error (with the compiler's words), or no kernel inside.
    """
    gxx = compiler()
    if gxx is None:
        raise EmulationError("the emulation needs g++ on PATH")
    path = (REPOSITORY / source).resolve()
    flags = [*_COMMON, *(_SANITIZED if SANITIZE else _PLAIN), f"-I{EMULATION}"]
    flags += [f"-I{folder}" for folder in include_folders(path)]
    flags += [f"-D{name}={value}" for name, value in sorted((defines or {}).items())]
    files = sorted({path, *included_headers(path), *EMULATION.glob("*.h")})
    parts = [_version(gxx), *flags, *(f"{f}\0{f.read_text()}" for f in files)]
    # Another checkout of the same sources finds what this one compiled.
    key = hashlib.sha256("\0".join(part.replace(f"{REPOSITORY}/", "") for part in parts).encode())
    library = _cache() / f"{kernel_name(path)}-{key.hexdigest()[:20]}.so"
    if not library.exists():
        _build(gxx, flags, path, library)
    return Module(library)


def _build(gxx: str, flags: list[str], path: Path, library: Path) -> None:
    # The kernels' names may come out of macros, so they are read from the preprocessed text.
    names = _KERNEL.findall(_checked([gxx, *flags, "-E", "-P", str(path)]))
    if not names:
        raise EmulationError(f'{path} has no kernel: asked for extern "C" __global__ void NAME(...)')
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        unit, thing, shared = (Path(folder) / name for name in ("unit.cpp", "unit.o", "unit.so"))
        unit.write_text("\n".join([f'#include "{path}"', *(f"EMULATION_EXPORT({name})" for name in names)]) + "\n")
        _checked([gxx, *flags, "-c", str(unit), "-o", str(thing)])
        link = ["-fsanitize=address,undefined"] if SANITIZE else []
        _checked([gxx, "-shared", *link, str(thing), "-o", str(shared)])
        shared.replace(library)  # atomic: two test runs may build at once


class Module:
    """The kernels of one .cu, as `Module.launch(name, ...)`."""

    def __init__(self, library: Path) -> None:
        self.library = library
        self._handle = ctypes.CDLL(str(library))
        self._handle.emulation_error.restype = ctypes.c_char_p
        self._hook: Any = None

    def has(self, kernel: str) -> bool:
        """Say whether the source has this kernel."""
        return hasattr(self._handle, f"emulate_{kernel}")

    def launch(
        self,
        kernel: str,
        *,
        grid: Sequence[int],
        block: Sequence[int],
        arguments: Sequence[Any],
        shared_bytes: int = 0,
        order: int = 0,
    ) -> None:
        """Run one launch to its end.

        Args:
            kernel: the name in the source.
            grid: blocks in x, or x and y, or x, y and z.
            block: threads of a block, likewise.
            arguments: one a parameter, see the top of this file.
            shared_bytes: dynamic shared memory.
            order: schedule of threads and blocks: 0 ascending, 1 descending, others a shuffle with this seed.

        Raises:
            EmulationError: what a GPU leaves undefined happened, or the launch was refused.
            TypeError: an argument does not fit its parameter in number or size.
        """
        if not self.has(kernel):
            raise EmulationError(f"{self.library.name} has no kernel {kernel!r}")
        sizes = (ctypes.c_size_t * 32)()
        count = getattr(self._handle, f"emulate_sizes_{kernel}")(sizes)
        if len(arguments) != count:
            raise TypeError(f"{kernel} has {count} parameters, found {len(arguments)} arguments")
        values = [_by_value(argument) for argument in arguments]
        for i, value in enumerate(values):
            if ctypes.sizeof(value) != sizes[i]:
                raise TypeError(f"{kernel}, parameter {i}: {sizes[i]} bytes, found {ctypes.sizeof(value)} bytes")
        pointers = (ctypes.c_void_p * max(count, 1))(*(ctypes.addressof(value) for value in values))
        extents = [(ctypes.c_uint * 3)(*[*shape, 1, 1][:3]) for shape in (grid, block)]
        failed = getattr(self._handle, f"emulate_{kernel}")(
            *extents, ctypes.c_size_t(shared_bytes), pointers, ctypes.c_uint64(order)
        )
        if failed:
            raise EmulationError(f"{kernel}: {self._handle.emulation_error().decode()}")

    def on_system_fence(self, hook: Callable[[], None] | None) -> None:
        """Call the hook at every __threadfence_system: what it sees in memory is what the host may see by then."""
        self._hook = (
            None if hook is None else ctypes.CFUNCTYPE(None)(hook)
        )  # kept: ctypes holds no reference of its own
        self._handle.emulation_on_system_fence(self._hook)


def _by_value(argument: Any) -> Any:
    """Return a ctypes object that holds the bytes of the parameter."""
    if argument is None:
        return ctypes.c_void_p(None)
    if isinstance(argument, np.ndarray):
        if not argument.flags.c_contiguous:
            raise TypeError("an array argument must be C-contiguous: the kernel sees only its first address")
        return ctypes.c_void_p(argument.ctypes.data)
    if isinstance(argument, np.generic):
        return (ctypes.c_char * argument.nbytes).from_buffer_copy(argument.tobytes())
    if isinstance(argument, (ctypes.Structure, ctypes._SimpleCData)):
        return argument
    raise TypeError(f"asked for an array, None, a NumPy scalar or a ctypes object, found {type(argument).__name__}")


def aligned(shape: int | tuple[int, ...], dtype: Any, offset: int = 0, alignment: int = 256) -> np.ndarray:
    """Return zeros that start `offset` bytes past a multiple of `alignment` and end where their buffer ends.

    The end is what lets the address sanitizer see a read just past the array.
    """
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    address = ctypes.c_void_p()
    libc = ctypes.CDLL(None)  # the sanitizer's allocator where it is preloaded
    if libc.posix_memalign(ctypes.byref(address), ctypes.c_size_t(alignment), ctypes.c_size_t(offset + size)) != 0:
        raise MemoryError(f"{offset + size} bytes aligned to {alignment}")
    memory = (ctypes.c_char * (offset + size)).from_address(address.value or 0)
    weakref.finalize(memory, libc.free, ctypes.c_void_p(address.value))
    array = np.frombuffer(memory, np.uint8)[offset:].view(dtype).reshape(shape)
    array[...] = 0
    return array


def sanitized_environment() -> dict[str, str]:
    """Return an environment in which a python process can load sanitized kernels, and `compile` makes them."""
    gxx = compiler()
    if gxx is None:
        raise EmulationError("the emulation needs g++ on PATH")
    library = _checked([gxx, "-print-file-name=libasan.so"]).strip()
    environment = dict(os.environ, FRAMEGATE_EMULATION_SANITIZE="1", LD_PRELOAD=library)
    # Leaks are not looked for: CPython keeps memory at exit.
    environment["ASAN_OPTIONS"] = "detect_leaks=0:exitcode=99"
    environment["UBSAN_OPTIONS"] = "print_stacktrace=1:halt_on_error=1"
    environment["PYTHONMALLOC"] = "malloc"  # the small-object pools of CPython would hide overruns from the sanitizer
    return environment


def run_sanitized(test_file: str | Path, expression: str, timeout: float = 300) -> None:
    """Run the tests of a file that match a -k expression once more, under both sanitizers.

    Raises:
        EmulationError: a test failed, a sanitizer reported, or nothing was selected; with the end of the output.
    """
    # -s: a report goes to the real stderr even when it ends the process.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-s",
        "-p",
        "no:cacheprovider",
        "-k",
        expression,
        str(test_file),
    ]
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=sanitized_environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        raise EmulationError(f"exit code {done.returncode}\n{done.stdout[-5000:]}\n{done.stderr[-5000:]}")
