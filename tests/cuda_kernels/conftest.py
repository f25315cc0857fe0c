"""The host emulation of CUDA, as a fixture: with --import-mode=importlib a test cannot import its neighbour."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"framegate_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def emulate() -> ModuleType:
    """tests/cuda_kernels/emulate.py: compile(source) -> module.launch(kernel, grid, block, arguments)."""
    module = _load("emulate")
    if module.compiler() is None:
        pytest.skip("the emulation of CUDA needs g++ on PATH")
    return module
