"""The members of TensorRT's real Python bindings, release by release, without TensorRT's libraries.

The binding wheels (1.2 MB each) come from PyPI into a cache folder, once. They are imported over a stub of the nine C
functions that they link to; classes and their members are compiled into them, so nothing else is needed to list those.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

RELEASES = {
    "10.3": "tensorrt-cu12-bindings==10.3.0",
    "10.13": "tensorrt-cu12-bindings==10.13.3.9",
    "10.16": "tensorrt-cu12-bindings==10.16.0.72",
    "11.4": "tensorrt-cu13-bindings==11.4.0.106",
}
_STUB = "\n".join(
    f"void *{name}(void) {{ return 0; }}"
    for name in (
        "createInferBuilder_INTERNAL",
        "createInferRuntime_INTERNAL",
        "createInferRefitter_INTERNAL",
        "createNvOnnxParser_INTERNAL",
        "createNvOnnxParserRefitter_INTERNAL",
        "getPluginRegistry",
        "getBuilderPluginRegistry",
        "getNvOnnxParserVersion",
        "initLibNvInferPlugins",
    )
)
_LIST = """
import importlib, inspect, json, sys
listed = {}
for name, kind in vars(importlib.import_module(sys.argv[1])).items():
    if inspect.isclass(kind) and "tensorrt" in kind.__module__:
        listed[name] = sorted({member for member in dir(kind) if not member.startswith("_")} - set(dir(int)))
print(json.dumps(listed))
"""


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
    return folder / "framegate" / "test-bindings"


def members_of(release: str) -> dict[str, list[str]]:
    """Return class -> members of a release of `RELEASES`, or of ``tensorrt-rtx`` as installed. Skips if it cannot."""
    if release == "tensorrt-rtx":
        pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
        return _listed("tensorrt_rtx", {})
    if shutil.which("gcc") is None:
        pytest.skip("the stub under the bindings needs gcc")
    folder = _wheel(RELEASES[release])
    libraries = folder / "stub"
    if not libraries.is_dir():
        _build_stubs(libraries, release.split(".")[0])
    return _listed("tensorrt_bindings", {"LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": str(folder)})


def _wheel(requirement: str) -> Path:
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    folder = _cache() / f"{requirement.replace('==', '-')}-{tag}"
    if folder.is_dir():
        return folder
    download = folder.with_name(f"{folder.name}.part{os.getpid()}")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps"]
    command += ["--only-binary", ":all:", "--retries", "1", "--timeout", "20", "--dest", str(download), requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{requirement}: not downloaded within 60 s")
    if done.returncode:
        shutil.rmtree(download, ignore_errors=True)
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        pytest.skip(f"{requirement} cannot be had: {lines[-1]}")
    with zipfile.ZipFile(next(download.glob("*.whl"))) as wheel:
        wheel.extractall(download)
    download.replace(folder)
    return folder


def _build_stubs(folder: Path, major: str) -> None:
    part = folder.with_name(f"stub.part{os.getpid()}")
    part.mkdir()
    (part / "stub.c").write_text(_STUB)
    for name in ("nvinfer", "nvonnxparser", "nvinfer_plugin"):
        library = f"lib{name}.so.{major}"
        command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(part / library), str(part / "stub.c")]
        subprocess.run(command, check=True)
    part.replace(folder)


def _listed(module: str, environment: dict[str, str]) -> dict[str, list[str]]:
    command = [sys.executable, "-c", _LIST, module]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    listed: dict[str, list[str]] = json.loads(done.stdout)
    return listed
