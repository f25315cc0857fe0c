"""Engines that give the scores themselves, run by the real backend over the stub of the driver.

The stand-in for TensorRT launches the kernel of softmax_entropy_plugin.cu inside its engine: by itself, or through the
plugin that framegate registers. What the host reads is also tried word by word, without any engine.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from tensorrt_stub import PARITY

from framegate.cuda_kernels.driver.base import HostMemory
from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores
from framegate.runtime.backends.tensorrt.scores import SCORES, EngineOutputs

START = """
from framegate.runtime.scores import frame_scores
PLAN = b"PLAN of the colour network"
WAYS = {
    "ahead": ("plugin", "ahead of time", PLAN + b" with scores"),
    "registered": ("plugin", "registered", PLAN + b" with a plugin"),
    "function": ("function", "", PLAN + b" with scores"),
}

def scored(how, flavour="tensorrt", scores=None, plugin=None, plan=None):
    way, kind, content = WAYS[how]
    facts = {
        "options": {"dla_core": None, "scores": scores or way},
        "plugin": kind if plugin is None else plugin,
        "network": {
            "inputs": [{"name": "image"}, {"name": "temperature"}],
            "outputs": [{"name": "logits", "shape": [-1, 3]}],
        },
    }
    key = EngineKey.of(BUNDLE / "model.fp32.onnx", flavour, VERSIONS[flavour], "stub, sm_87, 16 multiprocessors")
    return write_engine(key, engine_folder(), plan or content, facts)
"""


@pytest.mark.parametrize("how", ["ahead", "registered"])
def test_verdicts_are_those_of_onnxruntime_and_no_kernel_of_ours_runs_behind_the_engine(child, how):
    parity = PARITY.replace("built()", f"scored({how!r})")
    code = parity.format(options="", may_tie=False, tolerance="1e-5", captured="True")
    _, told, calls = child(START + code, STUB_INTEGRATED="0")
    assert "no CUDA graph" not in told
    begin, end = calls.index("cuStreamBeginCapture_v2"), calls.index("cuStreamEndCapture")
    # The network, the kernel inside the engine, one copy of logits and scores; no record, no second kernel.
    assert calls[begin + 1 : end] == [
        "cuMemcpyHtoDAsync_v2",
        "cuLaunchKernel",
        "cuLaunchKernel",
        "cuMemcpyDtoHAsync_v2",
    ]
    code = parity.format(options="gpu_preprocess=True", may_tie=True, tolerance="2e-2", captured="True")
    _, _, calls = child(START + code)
    begin = max(i for i, call in enumerate(calls) if call == "cuStreamBeginCapture_v2")
    assert calls[begin + 1 : begin + 5] == ["cuLaunchKernel"] * 3 + ["cuMemcpyDtoHAsync_v2"]


@pytest.mark.parametrize("how", ["ahead", "registered"])
def test_scores_are_the_graph_nodes_at_any_temperature(child, how):
    """The comparison that bench_engine.py makes on a GPU: the kernel behind the engine against the kernel inside."""
    child(
        START
        + f"""
bundle = Bundle.open(BUNDLE)
frames = list(images(25))
def collect(temperature):
    backend = load_backend("tensorrt", BUNDLE / "model.fp32.onnx")
    backend.bind_frames(bundle.preprocess, 64, 48, temperature)
    rows = []
    for frame in frames:
        backend.start(frame)
        backend.finish()
        rows.append(backend.scores)
    backend.close()
    return rows
for temperature in (1.0, 0.3, 5.0):
    built()
    behind = collect(temperature)
    scored({how!r})
    inside = collect(temperature)
    assert np.abs(np.array(behind) - np.array(inside)).max() < 1e-5
    assert len({{round(row.entropy, 3) for row in inside}}) > 5
""",
    )


@pytest.mark.parametrize("how", ["ahead", "registered", "function"])
def test_fault_of_the_engine_or_its_output_rejects_and_the_plugin_comes_back(child, how):
    child(
        START
        + f"""
scored({how!r})
good = np.full((48, 64, 3), (250, 5, 5), np.uint8)
os.environ["FRAMEGATE_CUDA_GRAPH"] = "0"
session = open_tensorrt(gpu_preprocess=True)
assert session.infer(good).accepted
os.environ["FAKE_TENSORRT"] = "nan"
assert [r.name for r in session.infer(good).reasons] == ["NOT_FINITE"]
os.environ["FAKE_TENSORRT"] = ""
os.environ["STUB_FAIL"] = "cuLaunchKernel=700"
assert [r.name for r in session.infer(good).reasons] == ["BACKEND_FAULT"]
os.environ["STUB_FAIL"] = ""
assert not session.infer(good).accepted
session.recover()
assert session.infer(good).accepted
""",
    )


def test_two_engines_with_the_plugin_do_not_share_a_gpus_kernels(child):
    child(
        START
        + """
scored("registered")
good = np.full((48, 64, 3), (250, 5, 5), np.uint8)
os.environ["FRAMEGATE_CUDA_GRAPH"] = "0"  # so that the plugin is called for every frame
one, two = (open_tensorrt(gpu_preprocess=True) for _ in range(2))
assert one.infer(good).accepted and two.infer(good).accepted
two.scorer.backend.close()
assert one.infer(good).accepted
""",
    )


def test_what_cannot_be_opened_says_why_and_what_to_do(child):
    child(
        START
        + """
scored("registered", plugin="")          # a header that hides it: TensorRT's own words
refused(open_tensorrt, "no plugin creator SoftmaxEntropy", "--force")
scored("registered")
os.environ["FAKE_TENSORRT"] = "noregistry"
refused(open_tensorrt, "no plugin registry")
os.environ["FAKE_TENSORRT"] = "half-margin"
refused(open_tensorrt, "margin is not float32", "--force")
os.environ["FAKE_TENSORRT"] = ""
scored("ahead", scores="kernel")
refused(open_tensorrt, "its header says that the scores come from the kernel", "--force")
scored("ahead", plan=PLAN)
refused(open_tensorrt, "its header says that the scores come from the plugin", "--force")
scored("registered", flavour="tensorrt-rtx")
refused(lambda: Session.open(BUNDLE, "tensorrt-rtx", "fp32"), "takes no plugins")
import framegate.runtime.backends.tensorrt.plugin as plugin
from framegate.cuda_kernels.compile.compiler import CompilerError
def no_compiler(*arguments): raise CompilerError("no machine code")
kernels.load_image = no_compiler
scored("registered")
refused(open_tensorrt, "no machine code", "framegate doctor")
""",
    )


def test_an_engine_from_before_this_choice_is_opened_as_what_it_is(child):
    child("built()\nassert open_tensorrt().infer(np.full((48, 64, 3), (250, 5, 5), np.uint8)).accepted\n")


class Memory:
    """A GPU's block and its copy in host memory, in one."""

    def __init__(self, classes=10):
        gpu = SimpleNamespace(allocate=lambda nbytes: 4096)
        self.source = EngineOutputs(gpu, "logits", classes)
        self.result = HostMemory(np.zeros(self.source.result_bytes, np.uint8), 0)
        self.source.mark(self.result, 1)

    def write(self, logits, /, **changes):
        truth = softmax_scores(np.asarray(logits)[None])
        values = {"logits": logits} | {name: np.ravel(getattr(truth, name)) for name in SCORES} | changes
        for name, value in values.items():
            start = self.source.addresses[name] - 4096
            assert start % 256 == 0
            array = np.asarray(value, np.float32).ravel()
            self.result.array[start : start + array.nbytes].view(np.float32)[:] = array
        return self

    def read(self):
        return self.source.read(self.result, 7)


LOGITS = np.array([0.5, -1, 3, 0, 0, 1, 2, -4, 0, 0.25])


def test_a_whole_result_is_read_as_the_kernels_record_would_be():
    record, truth = Memory().write(LOGITS).read(), softmax_scores(LOGITS[None])
    assert (record.sequence, record.argmax) == (7, 2)
    assert record.entropy == pytest.approx(truth.entropy[0], abs=1e-6)
    assert record.max_probability == pytest.approx(truth.max_probability[0], abs=1e-6)
    assert record.margin == pytest.approx(truth.margin[0], abs=1e-6)
    assert record.energy == pytest.approx(truth.energy[0], abs=1e-6)
    np.testing.assert_array_equal(Memory().write(LOGITS).source.logits_of(Memory().write(LOGITS).result), LOGITS)


def test_fault_nothing_was_written_or_only_a_part():
    assert Memory().read() is None
    for name in ("logits", *SCORES):
        memory = Memory().write(LOGITS)
        start = memory.source.addresses[name] - 4096
        memory.result.array[start : start + 4].view(np.uint32)[:] = 0xFFFFFFFF
        assert memory.read() is None, name
    memory = Memory().write(LOGITS)
    memory.source.mark(memory.result, 8)  # the next frame's submission
    assert memory.read() is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["logits", *SCORES])
def test_fault_not_finite_anywhere_gives_no_class_and_no_scores(name, bad):
    values = LOGITS.copy() if name in ("logits", "probabilities") else np.zeros(1)
    values[0] = bad
    record = Memory().write(LOGITS, **{name: values}).read()
    assert record.argmax == -1
    assert math.isnan(record.entropy)


def test_fault_scores_that_belong_to_other_logits_are_refused():
    """An engine that wrote its logits, and scores of a frame before."""
    others = softmax_scores(LOGITS[None, ::-1]).probabilities[0]
    assert Memory().write(LOGITS, probabilities=others).read().argmax == -1
    assert Memory().write(LOGITS, probabilities=np.zeros(10)).read().argmax == -1


def test_an_entropy_out_of_range_by_rounding_is_clamped():
    assert Memory().write(LOGITS, entropy=-1e-7).read().entropy == 0.0
    flat = Memory().write(np.zeros(10), entropy=math.log(10) + 1e-6).read()
    assert flat.entropy == math.log(10)


def test_the_benchmark_of_the_ways_compares_them_and_puts_the_engine_back(child):
    """The script for GPU machines, on the stub: its times mean nothing here, its comparison does."""
    child(
        START
        + """
from framegate.benchmarks.gpu import engine as bench_engine, engine_scores
from framegate.runtime.backends.tensorrt.store import read_engine
made = []
def build_engine(job, *rest):  # the stand-in has no builder; what one would leave is written
    way = job.options.scores
    made.append(way)
    path = {"kernel": built, "function": lambda: scored("function"), "plugin": lambda: scored("registered")}[way]()
    engine = read_engine(job.key, engine_folder())
    engine.header.setdefault("plugin", "")
    return engine
engine_scores.build_engine = build_engine
path = built()
before = path.read_bytes()
bundle = Bundle.open(BUNDLE)
timer = lambda work, count: bench_engine.microseconds(work, count)
result = engine_scores.compare_ways(bundle, "tensorrt", "fp32", list(images(20)), 5, timer)
assert made == ["kernel", "function", "plugin"]
assert path.read_bytes() == before
assert engine_scores.agree(result), result
for way in made:
    assert result[way]["largest_difference_to_reference"] < 1e-5
    assert result[way]["largest_difference_to_kernel"] < 1e-5
    assert result[way]["captured"] and result[way]["frame_1280x720_to_scores_us"]["p50"] > 0
assert result["plugin"]["plugin"] == "registered"
assert result["kernel"]["plugin"] == ""
result["plugin"]["largest_difference_to_reference"] = float("nan")
assert not engine_scores.agree(result)
assert not engine_scores.agree({"failed": "no builder"})
def nothing(job, *rest):
    engine = read_engine(job.key, engine_folder())
    engine.header["plugin"] = ""
    return engine
engine_scores.build_engine = nothing
few = list(images(2))
refused(lambda: engine_scores.compare_ways(bundle, "tensorrt", "fp32", few, 1, timer), "is not the one that was opened")
assert path.read_bytes() == before
""",
    )
