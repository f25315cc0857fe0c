"""Code that runs in child processes over a stub of libcuda.so.1; see `tests/runtime/backends/tensorrt/conftest.py`."""

START = """
import gc, os, sys, threading
from pathlib import Path
import numpy as np
import framegate.cuda_kernels.kernels as kernels
from framegate.runtime import Pipeline, Session
from framegate.runtime.backends.base import infer
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.errors import BackendError, FramegateError, UsageError
from framegate.runtime.backends.tensorrt.store import EngineKey, engine_folder, write_engine

kernels.load_image = lambda *arguments: b"IMAGE"  # the stub has the kernels already
BUNDLE = Path(sys.argv[1])
VERSIONS = {"tensorrt": "10.13.3.9", "tensorrt-rtx": "1.7.1.116"}
FACTS = {
    "options": {"dla_core": None},
    "network": {"inputs": [{"name": "image"}], "outputs": [{"name": "logits", "shape": [-1, 3]}]},
}

def built(flavour="tensorrt", target="stub, sm_87, 16 multiprocessors", plan=b"PLAN of the colour network"):
    key = EngineKey.of(BUNDLE / "model.fp32.onnx", flavour, VERSIONS[flavour], target)
    return write_engine(key, engine_folder(), plan, FACTS)

def images(count, width=64, height=48):
    rng = np.random.default_rng(3)
    for k in range(count):
        tint = rng.integers(0, 256, 3) if k % 3 else np.full(3, rng.integers(60, 200))
        yield np.clip(tint + rng.integers(-5, 6, (height, width, 3)), 0, 255).astype(np.uint8)

def refused(what, *words):
    try:
        what()
    except FramegateError as error:
        for word in words:
            assert word in str(error), (word, str(error))
        return
    raise AssertionError("not refused")

def open_tensorrt(**options):
    return Session.open(BUNDLE, "tensorrt", "fp32", camera=False, **options)
"""
"""Put in front of every child's code."""

PARITY = """
built()
ours, theirs = open_tensorrt({options}), Session.open(BUNDLE, "onnxruntime", "fp32", camera=False)
accepted = 0
for image in images(60):
    a, b = ours.infer(image), theirs.infer(image)
    assert a.reasons == b.reasons and (a.candidate == b.candidate or not b.accepted and {may_tie}), (a, b)
    assert abs(a.entropy - b.entropy) < {tolerance} and abs(a.confidence - b.confidence) < {tolerance}, (a, b)
    accepted += a.accepted
assert 10 < accepted < 50, accepted
assert ours.scorer.backend.graph.captured is {captured}
"""
