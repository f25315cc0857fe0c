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
    [("suite", "--results"), ("kernels", "--out"), ("engine", "--out"), ("frame", "--out")],
    ids=["suite", "kernels", "engines", "frame"],
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
    python = sys.executable
    write = "import sys, pathlib; pathlib.Path(sys.argv[1], 'last').touch(); print('was here')"
    steps = (
        suite.Step("broken", (python, "-c", "raise SystemExit(3)"), 30),
        suite.Step("absent", ("/no/such/program",), 30),
        suite.Step("slow", ("sh", "-c", "echo begun; sleep 60"), 1),
        suite.Step("memory", (suite.SANITIZER, "true"), 30),
        suite.Step("foreign", (python, "-c", ""), 30, ("no_such_package|nor_such",)),
        suite.Step("noted", (python, "-c", "raise SystemExit(4)"), 30, counts=False),
        suite.Step("last", (python, "-c", write, suite.RESULTS), 30),
    )
    monkeypatch.setattr(suite, "STEPS", steps)
    monkeypatch.setattr(suite, "open_gpu", lambda: None)
    monkeypatch.setattr(suite, "find_tool", lambda name: None)
    begin = time.monotonic()
    assert suite.main(["--dry-run", "--results", str(tmp_path / "results")]) == 1
    assert time.monotonic() - begin < 30
    summary = capfd.readouterr().out.partition("== summary")[2]
    for words in (
        "FAILED: exit code 3",
        "FAILED: [Errno 2]",
        "FAILED: not done after 1 s",
        "skipped: compute-sanitizer was not found",
        "skipped: no_such_package or nor_such is not installed",
        "noted: exit code 4",
    ):
        assert words in summary
    assert summary.rstrip().endswith("ok")
    assert (tmp_path / "results" / "last").is_file()
    log = (tmp_path / "results" / "gpu-run.log").read_text()
    assert "begun\n" in log  # also of a step that was ended
    assert "was here\n" in log


def test_what_is_finished_is_on_the_disk_before_the_next_step_begins(tmp_path):
    """A machine that is taken away takes only the step under way."""
    run = suite.Suite(tmp_path, 60)
    look = "import json, sys; print(len(json.load(open(sys.argv[1] + '/gpu-run.json'))['steps']))"
    run.run(suite.Step("first", (sys.executable, "-c", ""), 30))
    assert run.run(suite.Step("second", (sys.executable, "-c", look, suite.RESULTS), 30)) == "ok"
    assert "== second\n1\n" in (tmp_path / "gpu-run.log").read_text()


def test_no_step_starts_when_the_time_is_up(tmp_path):
    step = suite.Step("late", (sys.executable, "-c", "raise SystemExit(1)"), 30)
    assert suite.Suite(tmp_path, seconds=1.0).run(step) == "skipped: no time left"


def test_the_steps_fit_into_ten_minutes_and_their_files_exist():
    assert sum(step.seconds for step in suite.STEPS) <= suite.SECONDS <= 600
    names = [step.name for step in suite.STEPS]
    assert len(set(names)) == len(names)
    # What would be missed most comes first.
    assert names.index("tests") < names.index("grid") < names.index("frame") < names.index("memcheck")
    assert names.index("racecheck") < names.index("kernel-rivals")
    modules = [part for step in suite.STEPS for before, part in pairwise(step.command) if before == "-m"]
    modules = [module for module in modules if module.startswith("framegate.")]
    assert len(modules) >= 4
    for module in modules:
        assert importlib.util.find_spec(module) is not None, module
    files = [part for step in suite.STEPS for part in step.command if part.endswith(".py") or part.startswith("tests")]
    assert "tests/cuda_kernels/test_gpu.py" in files
    for file in files:
        assert (ROOT / file).exists(), file


def test_memcheck_is_not_told_of_errors_that_the_tests_provoke():
    for step in suite.STEPS:
        if suite.SANITIZER in step.command:
            assert ("--report-api-errors", "no") in list(pairwise(step.command))
            assert not any("torch" in part for part in step.command)


def test_a_gpu_that_cannot_be_used_is_a_failure_not_an_absence(monkeypatch, capsys):
    def refuse() -> None:
        raise suite.CudaError("DRIVER_TOO_OLD", "too old", "opening the CUDA driver")

    monkeypatch.setattr(suite, "open_gpu", refuse)
    assert suite.main([]) == 1
    assert "DRIVER_TOO_OLD" in capsys.readouterr().err
