"""The host emulation of CUDA, for benchmarks that are tried out without a GPU; the scripts, to be imported."""

from __future__ import annotations

from types import ModuleType

import emulate as emulation
import pytest


@pytest.fixture(scope="session")
def emulate() -> ModuleType:
    """The emulation of CUDA on the host."""
    if emulation.compiler() is None:
        pytest.skip("the emulation of CUDA needs g++ on PATH")
    return emulation
