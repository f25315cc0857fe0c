"""A fuzz target for atheris: the inputs of handover_fuzz.c, played to the receivers in Python.

pip install atheris
PYTHONPATH=tests/helpers python tests/fuzz/handover_fuzz.py -max_total_time=300 tests/fuzz/corpus
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))
with atheris.instrument_imports(include=["framegate.runtime.handover", "handover_inputs"]):
    from handover_inputs import require_safe


def one(data: bytes) -> None:
    """One input."""
    if data:
        require_safe(data)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
