"""Who may import whom. The vehicle must never load torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

OFFLINE = {"torch", "onnx", "onnxscript", "matplotlib", "scipy"}
ALLOWED = {
    "cuda_kernels": set(),
    "runtime": {"cuda_kernels"},
    # Training and export use the runtime's own preprocessing, so that no pixel is treated differently later.
    "models": {"cuda_kernels", "runtime"},
    "export": {"cuda_kernels", "runtime", "models"},
    "evaluation": {"cuda_kernels", "runtime", "models", "export"},
    "camera_demo": {"runtime"},
}


def test_importing_the_runtime_loads_nothing_from_the_offline_rooms():
    code = (
        "import sys, framegate.runtime, framegate.runtime.cli.main\n"
        "heavy = {'torch', 'onnx', 'onnxscript', 'matplotlib', 'openvino', 'onnxruntime'}\n"
        "rooms = {'framegate.export', 'framegate.models', 'framegate.evaluation', 'framegate.camera_demo'}\n"
        "print(sorted((heavy | rooms) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == "[]"


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_every_module_imports_only_from_its_allowed_rooms(room):
    files = sorted((ROOT / room).rglob("*.py"))
    assert files, f"no modules in {room}"
    for path in files:
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "framegate":
                assert len(parts) > 1, f"{path}: import a room, not framegate itself"
                assert parts[1] in ALLOWED[room] | {room}, f"{path}: {room} must not import {name}"
            if room in ("runtime", "cuda_kernels"):
                assert parts[0] not in OFFLINE, f"{path}: {name} must not be needed in the vehicle"


def test_no_module_is_named_like_a_library():
    taken = OFFLINE | {"numpy", "cv2", "openvino", "onnxruntime", "tensorrt", "pycuda", "rich", "utils"}
    for room in ALLOWED:
        for path in (ROOT / room).rglob("*.py"):
            assert path.stem not in taken, path
