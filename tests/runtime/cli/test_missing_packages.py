"""A package that framegate stands on is missing, half removed or broken: one line says which, and what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BROKEN = {
    "missing": "raise ModuleNotFoundError(\"No module named '{0}'\", name='{0}')",
    "half removed": "",
    "unloadable": "raise ImportError('libGL.so.1: cannot open shared object file')",
    "damaged": "raise RuntimeError('this build needs\\nanother NumPy')",
    "without a part of it": "import {0}_which_is_no_more",
}


def run(folder: Path, name: str, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / f"{name}.py").write_text(text.format(name))
    places = [str(folder), *filter(None, sys.path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "framegate", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, cwd=folder)


@pytest.mark.parametrize("how", BROKEN)
def test_without_opencv_the_doctor_names_it(tmp_path: Path, how: str) -> None:
    done = run(tmp_path, "cv2", BROKEN[how], "doctor")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("framegate: cv2 ")
    assert line.endswith("; pip install --force-reinstall opencv-python-headless")
    assert ("cv2 is missing;" in line) == (how in ("missing", "half removed"))


@pytest.mark.parametrize("name", ["numpy", "rich"])
def test_so_does_every_command_of_every_package(tmp_path: Path, name: str) -> None:
    done = run(tmp_path, name, BROKEN["missing"], "run", "synthetic://", "--bundle", "x")
    assert done.returncode == 1
    assert f"framegate: {name} is missing; pip install --force-reinstall {name}\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_for_programs_the_doctor_says_it_in_json(tmp_path: Path) -> None:
    done = run(tmp_path, "cv2", BROKEN["missing"], "doctor", "--json")
    assert done.returncode == 1
    (finding,) = json.loads(done.stdout)
    assert (finding["what"], finding["usable"]) == ("package cv2", False)


def test_an_error_of_our_own_is_not_blamed_on_a_package(tmp_path: Path) -> None:
    done = run(tmp_path, "argparse", "raise RuntimeError('not a package')", "doctor")
    assert done.returncode == 1
    assert "RuntimeError: not a package" in done.stderr
