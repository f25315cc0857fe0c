"""The measuring scripts where there is no GPU, and the suite's own rules."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from repository import ROOT

from framegate.benchmarks.gpu import suite

BENCHMARKS = ROOT / "benchmarks"

no_gpu = pytest.mark.skipif(Path("/proc/driver/nvidia/version").exists(), reason="this machine has a GPU")


@no_gpu
@pytest.mark.parametrize(
    ("script", "option"),
    [("suite", "--results"), ("kernels", "--out"), ("engine", "--out")],
    ids=["suite", "kernels", "engines"],
)
def test_without_a_gpu_a_script_ends_honestly_and_writes_nothing(script, option, tmp_path):
    before = sorted(BENCHMARKS.rglob("*.json"))
    command = [sys.executable, "-m", f"framegate.benchmarks.gpu.{script}", option, str(tmp_path / "results")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "no device: nothing measured\n"), done.stderr
    assert list(tmp_path.iterdir()) == []
    assert sorted(BENCHMARKS.rglob("*.json")) == before


@no_gpu
def test_the_scripts_run_from_a_plain_checkout(tmp_path):
    """Without framegate installed: site-packages are off, only NumPy and what else is needed is put back."""
    checkout = tmp_path / "checkout"
    for room in ("benchmarks", "cuda_kernels", "export", "runtime"):
        shutil.copytree(ROOT / room, checkout / room, ignore=shutil.ignore_patterns("__pycache__", "results"))
    shutil.copytree(ROOT / "src", checkout / "src", symlinks=True)
    site = tmp_path / "site"
    site.mkdir()
    for name in ("numpy", "cv2", "rich", "markdown_it", "mdurl", "pygments"):
        where = Path(importlib.import_module(name).__file__).parent
        (site / where.name).symlink_to(where)
    for libraries in Path(importlib.import_module("numpy").__file__).parents[1].glob("*.libs"):
        (site / libraries.name).symlink_to(libraries)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(checkout / "src"), str(site)))}
    for script in ("suite", "kernels", "engine"):
        command = [sys.executable, "-S", "-m", f"framegate.benchmarks.gpu.{script}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, "no device: nothing measured\n"), done.stderr


def test_a_failing_step_is_reported_and_the_rest_goes_on(tmp_path, monkeypatch, capfd):
    class Gpu:
        info = "a GPU"

        def close(self) -> None:
            pass

    python = sys.executable
    write = "import sys, pathlib; pathlib.Path(sys.argv[1], 'last').touch()"
    steps = (
        suite.Step("broken", (python, "-c", "raise SystemExit(3)"), 30),
        suite.Step("absent", ("/no/such/program",), 30),
        suite.Step("slow", (python, "-c", "import time; time.sleep(60)"), 1),
        suite.Step("memory", (suite.SANITIZER, "true"), 30),
        suite.Step("last", (python, "-c", write, suite.RESULTS), 30),
    )
    monkeypatch.setattr(suite, "STEPS", steps)
    monkeypatch.setattr(suite, "open_gpu", Gpu)
    monkeypatch.setattr(suite, "find_sanitizer", lambda: None)
    begin = time.monotonic()
    assert suite.main(["--results", str(tmp_path / "results")]) == 1
    assert time.monotonic() - begin < 30
    summary = capfd.readouterr().out.partition("== summary")[2]
    for words in (
        "FAILED: exit code 3",
        "FAILED: [Errno 2]",
        "FAILED: not done after 1 s",
        "skipped: compute-sanitizer was not found",
    ):
        assert words in summary
    assert summary.rstrip().endswith("ok")
    assert (tmp_path / "results" / "last").is_file()


def test_no_step_starts_when_the_time_is_up(tmp_path):
    step = suite.Step("late", (sys.executable, "-c", "raise SystemExit(1)"), 30)
    assert suite.run_step(step, tmp_path, seconds_left=1.0) == "skipped: no time left"


def test_the_steps_fit_into_ten_minutes_and_their_files_exist():
    assert suite.SECONDS <= 600
    names = [step.name for step in suite.STEPS]
    assert len(set(names)) == len(names)
    modules = [part for step in suite.STEPS for before, part in pairwise(step.command) if before == "-m"]
    modules = [module for module in modules if module.startswith("framegate.")]
    assert len(modules) >= 4
    for module in modules:
        assert importlib.util.find_spec(module) is not None, module
    files = [part for step in suite.STEPS for part in step.command if part.endswith(".py") or part.startswith("tests")]
    assert {"setup.py", "tests/cuda_kernels"} <= set(files)
    for file in files:
        assert (ROOT / file).exists(), file


def test_a_gpu_that_cannot_be_used_is_a_failure_not_an_absence(monkeypatch, capsys):
    def refuse() -> None:
        raise suite.CudaError("DRIVER_TOO_OLD", "too old", "opening the CUDA driver")

    monkeypatch.setattr(suite, "open_gpu", refuse)
    assert suite.main([]) == 1
    assert "DRIVER_TOO_OLD" in capsys.readouterr().err
