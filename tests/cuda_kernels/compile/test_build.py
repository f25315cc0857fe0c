"""Compiling the kernels: for every architecture, once, with no spill, and with clear words where it cannot be done."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from framegate.cuda_kernels.compile import build as build_module
from framegate.cuda_kernels.compile import compiler, images
from framegate.cuda_kernels.compile.build import build, kernel_sources, main
from framegate.cuda_kernels.compile.build_pycuda import build_stub_library, site_configuration
from framegate.cuda_kernels.compile.cache import default_cache, entry_folder, source_hash, write_atomically
from framegate.cuda_kernels.compile.compiler import ARCHITECTURES, Compiled, CompilerError, Nvcc, Nvrtc, toolkit_root
from framegate.cuda_kernels.compile.images import load_image
from framegate.cuda_kernels.compile.resources import parse_report, resource_table, spilling

SCALE = """
#include "factor.h"
extern "C" __global__ void scale(const float *x, float *y, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) y[i] = FACTOR * fabsf(x[i]);
}
"""
SCALE_OF_HALF = "#include <cuda_fp16.h>" + SCALE.replace("const float", "const __half").replace("fabsf", "__half2float")
"""The same with a header of the toolkit's, which takes longer to compile."""
REPORT = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z4tilePf' for 'sm_90'
ptxas info    : Function properties for _Z4tilePf
    8 bytes stack frame, {stores} bytes spill stores, {loads} bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 256+16 bytes smem, 400 bytes cmem[0]
ptxas info    : Function properties for helper
    16 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Compiling entry function 'plain' for 'sm_90'
ptxas info    : Function properties for plain
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers, used 0 barriers
"""

needs_nvcc = pytest.mark.skipif(toolkit_root() is None, reason="no nvcc")


@pytest.fixture
def source(tmp_path) -> Path:
    folder = tmp_path / "kernels" / "scale"
    folder.mkdir(parents=True)
    (folder / "kernel.cu").write_text(SCALE)
    (folder / "factor.h").write_text('#include "half.h"\n#define FACTOR (4.0f * HALF)\n')
    (folder.parent / "half.h").write_text("#define HALF 0.5f\n")  # shared by all kernels of the folder
    return folder / "kernel.cu"


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize(
    "architectures",
    [pytest.param((87, 120), id="Jetson and newest"), pytest.param(ARCHITECTURES, id="all", marks=pytest.mark.long)],
)
def test_every_kernel_compiles_for_every_architecture_without_spills(architectures, tmp_path):
    """In the user's cache: minutes the first time, no time after that. `make kernels` does the same."""
    nvcc = Nvcc.find()
    sources = kernel_sources()
    assert list(sources) == ["camera_preprocess", "softmax_entropy", "softmax_entropy_plugin"]
    built = build(list(sources.values()), architectures=architectures, out=tmp_path)
    assert [one.source for one in built] == list(sources.values())
    for one in built:
        assert {kernel.architecture for kernel in one.resources} == set(nvcc.known(architectures)), one.source
        assert [f"{kernel.kernel} on sm_{kernel.architecture}" for kernel in spilling(one.resources)] == []
        record = json.loads(Path(f"{one.image}.json").read_text())
        assert record["source_hash"] == source_hash(one.source)
        assert one.image.read_bytes()[:4] == b"\x50\xed\x55\xba"  # a fat binary's magic number


@needs_nvcc
def test_the_cache_is_used_until_a_source_or_a_header_changes(source, tmp_path):
    steps: list[str] = []
    arguments = {"architectures": (75, 90), "cache": tmp_path / "cache"}
    first = build([source], compiled=steps.append, **arguments)
    assert sorted(steps) == ["scale compute_90", "scale sm_75", "scale sm_90"]
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.cubin")}
    assert len(stamps) == 2
    assert build([source], **arguments)[0].image == first[0].image
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    (source.parent / "unused.h").write_text("#define FACTOR 5.0f\n")
    assert build([source], **arguments)[0].image == first[0].image
    (source.parents[1] / "half.h").write_text("#define HALF 1.5f\n")  # included by a header
    assert build([source], **arguments)[0].image.parent != first[0].image.parent
    left = [path.name for path in (tmp_path / "cache").rglob("*") if path.name.startswith(".")]
    assert left == []  # no half-written file


@needs_nvcc
def test_the_command_prints_the_table_and_puts_the_fat_binaries_where_asked(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main([str(source), "--arch", "90", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"scale\s+│\s+\d+ │\s+0 │\s+0 │\s+0", printed), printed
    written = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert written == ["scale/kernel.fatbin", "scale/kernel.fatbin.json"]


@needs_nvcc
def test_a_spill_fails_the_build(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build_module, "parse_report", lambda log: parse_report(REPORT.format(stores=4, loads=8)))
    assert main([str(source), "--arch", "90"]) == 1
    error = capsys.readouterr().err
    assert "no kernel may spill registers, these do: tile(float*) on sm_90" in error


@needs_nvcc
def test_a_refused_source_shows_the_compilers_words(source, tmp_path):
    source.write_text(SCALE.replace("fabsf", "no_such_function"))
    with pytest.raises(CompilerError, match=r'sm_90[\s\S]*identifier "no_such_function" is undefined'):
        build([source], (90,), tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.cubin"))


@needs_nvcc
def test_architectures_that_the_compiler_does_not_know_are_left_out():
    nvcc = Nvcc.find()
    assert nvcc.known((90, 99999)) == (90,)
    with pytest.raises(CompilerError, match="knows none of"):
        nvcc.known((99999,))


def test_without_any_compiler_the_error_says_where_it_looked(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compiler, "toolkit_root", lambda: None)
    monkeypatch.setattr(compiler, "Nvrtc", Nvrtc)
    assert main([str(source)]) == 1
    assert "no nvcc on PATH, in CUDA_HOME, in CUDA_PATH or in /usr/local/cuda*" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvrtc", None)
    with pytest.raises(CompilerError) as caught:
        load_image("scale", 87, (12, 6), source.parents[1], tmp_path / "cache")
    for words in ("fat binary of scale: not shipped", "no nvcc on PATH", "NVRTC: ", "pip install 'framegate[cuda]'"):
        assert words in str(caught.value)


@needs_nvcc
def test_the_shipped_fat_binary_serves_only_if_it_fits(source, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    (built,) = build([source], (80, 90), cache, out=source.parents[1])
    release = Nvcc.find().release
    monkeypatch.setattr(images, "Nvcc", None)  # must not be needed
    for architecture in (80, 86, 90, 120):  # PTX serves the last
        assert load_image("scale", architecture, release, source.parents[1], cache) == built.image.read_bytes()
    monkeypatch.undo()

    def none_found() -> None:
        return None

    monkeypatch.setattr(Nvcc, "find", none_found)
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvrtc", None)
    for architecture, driver, words in (
        (75, release, "nothing for sm_75"),
        (90, (release[0] - 1, 4), f"needs a driver for CUDA {release[0]}, this one is for CUDA {release[0] - 1}.4"),
    ):
        with pytest.raises(CompilerError, match=words):
            load_image("scale", architecture, driver, source.parents[1], cache)
    source.write_text(SCALE + "\n")
    with pytest.raises(CompilerError, match=r"stale, kernel\.cu or a header that it includes has changed"):
        load_image("scale", 90, release, source.parents[1], cache)


@needs_nvcc
def test_without_a_fat_binary_nvcc_compiles_for_the_gpu_or_its_nearest_older_sibling(source, tmp_path):
    release = Nvcc.find().release
    image = load_image("scale", 86, release, source.parents[1], tmp_path / "cache")
    assert image[:4] == b"\x7fELF"
    # 8.4 does not exist; 8.0 is the newest that runs on it.
    assert load_image("scale", 84, release, source.parents[1], tmp_path / "cache")[:4] == b"\x7fELF"
    assert sorted(path.name for path in (tmp_path / "cache").rglob("*.cubin")) == ["sm_80.cubin", "sm_86.cubin"]


def test_nvrtc_compiles_where_there_is_no_nvcc(source, tmp_path, monkeypatch):
    try:
        nvrtc = Nvrtc()
    except CompilerError as error:
        pytest.skip(str(error))
    if not compiler.cuda_header_folders():
        pytest.skip("no cuda_fp16.h")
    source.write_text(SCALE_OF_HALF)
    monkeypatch.setattr(Nvcc, "find", lambda: None)
    for _ in range(2):  # the second time from the cache
        assert load_image("scale", 87, nvrtc.release, source.parents[1], tmp_path / "cache")[:4] == b"\x7fELF"
    source.write_text(SCALE_OF_HALF.replace("__half2float", "no_such_function"))
    with pytest.raises(CompilerError, match='"no_such_function" is undefined'):
        load_image("scale", 87, nvrtc.release, source.parents[1], tmp_path / "cache")


def test_an_unknown_kernel_is_answered_with_those_there_are(source):
    with pytest.raises(CompilerError, match=r"'scales': not among those in .*: scale"):
        load_image("scales", 90, (13, 0), source.parents[1])


def test_the_assemblers_report_is_read_whole():
    tile, plain = parse_report(REPORT.format(stores=0, loads=0))
    if shutil.which("c++filt"):
        assert tile.kernel == "tile(float*)"
    assert (tile.architecture, tile.registers, tile.shared_bytes, tile.stack_bytes, tile.spill_bytes) == (
        (90, 40, 272, 24, 0)
    )
    assert (plain.kernel, plain.registers, plain.shared_bytes) == ("plain", 10, 0)
    assert spilling([tile, plain]) == []
    worse = parse_report(REPORT.format(stores=4, loads=8))
    assert [kernel.spill_bytes for kernel in spilling(worse)] == [12]
    console = Console(width=120, record=True)
    console.print(resource_table(worse))
    assert "sm_90" in console.export_text()


def test_a_report_without_its_numbers_counts_as_spilling():
    silent = parse_report("ptxas info    : Compiling entry function 'plain' for 'sm_90'\n")
    assert spilling(silent) == silent


def test_the_cache_lives_where_xdg_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "framegate" / "kernels"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_cache() == Path.home() / ".cache" / "framegate" / "kernels"


def test_another_compiler_has_another_entry(source, tmp_path):
    assert entry_folder(source, "nvcc 13.0", tmp_path) != entry_folder(source, "nvcc 12.6", tmp_path)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(target, fail)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert target.read_text() == "old"


@needs_nvcc
def test_the_stub_for_pycudas_linker_exports_the_functions_of_the_driver(tmp_path):
    if shutil.which("gcc") is None or shutil.which("readelf") is None:
        pytest.skip("no gcc or readelf")
    library = build_stub_library(toolkit_root(), tmp_path)
    said = subprocess.run(["readelf", "-dW", "--dyn-syms", str(library)], capture_output=True, text=True, check=True)
    assert "Library soname: [libcuda.so.1]" in said.stdout
    assert "cuMemAlloc_v2" in said.stdout
    settings: dict[str, object] = {}
    exec(site_configuration(Path("/opt/cuda"), tmp_path), settings)
    assert settings["CUDADRV_LIB_DIR"] == [str(tmp_path), "/opt/cuda/lib64"]
    assert settings["CUDA_ENABLE_CURAND"] is False


@pytest.mark.parametrize(
    ("architecture", "runs"),
    [
        (80, False),
        (87, True),
        (88, False),
        (89, False),  # machine code of a Jetson runs on no other GPU
        (90, True),
        (100, False),
        (110, False),
        (120, True),
        (121, True),
        (130, True),
    ],
)
def test_a_fat_binary_is_not_taken_for_a_gpu_that_it_has_nothing_for(architecture, runs):
    """Of sm_87, sm_90, sm_120 and PTX of the last, nothing runs on sm_100: there the kernels must be compiled."""
    assert images._runs_on((87, 90, 120), architecture) is runs


def test_no_jetson_runs_the_machine_code_of_another_gpu():
    assert not images._runs_on((80, 86, 120), 87)
    assert not images._runs_on((101, 120), 110)
    assert images._runs_on((80, 86, 120), 89)
    assert images._runs_on((75,), 87)  # by its PTX


def test_a_cache_that_cannot_be_written_is_one_error(source, tmp_path, monkeypatch):
    """A vehicle may well have nothing that can be written."""
    closed = tmp_path / "closed"
    closed.write_text("not a folder")

    class Compiler:
        release, identity = (13, 0), "a compiler"
        find = classmethod(lambda cls: cls())
        known = staticmethod(lambda architectures: architectures)
        compile = staticmethod(lambda *_: Compiled(b"", ""))

    monkeypatch.setattr(images, "Nvcc", Compiler)
    monkeypatch.setattr(images, "Nvrtc", Compiler)
    with pytest.raises(CompilerError, match=r"no machine code of scale for sm_87 .*XDG_CACHE_HOME"):
        load_image("scale", 87, (13, 0), source.parents[1], closed)
