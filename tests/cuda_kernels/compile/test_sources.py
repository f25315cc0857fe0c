"""Kernel names and included headers: what the hashes of compiled kernels rest on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from repository import HELPERS

from framegate.cuda_kernels.compile.cache import source_hash
from framegate.cuda_kernels.compile.sources import FOLDER, include_folders, included_headers, kernel_sources

EMULATION = HELPERS / "emulation"


def test_a_kernel_has_the_name_of_its_folder():
    assert {name: str(path.relative_to(FOLDER)) for name, path in kernel_sources().items()} == {
        "camera_preprocess": "camera_preprocess/kernel.cu",
        "softmax_entropy": "softmax_entropy/kernel.cu",
        "softmax_entropy_plugin": "softmax_entropy/plugin.cu",
    }


@pytest.mark.parametrize("name", kernel_sources())
def test_the_headers_are_those_that_a_compiler_opens(name):
    if shutil.which("g++") is None:
        pytest.skip("no g++")
    source = kernel_sources()[name]
    folders = [f"-I{folder}" for folder in (EMULATION, *include_folders(source))]
    command = ["g++", "-x", "c++", "-std=c++17", "-DFRAMEGATE_EMULATION=1", *folders, "-MM", str(source)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    opened = {Path(word).resolve() for word in said.replace("\\\n", " ").partition(":")[2].split()}
    assert set(included_headers(source)) == {path for path in opened - {source} if FOLDER in path.parents}


def test_a_header_that_changes_place_changes_the_hash(tmp_path):
    source = tmp_path / "kernel" / "kernel.cu"
    source.parent.mkdir()
    source.write_text('#include "size.h"\n#include "absent.h"\n')
    (source.parent / "size.h").write_text("#define SIZE 1\n")
    near = source_hash(source)
    (source.parent / "size.h").rename(tmp_path / "size.h")
    assert included_headers(source) == [tmp_path / "size.h"]
    assert source_hash(source) != near


def test_headers_that_include_each_other_are_read_once(tmp_path):
    source = tmp_path / "kernel" / "kernel.cu"
    source.parent.mkdir()
    source.write_text('#include "a.h"\n')
    (source.parent / "a.h").write_text('#include "kernel/b.h"\n')
    (source.parent / "b.h").write_text('#  include "a.h"\n#include <cuda_fp16.h>\n')
    assert included_headers(source) == [source.parent / "a.h", source.parent / "b.h"]
