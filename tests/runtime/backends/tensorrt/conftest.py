"""Child processes over a stub of libcuda.so.1, which runs framegate's own kernels compiled for the host."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import emulate
import pytest
from fork_server import ForkServer
from repository import HELPERS
from tensorrt_stub import START

from framegate.cuda_kernels.compile.sources import kernel_sources
from framegate.runtime.bundle.bundle import CALIBRATION, MANIFEST, seal

MORE_IMPORTS = """
import cuda.bindings.driver
import numpy.random
import framegate.cuda_kernels.driver.bindings
import framegate.runtime.backends.tensorrt.backend
"""
"""What most children need as well; none of them calls the driver when it is imported."""


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


@pytest.fixture(scope="module")
def forked(stub):
    """The process whose forks the children are."""
    server = ForkServer(
        START.replace("BUNDLE = Path(sys.argv[1])", "") + MORE_IMPORTS,
        {
            **os.environ,
            "LD_LIBRARY_PATH": str(stub[0]),
            "PYTHONPATH": os.pathsep.join([str(HELPERS / "fake_tensorrt"), os.environ.get("PYTHONPATH", "")]),
            "STUB_KERNELS": stub[1],
        },
    )
    yield server
    server.close()


@pytest.fixture
def child(forked, make_bundle, tmp_path):
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
        environment = {"STUB_LOG": str(log), "XDG_CACHE_HOME": str(tmp_path / "cache"), **settings}
        done = forked.run(START + code, [str(own or bundle)], tmp_path, environment)
        assert done.returncode == 0, done.stderr
        return done.stdout, " ".join(done.stderr.split()), log.read_text().split() if log.exists() else []

    return run
