"""Importing OpenVINO starts no thread, no process and no connection, and writes nothing into the user's home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openvino")

# The interpreter itself reports what is done, forbids it before it happens, and cannot be talked out of it.
START = """
import json, os, sys, threading
done = []

def watch(event, arguments):
    if event in ("os.fork", "os.forkpty", "os.posix_spawn", "subprocess.Popen", "socket.connect", "socket.getaddrinfo"):
        done.append(event)
        raise PermissionError(event)

sys.addaudithook(watch)
"""
END = """
files = sorted(os.path.relpath(os.path.join(at, name), os.environ["HOME"])
               for at, _, names in os.walk(os.environ["HOME"]) for name in names)
threads = [thread.name for thread in threading.enumerate() if thread.name != "framegate-check"]
print(json.dumps({"done": done, "files": files, "threads": threads}))
"""


def run_child(code: str, home: Path) -> dict[str, Any]:
    told = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    home.mkdir()
    command = [sys.executable, "-c", START + code + END]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**told, "HOME": str(home)}
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


NOTHING = {"done": [], "files": [], "threads": ["MainThread"]}


def test_a_session_on_openvino_reports_to_nobody(tiny_bundle: Path, tmp_path: Path) -> None:
    found = run_child(
        f"""
import numpy as np
from framegate.runtime import Session
session = Session.open({str(tiny_bundle)!r}, "openvino")
assert session.infer(np.zeros((48, 64, 3), np.uint8)).engine_ns > 0
""",
        tmp_path / "home",
    )
    assert found == NOTHING


def test_doctor_reports_to_nobody(tmp_path: Path) -> None:
    found = run_child(
        """
from framegate.runtime.cli.doctor import _engine
assert _engine("openvino")[1]
""",
        tmp_path / "home",
    )
    assert found == NOTHING


def test_the_converter_is_loaded_when_it_is_asked_for(tmp_path: Path) -> None:
    code = """
import framegate.runtime.backends.openvino_cpu, openvino
assert "openvino.tools.ovc" not in sys.modules
assert callable(openvino.convert_model)
assert not hasattr(openvino, "no_such_name")
"""
    assert run_child(code, tmp_path / "home") == NOTHING


def test_the_package_is_there_again_afterwards(tmp_path: Path) -> None:
    pytest.importorskip("openvino_telemetry")
    code = """
import framegate.runtime.backends.openvino_cpu, openvino_telemetry
assert openvino_telemetry.Telemetry
"""
    assert run_child(code, tmp_path / "home") == NOTHING


def test_a_plain_import_is_seen_by_this_test(tmp_path: Path) -> None:
    """The control: without our precaution the watch above has something to see, or it would watch nothing."""
    pytest.importorskip("openvino_telemetry")
    found = run_child("import openvino\nopenvino.tools.ovc.telemetry.sender.force_shutdown(2.0)\n", tmp_path / "home")
    if found == NOTHING:
        pytest.skip("this OpenVINO does not report its import")
    assert found["files"] == ["intel/openvino_ga_cid", "intel/stats"]
    assert found["done"] == ["os.fork"]
