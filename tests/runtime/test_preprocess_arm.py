"""The resize for the Jetson's processor, in an emulator, gives the pixels of this one's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from repository import ROOT

_COMPILERS = {"here": "gcc", "aarch64": "aarch64-linux-gnu-gcc"}
_EMULATOR = "qemu-aarch64"


def _hashes(compiler: str, folder: Path, *emulator: str) -> str:
    program = folder / compiler
    source = ROOT / "tests" / "helpers" / "preprocess_bits.c"
    words = [
        compiler,
        "-O3",
        "-ffp-contract=off",
        "-Wall",
        "-Werror",
        "-static",
        "-I",
        str(ROOT / "runtime" / "native"),
    ]
    subprocess.run([*words, str(source), "-o", str(program), "-lm"], check=True, timeout=60)
    return subprocess.run([*emulator, str(program)], check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.slow
def test_a_resize_on_aarch64_gives_the_same_pixels(tmp_path):
    missing = [name for name in (*_COMPILERS.values(), _EMULATOR) if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed (apt-get install gcc-aarch64-linux-gnu qemu-user)")
    here = _hashes(_COMPILERS["here"], tmp_path)
    assert len(here.splitlines()) == 12
    assert _hashes(_COMPILERS["aarch64"], tmp_path, _EMULATOR) == here
