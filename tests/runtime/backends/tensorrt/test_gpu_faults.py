"""Faults of the GPU's surroundings over the stub of libcuda.so.1: threads, hanging, exhausted memory, swapped files."""

from __future__ import annotations

import json

STREAM = """
class Frames:
    frame_size, fixed_size, live = (64, 48), True, False
    def __init__(self, count=8): self.left = count
    def read(self):
        from framegate.runtime.verdict import Frame
        import time
        if not self.left: return None
        self.left -= 1
        rng = np.random.default_rng(self.left)
        image = np.clip(np.array((250, 8, 8)) + rng.integers(-5, 6, (48, 64, 3)), 0, 255).astype(np.uint8)
        return Frame(100 - self.left, time.monotonic_ns(), image)
    def close(self): pass

def verdicts(session):
    with Pipeline(Frames(), session, lossless=True) as pipeline:
        return "".join("A" if p.accepted else "f" if p.reasons[0].name == "BACKEND_FAULT" else "?" for p in pipeline)
"""


def test_a_new_thread_with_the_number_of_an_old_one_has_the_context_too(child):
    """Thread numbers are used again as soon as a thread has ended: the workers of two pipelines, say."""
    child(
        STREAM
        + """
built()
session = Session.open(BUNDLE, "tensorrt", "fp32")
backend, numbers, done = session.scorer.backend, [], []
def compute():
    numbers.append(threading.get_ident())
    try: done.append(bool(np.isfinite(infer(backend)).all()))
    except Exception as error: done.append(str(error))
for _ in range(4):
    thread = threading.Thread(target=compute)
    thread.start(); thread.join()
assert len(set(numbers)) < 4, numbers
assert done == [True] * 4, done
for turn in range(3):
    assert verdicts(session) == "A" * 8, turn
"""
    )


def test_closing_one_backend_leaves_another_one_its_context(child):
    child("""
built()
first, second = (load_backend("tensorrt", BUNDLE / "model.fp32.onnx") for _ in range(2))
for one in (first, second): one.bind(np.zeros((1, 3, 32, 32), np.float32))
infer(second)
first.close()
assert np.isfinite(infer(second)).all()
""")


RELEASES = {
    "cuMemFree_v2",
    "cuMemFreeHost",
    "cuStreamSynchronize",
    "cuStreamDestroy_v2",
    "cuModuleUnload",
    "stub_context_destroyed",
}
"""What waits for all work of the context, and so for ever on a GPU that hangs."""


def after_the_last_frame(calls):
    return set(calls[max(i for i, call in enumerate(calls) if call == "cuEventRecord") :])


def test_fault_a_gpu_that_hangs_keeps_no_process_from_ending(child):
    """Python lets go of everything at the end of a process, TensorRT's objects among it."""
    _, told, calls = child(
        """
built()
session, other = open_tensorrt(), open_tensorrt()
good = np.full((48, 64, 3), (250, 5, 5), np.uint8)
assert session.infer(good).accepted and other.infer(good).accepted
os.environ["STUB_FAIL"] = "cuEventQuery=600"
assert not session.infer(good).accepted
assert not other.infer(good).accepted
del other, good
gc.collect()
print("the end", file=sys.stderr)
""",
        FRAMEGATE_GPU_LIMIT="0.2",
    )
    assert told.endswith("the end")
    assert not RELEASES & after_the_last_frame(calls)


def test_fault_a_gpu_that_hangs_while_the_graph_is_made_is_not_waited_for(child):
    _, told, calls = child(
        """
built()
os.environ["STUB_FAIL"] = "cuEventQuery=600"
refused(open_tensorrt, "not done after 2 s")
refused(open_tensorrt, "the GPU still hangs")
gc.collect()
print("the end", file=sys.stderr)
""",
        FRAMEGATE_GPU_LIMIT="0.2",
    )
    assert told == "the end"
    assert not RELEASES & after_the_last_frame(calls)


def test_what_was_allocated_for_a_graph_that_cannot_be_made_is_given_back(child):
    """A stream asks again for each of its frames; on a board the machine's own memory would go with it."""
    _, _, calls = child("""
built()
session = open_tensorrt(gpu_preprocess=True)
small, large = (np.full((side, 64, 3), (250, side // 8, 5), np.uint8) for side in (48, 64))
assert session.infer(small).accepted
os.environ["STUB_FAIL"] = "cuMemHostAlloc=2"
for _ in range(5):
    rejected = session.infer(large)
    assert [r.name for r in rejected.reasons] == ["BACKEND_FAULT"] and "OUT_OF_MEMORY" in rejected.detail, rejected
os.environ["STUB_FAIL"] = ""
assert session.infer(small).accepted  # the size that it had before
assert session.infer(large).accepted
session.scorer.backend.close()
""")
    assert calls.count("cuMemAlloc_v2") == calls.count("cuMemFree_v2")
    # What five attempts hold at once is what one holds.
    held = most = 0
    for call in calls:
        held += {"cuMemAlloc_v2": 1, "cuMemFree_v2": -1}.get(call, 0)
        most = max(most, held)
    assert most < 10, most


def test_a_tensorrt_for_a_newer_cuda_than_the_drivers_is_refused_in_words_and_auto_goes_on(child):
    output, told, _ = child(
        """
from framegate.runtime.cli.main import main
built()
refused(open_tensorrt, "cannot start", "CUDA initialization failure", "framegate doctor")
assert Session.open(BUNDLE).scorer.backend.name in ("openvino", "onnxruntime")
main(["doctor", "--json"])
""",
        FAKE_TENSORRT="nocuda",
        STUB_VERSION="12060",
    )
    assert "not on tensorrt: " in told
    finding = next(one for one in json.loads(output) if one["what"] == "backend tensorrt")
    assert not finding["usable"]
    assert "CUDA initialization failure" in finding["explanation"]


def test_fault_a_context_that_cannot_be_made_current_is_a_fault_like_the_others(child):
    child("""
built()
session = open_tensorrt()
good = np.full((48, 64, 3), (250, 5, 5), np.uint8)
assert session.infer(good).accepted
os.environ["STUB_FAIL"] = "cuCtxSetCurrent=700"
rejected = session.infer(good)
assert [r.name for r in rejected.reasons] == ["BACKEND_FAULT"] and "the GPU failed" in rejected.detail, rejected
os.environ["STUB_FAIL"] = ""
assert "not used since the GPU failed" in session.infer(good).detail
session.recover()
assert session.infer(good).accepted
""")


def test_fault_where_objects_are_judged_all_engines_start_again(child):
    """An illegal address ends the context of all of them, and it is renewed only when none of them holds it."""
    child(
        """
from framegate.runtime.regions.batch_scorer import BatchScorer
built()
session = open_tensorrt()
session._asked = batches = BatchScorer(session.bundle, session.scorer.backend, "fp32", session.calibration, 3)
good = np.full((48, 64, 3), (250, 5, 5), np.uint8)
seed = [0]
def judged(count):
    seed[0] += 1  # an answer that repeats is suspect
    noise = np.random.default_rng(seed[0]).integers(-4, 5, (count, 48, 64, 3))
    batches.start([np.clip(good + one, 0, 255).astype(np.uint8) for one in noise])
    return [scored.scores.argmax for scored in batches.finish()]
assert judged(1) == [0] and judged(3) == [0] * 3
os.environ["STUB_FAIL"] = "cuEventQuery=700"
refused(lambda: judged(3), "the GPU failed")
os.environ["STUB_FAIL"] = ""
refused(lambda: judged(2), "the GPU failed")
session.recover()
assert judged(1) == [0] and judged(2) == [0] * 2 and judged(3) == [0] * 3
assert session.infer(good).accepted
""",
        STUB_STICKY="1",
    )


KNOWN = """
import ctypes, json
import fake_runtime as fake
from framegate.runtime.bundle.bundle import MANIFEST, seal
from framegate.runtime.bundle.known_answers import FILE, KnownAnswers

good = np.full((48, 64, 3), (250, 5, 5), np.uint8)

def know():
    plain = Session.open(BUNDLE, "onnxruntime", "fp32").scorer
    colours = np.random.default_rng(1).integers(0, 256, (4, 1, 1, 3))
    pictures = np.broadcast_to(colours, (4, 32, 32, 3)).astype(np.uint8)
    logits = np.stack([plain._answer_to(picture)[0].copy() for picture in pictures])
    (BUNDLE / FILE).write_bytes(KnownAnswers(pictures, logits, {"other/fp32": 1e-3}).to_bytes())
    seal(BUNDLE, json.loads((BUNDLE / MANIFEST).read_text()))

computes = fake.IExecutionContext.execute_async_v3

def wrong_network(self, stream):
    # Other logits for other pixels, but not those of the network: three numbers of the input.
    copied = (self._addresses[name] for name in ("logits", "image"))
    return not fake.CUDA.cuMemcpyDtoDAsync_v2(
        *map(ctypes.c_ulonglong, copied), ctypes.c_size_t(12), ctypes.c_void_p(stream)
    )

def broken(execute): fake.IExecutionContext.execute_async_v3 = execute
"""


def test_fault_an_engine_that_preprocesses_is_asked_the_known_answers_too(child):
    child(
        KNOWN
        + """
know()
built()
session = open_tensorrt(gpu_preprocess=True)
assert session.infer(good).accepted
broken(wrong_network)
refused(open_tensorrt, "does not compute what was exported")
refused(lambda: open_tensorrt(gpu_preprocess=True), "does not compute what was exported")
"""
    )


def test_fault_an_engine_that_starts_again_and_computes_something_else_is_found_at_once(child):
    child(
        KNOWN
        + """
know()
built()
session = open_tensorrt()
assert session.infer(good).accepted
broken(wrong_network)
os.environ["STUB_FAIL"] = "cuEventQuery=700"
assert not session.infer(good).accepted
os.environ["STUB_FAIL"] = ""
session.recover()
rejected = session.infer(good)
assert [r.name for r in rejected.reasons] == ["BACKEND_FAULT"], rejected
assert "does not compute what was exported" in rejected.detail, rejected
"""
    )


def test_fault_a_graph_without_the_engine_is_not_used(child):
    """TensorRT says that it has enqueued, and the capture has seen nothing of it: on a stream of its own, say.

    What lies in the engine's output is then of a frame before the capture, with the record of this one.
    """
    child(
        KNOWN
        + """
from framegate.cuda_kernels.driver.bindings import BindingsDriver
capturing = []
begin, end = BindingsDriver.begin_capture, BindingsDriver.end_capture
BindingsDriver.begin_capture = lambda self, stream: (capturing.append(1), begin(self, stream))[1]
BindingsDriver.end_capture = lambda self, stream: (capturing.clear(), end(self, stream))[1]
broken(lambda self, stream: True if capturing else computes(self, stream))
built()
tensor = np.zeros((1, 3, 32, 32), np.float32)
backend = load_backend("tensorrt", BUNDLE / "model.fp32.onnx")
refused(lambda: backend.bind(tensor), "left no logits")
refused(lambda: backend.bind(np.zeros((4, 3, 32, 32), np.float32)), "no whole record")
spec = Bundle.open(BUNDLE).preprocess
refused(lambda: backend.bind_frames(spec, 64, 48, 1.0), "left no logits")
broken(lambda self, stream: True)    # nor without a capture
refused(lambda: backend.bind(tensor), "left no logits")
"""
    )


def test_fault_scores_that_are_not_those_of_the_logits_beside_them(child):
    """A kernel that a GPU computes wrongly: looked at once when frames are bound, and the label with every frame."""
    child("""
import framegate.runtime.backends.tensorrt.backend as module
from framegate.cuda_kernels.softmax_entropy.launch import read_record
import framegate.runtime.backends.tensorrt.scores as scores
built()
good = np.full((48, 64, 3), (250, 5, 5), np.uint8)
session = open_tensorrt(gpu_preprocess=True)
assert session.infer(good).accepted
import dataclasses
change = {}
def changed(memory, number):
    record = read_record(memory, number)
    return record and dataclasses.replace(record, **change)
scores.read_record = changed
change["argmax"] = 2
other = np.full((48, 64, 3), (250, 6, 5), np.uint8)
rejected = session.infer(other)
assert [r.name for r in rejected.reasons] == ["BACKEND_FAULT"] and "logits beside them" in rejected.detail, rejected
for change in ({"entropy": 0.1}, {"max_probability": 0.9}, {"margin": 0.8}, {"energy": 1.0}):
    rejected = open_tensorrt(gpu_preprocess=True).infer(good)
    assert [r.name for r in rejected.reasons] == ["BACKEND_FAULT"], (change, rejected)
    assert "logits beside them" in rejected.detail, rejected
""")


def test_a_bundle_that_changes_on_disk_does_not_change_the_network_of_an_open_session(child):
    """An update that arrives while a stream runs: labels and calibration in memory are those of the old network."""
    child("""
built()
session = open_tensorrt()
good = np.full((48, 64, 3), (250, 5, 5), np.uint8)
assert session.infer(good).accepted
first = session.scorer.backend._engine._stored.header["key"]["model_sha256"]
model = BUNDLE / "model.fp32.onnx"
model.write_bytes(model.read_bytes() + b"an update")
built()
for again in (session.scorer.backend, session.another().scorer.backend):
    again.reinitialise()
    assert again._engine._stored.header["key"]["model_sha256"] == first
for path in engine_folder().glob(first[:16] + "/*.engine"): path.unlink()
refused(session.scorer.backend.reinitialise, "no usable tensorrt")
refused(session.another, "no usable tensorrt")
assert not session.infer(good).accepted
""")


def test_the_first_inference_has_time_whatever_the_limit_of_a_frame(child):
    """It loads kernels; a limit of a frame's deadline must not keep the engine from being opened."""
    child(
        """
import time
from framegate.cuda_kernels.driver.bindings import BindingsDriver
done, first = BindingsDriver.event_done, []
def slow(self, event):
    first.append(time.monotonic())
    return time.monotonic() - first[0] > 0.3 and done(self, event)
BindingsDriver.event_done = slow
built()
session = open_tensorrt()
assert session.infer(np.full((48, 64, 3), (250, 5, 5), np.uint8)).accepted
""",
        FRAMEGATE_GPU_LIMIT="0.05",
    )


def test_auto_goes_on_where_the_engine_opens_and_its_graph_cannot_be_made(child):
    """No compiler for the kernels, no memory for the buffers, an engine that computes something else."""
    _, told, calls = child(
        KNOWN
        + """
from framegate.cuda_kernels.compile.compiler import CompilerError
know()
built()
def no_compiler(*arguments): raise CompilerError("no nvcc, no NVRTC")
image, kernels.load_image = kernels.load_image, no_compiler
refused(open_tensorrt, "no nvcc")
assert Session.open(BUNDLE).scorer.backend.name in ("openvino", "onnxruntime")
kernels.load_image = image
on_gpu = Session.open(BUNDLE)
assert on_gpu.scorer.backend.name == "tensorrt"
on_gpu.scorer.backend.close()
broken(wrong_network)
session = Session.open(BUNDLE)
print("used", file=open(os.environ["STUB_LOG"], "a"))  # the GPU that is not
assert session.scorer.backend.name in ("openvino", "onnxruntime")
assert session.calibration == session.bundle.calibration(session.scorer.backend.name, session.precision)
"""
    )
    assert told.count("not on tensorrt: ") == 2
    before = calls[: calls.index("used")]
    assert before.count("cuMemAlloc_v2") == before.count("cuMemFree_v2") > 0
    assert before.count("cuDevicePrimaryCtxRetain") == before.count("cuDevicePrimaryCtxRelease_v2") > 0


def test_an_engine_is_not_destroyed_while_it_computes(child):
    """A frame that was started and never finished, and then one of another size."""
    _, _, calls = child("""
built()
backend = load_backend("tensorrt", BUNDLE / "model.fp32.onnx")
spec = Bundle.open(BUNDLE).preprocess
backend.bind_frames(spec, 64, 48, 1.0)
backend.start(np.full((48, 64, 3), 7, np.uint8))
backend.bind_frames(spec, 64, 64, 1.0)
""")
    destroyed = calls.index("stub_context_destroyed")
    launched = max(i for i, call in enumerate(calls[:destroyed]) if call == "cuGraphLaunch")
    assert "cuEventQuery" in calls[launched:destroyed]


def test_several_regions_are_not_preprocessed_on_the_gpu(child):
    """Each has a size of its own, and the engine would be opened again for each of them in every frame."""
    child("""
from framegate.runtime.roi import Roi
built()
session = open_tensorrt(gpu_preprocess=True)
whole, left = Roi.whole(), Roi.parse("left=0,0,32,48")
assert session.regions_of((left,)) == (left,)
refused(lambda: session.regions_of((whole, left)), "one region")
assert open_tensorrt().regions_of((whole, left)) == (whole, left)
""")


def test_a_second_output_in_half_precision_is_refused(child):
    """As many bytes as float32 has would be copied out of, and into, half of the memory."""
    child("""
import fake_runtime as fake
class WithMonitor(fake.ICudaEngine):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.tensors |= {"pooled": (-1, 6)}
fake.ICudaEngine = WithMonitor
built()
os.environ["FAKE_TENSORRT"] = "half-pooled"
refused(lambda: load_backend("tensorrt", BUNDLE / "model.fp32.onnx"), "pooled is not float32", "--force")
""")
