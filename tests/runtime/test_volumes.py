"""A bundle with a 3D network goes the whole way of a frame: a volume is a column of slices."""

from __future__ import annotations

import hashlib
import json

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from framegate.benchmarks.latency import measure as bench
from framegate.runtime import BackendError, Frame, Pipeline, Reason, Session, open_source
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.bundle.bundle import Bundle, seal
from framegate.runtime.cli import main as cli
from framegate.runtime.roi import Roi
from framegate.runtime.sinks.overlay import draw

DEPTH, SIDE = 4, 16
BACKENDS = ["openvino", "onnxruntime"]


def network():
    """(N, 1, 4, 16, 16) -> (N, 4): a 3D convolution, then 8 x the mean of each slice. The brightest slice wins."""
    centre = np.zeros((1, 1, 3, 3, 3), np.float32)
    centre[0, 0, 1, 1, 1] = 1.0
    nodes = [
        helper.make_node("Conv", ["volume", "centre"], ["same"], pads=[1] * 6),
        helper.make_node("ReduceMean", ["same"], ["means"], axes=[1, 3, 4], keepdims=0),
        helper.make_node("Mul", ["means", "eight"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "volumes",
        [helper.make_tensor_value_info("volume", TensorProto.FLOAT, ["N", 1, DEPTH, SIDE, SIDE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", DEPTH])],
        [numpy_helper.from_array(centre, "centre"), numpy_helper.from_array(np.float32(8.0), "eight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def write_bundle(folder, **preprocess):
    folder.mkdir()
    onnx.save(network(), folder / "model.fp32.onnx")
    onnx.save(network(), folder / "model.int8.onnx")

    def sha(name):
        return hashlib.sha256((folder / name).read_bytes()).hexdigest()

    record = {
        "temperature": 1.0,
        "score": "entropy",
        "threshold": 0.5,
        "target_risk": 0.05,
        "confidence_level": 0.95,
        "risk_bound": 0.04,
        "coverage": 0.9,
        "selective_risk": 0.01,
        "size": 1000,
        "fingerprint": "0" * 64,
        "model_sha256": sha("model.fp32.onnx"),
        "engine": "test",
    }
    records = {f"{backend}/{precision}": record for backend in BACKENDS for precision in ("fp32", "int8")}
    calibration = {"format": "framegate-calibration-2", "records": records}
    (folder / "calibration.json").write_text(json.dumps(calibration))
    spec = {"width": SIDE, "height": SIDE, "resize": "bilinear", "fit": "stretch", "colour": "grey", "depth": DEPTH}
    manifest = {
        "name": "volumes",
        "labels": [f"slice {k}" for k in range(DEPTH)],
        "preprocess": {**spec, "mean": [127.5], "std": [127.5], **preprocess},
        "models": {"fp32": "model.fp32.onnx", "int8": "model.int8.onnx"},
    }
    seal(folder, manifest)
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("volumes") / "volumes.bundle")


def volume(bright, seed=0, side=SIDE):
    """(4, side, side) uint8: one slice is bright, the others are dark, with slight noise."""
    values = np.random.default_rng(seed).integers(20, 31, (DEPTH, side, side))
    values[bright] += 200
    return values.astype(np.uint8)


def strip(bright, seed=0, side=SIDE):
    return cv2.cvtColor(np.concatenate(volume(bright, seed, side), axis=0), cv2.COLOR_GRAY2BGR)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("side", [SIDE, 40])
def test_every_slice_reaches_its_place(bundle, backend, side):
    session = Session.open(bundle, backend, camera=False)
    assert session.scorer.preprocessor.tensor.shape == (1, 1, DEPTH, SIDE, SIDE)
    for bright in range(DEPTH):
        prediction = session.infer(strip(bright, side=side))
        assert prediction.accepted, prediction
        assert prediction.label == f"slice {bright}"
        assert prediction.engine_ns > 0
        # A grey file holds one channel; a grey network takes it as it is.
        grey = session.infer(np.concatenate(volume(bright, side=side), axis=0))
        assert (grey.label, grey.entropy) == (prediction.label, pytest.approx(prediction.entropy, abs=1e-6))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_volume_without_a_bright_slice_is_rejected(bundle, backend):
    session = Session.open(bundle, backend)
    flat = np.full((DEPTH * SIDE, SIDE, 3), 128, np.uint8)
    assert session.infer(flat).reasons == (Reason.HIGH_SCORE,)


@pytest.mark.parametrize(
    "image",
    [
        np.full((65, 16, 3), 128, np.uint8),  # no multiple of four slices
        np.full((40, 40, 3), 128, np.uint8),  # slices of ten rows
        np.full((64, 8, 3), 128, np.uint8),
        np.full((64, 16), 128, np.uint16),
        np.full((64, 16), 0.5),
        np.full((64, 16, 1), 128, np.uint8),
        np.full((4, 16, 16), 128, np.uint8),  # the volume itself
        np.zeros((0, 16), np.uint8),
        None,
    ],
)
def test_what_is_no_volume_is_bad_input(bundle, image):
    session = Session.open(bundle, "onnxruntime", camera=False)
    prediction = session.infer(image)
    assert prediction.reasons == (Reason.BAD_INPUT,)
    assert prediction.detail.startswith("expected ")
    assert session.infer(strip(2)).label == "slice 2"


def test_a_network_for_colour_still_rejects_grey_images(tiny_bundle):
    prediction = Session.open(tiny_bundle, "onnxruntime").infer(np.full((48, 64), 128, np.uint8))
    assert prediction.reasons == (Reason.BAD_INPUT,)


def test_a_region_of_a_frame_may_hold_the_volume(bundle):
    session = Session.open(bundle, "onnxruntime", camera=False)
    frame = np.full((101, 90, 3), 128, np.uint8)  # the frame's own height does not matter
    frame[20 : 20 + DEPTH * SIDE, 30 : 30 + SIDE] = strip(3)
    health = session._health
    rois = (Roi.parse("scan=30,20,16,64"), Roi.parse("odd=0,0,16,65"))
    inside, odd = session.frame_judge.judge(Frame(0, 0, frame), rois, health)
    assert inside.label == "slice 3"
    assert odd.reasons == (Reason.BAD_INPUT,)


def test_shapes_in_empty_space_are_neither_black_nor_frozen(bundle):
    # Every 32nd row, which is all that is looked at of a camera's frame, is black in all of these.
    session = Session.open(bundle, "onnxruntime")
    for k in range(4):
        shape = np.zeros((DEPTH * SIDE, SIDE), np.uint8)
        shape[SIDE * k + 4 : SIDE * k + 12, 2 + k : 14] = 255
        reasons = session.infer(shape).reasons
        assert Reason.BLACK not in reasons
        assert Reason.FROZEN not in reasons
    assert Reason.FROZEN in session.infer(shape.copy()).reasons
    assert Reason.BLACK in session.infer(np.zeros_like(shape)).reasons


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_of_another_shape_does_not_open(bundle, tiny_bundle, tmp_path, backend):
    flat = write_bundle(tmp_path / "flat.bundle", depth=1)  # the manifest says image, the network wants volumes
    with pytest.raises(BackendError, match=backend):
        Session.open(flat, backend)
    engine = load_backend(backend, Bundle.open(tiny_bundle).model_path("fp32"))
    with pytest.raises(BackendError, match=backend):
        engine.bind(np.zeros((1, 1, DEPTH, SIDE, SIDE), np.float32))


def write_strips(folder):
    folder.mkdir()
    for bright in range(DEPTH):
        cv2.imwrite(str(folder / f"{bright}.png"), np.concatenate(volume(bright, bright, 32), axis=0))
    return folder


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("backend", BACKENDS)
def test_framegate_run_on_a_folder_of_strips(bundle, tmp_path, backend, capsys):
    folder, out = write_strips(tmp_path / "strips"), tmp_path / "v.jsonl"
    code = cli.main(["run", str(folder), "--bundle", str(bundle), "--backend", backend, "--jsonl", str(out)])
    assert code == 0, capsys.readouterr().err
    assert [(row["verdict"], row["candidate"]) for row in rows_of(out)] == [("ACCEPT", f"slice {k}") for k in range(4)]


def test_framegate_run_names_the_files_that_are_no_volumes(bundle, tmp_path, capsys):
    folder, out = write_strips(tmp_path / "strips"), tmp_path / "v.jsonl"
    cv2.imwrite(str(folder / "9.png"), np.full((130, 32, 3), 100, np.uint8))
    code = cli.main(["run", str(folder), "--bundle", str(bundle), "--backend", "onnxruntime", "--jsonl", str(out)])
    err = capsys.readouterr().err
    assert code == 1
    assert (
        "frame 4 9.png: expected 4 slices of equal height, at least 16 pixels, one below the other, got 32x130" in err
    )
    assert [row["verdict"] for row in rows_of(out)] == ["ACCEPT"] * 4 + ["REJECT"]


def test_fault_injection_lets_no_volume_through(bundle, tmp_path, capsys):
    folder, out = tmp_path / "strips", tmp_path / "v.jsonl"
    folder.mkdir()
    for k in range(5):
        cv2.imwrite(str(folder / f"{k}.png"), strip(k % DEPTH, k, 24))
    arguments = ["run", folder, "--bundle", bundle, "--backend", "onnxruntime", "--jsonl", out]
    arguments += ["--inject", "black:1,size:2,grey16:3", "--video", tmp_path / "v.mp4"]
    code = cli.main([str(argument) for argument in arguments])
    assert code == 1, capsys.readouterr().err
    reasons = [row["reasons"] for row in rows_of(out)]
    assert reasons[0] == reasons[4] == []
    assert "BLACK" in reasons[1]
    assert reasons[2:4] == [["BAD_INPUT"]] * 2
    assert (tmp_path / "v.mp4").stat().st_size > 0


def test_the_synthetic_source_runs_if_its_height_fits(bundle):
    session = Session.open(bundle, "onnxruntime")
    with Pipeline(
        open_source("synthetic://?width=128&height=64&frames=5", realtime=False), session, lossless=True
    ) as p:
        predictions = list(p)
    assert len(predictions) == 5
    assert all(Reason.BAD_INPUT not in prediction.reasons for prediction in predictions)
    assert all(np.isfinite(prediction.entropy) for prediction in predictions)


def test_the_latency_bench_runs_if_the_height_fits(bundle):
    results = bench.measure_latency(
        Bundle.open(bundle), [("onnxruntime", "fp32")], 5, 1, (128, 64), lambda what, done, total: None
    )
    assert len(results[0].bare_ns) == len(results[0].verdict_ns) > 0
    assert min(results[0].call_ns) > 0  # the engine was called on every frame


def test_the_overlay_draws_on_a_strip(bundle):
    session = Session.open(bundle, "onnxruntime", camera=False)
    image = strip(1, side=64)
    drawn = draw(image, (session.infer(image),), (Roi.whole(),))
    assert drawn.shape == image.shape
    assert not np.array_equal(drawn, image)


def test_info_opens_it(bundle, capsys):
    assert cli.main(["info", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"][3] == "slice 3"
