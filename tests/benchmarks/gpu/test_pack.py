"""The folder for a machine with a GPU: made, carried elsewhere, and run there up to the line that needs the GPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from framegate.benchmarks.gpu import pack, suite

no_gpu = pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="this machine has a GPU")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A pack without compiled kernels, which take minutes."""
    where = tmp_path_factory.mktemp("made") / "pack"
    size = pack.make_pack(where, architectures=(), images=20)
    assert size == pack.folder_bytes(where) <= pack.LARGEST_BYTES
    return where


@no_gpu
def test_a_pack_runs_elsewhere_up_to_the_line_that_needs_the_gpu(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder, elsewhere)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # The steps that need no torch, whose import takes seconds; the others differ by their options.
    steps = ("tests", "frame", "memcheck")
    command = [sys.executable, str(elsewhere / "run.py"), "--dry-run", "--out", str(tmp_path / "out")]
    command += [word for step in steps for word in ("--only", step)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "out" / "gpu-run.json").read_text())
    outcomes = {one["step"]: one["outcome"] for one in report["steps"]}
    assert outcomes["tests"] == outcomes["frame"] == "ok"
    assert outcomes["memcheck"].startswith(("ok", "skipped: compute-sanitizer"))
    log = (tmp_path / "out" / "gpu-run.log").read_text()
    assert suite.NO_DEVICE in log
    assert str(elsewhere) not in sys.path
    # Nobody needs the folder for anything but itself.
    without = subprocess.run(
        [sys.executable, str(elsewhere / "run.py"), "--out", str(tmp_path / "nothing")],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=tmp_path,
    )
    assert (without.returncode, without.stdout) == (0, f"{suite.NO_DEVICE}\n")
    assert not (tmp_path / "nothing").exists()


def test_a_pack_holds_what_its_steps_read_and_no_links(folder):
    for step in suite.STEPS:
        for part in step.command:
            if part.startswith("tests/"):
                assert (folder / "framegate" / part).is_file(), part
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    images = np.load(folder / "images.npy")
    assert (images.shape, images.dtype) == ((20, pack.SIDE, pack.SIDE, 3), np.uint8)
    assert (folder / "framegate" / "models" / "bundles" / "hybrid-cifar10.bundle" / "manifest.json").is_file()


def test_a_folder_with_other_files_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert pack.main(["--out", str(tmp_path), "--no-kernels"]) == 1
    assert "no earlier pack" in capsys.readouterr().err
    assert pack.main(["--out", str(tmp_path / "thesis.txt"), "--no-kernels"]) == 1
    assert "is a file: give a folder" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_pack_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pack, "LARGEST_BYTES", 1 << 20)
    with pytest.raises(pack.PackError, match="more than 1: leave out"):
        pack.make_pack(tmp_path / "pack", architectures=(), images=2)


def test_without_nvcc_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("framegate.cuda_kernels.compile.build.Nvcc.find", lambda: None)
    assert pack.main(["--out", str(tmp_path / "pack")]) == 1
    assert "no nvcc" in capsys.readouterr().err
    assert not (tmp_path / "pack").exists()
