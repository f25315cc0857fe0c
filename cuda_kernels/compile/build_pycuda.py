"""Build a PyCUDA wheel against a CUDA toolkit on a machine without a driver: ``make pycuda``.

PyCUDA is published as source only, and its extension links against libcuda.so.1, which belongs to the driver. Three
things prevent an ordinary ``pip install``, and this module removes them:

* No driver on the build machine. A stub library with the SONAME libcuda.so.1 satisfies the linker. It must export
  every symbol that PyCUDA uses: the linker drops an empty one from the list of needed libraries, and the finished
  extension then fails with ``undefined symbol`` even where a driver is present. So the names come from the toolkit's
  own headers. The stub is never installed.
* PyCUDA reads its paths from a file ``siteconf.py`` beside its setup.py, not from the environment.
* Slim toolkits have no cuRAND, which framegate doesn't need either.

Two minutes and more of one processor core. The wheel imports only where a libcuda.so.1 is installed.

    python -m framegate.cuda_kernels.compile.build_pycuda --out dist
    pip install dist/pycuda-*.whl
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from framegate.cuda_kernels.compile.compiler import CompilerError, toolkit_root

PINNED = "pycuda==2026.1"

_DECLARATION = re.compile(r"\bCUresult\s+(cu[A-Z]\w*)\s*\(")


def declared_functions(cuda_root: Path) -> list[str]:
    """List the driver functions that the toolkit's headers declare, under their exported names (``cuMemAlloc_v2``)."""
    # Through the preprocessor, because macros give the functions their version suffix.
    command = ["g++", "-E", "-P", "-x", "c++", "-include", "cuda.h", "-include", "cudaProfiler.h"]
    command += ["-I", str(cuda_root / "include"), os.devnull]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    names = sorted(set(_DECLARATION.findall(done.stdout)))
    if done.returncode or not names:
        raise CompilerError(f"cuda.h: asked g++ for the functions it declares, got: {done.stderr.strip() or 'none'}")
    return names


def build_stub_library(cuda_root: Path, folder: Path) -> Path:
    """Compile a library that exports every driver function and does nothing, for the linker only."""
    source = folder / "stub.c"
    # 3 is CUDA_ERROR_NOT_INITIALIZED: a program that loads this by mistake gets an error.
    source.write_text("".join(f"int {name}(void) {{ return 3; }}\n" for name in declared_functions(cuda_root)))
    library = folder / "libcuda.so"
    command = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(library), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompilerError(f"the stub of libcuda did not compile: {done.stderr.strip()}")
    return library


def site_configuration(cuda_root: Path, stub_folder: Path) -> str:
    """Return the text of PyCUDA's siteconf.py."""
    libraries = [str(cuda_root / "lib64")]
    return (
        f"CUDA_ROOT = {str(cuda_root)!r}\n"
        f"CUDADRV_LIB_DIR = {[str(stub_folder), *libraries]!r}\n"
        "CUDADRV_LIBNAME = ['cuda']\n"
        f"CUDART_LIB_DIR = {libraries!r}\n"
        "CUDA_ENABLE_CURAND = False\n"
        "BOOST_INC_DIR = []\nBOOST_LIB_DIR = []\n"
    )


def build_wheel(out: Path, requirement: str = PINNED) -> Path:
    """Download PyCUDA's source, build its wheel for this interpreter into ``out`` and return its path.

    Raises:
        CompilerError: no toolkit, no compiler, no download, or the build failed; the message ends with its output.
    """
    cuda_root = toolkit_root()
    if cuda_root is None:
        raise CompilerError("PyCUDA needs a CUDA toolkit: none on PATH (nvcc), in CUDA_HOME or in /usr/local/cuda*")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
        _step(f"downloading {requirement}")
        # --no-binary pycuda, not :all:, which would also build its build requirements from source.
        _run([*pip, "download", "--no-deps", "--no-binary", "pycuda", "-d", str(folder), requirement], folder)
        with tarfile.open(next(folder.glob("pycuda-*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
        source = next(path for path in folder.glob("pycuda-*") if path.is_dir())
        _step(f"a stub of libcuda.so.1 from {cuda_root}/include/cuda.h")
        build_stub_library(cuda_root, folder)
        (source / "siteconf.py").write_text(site_configuration(cuda_root, folder))
        _step("compiling (minutes)")
        _run([*pip, "wheel", "--no-deps", "-w", str(out.resolve()), "."], source)
    return max(out.glob("pycuda-*.whl"), key=os.path.getmtime)


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise CompilerError(f"failed (exit code {done.returncode}): {' '.join(command)}\n{tail}")


def _step(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text} ...", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Build the wheel and say where it is. Exit code 1 if it cannot be built."""
    parser = argparse.ArgumentParser(prog="python -m framegate.cuda_kernels.compile.build_pycuda", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder for the wheel (default: dist)")
    parser.add_argument("--requirement", default=PINNED, help=f"which PyCUDA (default: {PINNED})")
    options = parser.parse_args(arguments)
    try:
        wheel = build_wheel(options.out, options.requirement)
    except CompilerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(wheel)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
