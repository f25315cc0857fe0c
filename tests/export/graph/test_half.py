"""The float16 network and the richer outputs: types, numbers, sharing of weights, and the command that writes them."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from repository import ROOT

from framegate.cuda_kernels.softmax_entropy.reference import softmax_scores
from framegate.export.bundle_writer import update_manifest
from framegate.export.checks.half import check_half
from framegate.export.commands import onnx_file as command_onnx
from framegate.export.graph.graph import save, store_half
from framegate.export.graph.half import SUMS, half_file, to_half
from framegate.export.graph.scores import SCORES, with_scores, with_taps
from framegate.models.registry import architecture
from framegate.runtime.backends.base import infer
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.errors import BundleError, CalibrationError, ExportRefusedError, UsageError

SHIPPED = ROOT / "models/bundles/hybrid-cifar10.bundle"
PREPROCESS = architecture("hybrid").preprocess
TAPS = ("trunk.features.0.0", "adapt.0")
IMAGES = (np.random.default_rng(4).random((3, 3, 96, 96), np.float32) * 2 - 1).astype(np.float32)


def _run(model: onnx.ModelProto, images: np.ndarray = IMAGES) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: images}), strict=True))


def _types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    known = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    return known | {item.name: item.data_type for item in graph.initializer}


@pytest.fixture(scope="module")
def half(graph: onnx.ModelProto) -> onnx.ModelProto:
    return to_half(store_half(graph))


def test_convolutions_compute_in_half_and_sums_in_float(half: onnx.ModelProto) -> None:
    onnx.checker.check_model(half, full_check=True)
    types = _types(half)
    assert types["image"] == types["logits"] == TensorProto.FLOAT
    seen = set()
    for node in half.graph.node:
        if node.op_type == "Cast":
            continue
        wanted = (
            TensorProto.FLOAT if node.op_type in SUMS or node.op_type in ("Gemm", "Reshape") else TensorProto.FLOAT16
        )
        assert types[node.output[0]] == wanted, node.name
        assert all(types[name] in (wanted, TensorProto.INT64) for name in node.input if name), node.name
        seen.add(node.op_type)
    assert {"Conv", "Gemm", "ReduceMean"} <= seen
    assert sum(node.op_type == "Cast" for node in half.graph.node) < 12
    assert [(entry.domain, entry.version) for entry in half.opset_import] == [("", 18)]


def test_numbers_move_by_half_precision_only(half: onnx.ModelProto, graph: onnx.ModelProto) -> None:
    expected, found = _run(graph)["logits"], _run(half)["logits"]
    assert 0 < np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
    # Stored as float16 or not, it is the same network; the two files may be fused differently.
    np.testing.assert_allclose(found, _run(to_half(graph))["logits"], rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_it_is_derived_the_same_way_every_time(half: onnx.ModelProto, graph: onnx.ModelProto) -> None:
    again = to_half(store_half(graph))
    assert half.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)


def test_the_file_shares_its_weights(graph: onnx.ModelProto, half: onnx.ModelProto, tmp_path: Path) -> None:
    save(store_half(graph), tmp_path / "model.fp32.onnx")
    half_file(tmp_path / "model.fp32.onnx", tmp_path / "model.fp16.onnx")
    assert (tmp_path / "model.fp16.onnx").stat().st_size < 0.06 * (tmp_path / "model.fp32.onnx").stat().st_size
    loaded = onnx.load(tmp_path / "model.fp16.onnx")
    inside = {item.name: numpy_helper.to_array(item) for item in half.graph.initializer}
    assert {item.name for item in loaded.graph.initializer} == set(inside)
    for item in loaded.graph.initializer:
        assert np.array_equal(numpy_helper.to_array(item), inside[item.name]), item.name
    expected = _run(half)["logits"]
    for name in ("openvino", "onnxruntime"):
        engine = load_backend(name, tmp_path / "model.fp16.onnx")
        engine.bind(IMAGES)
        assert np.abs(infer(engine) - expected).max() < 0.02 * np.abs(expected).max()


def _doubled(model: onnx.ModelProto, factor: float) -> onnx.ModelProto:
    """The first convolution's result times ``factor``, and back again."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = changed.graph
    at = graph.node[0].output[0]
    graph.node[0].output[0] = "small"
    graph.initializer.append(numpy_helper.from_array(np.float32(factor), "up"))
    graph.initializer.append(numpy_helper.from_array(np.float32(1 / factor), "down"))
    graph.node.insert(1, helper.make_node("Mul", ["small", "up"], ["large"], "up"))
    graph.node.insert(2, helper.make_node("Mul", ["large", "down"], [at], "down"))
    return changed


def test_activations_beyond_half_are_refused(graph: onnx.ModelProto, colours, tmp_path: Path) -> None:
    images = colours(4, seed=3).images
    for factor, passes in ((2.0, True), (60000.0, False)):
        save(_doubled(graph, factor), tmp_path / "a.onnx")
        half_file(tmp_path / "a.onnx", tmp_path / "b.onnx")
        if passes:
            check_half(tmp_path / "a.onnx", tmp_path / "b.onnx", PREPROCESS, images)
        else:
            with pytest.raises(ExportRefusedError, match=r"NaN or infinite|logits move"):
                check_half(tmp_path / "a.onnx", tmp_path / "b.onnx", PREPROCESS, images)


def test_weights_beyond_half_and_quantised_networks_are_refused(
    graph: onnx.ModelProto, int8_graph: onnx.ModelProto
) -> None:
    large = onnx.ModelProto()
    large.CopyFrom(graph)
    bias = next(item for item in large.graph.initializer if item.name == "trunk.features.0.0.bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(bias.dims[0], 1e5, np.float32), bias.name))
    with pytest.raises(ExportRefusedError, match=r"'trunk\.features\.0\.0\.bias' reaches 1e\+05"):
        to_half(large)
    with pytest.raises(ExportRefusedError, match="quantised"):
        to_half(int8_graph)


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_scores_are_those_of_the_reference(graph: onnx.ModelProto, temperature: float, inline: bool) -> None:
    model = with_scores(graph, temperature)
    assert [(f.domain, f.name) for f in model.functions] == [("framegate", "SoftmaxEntropy")]
    if inline:
        model = onnx.inliner.inline_local_functions(model)
        assert {node.domain for node in model.graph.node} == {""}
    onnx.checker.check_model(model, full_check=True)
    found = _run(model)
    assert list(found) == ["logits", *SCORES]
    expected = softmax_scores(found["logits"], temperature)
    for name in SCORES:
        np.testing.assert_allclose(found[name].squeeze(), getattr(expected, name), atol=2e-6, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    "row", [[np.nan, 0, 1], [np.inf, 0, 1], [-np.inf, 0, 1], [np.inf, np.inf, 0], [-np.inf, -np.inf, -np.inf]]
)
def test_a_faulty_row_never_looks_certain(row: list[float]) -> None:
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3])
    graph = helper.make_graph([helper.make_node("Identity", ["image"], ["logits"])], "g", [image], [logits])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    found = _run(with_scores(model, 1.0), np.array([row, [60000.0, -60000.0, 3.0]], np.float32))
    assert np.isnan(found["entropy"][0, 0])
    assert found["entropy"][1, 0] == 0.0
    assert found["margin"][1, 0] == 1.0


def test_taps_give_what_lies_behind_the_activation(graph: onnx.ModelProto, half: onnx.ModelProto) -> None:
    found = _run(with_taps(graph, TAPS))
    assert list(found) == ["logits", *TAPS]
    assert found[TAPS[0]].shape == (3, 32, 48, 48)
    assert found[TAPS[0]].min() >= 0
    assert found[TAPS[0]].max() <= 6
    plain = _run(graph)["logits"]
    np.testing.assert_allclose(found["logits"], plain, rtol=1e-5, atol=1e-5 * np.abs(plain).max())
    rounded = _run(with_taps(half, TAPS))
    assert rounded[TAPS[0]].dtype == np.float32
    np.testing.assert_allclose(rounded[TAPS[0]], found[TAPS[0]], atol=0.02)
    with pytest.raises(UsageError, match=r"tap 'x': no such layer; there are trunk\.features\.0\.0"):
        with_taps(graph, ["x"])


def _command(*words: object) -> int:
    parser = argparse.ArgumentParser()
    command_onnx.register(parser.add_subparsers())
    arguments = parser.parse_args(["onnx", *(str(word) for word in words)])
    return arguments.run(arguments)


def test_command_writes_the_shipped_bundle_in_half_with_everything(tmp_path: Path, capsys) -> None:
    target = tmp_path / "all.onnx"
    words = (SHIPPED, "--out", target, "--precision", "fp16", "--scores", "1.5", "--taps", "adapt.0")
    assert _command(*words) == 0
    assert "fp16, outputs logits, pooled, adapt.0, probabilities, entropy, margin, energy" in capsys.readouterr().out
    found = _run(onnx.load(target), IMAGES[:2])
    expected = softmax_scores(found["logits"], 1.5).entropy
    np.testing.assert_allclose(found["entropy"][:, 0], expected, atol=2e-6)
    with pytest.raises(UsageError, match="exists already"):
        _command(*words)


def test_command_takes_the_temperature_of_the_engine_and_openvino_reads_the_result(tmp_path: Path) -> None:
    target = tmp_path / "scores.onnx"
    assert _command(SHIPPED, "--out", target, "--scores", "openvino", "--inline") == 0
    calibration = Bundle.open(SHIPPED).calibrations["openvino/fp32"]
    found = _run(onnx.load(target), IMAGES[:1])
    expected = softmax_scores(found["logits"], calibration.temperature)
    np.testing.assert_allclose(found["entropy"][:, 0], expected.entropy, atol=2e-6)
    engine = load_backend("openvino", target)
    engine.bind(np.ascontiguousarray(IMAGES[:1]))
    np.testing.assert_allclose(infer(engine), found["logits"], atol=1e-4)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["--out", "x"], UsageError, "ends in .onnx"),
        (["--out", "x.onnx", "--precision", "bf16"], BundleError, "'bf16' was asked for, it has fp16, fp32, int8"),
        (["--out", "x.onnx", "--scores", "tensorrt"], CalibrationError, "which has onnxruntime/fp32"),
        (["--out", "x.onnx", "--scores", "-1"], UsageError, "above 0"),
        (["--out", SHIPPED / "x.onnx"], UsageError, "inside the bundle"),
        (["--out", "nowhere/x.onnx"], BundleError, "cannot be written"),
    ],
)
def test_command_names_what_is_wrong(tmp_path: Path, monkeypatch, words: list, error, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        _command(SHIPPED, *words)
    assert list(tmp_path.iterdir()) == []


def test_the_taps_of_the_bundle_are_the_default_and_must_be_there(make_bundle, tmp_path: Path) -> None:
    target = tmp_path / "with taps.onnx"
    assert _command(SHIPPED, "--out", target, "--taps") == 0
    outputs = [value.name for value in onnx.load(target).graph.output]
    assert outputs == ["logits", "pooled", *Bundle.open(SHIPPED).taps]
    assert len(outputs) > 1
    with pytest.raises(UsageError, match="names none"):
        _command(make_bundle(), "--out", tmp_path / "x.onnx", "--taps")


def test_a_half_file_of_other_weights_is_refused(make_bundle, tmp_path: Path) -> None:
    path = make_bundle()
    half_file(path / "model.fp32.onnx", path / "model.fp16.onnx")

    models = {**Bundle.open(path).models, "fp16": "model.fp16.onnx"}
    update_manifest(path, models=models)
    assert command_onnx.network(Bundle.open(path), "fp16").graph.output[0].name == "logits"
    changed = onnx.load(path / "model.fp32.onnx")
    changed.producer_name = "somebody else"
    onnx.save(changed, path / "model.fp32.onnx")
    (path / "calibration.json").unlink()
    update_manifest(path)
    with pytest.raises(BundleError, match="derived from other weights"):
        command_onnx.network(Bundle.open(path), "fp16")


@pytest.mark.tensorrt
def test_tensorrt_rtx_builds_what_is_written(
    graph: onnx.ModelProto, int8_graph: onnx.ModelProto, tmp_path: Path
) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed; it builds engines without a GPU")
    save(store_half(graph), tmp_path / "model.fp32.onnx")
    half_file(tmp_path / "model.fp32.onnx", tmp_path / "model.fp16.onnx")
    save(with_scores(with_taps(to_half(graph), TAPS), 1.5), tmp_path / "all.onnx")
    save(with_scores(int8_graph, 1.5), tmp_path / "int8.onnx")
    sizes = {}
    for file in ("model.fp32.onnx", "model.fp16.onnx", "all.onnx", "int8.onnx"):
        builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, trt.Logger(trt.Logger.ERROR))
        assert parser.parse_from_file(str(tmp_path / file)), [
            parser.get_error(k).desc() for k in range(parser.num_errors)
        ]
        assert network.get_input(0).dtype == network.get_output(0).dtype == trt.float32
        names = [network.get_output(k).name for k in range(network.num_outputs)]
        assert names[0] == "logits"
        assert names == [value.name for value in onnx.load(tmp_path / file, load_external_data=False).graph.output]
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)
        profile = builder.create_optimization_profile()
        profile.set_shape("image", (1, 3, 96, 96), (1, 3, 96, 96), (8, 3, 96, 96))
        config.add_optimization_profile(profile)
        sizes[file] = builder.build_serialized_network(network, config).nbytes
    assert sizes["model.fp16.onnx"] < 0.7 * sizes["model.fp32.onnx"]
