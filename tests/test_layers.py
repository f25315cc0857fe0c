"""Who may import whom is said in pyproject.toml and checked by `lint-imports`; here is what it cannot say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

from framegate.runtime.cli.summaries import SUMMARIES

ROOMS = ("cuda_kernels", "runtime", "models", "export", "evaluation", "camera_demo", "benchmarks")
LIBRARIES = {"torch", "onnx", "onnxscript", "matplotlib", "scipy", "openvino", "onnxruntime"}


def loaded_after(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded when the code has run."""
    code += "\nimport sys; print('loaded:', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    return set(done.stdout.rpartition("loaded:")[2].split())


def test_importing_the_runtime_loads_no_engine_no_other_room_and_no_faults():
    commands = ", ".join(f"framegate.runtime.cli.{name}" for name in ("main", *SUMMARIES))
    loaded = loaded_after(f"import {commands}; from framegate.runtime import *")
    assert {"framegate.runtime.pipeline", "framegate.runtime.cli.doctor"} <= loaded
    others = {f"framegate.{room}" for room in ROOMS if room not in ("runtime", "cuda_kernels")}
    assert loaded & (LIBRARIES | others | {"framegate.runtime.faults"}) == set()


def test_faults_are_loaded_only_if_they_are_asked_for(tiny_bundle):
    run = ["run", "synthetic://?frames=3", "--bundle", str(tiny_bundle), "--as-fast-as-possible", "--json"]
    code = "from framegate.runtime.cli.main import main; assert main({}) == 0"
    assert "framegate.runtime.faults" not in loaded_after(code.format(run))
    assert "framegate.runtime.faults" in loaded_after(code.format([*run, "--inject", "black:1"]))


def test_no_module_is_named_like_a_library():
    taken = LIBRARIES | {"numpy", "cv2", "tensorrt", "pycuda", "rich", "utils"}
    for room in ROOMS:
        files = list((ROOT / room).rglob("*.py"))
        assert files, f"no modules in {room}"
        for path in files:
            assert path.stem not in taken, path


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    """The package's modules, to be changed."""
    folder = tmp_path_factory.mktemp("copied")
    shutil.copytree(
        ROOT / "src" / "framegate",
        folder / "framegate",
        ignore=lambda folder, names: {
            name for name in names if Path(name).suffix not in (".py", "") or name in ("__pycache__", "results")
        },
    )
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def lint(folder: Path, *options: str) -> tuple[int, str]:
    """Check the contracts of this checkout on the package in a folder."""
    pytest.importorskip("importlinter", reason="import-linter is not installed")
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", command, "--cache-dir", str(folder / "cache"), *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_contracts_hold(copied):
    code, said = lint(copied)
    assert code == 0, said
    assert "0 broken" in said


@pytest.mark.parametrize(
    ("contract", "module", "line"),
    [
        ("rooms", "runtime/roi.py", "def late():\n    import framegate.models.registry"),
        ("rooms", "export/bundle_writer.py", "import framegate.benchmarks.checkout"),
        ("demo", "camera_demo/picture.py", "import framegate.models.registry"),
        ("runtime", "runtime/errors.py", "import framegate.runtime.verdict"),
        ("runtime", "runtime/health/judge.py", "import framegate.runtime.policy.window"),
        ("faults", "runtime/pipeline.py", "def late():\n    import framegate.runtime.faults.inject"),
        ("vehicle", "cuda_kernels/kernels.py", "def late():\n    import torch"),
        ("circles", "runtime/sources/base.py", "import framegate.runtime.sources.open"),
    ],
)
def test_each_contract_finds_what_breaks_it(copied, contract, module, line):
    path = copied / "framegate" / module
    before = path.read_text(encoding="utf-8")
    path.write_text(f"{before}\n\n{line}\n", encoding="utf-8")
    try:
        code, said = lint(copied, "--contract", contract)
    finally:
        path.write_text(before, encoding="utf-8")
    assert code == 1, said
    assert "0 kept, 1 broken" in said


def test_a_new_module_of_the_runtime_needs_a_place_in_the_layers(copied):
    path = copied / "framegate" / "runtime" / "unplaced.py"
    path.write_text("", encoding="utf-8")
    try:
        code, said = lint(copied, "--contract", "runtime")
    finally:
        path.unlink()
    assert code == 1
    assert "framegate.runtime.unplaced" in said
