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
    commit = ""
    if shutil.which("git"):
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
        commit = done.stdout.strip()
    return {
        "cpu": cpu or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "compiled": library()[1],
        "commit": commit or None,
        "date": time.strftime("%Y-%m-%d"),
    }
