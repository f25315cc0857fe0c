"""The kernel benchmark, end to end, on a GPU that is an emulation: what it measures means nothing, that it works does.

So the one run on a machine with a GPU, which is rare, does not die of a typing error.
"""

from __future__ import annotations

import ctypes
import json
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from framegate.benchmarks.gpu import device, frame, kernel_cases, kernel_rivals, kernels, small
from framegate.benchmarks.gpu.device import percentiles
from framegate.benchmarks.gpu.kernel_cases import Case
from framegate.cuda_kernels.compile.build import find_source
from framegate.cuda_kernels.driver.base import DeviceInfo, Driver, HostMemory


class EmulatedGpu(Driver):
    """Device memory is host memory; kernels are the .cu files compiled with g++; a graph is a list of calls."""

    name = "emulated"

    def __init__(self, emulate):
        super().__init__()
        self.info = DeviceInfo("emulated", 0, 1, 1 << 26, 1 << 10, False, (13, 0), 0)
        self.emulate, self.arrays, self.recording, self.graphs, self.times = emulate, {}, None, {}, {}
        self.calls = []

    def do(self, call):
        if self.recording is None:
            call()
        else:
            self.recording.append(call)

    def make_current(self):
        pass

    def _release_context(self):
        pass

    def _memory(self, kind, nbytes):
        array = np.empty(nbytes + 256, np.uint8)
        pointer = array.ctypes.data + -array.ctypes.data % 256
        self.arrays[pointer] = array
        return self._own(kind, pointer, lambda: self.arrays.pop(pointer))

    def allocate(self, nbytes):
        return self._memory("device memory", nbytes)

    def allocate_host(self, nbytes):
        pointer = self._memory("host memory", nbytes)
        return HostMemory(np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(pointer)), pointer)

    def copy_to_device(self, destination, source, stream):
        self.do(lambda: ctypes.memmove(destination, source.ctypes.data, source.nbytes))

    def copy_to_host(self, destination, source, stream):
        self.do(lambda: ctypes.memmove(destination.ctypes.data, source, destination.nbytes))

    def copy_on_device(self, destination, source, nbytes, stream):
        self.calls.append("copy")
        self.do(lambda: ctypes.memmove(destination, source, nbytes))

    def create_stream(self, priority=0):
        return 1

    def synchronize(self, stream):
        pass

    def create_event(self, blocking=False):
        self.times[len(self.times) + 1] = 0
        return len(self.times)

    def record_event(self, event, stream):
        self.calls.append("stamp")
        self.times[event] = time.perf_counter_ns()

    def wait_event(self, event):
        pass  # as with synchronize: the emulation has finished when a launch returns

    def event_done(self, event):
        return True

    def elapsed_ms(self, start, end):
        return (self.times[end] - self.times[start]) / 1e6

    def load_module(self, image):
        raise NotImplementedError

    def get_function(self, module, name):
        raise NotImplementedError

    def launch(self, function, grid, block, arguments, stream, shared_bytes=0):
        raise NotImplementedError

    def begin_capture(self, stream):
        self.recording = []

    def end_capture(self, stream):
        graph = len(self.graphs) + 1
        self.graphs[graph], self.recording = self.recording, None
        return self._own("graph", graph, lambda: self.graphs.pop(graph))

    def launch_graph(self, graph, stream):
        self.calls.append(f"graph of {len(self.graphs[graph])}")
        for call in self.graphs[graph]:
            call()


class EmulatedKernels:
    def __init__(self, gpu, source):
        self.gpu, self.module = gpu, gpu.emulate.compile(find_source(source))

    def run(self, plan, stream):
        self.launch(plan.kernel, plan.grid, plan.block, plan.parameters, stream)

    def launch(self, kernel, grid, block, parameters, stream):
        self.gpu.do(partial(self.module.launch, kernel, grid=grid, block=block, arguments=[parameters]))


@pytest.fixture
def bench(monkeypatch, emulate):
    gpu = EmulatedGpu(emulate)
    monkeypatch.setattr(kernels, "open_gpu", lambda name: gpu)
    monkeypatch.setattr(kernels, "Kernels", EmulatedKernels)
    monkeypatch.setattr(small, "STAND_IN_NODES", 1)
    monkeypatch.setattr(small, "FRAME", (64, 48))
    monkeypatch.setattr(small, "SIDE", 16)
    monkeypatch.setattr(
        kernels,
        "GRID",
        (
            Case("rows", (3, 1000), "f16", "half", "a target"),
            Case("rows", (2, 1000), "bf16", "bfloat16"),
            Case("dense", (1, 19, 4, 6), "f16", "dense"),
            Case("dense", (1, 3, 5, 7), "f32", "dense, odd"),
        ),
    )
    return kernels


@pytest.mark.long
def test_everything_is_checked_measured_and_written(bench, tmp_path, capsys):
    out = tmp_path / "kernels.json"
    assert bench.main(["--repeats", "3", "--frames", "2", "--out", str(out)]) == 0, capsys.readouterr()
    report = json.loads(out.read_text())
    assert report["machine"]["gpu"] == "emulated"
    assert {"commit", "cpu", "date", "torch", "triton"} <= set(report["machine"])
    assert set(report["graph"]["launch_to_record_us"]) == {"p50", "p99", "p99.9", "max"}
    assert len(report["preprocess"]) == 2
    assert all(set(one["us"]) == {"p50", "p99", "p99.9", "max"} for one in report["preprocess"])
    for one in report["grid"]:
        assert set(one["us"]) == {"p50", "p99", "p99.9", "max"}
        assert one["GB_per_s"] == pytest.approx(one["bytes"] / one["us"]["p50"] / 1e3, abs=0.1)
        assert one["inputs"] >= 2
    assert report["grid"][0]["bytes"] == 3 * 1000 * 2 + 3 * 4


@pytest.mark.long
def test_a_wrong_kernel_is_reported_and_not_timed(bench, tmp_path, monkeypatch, capsys):
    reference = kernel_cases.softmax_scores
    monkeypatch.setattr(kernel_cases, "softmax_scores", lambda logits: reference(logits, temperature=1.01))
    out = tmp_path / "kernels.json"
    assert bench.main(["--only", "grid", "--repeats", "2", "--out", str(out)]) == 1
    report = json.loads(out.read_text())
    assert len(report["grid"]) == len(kernels.GRID) == 4
    assert all("us" not in one and "is off" in one["wrong"] for one in report["grid"])
    assert "WRONG: rows [3, 1000] f16" in capsys.readouterr().err


def test_bfloat16_rounds_half_to_even():
    values = np.array([1.0, 1.00390625, 1.01171875, -3.3e38, 1e-40], np.float32)
    expected = np.array([1.0, 1.0, 1.015625, -3.3e38, 1e-40])
    found = kernel_cases.from_device_type(kernel_cases.to_device_type(values, "bf16"), "bf16")
    assert found == pytest.approx(expected, rel=2.0**-8)
    assert list(found[:3]) == list(expected[:3])


def test_a_tail_that_the_sample_is_too_small_for_is_its_maximum():
    assert percentiles(range(1, 101)) == {"p50": 50.0, "p99": 99.0, "p99.9": 100.0, "max": 100.0}
    assert percentiles([4.0]) == {"p50": 4.0, "p99": 4.0, "p99.9": 4.0, "max": 4.0}


def test_the_first_stamp_waits_for_a_busy_gpu_so_that_the_hosts_launch_is_not_measured(emulate):
    gpu = EmulatedGpu(emulate)
    watch = device.Stopwatch(gpu)
    gpu.calls.clear()
    watch.microseconds([lambda stream: gpu.do(lambda: None)] * 64, repeats=2)
    assert gpu.calls == ["copy", "stamp", "graph of 64", "stamp"] * 7


def test_a_case_is_timed_as_one_graph_of_many_launches(bench, tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        device.Stopwatch, "microseconds", lambda self, calls, repeats: sizes.append(len(calls)) or [1.0]
    )
    monkeypatch.setattr(kernels, "GRID", kernels.GRID[2:])
    assert bench.main(["--only", "grid", "--rivals", "none", "--out", str(tmp_path / "out.json")]) == 0
    assert min(sizes) >= kernels.LAUNCHES


def test_a_case_that_fails_leaves_the_others_and_what_was_written(bench, tmp_path, monkeypatch):
    out = tmp_path / "kernels.json"
    at_each_case = []

    def prepare(gpu, case, stream, seed, copies):
        at_each_case.append(len(json.loads(out.read_text()).get("grid", [])))
        if case.dtype == "bf16":
            raise kernels.CudaError("CUDA_ERROR_OUT_OF_MEMORY", "out of memory", "allocating")
        return kernel_cases.prepare(gpu, case, stream, seed, copies)

    monkeypatch.setattr(kernels, "prepare", prepare)
    monkeypatch.setattr(kernels, "GRID", (kernels.GRID[1], *kernels.GRID[2:]))
    assert bench.main(["--only", "grid", "--rivals", "none", "--repeats", "1", "--out", str(out)]) == 1
    assert at_each_case == [0, 1, 2]
    grid = json.loads(out.read_text())["grid"]
    assert "OUT_OF_MEMORY" in grid[0]["failed"]
    assert all("us" in one for one in grid[1:])


def test_without_repeats_a_case_is_only_checked(bench, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kernels, "GRID", kernels.GRID[2:])
    out = tmp_path / "out.json"
    assert bench.main(["--only", "grid", "--rivals", "none", "--repeats", "0", "--out", str(out)]) == 0
    assert all(one["checked"] and "us" not in one for one in json.loads(out.read_text())["grid"])
    assert "right" in capsys.readouterr().out


def test_torch_compile_starts_afresh_with_every_case(monkeypatch):
    """After eight shapes of one function it would run that function eagerly, and be timed as if it had compiled it."""
    resets = []
    torch = SimpleNamespace(
        cuda=SimpleNamespace(is_available=lambda: True),
        _dynamo=SimpleNamespace(reset=lambda: resets.append("reset")),
        compile=lambda function, dynamic: function,
    )
    monkeypatch.setattr(kernel_rivals, "torch", torch)
    for kind in ("rows", "dense", "rows"):
        assert "torch.compile" in kernel_rivals.rivals(kind)
    assert resets == ["reset"] * 3


@pytest.fixture
def frames(monkeypatch, emulate):
    """The frame benchmark on the emulation, small."""
    gpu = EmulatedGpu(emulate)
    for module in ("feed", "scores"):
        monkeypatch.setattr(f"framegate.runtime.backends.tensorrt.{module}.Kernels", EmulatedKernels)
    monkeypatch.setattr(frame, "open_gpu", lambda: gpu)
    monkeypatch.setattr(frame, "WARM_UP", 1)
    monkeypatch.setattr(frame, "FRAMES", {"bgr": ("bgr", 64, 48), "nv12": ("nv12", 64, 48)})
    monkeypatch.setattr(
        frame, "SPEC", frame.PreprocessSpec(24, 20, "bilinear", "stretch", "rgb", (120.0,) * 3, (60.0,) * 3)
    )
    monkeypatch.setattr(frame, "fault_in_a_child", lambda: {"fault": "CUDA_ERROR_ILLEGAL_ADDRESS"})
    return frame


def test_a_frame_goes_the_whole_way_without_tensorrt(frames, tmp_path):
    images, out = tmp_path / "images.npy", tmp_path / "frame.json"
    np.save(images, np.random.default_rng(1).integers(0, 256, (3, 40, 40, 3), np.uint8))
    assert frames.main(["--frames", "5", "--images", str(images), "--out", str(out)]) == 0
    report = json.loads(out.read_text())
    assert report["numbers"] == report["numbers"] | {"images": 3, "captured": True, "same_class": 3, "right": True}
    assert report["bgr"]["captured"]
    assert not report["nv12, kernel by kernel"]["captured"]
    assert report["nv12"]["frame_to_record_us"]["p50"] > 0


def test_wrong_numbers_of_a_frame_are_a_failure(frames, tmp_path, monkeypatch):
    reference = frame.softmax_scores
    monkeypatch.setattr(frame, "softmax_scores", lambda logits, temperature: reference(logits, temperature * 1.01))
    images, out = tmp_path / "images.npy", tmp_path / "frame.json"
    np.save(images, np.zeros((1, 40, 40, 3), np.uint8) + np.arange(40, dtype=np.uint8)[:, None])
    assert frames.main(["--frames", "5", "--images", str(images), "--out", str(out)]) == 1
    assert json.loads(out.read_text())["numbers"]["right"] is False
