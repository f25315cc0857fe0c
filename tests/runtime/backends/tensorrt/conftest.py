"""Child processes over a stub of libcuda.so.1, which runs framegate's own kernels compiled for the host."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import emulate
import pytest
from repository import HELPERS
from tensorrt_stub import START

from framegate.cuda_kernels.compile.sources import kernel_sources
from framegate.runtime.bundle.bundle import CALIBRATION, MANIFEST, seal


@pytest.fixture(scope="module")
def stub(tmp_path_factory):
    pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
    if shutil.which("gcc") is None or shutil.which("g++") is None:
        pytest.skip("the stub of libcuda.so.1 and its kernels need gcc and g++")
    folder = tmp_path_factory.mktemp("stub")
    command = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(folder / "libcuda.so.1")]
    subprocess.run([*command, str(HELPERS / "stub_libcuda.c"), "-ldl"], check=True)
    libraries = [emulate.compile(source).library for source in kernel_sources().values()]
    return folder, ":".join(map(str, libraries))


@pytest.fixture
def child(stub, make_bundle, tmp_path):
    """Run code over the stub: child(code, **settings) -> (output, told on standard error, calls of the driver).

    The code's BUNDLE is one that names colours, or ``own``.
    """
    bundle = make_bundle()
    record = json.loads((bundle / CALIBRATION).read_text())
    record["records"]["tensorrt/fp32"] = record["records"]["tensorrt-rtx/fp32"] = record["records"]["onnxruntime/fp32"]
    (bundle / CALIBRATION).write_text(json.dumps(record))
    seal(bundle, json.loads((bundle / MANIFEST).read_text()))

    def run(code: str, own: Path | None = None, **settings: str) -> tuple[str, str, list[str]]:
        log = tmp_path / "calls"
        log.unlink(missing_ok=True)
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(stub[0]),
            "PYTHONPATH": os.pathsep.join([str(HELPERS / "fake_tensorrt"), os.environ.get("PYTHONPATH", "")]),
            "STUB_KERNELS": stub[1],
            "STUB_LOG": str(log),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            **settings,
        }
        command = [sys.executable, "-c", START + code, str(own or bundle)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout, " ".join(done.stderr.split()), log.read_text().split() if log.exists() else []

    return run
