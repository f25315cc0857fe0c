"""Let the scripts of this folder run from a plain checkout, where framegate is not installed.

A measurement machine often has its own Python with its own PyTorch and no network. Where framegate cannot be imported,
a folder with one link a room is put on the search path, for this process and for those that it starts. It serves
benchmarks only; everything else expects ``pip install -e .``.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("cuda_kernels", "runtime", "models", "export")


def make_importable() -> None:
    """Make ``import framegate.cuda_kernels`` and ``framegate.runtime`` work."""
    try:
        if importlib.util.find_spec("framegate.cuda_kernels") is not None:
            return
    except ModuleNotFoundError:
        pass
    folder = ROOT / "build" / "checkout"
    (folder / "framegate").mkdir(parents=True, exist_ok=True)
    for room in ROOMS:
        link = folder / "framegate" / room
        if not link.is_symlink():
            link.symlink_to(ROOT / room, target_is_directory=True)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    importlib.invalidate_caches()
