"""What the README tells a newcomer to type is typed here."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks("bash") for line in block.splitlines()]
    return [line for line in lines if line]


def environment() -> dict[str, str]:
    """The PATH of somebody who activated the environment that runs the tests."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("framegate ")])
def test_framegate_commands(command):
    done = subprocess.run(
        shlex.split(command), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("make demo")])
def test_make_demo(command, tmp_path):
    # The environment is the one that runs the tests; -o takes its installation step as done.
    venv = Path(sys.executable).parents[1]
    words = [*shlex.split(command), f"VENV={venv}", "-o", f"{venv}/.runtime", f"OUT={tmp_path / 'out'}"]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "capture to verdict" in done.stdout
    assert list(tmp_path.rglob("verdicts.jsonl"))
    assert list(tmp_path.rglob("annotated.mp4"))


def test_make_test_runs_pytest():
    # It cannot be run from inside itself; what it would do can be read.
    assert "make test" in commands()
    done = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "-m pytest" in done.stdout


def test_every_command_of_the_readme_is_tested_here():
    known = ("framegate ", "make demo", "make test")
    assert [c for c in commands() if not c.startswith(known)] == []


def test_the_python_snippet(tmp_path):
    snippets = blocks("python")
    assert len(snippets) == 1
    done = subprocess.run(
        [sys.executable, "-c", snippets[0]], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "captured" in lines[-1]
    assert any("do not use:" in line for line in lines[:-1])


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target
