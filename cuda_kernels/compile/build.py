"""Compile the CUDA kernels: ``make kernels``, or ``python -m framegate.cuda_kernels.compile.build``.

Every ``.cu`` of the package becomes one fat binary: machine code for sm_75, 80, 86, 87, 89, 90, 100, 110 and 120 (as
far as the installed nvcc knows them) and PTX of the newest for GPUs to come. A table of registers, shared memory, stack
and spills is printed; a spill fails the build. No GPU and no driver is needed.

Without ``--out`` this only fills the cache. A release is built from a clean checkout with

    python -m framegate.cuda_kernels.compile.build --out cuda_kernels
    python -m build --wheel

which puts ``softmax_entropy/kernel.fatbin`` and ``softmax_entropy/kernel.fatbin.json`` beside
``softmax_entropy/kernel.cu``, and so on; git ignores them and package-data picks them up. A wheel that was built
without them still holds the sources; `load_image` then compiles on the target, with nvcc or NVRTC, once, into the
user's cache.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from framegate.cuda_kernels.compile.cache import (
    default_cache,
    entry_folder,
    read_report,
    source_hash,
    write_atomically,
    write_json,
    write_report,
)
from framegate.cuda_kernels.compile.compiler import ARCHITECTURES, CompilerError, Nvcc
from framegate.cuda_kernels.compile.resources import Resources, parse_report, resource_table, spilling
from framegate.cuda_kernels.compile.sources import FOLDER, kernel_name, kernel_sources

NO_COMPILER = "no nvcc on PATH, in CUDA_HOME, in CUDA_PATH or in /usr/local/cuda*"


@dataclass(frozen=True, slots=True)
class Built:
    """One compiled source.

    Attributes:
        source: the .cu file.
        image: its fat binary, in the cache or in the folder that was asked for.
        resources: one entry for each kernel and architecture.
    """

    source: Path
    image: Path
    resources: list[Resources]


@dataclass(frozen=True, slots=True)
class FatBinaryRecord:
    """The record that lies beside a shipped fat binary.

    Attributes:
        source_hash: of the source and headers it was made from; a mismatch means that it is stale.
        compiler: name and version.
        release: (major, minor) of the toolkit.
        architectures: machine code that it holds; PTX of the last one too.
    """

    source_hash: str
    compiler: str
    release: tuple[int, int]
    architectures: tuple[int, ...]


def find_source(name: str, folder: Path = FOLDER) -> Path:
    """Return the source of a name.

    Raises:
        CompilerError: there is none; the message lists those there are.
    """
    sources = kernel_sources(folder)
    if name not in sources:
        raise CompilerError(f"kernel source {name!r}: not among those in {folder}: {', '.join(sources) or 'none'}")
    return sources[name]


def build(
    sources: Sequence[Path],
    architectures: tuple[int, ...] = ARCHITECTURES,
    cache: Path | None = None,
    out: Path | None = None,
    compiled: Callable[[str], None] = lambda step: None,
) -> list[Built]:
    """Compile sources for architectures, as far as they are not in the cache.

    Args:
        sources: .cu files.
        architectures: 90 for sm_90; those that the installed nvcc does not know are left out.
        cache: where compiled images live; default `default_cache`.
        out: where the fat binaries go, each in a folder with the name of its source's folder, with a .fatbin.json
            beside it; default: they stay in the cache.
        compiled: called with the name of each step when it is finished.

    Raises:
        CompilerError: no nvcc, or it refused a source.
    """
    nvcc = Nvcc.find()
    if nvcc is None:
        raise CompilerError(f"asked to compile {len(sources)} CUDA sources: {NO_COMPILER}; install a CUDA toolkit")
    kept = nvcc.known(architectures)
    targets = [*(f"sm_{architecture}" for architecture in kept), f"compute_{max(kept)}"]
    folders = {source: entry_folder(source, nvcc.identity, cache or default_cache()) for source in sources}

    def compile_one(job: tuple[Path, str]) -> None:
        source, target = job
        compile_cached(nvcc, source, target, folders[source])
        compiled(f"{kernel_name(source)} {target}")

    with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
        # list() re-raises the first error; the other jobs of the pool finish and stay in the cache.
        list(pool.map(compile_one, [(source, target) for source in sources for target in targets]))
    return [_bundle(nvcc, source, kept, folders[source], out) for source in sources]


def target_path(folder: Path, target: str) -> Path:
    """Return where the cache keeps the image of one target."""
    return folder / f"{target}.{'cubin' if target.startswith('sm_') else 'ptx'}"


def compile_cached(nvcc: Nvcc, source: Path, target: str, folder: Path) -> None:
    """Compile a source for one target, ``sm_90`` or ``compute_90``, into its `target_path`, unless it is there.

    Raises:
        CompilerError: nvcc refused the source.
    """
    image, report = target_path(folder, target), folder / f"{target}.json"
    if image.is_file() and report.is_file():
        return

    def produce(temporary: Path) -> None:
        kernels = parse_report(nvcc.compile(source, target, temporary))
        if not kernels and target.startswith("sm_"):
            # Without the numbers of a kernel nobody would see that it spills.
            raise CompilerError(f"{source} for {target}: the assembler's report names no kernel")
        write_report(report, kernels)

    write_atomically(image, produce)


def _bundle(nvcc: Nvcc, source: Path, architectures: tuple[int, ...], folder: Path, out: Path | None) -> Built:
    targets = [*(f"sm_{architecture}" for architecture in architectures), f"compute_{architectures[-1]}"]
    images = {target: target_path(folder, target) for target in targets}
    image = (folder if out is None else out / source.parent.name) / f"{source.stem}.fatbin"
    write_atomically(image, lambda temporary: nvcc.bundle(images, temporary))
    record = FatBinaryRecord(source_hash(source), nvcc.identity, nvcc.release, architectures)
    write_json(Path(f"{image}.json"), asdict(record))
    return Built(source, image, [kernel for t in targets for kernel in read_report(folder / f"{t}.json")])


def main(arguments: list[str] | None = None) -> int:
    """Compile and print the table. Exit code 1: no compiler, a refused source, or a spill."""
    parser = argparse.ArgumentParser(prog="python -m framegate.cuda_kernels.compile.build", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("sources", nargs="*", type=Path, help="default: every .cu of the package")
    parser.add_argument("--arch", type=int, action="append", help="one architecture, 90 for sm_90 (repeatable)")
    parser.add_argument("--out", type=Path, help="folder for the folders with fat binaries (default: the cache only)")
    options = parser.parse_args(arguments)
    sources = options.sources or list(kernel_sources().values())
    console = Console(stderr=True)
    try:
        with Progress(console=console, transient=True) as progress:
            count = len(sources) * (len(options.arch or ARCHITECTURES) + 1)
            task = progress.add_task(f"compiling {len(sources)} CUDA sources", total=count)
            built = build(
                sources,
                tuple(sorted(set(options.arch or ARCHITECTURES))),
                out=options.out,
                compiled=lambda step: progress.update(task, advance=1, description=step),
            )
    except CompilerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    everything = [kernel for one in built for kernel in one.resources]
    # A fixed width where the output is a file: a table folded to 80 columns cannot be searched.
    Console(width=None if sys.stdout.isatty() else 180).print(resource_table(everything))
    for one in built:
        print(f"{kernel_name(one.source)} -> {one.image} ({one.image.stat().st_size} bytes)")
    spills = spilling(everything)
    if spills:
        named = ", ".join(sorted({f"{kernel.kernel} on sm_{kernel.architecture}" for kernel in spills}))
        print(f"error: no kernel may spill registers, these do: {named}", file=sys.stderr)
    return 1 if spills else 0


if __name__ == "__main__":
    raise SystemExit(main())
