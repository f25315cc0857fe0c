"""What `import framegate` gives, to a program, to type checkers and on the command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import framegate
import framegate.runtime

SNIPPET = """\
import framegate
from framegate import Pipeline, Session, open_source

session = Session.open("hybrid-cifar10", precision="int8")
reveal_type(session)
reveal_type(framegate.__version__)
with Pipeline(open_source("0"), session, deadline_ms=100) as pipeline:
    for prediction in pipeline:
        reveal_type(prediction)
        reveal_type(prediction.reasons)
Session.open("hybrid-cifar10", precison="int8")
framegate.Sesion
"""
TYPES = {5: "Session", 6: "str", 9: "Prediction", 10: "tuple[Reason, ...]"}
WRONG = {11, 12}


def fresh(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd="/")


def test_the_names_are_those_of_the_runtime():
    assert sorted(framegate.__all__) == sorted([*framegate.runtime.__all__, "__version__"])
    for name in framegate.runtime.__all__:
        assert getattr(framegate, name) is getattr(framegate.runtime, name)
    assert set(framegate.__all__) <= set(dir(framegate))


def test_importing_framegate_or_its_kernels_loads_no_runtime():
    done = fresh("import sys, framegate, framegate.cuda_kernels; print(*sorted(sys.modules))")
    loaded = set(done.stdout.split())
    assert "framegate.cuda_kernels" in loaded
    assert loaded & {"framegate.runtime", "numpy", "cv2", "importlib.metadata"} == set()


def test_a_name_is_loaded_when_it_is_first_used():
    done = fresh(
        "import sys, framegate\n"
        "before = 'framegate.runtime' in sys.modules\n"
        "from framegate import Session\n"
        "print(before, Session.__module__, 'Session' in vars(framegate))"
    )
    assert done.stdout.split() == ["False", "framegate.runtime.session", "True"]


def test_an_unknown_name_is_an_ordinary_error():
    with pytest.raises(AttributeError, match="module 'framegate' has no attribute 'Sesion'"):
        _ = framegate.Sesion
    with pytest.raises(ImportError, match="cannot import name 'Sesion' from 'framegate'"):
        exec("from framegate import Sesion")


def test_the_version_is_the_installed_one():
    assert framegate.__version__ == metadata.version("framegate")
    done = subprocess.run(
        [sys.executable, "-m", "framegate", "--version"], capture_output=True, text=True, check=True, cwd="/"
    )
    assert done.stdout == f"framegate {framegate.__version__}\n"


def test_python_m_framegate_passes_on_the_exit_code():
    done = subprocess.run(
        [sys.executable, "-m", "framegate", "info", "nowhere"], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("framegate: bundle 'nowhere': not found")
    assert "Traceback" not in done.stderr


def test_mypy_knows_the_names_from_this_installation(tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed")
    (tmp_path / "snippet.py").write_text(SNIPPET)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file=", "snippet.py"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "MYPYPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = dict(re.findall(r'snippet\.py:(\d+): note: Revealed type is "(.*)"', done.stdout))
    assert {int(line): re.sub(r"(?:\w+\.)+(?=\w)", "", text) for line, text in found.items()} == TYPES, done.stdout
    assert {int(line) for line in re.findall(r"snippet\.py:(\d+): error", done.stdout)} == WRONG, done.stdout


@pytest.mark.skipif(shutil.which("pyright") is None, reason="pyright is not installed (npm install -g pyright)")
def test_pyright_knows_the_names_from_this_installation(tmp_path):
    (tmp_path / "snippet.py").write_text(SNIPPET)
    done = subprocess.run(
        ["pyright", "--outputjson", "--pythonpath", sys.executable, "snippet.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    messages = json.loads(done.stdout)["generalDiagnostics"]
    revealed = {
        each["range"]["start"]["line"] + 1: each["message"].split('" is "')[1].rstrip('"')
        for each in messages
        if each["severity"] == "information"
    }
    assert revealed == TYPES
    assert {each["range"]["start"]["line"] + 1 for each in messages if each["severity"] == "error"} == WRONG


def test_the_names_are_found_where_the_package_lies():
    assert Path(framegate.__file__).name == "__init__.py"
    assert (Path(framegate.__file__).parent / "py.typed").is_file()
