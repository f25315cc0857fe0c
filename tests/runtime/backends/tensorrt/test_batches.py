"""Objects of a frame, and dense networks, on TensorRT without a GPU: see test_backend.py for what the stub shows."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pytest
from dense_network import picture

from framegate.runtime.bundle.bundle import CALIBRATION, MANIFEST, seal
from framegate.runtime.cli.main import main

OBJECTS = """
from framegate.runtime.regions.function import FunctionRegions
from framegate.runtime.regions.judge import Objects
from framegate.runtime.regions.tracks import TrackMemory
from framegate.runtime.verdict import Frame

built()
rng = np.random.default_rng(0)
places = []
def judges(session):
    objects = Objects(FunctionRegions(lambda image: places[-1]))
    return session.object_judge(objects, TrackMemory(session.stream_policy, objects.rule)), session.camera_health()
ours, theirs = open_tensorrt(), Session.open(BUNDLE, "onnxruntime", "fp32", camera=False)
pairs, accepted = [judges(each) for each in (ours, theirs)], 0
for k, count in enumerate([1, 16, 3, 9, 2, 5, 12, 16, 7]):
    image = np.zeros((100, 400, 3), np.uint8)
    image[:] = rng.integers(0, 256, (1, 400 // 25, 3), np.uint8).repeat(25, axis=1)
    image += rng.integers(0, 9, image.shape, np.uint8)
    places.append([(25 * n, 10, 24, 60) for n in range(count)])
    a, b = (judge.judge(Frame(k, k + 1, image), health) for judge, health in pairs)
    assert len(a.predictions) == len(b.predictions) == count
    for one, other in zip(a.predictions, b.predictions):
        assert one.found.box == other.found.box and one.reasons == other.reasons, (one, other)
        assert one.candidate == other.candidate and abs(one.entropy - other.entropy) < 1e-5, (one, other)
        accepted += one.accepted
assert accepted > 10, accepted
refused(lambda: ours.scorer.backend.share().bind(np.zeros((17, 3, 32, 32), np.float32)), "from (1, 3, 32, 32) to (16,")
"""


def test_all_objects_of_a_frame_are_one_graph_launch_with_the_verdicts_of_onnxruntime(child):
    _, told, calls = child(OBJECTS)
    assert "no CUDA graph" not in told
    last = len(calls) - 1 - calls[::-1].index("cuGraphLaunch")
    frames = [call for call in calls[: last + 1] if call == "cuGraphLaunch"]
    assert len(frames) >= 9
    # Of the last frame, with seven objects: one launch, and nothing else before the wait.
    assert calls[last : last + 4] == ["cuGraphLaunch", "cuEventRecord", "cuCtxSetCurrent", "cuEventQuery"]


def test_fault_logits_that_never_came_are_a_fault_and_nans_are_not(child):
    child("""
from framegate.runtime.backends.tensorrt.scores import PlainLogits

built()
one = load_backend("tensorrt", BUNDLE / "model.fp32.onnx", None)
tensor = np.full((4, 3, 32, 32), 0.5, np.float32)
one.bind(tensor)
assert infer(one).shape == (4, 3)
one.graph._scores.enqueue = lambda result, stream: None     # a copy that never happens
one.graph._enqueue = lambda slot: None
one.graph.slots[0].graph = 0
refused(lambda: infer(one), "no whole record")
refused(lambda: infer(one), "not used since the GPU failed")
one.reinitialise()
tensor[2, 0] = np.nan
logits = infer(one)
assert np.isnan(logits[2, 2]) and np.isfinite(logits[[0, 1, 3]]).all(), logits
""")


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """A dense bundle whose logits are eight times the input: how red, green and blue a pixel is."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    place = tmp_path_factory.mktemp("dense")
    kind = TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Mul", ["image", "eight"], ["logits"])],
        "colours",
        [helper.make_tensor_value_info("image", kind, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("logits", kind, [1, 3, 32, 32])],
        [numpy_helper.from_array(np.float32(8), "eight")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), place / "d.onnx")
    (place / "labels.txt").write_text("red\ngreen\nblue\n")
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (place / "seen" / name).mkdir(parents=True)
    for k in range(80):
        image, mask = picture(rng)
        cv2.imwrite(str(place / f"seen/images/{k}.png"), image)
        cv2.imwrite(str(place / f"seen/masks/{k}.png"), np.where(mask, 0, 2).astype(np.uint8))
    bundle = place / "colours.bundle"
    words = ["--kind", "dense", "--scaling", "unit", "--region", "middle=0.25,0.25,0.5,0.5", "--out", str(bundle)]
    words += ["--labels", str(place / "labels.txt"), "--unseen", str(place / "seen")]
    assert main(["export", str(place / "d.onnx"), *words]) == 0
    record = json.loads((bundle / CALIBRATION).read_text())
    record["records"]["tensorrt/fp32"] = {**record["records"]["onnxruntime/fp32"], "engine": "tensorrt"}
    (bundle / CALIBRATION).write_text(json.dumps(record))
    seal(bundle, json.loads((bundle / MANIFEST).read_text()))
    return bundle


DENSE = """
FACTS["network"]["outputs"][0]["shape"] = [-1, 3, 32, 32]
built(plan=b"PLAN of the dense network")
ours, theirs = open_tensorrt(), Session.open(BUNDLE, "onnxruntime", "fp32", camera=False)
rng, reasons = np.random.default_rng(0), set()
for k in range(25):
    image = np.full((32, 32, 3), (220, 30, 30), np.uint8)
    image[:, : rng.integers(0, 33)] = (30, 30, 220)
    image[: rng.integers(0, 20)] = 120
    image += rng.integers(0, 20, image.shape, np.uint8)
    a, b = ours.infer(image), theirs.infer(image)
    assert a.reasons == b.reasons and a.candidate == b.candidate, (a, b)
    assert abs(a.dense.usable_share - b.dense.usable_share) < 1e-9 and a.dense.shares == b.dense.shares, (a, b)
    assert (a.dense.mask == b.dense.mask).all() and (a.dense.candidates == b.dense.candidates).all()
    for name in ("entropy", "confidence", "margin", "energy"):
        assert abs(getattr(a, name) - getattr(b, name)) < 1e-4, (name, a, b)
    reasons |= set(a.reasons) or {"accepted"}
assert {"accepted", "HIGH_SCORE"} <= set(map(str, reasons)), reasons
assert ours.scorer.backend.maps is not None and theirs.scorer.backend.maps is None
"""


def test_a_dense_network_is_scored_by_the_kernel_in_the_same_graph(child, dense):
    _, told, calls = child(DENSE, own=dense, STUB_INTEGRATED="0")
    assert "no CUDA graph" not in told
    begin, end = calls.index("cuStreamBeginCapture_v2"), calls.index("cuStreamEndCapture")
    inside = [call for call in calls[begin + 1 : end] if not re.match("cuModule", call)]
    assert inside == ["cuMemcpyHtoDAsync_v2", *["cuLaunchKernel"] * 2, *["cuMemcpyDtoHAsync_v2"] * 2]


def test_fault_a_dense_network_of_nans_is_not_finite_and_no_fault_of_the_gpu(child, dense):
    child(
        """
FACTS["network"]["outputs"][0]["shape"] = [-1, 3, 32, 32]
built(plan=b"PLAN of the dense network")
refused(open_tensorrt, "does not compute what was exported")
one = load_backend("tensorrt", BUNDLE / "model.fp32.onnx", None)
one.bind_dense(np.zeros((1, 3, 32, 32), np.float32), 1.0)
assert np.isnan(infer(one)).all() and not one.fault
assert (one.maps.labels == 255).all() and np.isnan(one.maps.entropy).all()
refused(lambda: one.bind(np.zeros((2, 3, 32, 32), np.float32)), "from (1, 3, 32, 32)")
""",
        own=dense,
        FAKE_TENSORRT="nan",
    )
