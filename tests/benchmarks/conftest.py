"""The host emulation of CUDA, for benchmarks that are tried out without a GPU; the scripts, to be imported."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
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


@pytest.fixture(scope="module")
def script() -> Iterator[Callable[[str], ModuleType]]:
    """Imports a script by name, with its folder on the search path, as when one of them is started."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module
    finally:
        sys.path.remove(str(BENCHMARKS))
