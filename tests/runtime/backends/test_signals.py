"""Signals while and after engines live: a library's clean-up must not turn Ctrl-C into a crash."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import gc, signal, sys, threading
from framegate import Session

def opened():
    return Session.open(sys.argv[1], sys.argv[2], "fp32", 1)

signal.signal(signal.SIGTERM, lambda *_: print("handled", flush=True))
if sys.argv[3] == "older first":
    older, younger = opened(), opened()
    del older
    gc.collect()
    del younger
else:
    held = [opened()]
    dropping = threading.Thread(target=lambda: (held.clear(), gc.collect()))
    dropping.start()
    dropping.join()
gc.collect()
signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("order", ["older first", "in another thread"])
def test_fault_a_signal_after_sessions_were_dropped(tiny_bundle, backend, order):
    """OpenVINO's CPU plugin left the thread a stack for signals that it had unmapped."""
    words = [sys.executable, "-c", _PROGRAM, str(tiny_bundle), backend, order]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "handled"), done.stderr
