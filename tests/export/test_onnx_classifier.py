"""From somebody else's ONNX file to a bundle that judges frames, on the command line; and the gate between engines."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import foreign_onnx
import numpy as np
import onnx
import pytest

from framegate.export import export as export_road
from framegate.export import onnx_classifier as classifier_module
from framegate.export.calibration.decisions import Outputs
from framegate.export.checks import assess
from framegate.export.checks.pixel_scaling import SCALINGS, trials
from framegate.export.checks.verify import Side, compare_sides
from framegate.export.commands import calibrate as command_calibrate
from framegate.export.commands import export as command_export
from framegate.export.commands import verify as command_verify
from framegate.export.graph.prepare import prepare
from framegate.export.int8.sensitivity import LayerSensitivity
from framegate.models.labelled import LabelledImages
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.bundle.calibration import Calibration
from framegate.runtime.errors import (
    CalibrationError,
    DataError,
    ExportRefusedError,
    FramegateError,
    UsageError,
)
from framegate.runtime.preprocess import PreprocessSpec
from framegate.runtime.session import Session

LABELS, SIDE, foreign_model = foreign_onnx.LABELS, foreign_onnx.SIDE, foreign_onnx.foreign_model


def _command(*words: object) -> int:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    for module in (command_export, command_calibrate, command_verify):
        module.register(commands)
    arguments = parser.parse_args([str(word) for word in words])
    return arguments.run(arguments)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign")
    foreign_onnx.write_photographs(folder / "photographs", 240)
    (folder / "labels.txt").write_text("\n".join(LABELS))
    (folder / "foreign.onnx").write_bytes(foreign_model(layout="nhwc").SerializeToString())
    return folder


def _words(place: Path, *words: object, model: str = "foreign.onnx", labels: str = "labels.txt") -> list[str]:
    promise = ("--target-risk", 0.1, "--confidence-level", 0.9)
    files = ("--labels", place / labels, "--unseen", place / "photographs")
    return [str(word) for word in ("export", place / model, *files, *promise, *words)]


def _export(place: Path, *words: object, model: str = "foreign.onnx", labels: str = "labels.txt") -> int:
    return _command(*_words(place, *words, model=model, labels=labels))


@pytest.fixture(scope="module")
def bundle(place: Path) -> Path:
    """Exported by a process that cannot import PyTorch: an ONNX file needs none."""
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from framegate.runtime.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    target = place / "out" / "foreign.bundle"
    words = _words(place, "--scaling", "unit", "--out", target, "--origin", "tests")
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for part in ("input 20x20 rgb, NHWC in the file; classes: 3", "removed the Softmax", "INT8: ranges by"):
        assert part in done.stdout
    return target


def test_bundle_is_complete_and_says_where_it_comes_from(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    assert opened.labels == LABELS
    assert {"fp32", "int8"} <= set(opened.models)
    assert set(opened.calibrations) == {f"{b}/{p}" for b in ("openvino", "onnxruntime") for p in ("fp32", "int8")}
    assert opened.parity[0]["key"] == "source"
    assert all(row["test_accuracy"] > 0.95 for row in opened.parity)
    origin = opened.origin
    assert (origin["weights"], origin["removed"], origin["source_layout"]) == ("tests", "Softmax", "nhwc")
    assert (opened.preprocess.mean, opened.preprocess.std) == ((0.0,) * 3, (255.0,) * 3)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_session_judges_photographs(bundle: Path, place: Path, backend: str) -> None:
    session = Session.open(bundle, backend, camera=False)
    seen = []
    for label in LABELS:
        prediction = session.infer(cv2.imread(str(next((place / "photographs" / label).iterdir()))))
        seen.append(prediction.candidate)
        assert prediction.threshold > 0
    assert seen == list(LABELS)
    rng = np.random.default_rng(1)
    grey = session.infer(np.repeat(rng.integers(80, 100, (30, 30, 1), np.uint8), 3, axis=2))
    assert not grey.accepted


def test_a_bundle_without_int8_opens_in_fp32(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """The quantiser goes wrong: its file is well formed, but one bias decides everything."""

    def ruin(model: onnx.ModelProto, *rest: object) -> SimpleNamespace:
        ruined = onnx.ModelProto()
        ruined.CopyFrom(model)
        bias = next(item for item in ruined.graph.initializer if item.name == "fc.bias")
        bias.CopyFrom(onnx.numpy_helper.from_array(np.array([90, 0, 0], np.float32), bias.name))
        return SimpleNamespace(model=ruined, keep_float=())

    monkeypatch.setattr(export_road, "choose_int8", ruin)
    target = tmp_path / "no8.bundle"
    assert _export(place, "--scaling", "unit", "--out", target) == 0
    assert "no INT8 file: export refused: openvino/int8 gives a wrong label on" in capsys.readouterr().out
    assert "int8" not in Bundle.open(target).models
    assert not (target / "model.int8.onnx").exists()
    assert Session.open(target, "openvino").precision == "fp32"


def test_int8_is_tried_once_more_with_more_layers_in_float32(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """The first network decides otherwise, the second, for which less is good enough, does not."""
    real, asked = export_road.choose_int8, []

    def ruined_at_first(*words: object) -> object:
        asked.append(words[7:])
        choice = real(*words)
        if len(asked) > 1:
            return choice
        bias = next(item for item in choice.model.graph.initializer if item.name == "fc.bias")
        bias.CopyFrom(onnx.numpy_helper.from_array(np.array([90, 0, 0], np.float32), bias.name))
        return replace(choice, keep_float=("another",))

    monkeypatch.setattr(export_road, "choose_int8", ruined_at_first)
    target = tmp_path / "again.bundle"
    assert _export(place, "--scaling", "unit", "--out", target) == 0
    assert "INT8: ranges by" in capsys.readouterr().out
    assert len(asked) == 2
    assert asked[0][0] is None
    assert asked[0][1] is asked[1][1]  # nothing is computed twice
    assert asked[1][0] < export_road.GOOD_DIFFERENCE
    assert "int8" in Bundle.open(target).models


def test_scaling_is_asked_for_with_what_fits(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--scaling is missing: .* of your images: --scaling \w+ --colour rgb"):
        _export(place, "--out", tmp_path / "x.bundle")
    assert list(tmp_path.iterdir()) == []


def test_wrong_colours_and_wrong_order_of_labels_are_found(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportRefusedError, match=r"wrong --scaling or --colour; .*--colour rgb: accuracy 1\.00"):
        _export(place, "--scaling", "unit", "--colour", "bgr", "--out", tmp_path / "x.bundle")
    (place / "shifted.txt").write_text("green\nblue\nred\n")
    with pytest.raises(ExportRefusedError, match="labels are probably in another order"):
        _export(place, "--scaling", "unit", "--out", tmp_path / "x.bundle", labels="shifted.txt")
    assert list(tmp_path.iterdir()) == []


def test_trials_cover_every_scaling(place: Path) -> None:
    prepared = prepare(place / "foreign.onnx", SIDE, SIDE)
    spec = PreprocessSpec(SIDE, SIDE, "bilinear", "stretch", "rgb", (0.0,) * 3, (255.0,) * 3)
    rng = np.random.default_rng(0)
    split = LabelledImages("x", rng.integers(0, 256, (12, SIDE, SIDE, 3), np.uint8), rng.integers(0, 3, 12))
    found = trials(prepared.model, spec, split)
    assert {trial.option for trial in found} == {
        f"--scaling {name} --colour {colour}" for name in SCALINGS for colour in ("rgb", "bgr")
    }
    assert [trial.accuracy for trial in found] == sorted((trial.accuracy for trial in found), reverse=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"], r"--mean=123\.675,116\.28,103\.53 --std=58"),
        (["--mean", "1,2,3"], "--mean and --std belong together"),
        (["--mean", "1,2", "--std", "3"], "2 numbers for 3 channels"),
        (["--mean", "a", "--std", "3"], "expected R,G,B"),
        (["--mean", "1", "--std", "0"], "above zero"),
        (["--scaling", "unit", "--mean", "1", "--std", "2"], "say the same thing"),
        (["--scaling", "unit", "--input-size", "64"], "the file says 20x20"),
        (["--scaling", "unit", "--input-size", "axb"], "expected WxH"),
        (["--scaling", "unit", "--colour", "grey"], "takes 3 channels"),
        (["--scaling", "unit", "--target-risk", "2"], "target risk: 2"),
        (["--scaling", "unit", "--output-name", "x"], "it has tail1"),
    ],
)
def test_wrong_options_are_one_clear_line(place: Path, tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        _export(place, *words, "--out", tmp_path / "x.bundle")
    assert len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_open_input_size_is_asked_for(place: Path, tmp_path: Path) -> None:
    (place / "open.onnx").write_bytes(foreign_model(side="s").SerializeToString())
    with pytest.raises(UsageError, match="is missing: --input-size WxH"):
        _export(place, "--scaling", "unit", "--out", tmp_path / "x.bundle", model="open.onnx")
    assert prepare(place / "open.onnx", 20, 20).classes == 3


def test_everything_that_is_missing_is_named_at_once(place: Path, tmp_path: Path) -> None:
    (place / "open.onnx").write_bytes(foreign_model(side="s").SerializeToString())
    with pytest.raises(UsageError) as caught:
        _command("export", place / "open.onnx")
    message = str(caught.value)
    assert "are missing: --unseen DIR" in message
    assert [message.count(f"{option} ") for option in ("--out", "--labels", "--input-size", "--scaling")] == [1] * 4
    assert "imagenet|unit|symmetric|raw|caffe" in message
    several = foreign_model()
    several.graph.output.append(onnx.helper.make_tensor_value_info("f", onnx.TensorProto.FLOAT, [1, 6]))
    dims = several.graph.input[0].type.tensor_type.shape.dim
    dims[3].dim_value = 3  # channels could be either axis
    (place / "several.onnx").write_bytes(several.SerializeToString())
    out = tmp_path / "x.bundle"
    with pytest.raises(
        UsageError, match=r"missing: --labels FILE .*; --layout nchw or nhwc .*; --output-name, one of "
    ):
        _command("export", place / "several.onnx", "--data", place, "--out", out)
    with pytest.raises(
        UsageError, match=r"x\.pt: are missing: --unseen DIR .*, or --data DIR; --out NAME\.bundle \(what to write\)$"
    ):
        _command("export", place / "x.pt")


def test_int8_is_left_out_on_request(place: Path, tmp_path: Path, capsys) -> None:
    target = tmp_path / "no8.bundle"
    assert _export(place, "--scaling", "unit", "--out", target, "--no-int8") == 0
    assert "no INT8 file: none was asked for (--no-int8)" in capsys.readouterr().out
    bundle = Bundle.open(target)
    assert "int8" not in bundle.models
    assert set(bundle.calibrations) == {"openvino/fp32", "onnxruntime/fp32"}
    assert "--no-int8" in str(bundle.origin["missing"])


def test_outputs_of_the_reference_stand_for_the_same_engine_only_if_they_are_the_same(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """One image of the reference is made up: every image is computed again, and the row is not a copy."""
    counted = []
    real = assess.backend_outputs

    def counting(backend: str, model: Path, spec: PreprocessSpec, sets: dict, *rest: object):
        counted.append((backend, sum(len(images) for images in sets.values())))
        return real(backend, model, spec, sets, *rest)

    monkeypatch.setattr(assess, "backend_outputs", counting)
    monkeypatch.setattr(assess, "_PROBED", 5)
    assert _export(place, "--scaling", "unit", "--out", tmp_path / "a.bundle", "--no-int8") == 0
    assert [count for backend, count in counted if backend == "onnxruntime"] == [10]
    counted.clear()
    whole = classifier_module.backend_outputs

    def spoilt(*words: object):
        outputs, engine = whole(*words)
        outputs["test"].logits[1] += 1e-5
        return outputs, engine

    monkeypatch.setattr(classifier_module, "backend_outputs", spoilt)
    assert _export(place, "--scaling", "unit", "--out", tmp_path / "b.bundle", "--no-int8") == 0
    assert [count > 10 for backend, count in counted if backend == "onnxruntime"] == [False, True, True]


def test_options_of_onnx_files_are_refused_for_checkpoints(place: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--labels: only for \.onnx files"):
        _export(place, "--out", tmp_path / "x.bundle", model="x.pt")


def test_sensitivity_finds_the_layer_that_int8_spoils(place: Path, quiet) -> None:
    """A weight a thousand times the others, for a colour that never comes: it takes the range from the other two."""
    model = prepare(place / "foreign.onnx", SIDE, SIDE).model
    spec = PreprocessSpec(SIDE, SIDE, "bilinear", "stretch", "rgb", (0.0,) * 3, (255.0,) * 3)
    rng = np.random.default_rng(0)
    tints = rng.integers(0, 200, (6, 1, 1, 3))
    images = (tints + rng.integers(0, 50, (6, SIDE, SIDE, 3))).astype(np.uint8)
    images[:, :, :, 1] = 0  # no green
    sensitivity = LayerSensitivity(model, images, spec, quiet)
    healthy = {name: sensitivity.change([name]) for name in sensitivity.layers}
    assert len(healthy) == 2
    assert all(0 < change < 0.04 for change in healthy.values())
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    weight = next(item for item in model.graph.initializer if item.name == conv.input[1])
    value = onnx.numpy_helper.to_array(weight).copy()
    value[0, 1, 1, 1] = 1000.0
    weight.CopyFrom(onnx.numpy_helper.from_array(value, weight.name))
    spoilt = LayerSensitivity(model, images, spec, quiet)
    assert spoilt.change([conv.name]) > 10 * healthy[conv.name]
    assert spoilt.above(10 * healthy[conv.name])[0] == conv.name


def test_verify_passes_on_engines_that_agree(bundle: Path, place: Path, capsys) -> None:
    words = ("verify", bundle, "--backends", "onnxruntime,openvino", "--precisions", "fp32")
    assert _command(*words, "--data", place / "photographs", "--json", "--limit", 60) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["passed"], record["images"], record["same_label"], record["same_verdict"]) == (True, 60, 60, 60)
    assert [engine["key"] for engine in record["engines"]] == ["onnxruntime/fp32", "openvino/fp32"]
    assert 0 <= record["largest_difference"]["entropy"] < 1e-3
    assert len(record["worst"]) == 10
    assert record["worst"][0]["name"].split("/")[0] in LABELS


def test_verify_runs_two_precisions_of_one_engine_as_tables(bundle: Path, place: Path, capsys) -> None:
    words = ("verify", bundle, "--backends", "onnxruntime", "--precisions", "fp32,int8", "--worst", 2)
    code = _command(*words, "--data", place / "photographs")
    printed = capsys.readouterr().out
    assert code in (0, 1)
    assert f"verify: {'passed' if code == 0 else 'failed'}" in printed
    assert "onnxruntime/int8" in printed
    assert "Worst frames" in printed


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["--backends", "openvino", "--precisions", "fp32"], UsageError, "named twice"),
        (["--backends", "a,b"], UsageError, "'a'"),
        (["--backends", "auto"], UsageError, "name the engines"),
        (["--backends", "openvino,onnxruntime,openvino"], UsageError, "3 given"),
        (["--backends", "openvino,onnxruntime", "--limit", "0"], UsageError, "--limit 0"),
        (["--backends", "openvino,onnxruntime", "--precisions", "bf16"], FramegateError, "'bf16' was asked for"),
        (["--backends", "openvino,onnxruntime", "--data", "/nowhere"], DataError, "no such folder"),
    ],
)
def test_verify_names_wrong_usage(bundle: Path, place: Path, words: list[str], error, message: str) -> None:
    with pytest.raises(error, match=message):
        _command("verify", bundle, "--data", place / "photographs", *words)


def test_verify_wants_calibrations(make_bundle, place: Path) -> None:
    empty = make_bundle(threshold=None)
    with pytest.raises(CalibrationError, match=r"framegate calibrate .* --backend openvino --precision int8"):
        _command(
            "verify", empty, "--backends", "openvino", "--precisions", "int8,fp32", "--data", place / "photographs"
        )


def _side(key: str, logits: np.ndarray, threshold: float = 0.5) -> Side:
    return Side(
        key,
        "e",
        Outputs(logits),
        Calibration(1.0, "entropy", threshold, 0.05, 0.9, 0.04, 0.8, 0.02, 100, "f", "m", "e"),
    )


@pytest.fixture
def outputs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 10, 400)
    logits = rng.normal(size=(400, 10)).astype(np.float32)
    logits[np.arange(400), labels] += 9
    return logits, labels


def test_gate_counts_accuracy_and_verdicts_up_to_their_limits(outputs, quiet) -> None:
    logits, labels = outputs

    def wrong(count: int) -> np.ndarray:
        changed = logits.copy()
        rows = np.flatnonzero(logits.argmax(1) == labels)[:count]
        changed[rows, (labels[rows] + 1) % 10] = changed[rows].max(1) + 9
        return changed

    def unsure(count: int) -> np.ndarray:
        changed = logits.copy()
        changed[:count] = 0.0
        changed[np.arange(count), labels[:count]] = 0.01
        return changed

    assert compare_sides(_side("a", logits), _side("b", wrong(2)), labels, 3, quiet).failures == ()
    result = compare_sides(_side("a", logits), _side("b", wrong(5)), labels, 5, quiet)
    assert [failure.split()[1] for failure in result.failures] == ["gives", "accepts", "and"]
    assert "b and a both accept 5 of 400 test images with different labels" in result.failures[2]
    assert result.loss.wrong_accepts.worse == 5
    assert {frame.index for frame in result.worst} == {0, 1, 2, 3, 4}
    assert result.second.false_accepts == result.first.false_accepts + 5
    result = compare_sides(_side("a", logits), _side("b", unsure(5)), labels, 9, quiet)
    assert result.failures == ()  # a verdict that becomes stricter hands over nothing wrong
    assert (result.same_verdict, result.loss.new_rejects) == (395, 5)
    assert {frame.index for frame in result.worst[:5]} == set(range(5))
    assert result.worst[0].second.reasons == ("HIGH_SCORE",)


def test_gate_fails_on_nan_and_names_the_frame(outputs, quiet) -> None:
    logits, labels = outputs
    broken = logits.copy()
    broken[7:17] = np.nan
    result = compare_sides(_side("a", logits), _side("b", broken), labels, 1, quiet)
    assert [failure.split()[1] for failure in result.failures] == ["gives"]
    assert result.second.not_finite == 10
    assert result.worst[0].second.reasons == ("NOT_FINITE",)
    assert 7 <= result.worst[0].index < 17
    assert result.largest["entropy"] == 0.0
    every = compare_sides(_side("a", logits), _side("b", np.full_like(logits, np.nan)), labels, 1, quiet)
    assert np.isnan(every.largest["entropy"])


def test_a_new_false_accept_is_the_worst_frame(outputs, quiet) -> None:
    logits, labels = outputs
    changed = logits.copy()
    changed[5] = 0.0  # rejected now
    changed[300] = 0.0
    changed[300, (labels[300] + 1) % 10] = 50.0  # certain and wrong
    result = compare_sides(_side("a", logits), _side("b", changed), labels, 2, quiet)
    assert [frame.index for frame in result.worst] == [300, 5]


def test_calibrating_and_verifying_on_the_target_need_no_torch() -> None:
    code = (
        "import sys, framegate.export.commands.calibrate, framegate.export.commands.verify\n"
        "print('torch' in sys.modules, 'onnx' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert done.stdout.strip() == "False False"
