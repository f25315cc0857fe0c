"""softmax_entropy/plugin.cu: run on the host against reference.py, and its PTX held against what a launch passes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from framegate.cuda_kernels.compile import ptx as ptx_module
from framegate.cuda_kernels.compile.build import find_source
from framegate.cuda_kernels.compile.compiler import CompilerError, Nvcc, Nvrtc, cuda_header_folders
from framegate.cuda_kernels.compile.ptx import load_ptx
from framegate.cuda_kernels.softmax_entropy.plugin_launch import INTEGERS, PARAMETERS, SOURCE, plan_plugin
from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores

needs_nvcc = pytest.mark.skipif(Nvcc.find() is None, reason="nvcc is not installed")


@pytest.fixture(scope="module")
def kernels(emulate):
    return emulate.compile(find_source(SOURCE))


def run(emulate, kernels, logits, temperature, order=0):
    """Launch as TensorRT would: arrays end where their memory ends, and are full of something else before."""
    rows, classes = logits.shape
    plan = plan_plugin(classes)
    source, heat = emulate.aligned(logits.shape, np.float32), emulate.aligned(1, np.float32)
    source[...], heat[0] = logits, temperature
    outputs = [emulate.aligned((rows, width), np.float32) for width in (classes, 1, 1, 1)]
    for output in outputs:
        output[...] = -7
    addresses = [array.ctypes.data for array in outputs]
    arguments = plan.arguments([source.ctypes.data, heat.ctypes.data], rows, addresses)
    kernels.launch(plan.kernel, grid=(plan.blocks(rows),), block=(plan.threads,), arguments=arguments, order=order)
    return outputs


@pytest.mark.parametrize("classes", [1, 2, 3, 10, 43, 120, 121, 1000, 1016, 1017, 5000])
@pytest.mark.parametrize("temperature", [1.0, 0.37, 4.0])
def test_scores_are_those_of_the_reference(emulate, kernels, classes, temperature):
    rng = np.random.default_rng(classes)
    for rows in (1, 8, 17):
        logits = rng.normal(0, 4, (rows, classes)).astype(np.float32)
        logits[0] += 1e4  # where an unshifted sum has no digits left
        truth = softmax_scores(logits, float(np.float32(temperature)))
        probabilities, entropy, margin, energy = run(emulate, kernels, logits, temperature, order=rows)
        np.testing.assert_allclose(probabilities, truth.probabilities, rtol=3e-6, atol=1e-9)
        np.testing.assert_allclose(entropy[:, 0], truth.entropy, rtol=0, atol=1e-5)
        np.testing.assert_allclose(margin[:, 0], truth.margin, rtol=0, atol=2e-6)
        np.testing.assert_allclose(energy[:, 0], truth.energy, rtol=3e-7, atol=1e-5)


def test_what_is_no_distribution_is_nan_throughout_and_its_neighbours_are_untouched(emulate, kernels):
    for bad in ([np.nan, 1, 2], [np.inf, 1, 2], [-np.inf] * 3):
        logits = np.array([[1, 2, 3], bad, [3, 2, 1]], np.float32)
        outputs = run(emulate, kernels, logits, 1.0)
        for output in outputs:
            assert np.isnan(output[1]).all()
            assert np.isfinite(output[[0, 2]]).all()
    for temperature in (0.0, -1.0, np.nan, np.inf):  # whatever was written into the engine's input
        assert all(np.isnan(o).all() for o in run(emulate, kernels, np.ones((1, 3), np.float32), temperature))


@pytest.mark.long
def test_no_access_beside_the_arrays(emulate):
    emulate.run_sanitized(Path(__file__), "untouched or (reference and 0.37 and (10 or 121 or 1017))")


def test_what_no_kernel_can_do_is_refused_before_a_launch():
    for classes in (0, 65_537):
        with pytest.raises(ValueError, match=f"asked for 1 to 65536, found {classes}"):
            plan_plugin(classes)
    plan = plan_plugin(10)
    assert (plan.blocks(1), plan.blocks(16), plan.blocks(17)) == (1, 1, 2)
    with pytest.raises(ValueError, match="null pointer"):
        plan.arguments([4, 0], 1, [4] * 4)
    with pytest.raises(ValueError, match="found 2 and 3 addresses"):
        plan.arguments([4, 4], 1, [4] * 3)
    with pytest.raises(ValueError, match="1 row or more"):
        plan.arguments([4, 4], 0, [4] * 4)


def parameters_of(ptx: bytes, kernel: str) -> list[str]:
    """The PTX types of an entry point's parameters."""
    entry = re.search(rf"\.visible \.entry {kernel}\(([^)]*)\)", ptx.decode())
    assert entry is not None, f"no entry point {kernel}"
    return re.findall(r"\.param \.(\w+)", entry[1])


def check_entry_points(ptx: bytes, architecture: int) -> None:
    """The types, number and order that TensorRT's arguments have."""
    assert f".target sm_{architecture}".encode() in ptx
    wanted = ["u32" if name in INTEGERS else "u64" for name in PARAMETERS]
    for classes in (10, 1000, 5000):
        kernel = plan_plugin(classes).kernel
        assert parameters_of(ptx, kernel) == wanted
        arguments = plan_plugin(classes).arguments([256, 512], 1, [1024, 2048, 4096, 8192])
        sizes = [type(argument)._type_ for argument in arguments]
        assert ["u64" if code == "P" else "u32" for code in sizes] == wanted
    assert b".extern" not in ptx.replace(b".extern .shared", b"")  # nothing that a linker would have to find


@needs_nvcc
def test_the_entry_points_take_what_a_launch_passes(tmp_path):
    release = Nvcc.find().release
    check_entry_points(load_ptx(SOURCE, 87, release, cache=tmp_path), 87)
    # An architecture between two that nvcc knows: PTX of the older one runs on it.
    assert b".target sm_90" in load_ptx(SOURCE, 99, release, cache=tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*.ptx")) == ["compute_87.ptx", "compute_90.ptx"]


@needs_nvcc
def test_ptx_of_a_compiler_newer_than_the_driver_is_never_used(tmp_path, monkeypatch):
    # PTX has no minor-version compatibility, a cubin has: images.py would take this compiler.
    major, minor = Nvcc.find().release
    older = (major, minor - 1) if minor else (major - 1, 9)
    monkeypatch.setattr(ptx_module, "Nvrtc", refusing)
    with pytest.raises(CompilerError, match=f"the driver is for CUDA {older[0]}.{older[1]} and cannot read PTX"):
        load_ptx(SOURCE, 87, older, cache=tmp_path)


def refusing():
    raise CompilerError("NVRTC: not here")


def test_without_a_compiler_every_one_that_was_tried_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Nvcc, "find", lambda: None)
    monkeypatch.setattr(ptx_module, "Nvrtc", refusing)
    with pytest.raises(CompilerError, match=r"no nvcc on PATH[\s\S]*NVRTC: not here"):
        load_ptx(SOURCE, 87, (13, 0), cache=tmp_path)


def test_nvrtc_makes_the_ptx_where_there_is_no_nvcc(tmp_path, monkeypatch):
    try:
        nvrtc = Nvrtc()
    except CompilerError as error:
        pytest.skip(str(error))
    if not cuda_header_folders():
        pytest.skip("no cuda_fp16.h")
    monkeypatch.setattr(Nvcc, "find", lambda: None)
    for _ in range(2):  # the second time from the cache
        ptx = load_ptx(SOURCE, 87, nvrtc.release, cache=tmp_path)
        check_entry_points(ptx, 87)
        assert ptx.endswith(b"\n")
