"""The host emulation of CUDA, for benchmarks that are tried out without a GPU."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

EMULATE = Path(__file__).resolve().parents[1] / "cuda_kernels" / "emulate.py"


@pytest.fixture(scope="session")
def emulate() -> ModuleType:
    """tests/cuda_kernels/emulate.py, which cannot be imported by name under --import-mode=importlib."""
    spec = importlib.util.spec_from_file_location("framegate_emulate", EMULATE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    if module.compiler() is None:
        pytest.skip("the emulation of CUDA needs g++ on PATH")
    return module
