"""The TensorRT backend without a GPU: the real backend, CUDA layer and kernels over a stub of libcuda.so.1.

The stub runs framegate's own kernels, compiled for the host, and one small network in the engine's place; captured
calls run when their graph is launched and not before. So verdicts can be compared with onnxruntime's, and failures
happen where they do on a GPU: in the driver's answers. What it cannot show is TensorRT itself, and time.

The stub is found through the loader's search path, which is set before a process starts: hence the child processes.
"""

from __future__ import annotations

import json

import pytest
from tensorrt_stub import PARITY


@pytest.mark.parametrize("integrated", ["0", "1"])
def test_verdicts_are_those_of_onnxruntime_and_a_frame_is_one_graph_launch(child, integrated):
    code = PARITY.format(options="", may_tie=False, tolerance="1e-5", captured="True")
    _, told, calls = child(code, STUB_INTEGRATED=integrated)
    assert "no CUDA graph" not in told
    frame = ["cuCtxSetCurrent", "cuGraphLaunch", "cuEventRecord", "cuCtxSetCurrent", "cuEventQuery"]
    assert calls[-300 - len(calls_at_the_end(calls)) :][:300] == frame * 60
    begin, end = calls.index("cuStreamBeginCapture_v2"), calls.index("cuStreamEndCapture")
    copy = [] if integrated == "1" else ["cuMemcpyHtoDAsync_v2"]  # Jetson copies no frame
    # The kernel behind the engine writes the logits to the host as well: no node copies them.
    assert calls[begin + 1 : end] == [*copy, "cuLaunchKernel", "cuLaunchKernel"]
    # An inference before the capture, so that nothing is loaded lazily inside.
    assert "cuEventQuery" in calls[:begin]


def calls_at_the_end(calls: list[str]) -> list[str]:
    """What is released after the last frame."""
    last = max(i for i, call in enumerate(calls) if call == "cuEventQuery")
    return calls[last + 1 :]


@pytest.mark.parametrize("integrated", ["0", "1"])
def test_camera_frames_are_preprocessed_on_the_gpu_in_the_same_graph(child, integrated):
    # A grey frame has three equal logits but for the rounding of the resize, which the kernel leaves out.
    code = PARITY.format(options="gpu_preprocess=True", may_tie=True, tolerance="2e-2", captured="True")
    code += "refused(lambda: Session.open(BUNDLE, 'onnxruntime', gpu_preprocess=True), 'runs on the CPU')\n"
    _, _, calls = child(code, STUB_INTEGRATED=integrated)
    begin = max(i for i, call in enumerate(calls) if call == "cuStreamBeginCapture_v2")
    copy = [] if integrated == "1" else ["cuMemcpyHtoDAsync_v2"]
    kernels = ["cuLaunchKernel"] * 3  # preprocessing, engine, softmax-entropy
    assert calls[begin + 1 : begin + 1 + len(copy) + 4] == [*copy, *kernels, "cuStreamEndCapture"]


@pytest.mark.parametrize("integrated", ["0", "1"])
def test_nv12_frames_reach_the_gpu_as_they_are(child, integrated):
    _, _, calls = child(
        """
from framegate.runtime.health.check import CameraHealth
from framegate.runtime.pixel_format import to_bgr, to_nv12
from framegate.runtime.roi import Roi
from framegate.runtime.verdict import NV12, Frame

built()
ours, theirs = open_tensorrt(gpu_preprocess=True), Session.open(BUNDLE, "onnxruntime", "fp32", camera=False)
assert ours.scorer.takes_nv12 and not theirs.scorer.takes_nv12
handed = []
start = ours.scorer.backend.start
ours.scorer.backend.start = lambda image: (handed.append(image.shape), start(image))
whole, part = (Roi.whole(),), (Roi.parse("part=0,0,32,48"),)
accepted = 0
for k, image in enumerate(images(40)):
    frame = Frame(k, 0, to_nv12(image), "", NV12)
    (a,), (b,) = (s.frame_judge.judge(frame, whole, CameraHealth()) for s in (ours, theirs))
    assert a.reasons == b.reasons and (a.candidate == b.candidate or not b.accepted), (a, b)
    assert abs(a.entropy - b.entropy) < 2e-2 and abs(a.confidence - b.confidence) < 2e-2, (a, b)
    accepted += a.accepted
assert 7 < accepted < 35, accepted
assert set(handed) == {(72, 64)}, set(handed)
(a,), (b,) = (s.frame_judge.judge(frame, part, CameraHealth()) for s in (ours, theirs))
assert handed[-1] == (48, 32, 3) and abs(a.entropy - b.entropy) < 2e-2, (handed[-1], a, b)
(a,) = ours.frame_judge.judge(to_bgr(frame), whole, CameraHealth())
assert handed[-1] == (48, 64, 3) and a.reasons == theirs.frame_judge.judge(frame, whole, CameraHealth())[0].reasons
""",
        STUB_INTEGRATED=integrated,
    )
    assert "cuGraphLaunch" in calls


def test_two_frames_in_flight_keep_their_own_records(child):
    child("""
built()
session = open_tensorrt(gpu_preprocess=True)
spec, one = session.bundle.preprocess, session.scorer.backend
one.bind_frames(spec, 64, 48, 1.0)
graph = one.graph
assert len(graph.slots) == 2
frames = [np.full((48, 64, 3), colour, np.uint8) for colour in ((250, 5, 5), (5, 5, 250))]
for slot, frame in zip(graph.slots, frames):
    slot.input.array[:] = frame.ravel()
    graph.submit(slot)
first, second = (graph.wait(slot) for slot in graph.slots)
assert (first.argmax, second.argmax) == (0, 2), (first, second)
assert second.sequence == first.sequence + 1
graph.slots[0].number += 1     # the record of another submission is none
refused(lambda: graph.wait(graph.slots[0]), "no whole record")
refused(one.finish, "start a frame before")
refused(lambda: one.start(frames[0][:24]), "asked to compute a frame of shape (24, 64, 3), but (48, 64, 3) is bound")
refused(one.start, "the bound array")
one.start(frames[0])
one.start(frames[1])           # the first one was interrupted, say: it is waited for and forgotten
one.finish()
assert one.scores.argmax == 2, one.scores
refused(one.finish, "start a frame before")
""")


@pytest.mark.parametrize(
    "failing", ["cuStreamBeginCapture_v2=901", "cuStreamEndCapture=901", "cuGraphInstantiateWithFlags=2"]
)
def test_a_failed_capture_falls_back_to_stream_launches_with_one_warning(child, failing):
    _, told, calls = child(
        PARITY.format(options="", may_tie=False, tolerance="1e-5", captured="False"), STUB_FAIL=failing
    )
    assert told.count("no CUDA graph (capture failed") == 1
    assert "cuGraphLaunch" not in calls
    assert calls.count("cuLaunchKernel") >= 120


def test_options_of_waiting_and_launching(child):
    code = PARITY.format(options="", may_tie=False, tolerance="1e-5", captured="False")
    code += """
os.environ["FRAMEGATE_GPU_WAIT"] = "sleep"
refused(open_tensorrt, "FRAMEGATE_GPU_WAIT is 'sleep'; expected spin or block")
"""
    _, told, calls = child(code, FRAMEGATE_CUDA_GRAPH="0", FRAMEGATE_GPU_WAIT="block")
    assert "no CUDA graph" not in told  # it was asked for
    assert "cuStreamBeginCapture_v2" not in calls


FAULT = """
class Frames:
    frame_size, fixed_size, live = (64, 48), True, False
    def __init__(self): self.count = 0
    def read(self):
        from framegate.runtime.verdict import Frame
        import time
        self.count += 1
        if self.count > 40: return None
        if self.count in BREAK: os.environ["STUB_FAIL"] = "cuEventQuery=700"
        rng = np.random.default_rng(self.count)
        image = np.clip(np.array((250, 8, 8)) + rng.integers(-5, 6, (48, 64, 3)), 0, 255).astype(np.uint8)
        return Frame(self.count, time.monotonic_ns(), image)
    def close(self): pass

session = Session.open(BUNDLE, "tensorrt", "fp32")
original = session.recover
def recover():
    if session.scorer.backend.fault: os.environ.pop("STUB_FAIL", None)   # the fault was one event, not a broken machine
    original()
session.recover = recover
with Pipeline(Frames(), session, lossless=True) as pipeline:
    verdicts = "".join("A" if p.accepted else "f" if p.reasons[0].name == "BACKEND_FAULT" else "?" for p in pipeline)
print(verdicts)
"""


def test_fault_in_flight_rejects_and_is_recovered_from_once(child):
    """An illegal address ends the context; the second time the backend stays out for good."""
    output, told, _ = child("BREAK = (10, 30)\nbuilt()\n" + FAULT, STUB_STICKY="1")
    verdicts = output.strip()
    assert len(verdicts) == 40
    assert set(verdicts) == {"A", "f"}
    # The reader is at most a few frames ahead of the worker when it breaks the driver.
    first = verdicts.index("f")
    assert 5 <= first <= 9
    again = verdicts.index("A", first)
    assert again == first + 1
    second = verdicts.index("f", again)
    assert 25 <= second <= 29
    assert set(verdicts[second:]) == {"f"}
    assert told.count("starting it again, once") == 1
    assert "an illegal memory access was encountered" in told


def test_fault_with_another_holder_of_the_context_stays_a_fault(child):
    """As with PyTorch in the same process: the dead context cannot be renewed, and no frame gets through."""
    code = """
import ctypes
built()
context = ctypes.c_void_p()
assert not ctypes.CDLL("libcuda.so.1").cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
BREAK = (10,)
"""
    output, told, _ = child(code + FAULT, STUB_STICKY="1")
    verdicts = output.strip()
    first = verdicts.index("f")
    assert set(verdicts[:first]) == {"A"}
    assert set(verdicts[first:]) == {"f"}
    assert "it does not start again, every frame will be rejected" in told


def test_fault_of_the_engine_or_its_output_rejects(child):
    child("""
built()
session = open_tensorrt()
good = np.full((48, 64, 3), (250, 5, 5), np.uint8)
assert session.infer(good).accepted
os.environ["FRAMEGATE_CUDA_GRAPH"] = "0"
launched = open_tensorrt()
os.environ["FAKE_TENSORRT"] = "nan"
assert [r.name for r in launched.infer(good).reasons] == ["NOT_FINITE"]
os.environ["FAKE_TENSORRT"] = "execute"
rejected = launched.infer(good)
assert [r.name for r in rejected.reasons] == ["BACKEND_FAULT"] and "enqueueV3" in rejected.detail, rejected
os.environ["FAKE_TENSORRT"] = ""
rejected = launched.infer(good)
assert not rejected.accepted and "not used since the GPU failed" in rejected.detail
launched.recover()
assert launched.infer(good).accepted
done = []
# A context is current per thread. (The session itself belongs to the thread that called infer.)
thread = threading.Thread(target=lambda: done.append(bool(np.isfinite(infer(session.scorer.backend)).all())))
thread.start(); thread.join()
assert done == [True]
os.environ["FAKE_TENSORRT"] = "nan"
frames = open_tensorrt(gpu_preprocess=True)
assert [r.name for r in frames.infer(good).reasons] == ["NOT_FINITE"]
""")


MORE_OUTPUTS = """
import fake_runtime as fake

class EngineWithMoreOutputs(fake.ICudaEngine):
    # The same network, which also gives its input, its first six values as a monitor's output, and one output that is
    # called like a score.
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.tensors |= {"activations": (-1, 3, 32, 32), "pooled": (-1, 6), "entropy": (-1, 1)}
    def create_execution_context(self, strategy): return Context(self)

class Context(fake.IExecutionContext):
    def execute_async_v3(self, stream_handle):
        a, done = self._addresses, []
        for name, size in (("activations", 4 * 3 * 32 * 32), ("pooled", 4 * 6)):
            done.append(fake.CUDA.cuMemcpyDtoDAsync_v2(*(ctypes.c_ulonglong(x) for x in (a[name], a["image"])),
                                                       ctypes.c_size_t(size), ctypes.c_void_p(stream_handle)))
        return super().execute_async_v3(stream_handle) and done == [0, 0]

import ctypes
fake.ICudaEngine = EngineWithMoreOutputs
built()
"""


def test_outputs_that_nobody_reads_cost_no_node_of_the_graph(child):
    code = (
        MORE_OUTPUTS
        + """
backend = load_backend("tensorrt", BUNDLE / "model.fp32.onnx")
backend.bind(np.zeros((1, 3, 32, 32), np.float32))
assert backend.graph.captured
assert infer(backend).tolist() == [[0, 0, 0]]
"""
    )
    _, _, calls = child(code, STUB_INTEGRATED="0")
    begin, end = calls.index("cuStreamBeginCapture_v2"), calls.index("cuStreamEndCapture")
    engine = [*["cuMemcpyDtoDAsync_v2"] * 2, "cuLaunchKernel"]
    scores, monitor = ["cuLaunchKernel"], ["cuMemcpyDtoHAsync_v2"]
    assert calls[begin + 1 : end] == ["cuMemcpyHtoDAsync_v2", *engine, *scores, *monitor]


@pytest.mark.parametrize("graph", ["1", "0"])
def test_a_monitors_values_come_with_the_frame_they_belong_to(child, graph):
    code = (
        MORE_OUTPUTS
        + """
backend = load_backend("tensorrt", BUNDLE / "model.fp32.onnx")
assert backend.pooled is None
tensor = np.zeros((1, 3, 32, 32), np.float32)
backend.bind(tensor)
assert backend.pooled.shape == (1, 6)
for turn in range(4):
    tensor[0, 0, 0] = np.arange(32) + 10 * turn
    infer(backend)
    assert backend.pooled[0].tolist() == [10 * turn + k for k in range(6)], backend.pooled
session = open_tensorrt(gpu_preprocess=True)    # two frames in flight, each with its own values
good = np.full((48, 64, 3), (250, 5, 5), np.uint8)
assert session.infer(good).accepted
assert np.isfinite(session.scorer.backend.pooled).all()
backend._engine._context.execute_async_v3 = lambda stream: True   # an engine that writes nothing
if not backend.graph.captured:
    backend.graph._gpu.copy_to_host = lambda *asked: None           # and a copy that never comes
    infer(backend)
    assert np.isnan(backend.pooled).all()
"""
    )
    child(code, FRAMEGATE_CUDA_GRAPH=graph, STUB_INTEGRATED="0")


def test_a_gpu_that_hangs_rejects_until_it_is_back_and_nothing_waits_for_it(child):
    """The event of a frame is never reached, as when a kernel does not end."""
    _, told, calls = child(
        """
import time
built()
session = open_tensorrt()
good = np.full((48, 64, 3), (250, 5, 5), np.uint8)
assert session.infer(good).accepted
os.environ["STUB_FAIL"] = "cuEventQuery=600"
started = time.monotonic()
late = session.infer(good)
assert 0.2 < time.monotonic() - started < 10
assert [r.name for r in late.reasons] == ["BACKEND_FAULT"] and "not done after 0.2 s" in late.detail, late
assert not session.infer(good).accepted
refused(session.scorer.backend.reinitialise, "the GPU still hangs")
session.recover()
later = session.infer(good)
assert not later.accepted and "not used since the GPU failed" in later.detail, later
os.environ["STUB_FAIL"] = ""          # a stall, and it is over
assert not session.infer(good).accepted   # still: what comes now belongs to nobody
session.scorer.backend.reinitialise()
assert session.infer(good).accepted
os.environ["STUB_FAIL"] = "cuEventQuery=600"
assert not session.infer(good).accepted
session.scorer.backend.close()
print("closed", file=sys.stderr)
""",
        FRAMEGATE_GPU_LIMIT="0.2",
    )
    assert told.endswith("closed")
    last = max(i for i, call in enumerate(calls) if call == "cuEventRecord")
    assert not {"cuMemFree_v2", "cuMemFreeHost", "cuStreamSynchronize", "cuStreamDestroy_v2"} & set(calls[last:])


@pytest.mark.parametrize("limit", ["0", "-1", "nan", "inf", "soon", ""])
def test_a_limit_that_is_none_is_refused(child, limit):
    child(
        f"""
built()
refused(open_tensorrt, "FRAMEGATE_GPU_LIMIT is {limit!r}; expected a number of seconds above 0")
""",
        FRAMEGATE_GPU_LIMIT=limit,
    )


def test_what_cannot_be_opened_says_why_and_what_to_do(child):
    child("""
refused(open_tensorrt, "no usable tensorrt 10.13.3.9 engine", "framegate engine", "there: none")
built(target="NVIDIA H100, sm_90")
refused(open_tensorrt, "NVIDIA_H100_sm_90.engine")
path = built()
path.write_bytes(path.read_bytes()[:-3])
refused(open_tensorrt, "is truncated")
built(plan=b"of another release")
refused(open_tensorrt, "refuses engine", "Serialization", "--force")
built()
os.environ["FAKE_TENSORRT"] = "hostcode"
refused(open_tensorrt, "host code")
os.environ["FAKE_TENSORRT"] = ""
os.environ["STUB_FAIL"] = "cuMemAlloc_v2=2"
refused(open_tensorrt, "CUDA_ERROR_OUT_OF_MEMORY", "allocating 1000 bytes")
os.environ["STUB_FAIL"] = ""
backend = load_backend("tensorrt", BUNDLE / "model.fp32.onnx")
refused(lambda: infer(backend), "bind an input")
refused(lambda: backend.bind(np.zeros((17, 3, 32, 32), np.float32)), "from (1, 3, 32, 32) to (16, 3, 32, 32)")
backend.close(); backend.close()
os.environ["STUB_DEVICES"] = "0"
refused(open_tensorrt, "framegate doctor")
""")


def test_auto_takes_a_calibrated_engine_and_leaves_one_that_cannot_run(child):
    _, told, _ = child("""
assert Session.open(BUNDLE).scorer.backend.name in ("openvino", "onnxruntime")
built()
assert Session.open(BUNDLE).scorer.backend.name == "tensorrt"
built(plan=b"of another release")
assert Session.open(BUNDLE).scorer.backend.name in ("openvino", "onnxruntime")
""")
    assert "not on tensorrt: " in told


def test_rtx_keeps_what_it_compiled_and_is_asked_whether_it_can_be_captured(child):
    code = """
built("tensorrt-rtx")
one = Session.open(BUNDLE, "tensorrt-rtx", "fp32", camera=False)
assert one.scorer.backend.graph.captured
assert one.infer(np.full((48, 64, 3), (250, 5, 5), np.uint8)).accepted
two = Session.open(BUNDLE, "tensorrt-rtx", "fp32", camera=False)
os.environ["FAKE_TENSORRT"] = "capturable"
three = Session.open(BUNDLE, "tensorrt-rtx", "fp32", camera=False)
assert not three.scorer.backend.graph.captured
assert three.infer(np.full((48, 64, 3), (250, 5, 5), np.uint8)).accepted
"""
    output, told, _ = child(code)
    assert output.splitlines()[:2] == ["runtime cache: ", "runtime cache: compiled "]
    assert told.count("says that this engine is not capturable") == 1


def test_the_engine_benchmark_records_parity_latency_and_what_was_refused(child, tmp_path):
    """The script for GPU machines, on the stub: its figures mean nothing here, its way through does."""
    code = """
from framegate.benchmarks.gpu import engine as bench_engine
built()
built("tensorrt-rtx")
code = bench_engine.main(["--bundle", str(BUNDLE), "--images", "40", "--frames", "30", "--out", "engines.json"])
assert code == 1, code  # engines for fp16 and int8 are missing
assert set(Bundle.open(BUNDLE).models) == {"fp32", "int8"}
"""
    child(code, STUB_INTEGRATED="0")
    content = json.loads((tmp_path / "engines.json").read_text())
    assert content["circumstances"]["gpu"] == "stub"
    assert content["left_out_for_time"] == []
    record = next(r for r in content["engines"] if r["flavour"] == "tensorrt 10.13.3.9" and r["precision"] == "fp32")
    assert record["parity"]["same_verdict"] == record["parity"]["same_label"] == 1.0
    assert record["parity"]["images"] == 40
    assert record["with_graph"]["captured"]
    assert not record["without_graph"]["captured"]
    assert record["with_graph"]["frame_1280x720_to_scores_us"]["p50"] > 0
    assert "cannot start a build" in record["build"]["this-gpu"]["refused"]  # the stand-in has no builder
    for missing in ("fp16", "int8"):  # no engine was stored; the float16 network is derived in a copy
        refused = next(r for r in content["engines"] if r["precision"] == missing)
        assert "no usable" in refused["parity"]["failed"]


def test_doctor_on_a_machine_with_a_gpu(child):
    code = """
from framegate.runtime.cli.main import main
built()
assert main(["doctor", "--json"]) == 0
"""
    output, _, _ = child(code, STUB_INTEGRATED="0")
    findings = {finding["what"]: finding for finding in json.loads(output)}
    assert findings["NVIDIA GPU"]["usable"]
    assert "stub, sm_87, 1 GiB; its driver supports CUDA 13.0" in findings["NVIDIA GPU"]["explanation"]
    assert findings["backend tensorrt"]["usable"]
    assert "10.13.3.9; builds and runs engines here; 1 stored in" in findings["backend tensorrt"]["explanation"]
    assert not findings["backend tensorrt-rtx"]["usable"]
    assert "sm_87 is not among them" in findings["backend tensorrt-rtx"]["explanation"]
    output, _, _ = child(code, STUB_VERSION="11080")
    findings = {finding["what"]: finding for finding in json.loads(output)}
    assert not findings["NVIDIA GPU"]["usable"]
    assert "update the NVIDIA driver" in findings["NVIDIA GPU"]["explanation"]
