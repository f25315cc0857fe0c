"""The members of TensorRT's real Python bindings, release by release, without TensorRT's libraries.

The binding wheels (1.2 MB each) come from PyPI into a cache folder, once. They are imported over a stub of the nine C
functions that they link to; classes and their members are compiled into them, so nothing else is needed to list those.
The stub's plugin registry works as far as one plugin goes, so what registers plugins can be run, too.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from fork_server import ForkServer

RELEASES = {
    "10.3": "tensorrt-cu12-bindings==10.3.0",
    "10.7": "tensorrt-cu12-bindings==10.7.0",
    "10.13": "tensorrt-cu12-bindings==10.13.3.9",
    "10.16": "tensorrt-cu12-bindings==10.16.0.72",
    "11.4": "tensorrt-cu13-bindings==11.4.0.106",
}
# The registry is an object of C++ whose every virtual function does one of four things, told apart by its first
# argument: a name is looked up, a pointer that is registered is taken out, another is put in, nothing is answered by 0.
# So register_creator, get_creator and deregister_creator of the real bindings work whatever the order of its table.
_STUB = """
#include <cstring>
#include <typeinfo>
static void *registered;
static void *answer(void *argument) {
    if (!argument) return 0;
    if (!std::strncmp(static_cast<const char *>(argument), "SoftmaxEntropy", 15)) return registered;
    registered = registered == argument ? nullptr : argument;
    return reinterpret_cast<void *>(1);
}
struct Registry {
#define SLOT(n) virtual void *slot##n(void *argument, void *, void *) { return answer(argument); }
    SLOTS
};
static Registry registry;
extern "C" {
void *getPluginRegistry() { return &registry; }
FACTORIES
}
"""
_SLOTS = " ".join(f"SLOT({n})" for n in range(40))
_FACTORIES = "\n".join(
    f"void *{name}() {{ return 0; }}"
    for name in (
        "createInferBuilder_INTERNAL",
        "createInferRuntime_INTERNAL",
        "createInferRefitter_INTERNAL",
        "createNvOnnxParser_INTERNAL",
        "createNvOnnxParserRefitter_INTERNAL",
        "getBuilderPluginRegistry",
        "getNvOnnxParserVersion",
        "initLibNvInferPlugins",
    )
)
_LIST = """
import importlib, inspect, json, sys
listed = {"": [name for name, value in vars(importlib.import_module(sys.argv[1])).items() if callable(value)]}
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
    """Return class -> members of a release of `RELEASES`, or of ``tensorrt-rtx`` as installed. Skips if it cannot.

    The module's own functions and classes are listed under the empty name.
    """
    if release == "tensorrt-rtx":
        pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
        return _listed("tensorrt_rtx", {})
    return _listed("tensorrt_bindings", _surroundings(release))


def run(release: str, code: str) -> str:
    """Run code in which ``import tensorrt`` gives a release's real bindings; return what it prints. Skips if it cannot.

    The code ends without cleaning up: the bindings of 10.3 crash when Python destroys a plugin made in Python, which in
    an engine's life only TensorRT does.
    """
    start, end = "import sys\n", "\nimport os\nsys.stdout.flush()\nos._exit(0)\n"
    with tempfile.TemporaryDirectory() as folder:
        done = _server(release).run(start + code + end, [], Path(folder), {})
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def _server(release: str) -> ForkServer:
    """A process that has imported the bindings, and what the code of most tests imports; nothing is registered yet."""
    imports = """
import sys, tensorrt_bindings
sys.modules["tensorrt"] = tensorrt_bindings
import json, numpy
import framegate.runtime.backends.tensorrt.library, framegate.runtime.backends.tensorrt.plugin
"""
    server = ForkServer(imports, {**os.environ, **_surroundings(release)})
    atexit.register(server.close)
    return server


def _surroundings(release: str) -> dict[str, str]:
    """What a process needs to import a release's bindings."""
    if shutil.which("g++") is None:
        pytest.skip("the stub under the bindings needs g++")
    folder = _wheel(RELEASES[release])
    libraries = folder / f"stub-{hashlib.sha256((_STUB + _SLOTS + _FACTORIES).encode()).hexdigest()[:12]}"
    if not libraries.is_dir():
        _build_stubs(libraries, release.split(".")[0])
    return {"LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": str(folder)}


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
    part = folder.with_name(f"{folder.name}.part{os.getpid()}")
    part.mkdir()
    (part / "stub.cpp").write_text(_STUB.replace("SLOTS", _SLOTS).replace("FACTORIES", _FACTORIES))
    for name in ("nvinfer", "nvonnxparser", "nvinfer_plugin"):
        library = f"lib{name}.so.{major}"
        command = ["g++", "-shared", "-fPIC", f"-Wl,-soname,{library}", "-o", str(part / library)]
        subprocess.run([*command, str(part / "stub.cpp")], check=True)
    part.replace(folder)


def _listed(module: str, environment: dict[str, str]) -> dict[str, list[str]]:
    command = [sys.executable, "-c", _LIST, module]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    listed: dict[str, list[str]] = json.loads(done.stdout)
    return listed
