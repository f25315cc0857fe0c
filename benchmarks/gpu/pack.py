"""One folder with all that ten minutes on a GPU need: ``python -m framegate.benchmarks.gpu.pack``.

A machine with a GPU is often at hand for minutes and without a network. The folder holds the Python rooms, the kernels
as machine code of sm_87, sm_90 and sm_120 with PTX for what comes after, the compiled part of the runtime, one bundle
and 1,000 images as one file; below 60 MiB. There,

    python3 run.py --out RESULTS

runs the steps of `framegate.benchmarks.gpu.suite`. Python needs NumPy, OpenCV, rich and cuda-bindings; with ``--wheels
3.12`` the wheels of cuda-bindings for that Python travel along, if they fit. `run.py --dry-run` goes as far as a
machine without a GPU can.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from framegate.benchmarks.checkout import BUNDLES, ROOT
from framegate.benchmarks.gpu.engine import CLIP, crops
from framegate.cuda_kernels.compile.build import NO_COMPILER, build
from framegate.cuda_kernels.compile.compiler import CompilerError, Nvcc
from framegate.cuda_kernels.compile.sources import kernel_sources

ARCHITECTURES = (87, 90, 120)
# Without the page of the demo.
ROOMS = ("benchmarks", "cuda_kernels", "evaluation", "export", "models", "runtime")
LARGEST_BYTES = 60 * 2**20
IMAGES, SIDE = 1000, 64
BUNDLE = "hybrid-cifar10"
_LEFT_OUT = ("__pycache__", "results", "bundles", "weights", "*.fatbin", "*.fatbin.json", "clips", ".*")
_RUN = '''#!/usr/bin/env python3
"""Run everything there is to do on this machine's GPU; at most ten minutes. See --help; results go to --out."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def missing(*modules):
    found = subprocess.run([sys.executable, "-c", "import " + ", ".join(modules)], capture_output=True, text=True)
    return found.stderr.strip().splitlines()[-1] if found.returncode else ""


def main():
    arguments = ["--results" if word == "--out" else word for word in sys.argv[1:]]
    if "--help" not in arguments and "--results" not in arguments:
        arguments += ["--results", str(Path.cwd() / "results")]
    paths = [str(HERE)]
    wheels = sorted(map(str, HERE.glob("wheels/*.whl")))
    if wheels and missing("cuda.bindings.driver"):
        site = tempfile.mkdtemp(prefix="framegate-wheels-")
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", site, *wheels]
        if subprocess.run(pip).returncode == 0:
            paths.append(site)
    if lacking := missing("numpy", "cv2", "rich"):
        print(f"error: this needs a Python with NumPy, OpenCV and rich; {sys.executable} says: {lacking}")
        return 2
    if os.environ.get("PYTHONPATH"):
        paths.append(os.environ["PYTHONPATH"])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "framegate.benchmarks.gpu.suite", "--images", str(HERE / "images.npy"), *arguments]
    return subprocess.run(command, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
'''


class PackError(RuntimeError):
    """The folder cannot be made as asked."""


def copy_tree(folder: Path) -> None:
    """Copy rooms, tests of the kernels and what else is read at run time; as one plain package without links."""
    package = folder / "framegate"
    package.mkdir()
    shutil.copy2(ROOT / "src" / "framegate" / "__init__.py", package)
    for name in ("__main__.py", "py.typed"):
        if (ROOT / "src" / "framegate" / name).is_file():
            shutil.copy2(ROOT / "src" / "framegate" / name, package)
    for room in ROOMS:
        shutil.copytree(ROOT / room, package / room, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    shutil.copytree(BUNDLES / f"{BUNDLE}.bundle", package / "models" / "bundles" / f"{BUNDLE}.bundle")
    clip = package / CLIP.relative_to(ROOT)
    clip.parent.mkdir(parents=True)
    shutil.copy2(CLIP, clip)
    tests = Path("tests") / "cuda_kernels"
    (package / tests).mkdir(parents=True)
    shutil.copy2(ROOT / tests / "test_gpu.py", package / tests)
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy2(ROOT / name, package)


def add_kernels(folder: Path, architectures: tuple[int, ...]) -> None:
    """Compile every kernel source into the copied tree.

    Raises:
        CompilerError: There is no nvcc, or it refused a source.
    """
    build(list(kernel_sources().values()), architectures, out=folder / "framegate" / "cuda_kernels", compiled=_say)


def add_images(folder: Path, count: int) -> None:
    """Write crops of the shipped clip as one array (count, SIDE, SIDE, 3) uint8, BGR."""
    import cv2

    small = [cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for image in crops(count)]
    np.save(folder / "images.npy", np.stack(small))


def add_wheels(folder: Path, version: str) -> None:
    """Download cuda-bindings for a Python on x86-64 Linux, for a machine that lacks it.

    Raises:
        PackError: pip refuses.
    """
    where = folder / "wheels"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(where)]
    command += ["--python-version", version, "--implementation", "cp"]
    for platform in ("manylinux_2_28_x86_64", "manylinux_2_24_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"):
        command += ["--platform", platform]
    done = subprocess.run([*command, "cuda-bindings", "cuda-pathfinder"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PackError(f"pip cannot download cuda-bindings for Python {version}: {done.stderr.strip()[-300:]}")


def folder_bytes(folder: Path) -> int:
    """What the files of a folder hold together."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def make_pack(folder: Path, *, architectures: tuple[int, ...], images: int = IMAGES, wheels: str = "") -> int:
    """Make the folder anew; return its size in bytes.

    Args:
        folder: Where; what is there must be an earlier pack.
        architectures: Of the machine code; without any, the kernels are compiled on the machine with the GPU.
        images: How many.
        wheels: A Python version to carry wheels for; empty for none.

    Raises:
        PackError: Something else is in the way, or the folder is too large.
        CompilerError: The kernels cannot be compiled.
    """
    if folder.exists() and not folder.is_dir():
        raise PackError(f"{folder} is a file: give a folder with --out")
    if folder.exists() and any(folder.iterdir()):
        if not (folder / "run.py").is_file():
            raise PackError(f"{folder} has files and is no earlier pack: give another folder with --out")
        shutil.rmtree(folder)
    if architectures and Nvcc.find() is None:  # before anything is copied
        raise CompilerError(f"{NO_COMPILER}; --no-kernels leaves compiling to the machine with the GPU")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.py").write_text(_RUN, encoding="utf-8")
    (folder / "run.py").chmod(0o755)
    copy_tree(folder)
    add_images(folder, images)
    if wheels:
        add_wheels(folder, wheels)
    if architectures:
        add_kernels(folder, architectures)
    size = folder_bytes(folder)
    if size > LARGEST_BYTES:
        raise PackError(
            f"{folder} has {size / 2**20:.1f} MiB, more than {LARGEST_BYTES >> 20}: leave out --wheels, or images"
        )
    return size


def _say(step: str) -> None:
    print(f"compiled {step}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the folder and say what to do with it. Exit code 1 if it cannot be made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "gpu-pack", help="folder (default: gpu-pack)")
    parser.add_argument("--arch", type=int, action="append", help="default: 87, 90 and 120")
    parser.add_argument(
        "--no-kernels", action="store_true", help="leave compiling to the nvcc of the machine with the GPU"
    )
    parser.add_argument(
        "--wheels", default="", metavar="VERSION", help="carry cuda-bindings for this Python, e.g. 3.12"
    )
    options = parser.parse_args(arguments)
    chosen = tuple(sorted(set(options.arch or ARCHITECTURES)))
    try:
        size = make_pack(options.out, architectures=() if options.no_kernels else chosen, wheels=options.wheels)
    except (PackError, CompilerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(
        f"{os.path.relpath(options.out)}: {size / 2**20:.1f} MiB; on the machine with the GPU: "
        "python3 run.py --out RESULTS"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
