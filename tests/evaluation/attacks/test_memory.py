from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from framegate.evaluation.attacks import memory

_FAULTS = """
import resource, sys
from framegate.evaluation.attacks.memory import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit(3)
import numpy as np
def touch():
    np.ones(16 << 20, np.uint8)  # freed at once
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
def test_freed_memory_is_not_asked_for_again():
    counted = {}
    for how in ("plain", "kept"):
        done = subprocess.run([sys.executable, "-c", _FAULTS, how], capture_output=True, text=True, check=False)
        if done.returncode == 3:
            pytest.skip("no glibc")
        assert done.returncode == 0, done.stderr
        counted[how] = int(done.stdout)
    # The system clears each page that it gives out; huge pages make them few in both.
    assert counted["kept"] < max(10, counted["plain"] / 5)


@pytest.mark.parametrize("missing", [OSError, TypeError, AttributeError])
def test_without_glibc_nothing_is_done(monkeypatch, missing):
    def none(_name):
        raise missing

    monkeypatch.setattr(ctypes, "CDLL", none)
    assert memory.keep_freed_memory() is False
