"""Find a CUDA compiler and run it: nvcc where there is a toolkit, else NVRTC through cuda-bindings.

nvcc compiles for every architecture and needs no GPU. NVRTC is a library that cuda-bindings can load; it compiles for
one architecture, that of this machine's GPU. A vehicle uses it when its wheel holds no fat binaries.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

from framegate.cuda_kernels.compile.sources import include_folders

ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 110, 120)
"""Turing, Ampere (server, desktop, Orin), Ada, Hopper, Blackwell (server, Thor, desktop). A cubin also runs on later
minor versions of its major one, so 8.8, 10.3 and 12.1 are covered; PTX of the newest is for what comes after."""

TEGRA = frozenset((72, 87, 101, 110))
"""Xavier, Orin, Thor (by its two names). Between these, and between them and other GPUs, machine code is not exchanged:
CUDA C++ Programming Guide, "Binary Compatibility"."""

OPTIONS = ("-O3", "-std=c++17")
"""No --use_fast_math: it flushes denormals and approximates division, and the scores must match the reference."""


def runs_machine_code(of: int, on: int) -> bool:
    """Whether a GPU runs the machine code of an architecture: its own, or an older minor version's of its major one."""
    if TEGRA & {of, on}:
        return of == on
    return of // 10 == on // 10 and of <= on


class CompilerError(RuntimeError):
    """No compiler was found, or it refused the source."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a compiler made of one source.

    Attributes:
        image: what the driver loads: a fat binary (nvcc) or a cubin (NVRTC).
        log: what the compiler printed; with nvcc it holds the resource lines of ptxas.
    """

    image: bytes
    log: str


def toolkit_root() -> Path | None:
    """Return the CUDA toolkit: that of the nvcc on PATH, else CUDA_HOME or CUDA_PATH, else the newest one installed."""
    found = shutil.which("nvcc")
    if found:
        # Not its folder: distributions put a script on PATH. nvcc itself knows where its toolkit is.
        done = subprocess.run(
            [found, "--dryrun", "-E", "-x", "cu", os.devnull], capture_output=True, text=True, check=False
        )
        top = re.search(r"^#\$ TOP=(.+)$", done.stderr, re.MULTILINE)
        if top and (Path(top[1]) / "bin" / "nvcc").is_file():
            return Path(top[1]).resolve()
    named = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    numbered = sorted(glob("/usr/local/cuda-*"), key=lambda path: [int(n) for n in re.findall(r"\d+", path)])
    for root in (*named, "/usr/local/cuda", *reversed(numbered)):
        if (Path(root) / "bin" / "nvcc").is_file():
            return Path(root).resolve()
    return None


class Nvcc:
    """The toolkit's compiler.

    Attributes:
        identity: name and version, for the cache key and for messages.
        release: (major, minor) of the toolkit. A driver of an older major version cannot load what it makes.
    """

    def __init__(self, root: Path) -> None:
        self._nvcc = root / "bin" / "nvcc"
        printed = self._run([str(self._nvcc), "--version"]).stdout
        match = re.search(r"release (\d+)\.(\d+), V([\d.]+)", printed)
        if match is None:
            raise CompilerError(f"{self._nvcc} --version: asked for a release number, got {printed.strip()!r}")
        self.release = (int(match[1]), int(match[2]))
        self.identity = f"nvcc {match[3]}"

    @staticmethod
    def find() -> Nvcc | None:
        """Return the nvcc of `toolkit_root`, or None."""
        root = toolkit_root()
        return Nvcc(root) if root else None

    def known(self, architectures: tuple[int, ...]) -> tuple[int, ...]:
        """Keep the architectures that this nvcc can compile for: new toolkits drop old GPUs, old ones lack new."""
        listed = {int(n) for n in re.findall(r"sm_(\d+)\b", self._run([str(self._nvcc), "--list-gpu-code"]).stdout)}
        kept = tuple(architecture for architecture in architectures if architecture in listed)
        if not kept:
            raise CompilerError(f"{self.identity} knows none of sm_{architectures}; it knows sm_{sorted(listed)}")
        return kept

    def compile(self, source: Path, target: str, out: Path) -> str:
        """Compile one source for one target into ``out``: ``sm_90`` gives machine code, ``compute_90`` PTX.

        One target at a time: the assembler's reports would mix if nvcc compiled several at once.

        Returns:
            The assembler's report.

        Raises:
            CompilerError: it refused the source; the message holds what the compiler printed.
        """
        kind = ["-cubin", "-Xptxas=-v"] if target.startswith("sm_") else ["-ptx"]
        includes = [f"-I{folder}" for folder in include_folders(source)]
        done = self._run([str(self._nvcc), *kind, *OPTIONS, *includes, f"-arch={target}", "-o", str(out), str(source)])
        if done.returncode:
            raise CompilerError(f"{self.identity} refused {source} for {target}:\n{_shortened(done.stderr)}")
        return done.stdout + done.stderr

    def bundle(self, images: dict[str, Path], out: Path) -> None:
        """Put the images of several targets into one compressed fat binary."""
        parts = [
            f"--image3=kind={'elf' if target.startswith('sm_') else 'ptx'},sm={target.partition('_')[2]},file={path}"
            for target, path in images.items()
        ]
        tool = self._nvcc.with_name("fatbinary")
        done = self._run([str(tool), "-64", "--compress-all", f"--create={out}", *parts])
        if done.returncode:
            raise CompilerError(f"{tool} refused {sorted(images)}:\n{done.stdout}{done.stderr}".rstrip())

    @staticmethod
    def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise CompilerError(f"cannot run {command[0]}: {error}") from error


class Nvrtc:
    """The run-time compiler, for one architecture at a time."""

    def __init__(self) -> None:
        try:
            self._nvrtc: Any = importlib.import_module("cuda.bindings.nvrtc")
            major, minor = self._checked(self._nvrtc.nvrtcVersion())
        except (ImportError, RuntimeError) as error:
            raise CompilerError(f"NVRTC: {error}; pip install 'framegate[cuda]' nvidia-cuda-nvrtc") from error
        self.release = (int(major), int(minor))
        self.identity = f"NVRTC {major}.{minor}"

    def options(self, architecture: int) -> list[str]:
        """Return the options; the headers of half and bfloat16 come from a toolkit or from NVIDIA's wheel."""
        includes = [f"--include-path={folder}" for folder in cuda_header_folders()]
        # nvcc's -O3 has no counterpart: NVRTC always optimises.
        return [f"--gpu-architecture=sm_{architecture}", "--std=c++17", *includes]

    def ptx(self, source: Path, architecture: int) -> bytes:
        """Compile one source into PTX, which a driver compiles for this architecture and newer ones.

        Raises:
            CompilerError: it refused the source; the message holds what the compiler printed.
        """
        virtual = [option.replace("=sm_", "=compute_", 1) for option in self.options(architecture)]
        return self._compiled(source, virtual, f"compute_{architecture}", "PTX").image.rstrip(b"\0")

    def compile(self, source: Path, architecture: int) -> Compiled:
        """Compile one source into a cubin for one architecture.

        Raises:
            CompilerError: it refused the source; the message holds what the compiler printed.
        """
        return self._compiled(source, self.options(architecture), f"sm_{architecture}", "CUBIN")

    def _compiled(self, source: Path, wanted: list[str], target: str, kind: str) -> Compiled:
        nvrtc = self._nvrtc
        includes = [f"--include-path={folder}" for folder in include_folders(source)]
        options = [option.encode() for option in [*wanted, *includes]]
        (program,) = self._checked(
            nvrtc.nvrtcCreateProgram(source.read_bytes(), source.name.encode(), 0, [], []), f"reading {source}"
        )
        try:
            (result,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
            (size,) = self._checked(nvrtc.nvrtcGetProgramLogSize(program))
            log = bytes(size)
            self._checked(nvrtc.nvrtcGetProgramLog(program, log))
            text = log.rstrip(b"\0").decode(errors="replace")
            if int(result):
                raise CompilerError(f"{self.identity} refused {source} for {target}:\n{_shortened(text)}")
            (size,) = self._checked(getattr(nvrtc, f"nvrtcGet{kind}Size")(program))
            image = bytes(size)
            self._checked(getattr(nvrtc, f"nvrtcGet{kind}")(program, image))
        finally:
            nvrtc.nvrtcDestroyProgram(program)
        return Compiled(image, text)

    @staticmethod
    def _checked(answer: tuple[Any, ...], doing: str = "asking NVRTC") -> tuple[Any, ...]:
        if int(answer[0]):
            raise CompilerError(f"{doing}: {answer[0]!r}")
        return answer[1:]


def _shortened(text: str) -> str:
    """Keep the first errors: an error in a macro is repeated at each use, each time with the whole macro."""
    lines = [line if len(line) <= 240 else f"{line[:240]} ..." for line in text.splitlines() if line.strip(" ^")]
    return "\n".join([*lines[:30], *([f"... and {len(lines) - 30} lines more"] if len(lines) > 30 else [])])


def cuda_header_folders() -> list[Path]:
    """Return the folders with the headers of CUDA, such as cuda_fp16.h: of a toolkit, or of NVIDIA's wheels."""
    root = toolkit_root()
    candidates = [root / "include"] if root else []
    try:
        wheels = importlib.import_module("nvidia")
        for base in wheels.__path__:
            candidates += sorted(Path(base).glob("cu*/include"))
            candidates.append(Path(base) / "cuda_runtime" / "include")
    except ImportError:
        pass
    return [folder for folder in candidates if (folder / "cuda_fp16.h").is_file()]
