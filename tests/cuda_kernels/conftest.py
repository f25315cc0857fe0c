"""The host emulation of CUDA, as a fixture that skips where it cannot be compiled."""

from __future__ import annotations

from types import ModuleType

import emulate as emulation
import pytest


@pytest.fixture(scope="session")
def emulate() -> ModuleType:
    """tests/helpers/emulate.py: compile(source) -> module.launch(kernel, grid, block, arguments)."""
    if emulation.compiler() is None:
        pytest.skip("the emulation of CUDA needs g++ on PATH")
    return emulation
