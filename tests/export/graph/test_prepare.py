"""Foreign ONNX files: what is understood, and what is refused in one clear line."""

from __future__ import annotations

from pathlib import Path

import foreign_onnx
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from framegate.export.graph import prepare as prepare_module
from framegate.export.graph.prepare import check_same_function, prepare
from framegate.export.graph.source import find_input, read_onnx
from framegate.runtime.errors import DataError, ExportRefusedError, FramegateError, UsageError

SIDE, foreign_model = foreign_onnx.SIDE, foreign_onnx.foreign_model

IMAGES = np.random.default_rng(1).random((5, 3, SIDE, SIDE), np.float32)


def _saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "foreign.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def _shape(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("opset", [13, 17, 18, 20])
@pytest.mark.parametrize(
    ("tail", "removed"),
    [
        ((), ""),
        (("Softmax",), "Softmax"),
        (("LogSoftmax",), "LogSoftmax"),
        (("Identity", "Softmax", "Flatten"), "Softmax"),
    ],
)
def test_logits_of_any_number_of_images_come_out(tmp_path, layout, opset, tail, removed) -> None:
    model = foreign_model(layout=layout, tail=tail, opset=opset)
    path = _saved(model, tmp_path)
    prepared = prepare(path, SIDE, SIDE)
    assert (prepared.removed, prepared.classes, prepared.fixed_batch) == (removed, 3, False)
    assert prepared.image.layout == layout
    check_same_function(prepared, IMAGES, path)
    graph = prepared.model.graph
    assert [(value.name, _shape(value)) for value in graph.input] == [("image", ["batch", 3, SIDE, SIDE])]
    assert [(value.name, _shape(value)) for value in graph.output] == [("logits", ["batch", 3])]
    assert [(entry.domain, entry.version) for entry in prepared.model.opset_import] == [("", 18)]
    kinds = [node.op_type for node in graph.node]
    assert not set(kinds) & {"Softmax", "LogSoftmax", "BatchNormalization", "Identity", "Transpose"}
    logits = foreign_model(layout=layout, tail=())
    run = ort.InferenceSession(logits.SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = IMAGES if layout == "nchw" else IMAGES.transpose(0, 2, 3, 1)
    expected = np.concatenate([run.run(None, {"pixels": np.ascontiguousarray(row[None])})[0] for row in inputs])
    found = ort.InferenceSession(prepared.model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(found.run(None, {"image": IMAGES})[0], expected, atol=1e-4)


def test_names_of_a_bundle_inside_the_network_do_not_clash(tmp_path) -> None:
    model = foreign_model(tail=("Softmax",))
    for node in model.graph.node:
        for names in (node.input, node.output):
            for k, name in enumerate(names):
                names[k] = {"c": "image", "b": "logits"}.get(name, name)
    path = _saved(model, tmp_path)
    check_same_function(prepare(path, SIDE, SIDE), IMAGES, path)


def test_a_network_that_mixes_images_takes_one_at_a_time(tmp_path) -> None:
    model = foreign_model(tail=(), batch="N")
    last = model.graph.node[-1]
    last.output[0] = "row"
    model.graph.node.append(helper.make_node("ReduceMax", ["row"], ["top"], keepdims=1))  # over the batch, too
    model.graph.node.append(helper.make_node("Sub", ["row", "top"], ["tail0"]))
    path = _saved(model, tmp_path)
    prepared = prepare(path, SIDE, SIDE)
    assert prepared.fixed_batch
    assert _shape(prepared.model.graph.output[0]) == [1, 3]
    check_same_function(prepared, IMAGES, path)


def _batch_of(count: int, shape: list[int]) -> onnx.ModelProto:
    model = foreign_model(tail=("Softmax",), batch=count)
    next(item for item in model.graph.initializer if item.name == "shape").CopyFrom(
        numpy_helper.from_array(np.array(shape, np.int64), "shape")
    )
    return model


@pytest.mark.parametrize("shape", [[8, 6], [8, -1], [0, -1]])
def test_a_file_for_eight_images_at_a_time_takes_any_number(tmp_path, shape: list[int]) -> None:
    path = _saved(_batch_of(8, shape), tmp_path)
    prepared = prepare(path, SIDE, SIDE)
    assert not prepared.fixed_batch
    check_same_function(prepared, IMAGES, path)  # five images, which the file takes with three more
    assert _shape(prepared.model.graph.input[0]) == ["batch", 3, SIDE, SIDE]
    ruined = prepare(path, SIDE, SIDE)
    bias = next(item for item in ruined.model.graph.initializer if item.name == "fc.bias")
    bias.CopyFrom(numpy_helper.from_array(np.array([9, 0, 0], np.float32), bias.name))
    with pytest.raises(ExportRefusedError, match="differs from the original"):
        check_same_function(ruined, IMAGES, path)


def test_a_batch_that_cannot_be_opened_is_named_with_the_way_out(tmp_path) -> None:
    model = _batch_of(8, [-1])
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    model.graph.initializer.append(numpy_helper.from_array(np.array([8, 6], np.int64), "rows"))
    at = list(model.graph.node).index(gemm)
    model.graph.node.insert(at, helper.make_node("Reshape", ["f", "rows"], ["back"]))
    model.graph.node[at + 1].input[0] = "back"
    path = _saved(model, tmp_path)
    with pytest.raises(ExportRefusedError, match=r"takes 8 images at a time, .*open batch axis"):
        prepare(path, SIDE, SIDE)


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (("Sigmoid", "Cast"), "ends in Sigmoid, so its outputs are independent"),
        (("Cast", "Sigmoid", "Cast", "Identity"), "ends in Sigmoid, so its outputs are independent"),
        (("HardSigmoid", "Cast"), "ends in HardSigmoid"),
    ],
)
def test_a_sigmoid_behind_a_cast_is_found(tmp_path, tail: tuple[str, ...], message: str) -> None:
    with pytest.raises(ExportRefusedError, match=message):
        prepare(_saved(_with_tail(tail), tmp_path), SIDE, SIDE)


@pytest.mark.parametrize("tail", [("Softmax", "Cast"), ("Cast", "Softmax", "Cast"), ("Cast", "LogSoftmax", "Identity")])
def test_a_softmax_behind_a_cast_is_removed(tmp_path, tail: tuple[str, ...]) -> None:
    path = _saved(_with_tail(tail), tmp_path)
    prepared = prepare(path, SIDE, SIDE)
    assert prepared.removed in tail
    assert prepared.model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    check_same_function(prepared, IMAGES, path)


def _with_tail(tail: tuple[str, ...]) -> onnx.ModelProto:
    """A tail whose Casts go to double and back, as they stand."""
    model = foreign_model(tail=tail)
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    wide = len(casts) % 2 == 0
    for k, node in enumerate(casts):
        node.name = f"cast{k}"
        node.attribute.append(helper.make_attribute("to", TensorProto.DOUBLE if wide and k == 0 else TensorProto.FLOAT))
    return model


def test_one_output_with_a_sigmoid_is_refused_with_the_way_out(tmp_path) -> None:
    model = foreign_model(tail=())
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "second"))
    graph.node.append(helper.make_node("Gather", ["tail0", "second"], ["z"], axis=1))
    graph.output[0].CopyFrom(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 1]))
    way_out = r"yes-or-no answer; .* two, for example torch\.cat\(\[torch\.zeros_like\(z\), z\], 1\)"
    with pytest.raises(ExportRefusedError, match=way_out):
        prepare(_saved(model, tmp_path), SIDE, SIDE)
    graph.node.append(helper.make_node("Sigmoid", ["z"], ["yes"]))
    graph.output[0].CopyFrom(helper.make_tensor_value_info("yes", TensorProto.FLOAT, [1, 1]))
    with pytest.raises(ExportRefusedError, match="ends in Sigmoid with one output, a " + way_out):
        prepare(_saved(model, tmp_path), SIDE, SIDE)


def test_a_file_that_is_newer_than_onnx_runtime_is_compared_in_an_older_form(tmp_path, monkeypatch) -> None:
    path = _saved(foreign_model(opset=20), tmp_path)
    prepared = prepare(path, SIDE, SIDE)
    real, refused = prepare_module.cpu_session, []

    def old_runtime(model: onnx.ModelProto) -> ort.InferenceSession:
        if model.opset_import[0].version > 18:
            refused.append(model.opset_import[0].version)
            raise RuntimeError("Opset 20 is under development")
        return real(model)

    monkeypatch.setattr(prepare_module, "cpu_session", old_runtime)
    check_same_function(prepared, IMAGES, path)
    assert refused == [20]
    monkeypatch.setattr(
        prepare_module, "cpu_session", lambda model: (_ for _ in ()).throw(RuntimeError("no such thing"))
    )
    with pytest.raises(ExportRefusedError, match=r"onnxruntime cannot run it \(no such thing\)"):
        check_same_function(prepared, IMAGES, path)


def test_weights_in_a_second_file_are_read(tmp_path) -> None:
    path = tmp_path / "foreign.onnx"
    onnx.save(foreign_model(), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    check_same_function(prepare(path, SIDE, SIDE), IMAGES, path)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(DataError, match="weights lie in another file"):
        prepare(path, SIDE, SIDE)


def _changed(change: str) -> onnx.ModelProto:  # noqa: C901 - a table of small damages
    model = foreign_model(tail=())
    graph = model.graph
    if change == "custom":
        graph.node[2].op_type, graph.node[2].domain = "Swishish", "com.example"
        model.opset_import.append(helper.make_opsetid("com.example", 1))
    elif change == "unknown":
        graph.node[2].op_type = "Reloo"
    elif change == "quantised":
        graph.node[2].op_type = "QLinearConv"
    elif change == "sigmoid":
        return foreign_model(tail=("Sigmoid",))
    elif change == "two inputs":
        graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))
    elif change == "uint8":
        graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    elif change == "flat":
        del graph.input[0].type.tensor_type.shape.dim[2:]
    elif change == "argmax":
        graph.node.append(helper.make_node("ArgMax", ["tail0"], ["number"], axis=1))
        graph.output[0].CopyFrom(helper.make_tensor_value_info("number", TensorProto.INT64, [1, 1]))
    elif change == "mask":
        graph.output[0].CopyFrom(helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 6, SIDE, SIDE]))
    elif change == "two outputs":
        graph.output.append(helper.make_tensor_value_info("f", TensorProto.FLOAT, [1, 6]))
    elif change == "one class":
        graph.node.append(helper.make_node("ReduceMax", ["tail0", "axis"], ["top"], keepdims=1))
        graph.initializer.append(numpy_helper.from_array(np.array([1]), "axis"))
        graph.output[0].CopyFrom(helper.make_tensor_value_info("top", TensorProto.FLOAT, [1, 1]))
    elif change == "transposed":
        model = foreign_model(tail=(), batch="N")
        model.graph.node.append(helper.make_node("Transpose", ["tail0"], ["columns"], perm=[1, 0]))
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("columns", TensorProto.FLOAT, [None, None]))
    elif change == "rows":
        model = foreign_model(tail=(), batch="N")
        model.graph.node.append(helper.make_node("Tile", ["tail0", "often"], ["rows"]))
        model.graph.initializer.append(numpy_helper.from_array(np.array([7, 1]), "often"))
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, None]))
    elif change == "random":
        graph.node.append(helper.make_node("RandomNormalLike", ["tail0"], ["noise"], scale=1e-4))
        graph.node.append(helper.make_node("Add", ["tail0", "noise"], ["noisy"]))
        graph.output[0].CopyFrom(helper.make_tensor_value_info("noisy", TensorProto.FLOAT, [1, 3]))
    elif change == "dangling":
        graph.node[1].input[0] = "nowhere"
    elif change == "shapes":
        next(item for item in graph.initializer if item.name == "shape").CopyFrom(
            numpy_helper.from_array(np.array([1, 7], np.int64), "shape")
        )
    return model


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("custom", ExportRefusedError, "operator com.example::Swishish"),
        ("unknown", ExportRefusedError, "operator Reloo .* unknown in ONNX operator set 18"),
        ("quantised", ExportRefusedError, "quantised already .*QLinearConv"),
        ("sigmoid", ExportRefusedError, "ends in Sigmoid"),
        ("two inputs", ExportRefusedError, r"2 inputs \(pixels, mask\)"),
        ("uint8", ExportRefusedError, "input 'pixels' is UINT8"),
        ("flat", ExportRefusedError, "four dimensions"),
        ("argmax", ExportRefusedError, "output 'number' is INT64"),
        ("mask", ExportRefusedError, "Detectors"),
        ("two outputs", UsageError, "--output-name, one of tail0, f"),
        ("one class", ExportRefusedError, "one output, a yes-or-no answer"),
        ("transposed", ExportRefusedError, "output 'columns' is 3x1 for one image; expected a row of at least two"),
        ("rows", ExportRefusedError, "output 'rows' is 7x3 for one image; expected a row of at least two"),
        ("random", ExportRefusedError, "operator RandomNormalLike .* gives another answer each time"),
        ("dangling", DataError, "nowhere"),
        ("shapes", ExportRefusedError, "onnxruntime cannot run it"),
    ],
)
def test_what_cannot_be_used_is_one_clear_line(tmp_path, change, error, message) -> None:
    with pytest.raises(error, match=message) as caught:
        prepare(_saved(_changed(change), tmp_path), SIDE, SIDE)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no network", foreign_model().SerializeToString()[:-400]])
def test_damaged_files_are_one_clear_line(tmp_path, content) -> None:
    path = tmp_path / "foreign.onnx"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"not an ONNX file|damaged") as caught:
        read_onnx(path)
    assert len(str(caught.value).splitlines()) == 1


def test_missing_file_and_folder(tmp_path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_onnx(tmp_path / "x.onnx")
    with pytest.raises(DataError, match="a folder"):
        read_onnx(tmp_path)


def test_probabilities_without_a_softmax_at_the_end_are_refused(tmp_path) -> None:
    model = foreign_model(tail=("Exp",))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1]), "axes"))
    model.graph.node.append(helper.make_node("ReduceSum", ["tail1", "axes"], ["sum"], keepdims=1))
    model.graph.node.append(helper.make_node("Div", ["tail1", "sum"], ["shares"]))
    model.graph.output[0].name = "shares"
    path = _saved(model, tmp_path)
    with pytest.raises(ExportRefusedError, match="probabilities, but it ends in Div"):
        check_same_function(prepare(path, SIDE, SIDE), IMAGES, path)


def test_a_softmax_that_is_not_over_the_classes_is_refused(tmp_path) -> None:
    model = foreign_model(tail=("Softmax",), batch="N")
    model.graph.node[-1].attribute.append(helper.make_attribute("axis", 0))
    path = _saved(model, tmp_path)
    with pytest.raises(ExportRefusedError, match=r"removing Softmax\) differs"):
        check_same_function(prepare(path, SIDE, SIDE), IMAGES, path)


def test_nan_weights_are_found(tmp_path) -> None:
    model = foreign_model()
    bias = next(item for item in model.graph.initializer if item.name == "fc.bias")
    bias.CopyFrom(numpy_helper.from_array(np.array([np.nan, 0, 0], np.float32), "fc.bias"))
    path = _saved(model, tmp_path)
    with pytest.raises(ExportRefusedError, match="NaN or infinities"):
        check_same_function(prepare(path, SIDE, SIDE), IMAGES, path)


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ([1, 3, 8, 9], None, ("nchw", 3, 9, 8)),
        ([1, 8, 9, 3], None, ("nhwc", 3, 9, 8)),
        (["N", 1, "h", "w"], None, ("nchw", 1, None, None)),
        ([1, 3, 224, 3], "nhwc", ("nhwc", 3, 224, 3)),
        (["N", "c", "h", "w"], "nchw", ("nchw", 3, None, None)),
        ([1, 3, 8, 3], None, "--layout nchw or --layout nhwc"),
        ([1, "c", 8, 8], None, "--layout nchw or --layout nhwc"),
        ([1, 3, 8, 9], "nhwc", "would have 9 colour channels.*--layout nchw"),
        ([1, 4, 8, 9], "nchw", "would have 4 colour channels"),
    ],
)
def test_layout_is_found_out_or_asked_for(shape, layout, expected) -> None:
    model = foreign_model()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape))
    if isinstance(expected, str):
        with pytest.raises(FramegateError, match=expected):
            find_input(model, Path("x.onnx"), layout)
    else:
        image = find_input(model, Path("x.onnx"), layout)
        assert (image.layout, image.channels, image.width, image.height) == expected
