"""The circumstances of a measurement."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from framegate.runtime.native import library


def circumstances() -> dict[str, Any]:
    """Processor, system, versions, date, and the commit of the working folder: a figure means nothing without them."""
    cpu = ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip()
            for line in info.read_text().splitlines()
            if line.startswith(("model name", "Model"))
        ]
        cpu = names[0] if names else ""
    commit, changed = "", False
    if shutil.which("git"):
        commit = _git("rev-parse", "HEAD")
        changed = bool(
            _git("status", "--porcelain", "--untracked-files=no", "--", ":(top)*.py", ":(top)*.c", ":(top)*.h")
        )
    return {
        "cpu": cpu or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "compiled": library()[1],
        "commit": commit or None,
        "changed_since_commit": changed,
        "date": time.strftime("%Y-%m-%d"),
    }


def _git(*words: str) -> str:
    """What git says about the folder that this file is in; empty where it is no working folder."""
    command = ["git", "-C", str(Path(__file__).parent), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
