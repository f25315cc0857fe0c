"""The whole way on a small working network: what is promised, what is refused, and what is left behind."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from torch import nn
from traced_once import traced_once

from framegate.export import export as export_road
from framegate.export import trained_checkpoint
from framegate.export.calibration.attempts import INT8_MAKING
from framegate.export.calibration.calibrate import Promise, fingerprint
from framegate.export.calibration.design import division_seed, split_units
from framegate.export.commands import calibrate as command_calibrate
from framegate.export.commands import export as command_export
from framegate.export.commands.calibrate import calibrations_of
from framegate.export.data.splits import Splits
from framegate.export.export import ExportReport, export_bundle, quantiser_images
from framegate.export.int8.choice import Candidate, Int8Choice
from framegate.export.int8.ranges import METHODS
from framegate.export.trained_checkpoint import TrainedCheckpoint
from framegate.models.checkpoint import save_checkpoint
from framegate.models.predict import to_tensor
from framegate.models.registry import architecture, build
from framegate.runtime.backends.base import infer
from framegate.runtime.backends.choice import load_backend
from framegate.runtime.bundle.bundle import Bundle
from framegate.runtime.errors import (
    BundleError,
    CalibrationError,
    DataError,
    ExportRefusedError,
    FramegateError,
    UsageError,
)
from framegate.runtime.policy.rules import judge_limits, judge_score
from framegate.runtime.preprocess import Preprocessor
from framegate.runtime.scores import frame_scores
from framegate.runtime.session import Session

KEYS = {f"{backend}/{precision}" for backend in ("openvino", "onnxruntime") for precision in ("fp32", "int8")}
PROMISE = Promise(target_risk=0.1, confidence_level=0.9)
LABELS = ("blue", "green", "red")
PREPROCESS = architecture("simplecnn").preprocess


@pytest.fixture(scope="module")
def splits(colours: Callable) -> Splits:
    return Splits(colours(20, 20, "train"), colours(60, 21, "calibration"), colours(24, 22, "test"), LABELS, "user")


@pytest.fixture(scope="module")
def checkpoint(colours: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SimpleCNN that tells three colours apart: random but for its last layer, which is solved by least squares."""
    torch.manual_seed(7)
    model = build("simplecnn", 3, {})
    split = colours(150, seed=1)
    tensors = to_tensor(split.images, PREPROCESS)
    pooled = []
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0  # one pass gives it the statistics of these images
        model.train()(tensors)
        hook = model.pool.register_forward_hook(lambda module, inputs, output: pooled.append(output.flatten(1)))
        model.eval()(tensors)
        hook.remove()
        features = torch.cat([pooled[0], torch.ones(len(split), 1)], 1).double()
        wanted = 6.0 * nn.functional.one_hot(torch.from_numpy(split.labels), 3).double() - 2.0
        ridge = 1e-2 * torch.eye(features.shape[1], dtype=torch.float64)
        solved = torch.linalg.solve(features.T @ features + ridge, features.T @ wanted)
        model.classify.weight.copy_(solved[:-1].T)
        model.classify.bias.copy_(solved[-1])
    path = tmp_path_factory.mktemp("checkpoint") / "colours.pt"
    save_checkpoint(path, model, {"name": "simplecnn", "classes": 3}, LABELS, {"data": "colours"})
    return path


@pytest.fixture(scope="module", autouse=True)
def translated_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Translation is a third of an export's time; it is not made again for every export."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trained_checkpoint, "to_onnx", traced_once(tmp_path_factory, "simplecnn of 3 classes"))
        yield


@pytest.fixture(scope="module")
def network(checkpoint: Path) -> TrainedCheckpoint:
    return TrainedCheckpoint.read(checkpoint)


@pytest.fixture(scope="module")
def report(
    network: TrainedCheckpoint, splits: Splits, quiet: Callable, tmp_path_factory: pytest.TempPathFactory
) -> ExportReport:
    target = tmp_path_factory.mktemp("out") / "colours.bundle"
    return export_bundle(
        network, splits, target, PROMISE, quiet, origin="made for this test", int8_ranges="percentile", tune_int8=2
    )


def test_bundle_opens_and_is_calibrated_for_every_backend_and_precision(report: ExportReport) -> None:
    bundle = Bundle.open(report.bundle)
    assert (bundle.name, bundle.labels) == ("colours", LABELS)
    assert dict(bundle.calibrations) == report.calibrations
    assert set(bundle.calibrations) == KEYS
    for key, calibration in bundle.calibrations.items():
        assert key.startswith(calibration.engine.split()[0])
        assert calibration.model_sha256 == bundle.hashes[bundle.models[key.split("/")[1]]]
        assert calibration.risk_bound <= 0.1
        assert calibration.coverage > 0.5
    assert bundle.origin["weights"] == "made for this test"
    assert bundle.origin["training"] == {"data": "colours"}
    assert [path.name for path in report.bundle.parent.iterdir()] == ["colours.bundle"]


def test_the_same_question_after_an_export_is_no_second_one(report: ExportReport, splits: Splits, quiet) -> None:
    bundle = Bundle.open(report.bundle)
    asked = {each.attempts for each in bundle.calibrations.values()}
    again = calibrations_of(bundle, splits.calibration, "all", "all", PROMISE, quiet, splits.unseen)
    assert set(again) == KEYS
    assert {each.attempts for each in again.values()} == asked
    # Calibrated for what its INT8 network is not: another question.
    other = replace(bundle, origin={**bundle.origin, INT8_MAKING: ["INT8 ranges minmax", "0 steps of fine-tuning"]})
    found = calibrations_of(other, splits.calibration, "all", "all", PROMISE, quiet, splits.unseen)
    assert {each.attempts for each in found.values()} == {max(asked) + 1}


def test_engines_are_asked_known_answers_of_every_precision(report: ExportReport, splits: Splits) -> None:
    answers = Bundle.open(report.bundle).known_answers
    assert answers is not None
    assert np.array_equal(answers.images, splits.test.images[: len(answers.images)])
    for backend in ("openvino", "onnxruntime"):
        for precision in ("fp32", "fp16", "int8"):
            tolerance = answers.tolerance(backend, precision)
            assert tolerance is not None
            assert 0 < tolerance < np.ptp(answers.logits)
        assert Session.open(report.bundle, backend, camera=False).infer(splits.test.images[0]).candidate in LABELS


def test_report_and_manifest_hold_the_same_parity(report: ExportReport) -> None:
    assert [row.key for row in report.parity] == ["torch", *sorted(KEYS)]
    for row in report.parity:
        assert row.test_accuracy == 1.0
        assert row.agreement == 1.0
    differences = {row.key: row.largest_difference for row in report.parity}
    assert differences["torch"] == 0
    assert 0 < differences["onnxruntime/fp32"] < differences["onnxruntime/int8"]
    manifest = json.loads((report.bundle / "manifest.json").read_text())
    assert manifest["parity"] == [row.to_json() for row in report.parity]
    assert (manifest["outputs"], tuple(manifest["taps"])) == (["logits"], architecture("simplecnn").taps)


def test_layers_kept_in_float_are_named(report: ExportReport) -> None:
    kept = Bundle.open(report.bundle).origin["int8_float_layers"]
    graph = onnx.load(report.bundle / "model.int8.onnx").graph
    constants = {item.name for item in graph.initializer if item.data_type == onnx.TensorProto.INT8}
    made_by = {output: node for node in graph.node for output in node.output}
    layers = {node.name: node for node in graph.node if node.op_type in ("Conv", "Gemm")}

    def is_int8(node: onnx.NodeProto) -> bool:
        source = made_by.get(node.input[1])  # None: float32 weights stored as they are
        return source is not None and source.input[0] in constants

    floats = {name for name, node in layers.items() if not is_int8(node)}
    assert floats == set(kept)
    assert len(floats) <= 0.5 * len(layers)


def test_the_ranges_are_chosen_on_images_that_prove_nothing_and_recorded(report: ExportReport, splits: Splits) -> None:
    record = Bundle.open(report.bundle).origin["int8_ranges"]
    judged = quantiser_images(splits, PROMISE.seed)[1]
    design, proving = split_units(60, None, division_seed(fingerprint(splits.calibration)))
    assert record["held_out_images"] == len(judged) == len(design) == 12
    proof = splits.calibration.images[proving]
    assert not {image.tobytes() for image in judged} & {image.tobytes() for image in proof}
    assert [candidate["method"] for candidate in record["candidates"]][:3] == list(METHODS[1:4])
    assert record["candidates"][-1]["method"].endswith("fine-tuned in 2 steps")
    least = min(record["candidates"], key=lambda candidate: candidate["entropy_difference"])
    assert record["method"] == least["method"]
    assert least["float_layers"] == len(Bundle.open(report.bundle).origin["int8_float_layers"])
    assert report.int8 is not None
    assert f"ranges by {record['method']}" in report.int8.summary()


def test_int8_is_smaller_than_half_precision_storage(report: ExportReport) -> None:
    assert report.sizes["model.int8.onnx"] < 0.65 * report.sizes["model.fp32.onnx"]
    assert report.sizes["model.fp32.onnx"] < 5e6


@pytest.mark.parametrize("key", sorted(KEYS))
def test_calibration_describes_what_its_engine_computes(report: ExportReport, splits: Splits, key: str) -> None:
    """Run again as at run time, image by image: coverage and risk come out as recorded."""
    backend, precision = key.split("/")
    bundle = Bundle.open(report.bundle)
    calibration = bundle.calibrations[key]
    preprocess = Preprocessor(bundle.preprocess)
    engine = load_backend(backend, bundle.model_path(precision))
    engine.bind(preprocess.tensor)
    split = splits.calibration
    tested = split_units(len(split), None, division_seed(fingerprint(split)))[1]
    accepted = wrong = 0
    for k in tested:
        preprocess(splits.calibration.images[k])
        scores = frame_scores(infer(engine), calibration.temperature)
        values = scores.values()
        reasons = judge_score(values[calibration.score], scores.finite, calibration)
        if not (reasons or judge_limits(values, calibration.limits)):
            accepted += 1
            wrong += scores.argmax != splits.calibration.labels[k]
    assert accepted / calibration.size == pytest.approx(calibration.coverage, abs=1.01 / calibration.size)
    assert wrong / accepted == calibration.selective_risk


def _ruin(model: onnx.ModelProto, *rest: object) -> Int8Choice:
    """A quantiser that went wrong: the file is well formed, its last bias decides everything."""
    ruined = onnx.ModelProto()
    ruined.CopyFrom(model)
    bias = next(item for item in ruined.graph.initializer if item.name == "classify.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.array([90, 0, 0], np.float32), bias.name))
    return Int8Choice(ruined, Candidate("minmax", 0, 0.0, 1.0, 10), (), 0, 59, ())


def test_an_int8_file_that_lost_accuracy_is_refused_and_leaves_nothing(
    network: TrainedCheckpoint, splits: Splits, quiet: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_road, "choose_int8", _ruin)
    with pytest.raises(ExportRefusedError, match=r"openvino/int8 gives a wrong label on \d+ of 24 .*trained network"):
        export_bundle(network, splits, tmp_path / "c.bundle", PROMISE, quiet)
    assert list(tmp_path.iterdir()) == []


def test_a_promise_that_cannot_be_kept_is_refused_and_the_old_bundle_stays(
    network: TrainedCheckpoint, splits: Splits, report: ExportReport, quiet: Callable, tmp_path: Path
) -> None:
    target = tmp_path / "c.bundle"
    shutil.copytree(report.bundle, target)
    with pytest.raises(CalibrationError, match="368 accepted images"):
        export_bundle(network, splits, target, Promise(0.01), quiet, force=True)
    assert Bundle.open(target).name == "colours"
    assert [path.name for path in tmp_path.iterdir()] == ["c.bundle"]


def test_data_of_another_label_set_are_refused(
    checkpoint: Path, splits: Splits, quiet: Callable, tmp_path: Path
) -> None:
    other = replace(splits, names=("red", "green", "blue"))
    with pytest.raises(DataError, match=r"knows the labels blue, green, red \(3\), the data have red, green, blue"):
        export_bundle(TrainedCheckpoint.read(checkpoint), other, tmp_path / "c.bundle", PROMISE, quiet)
    assert list(tmp_path.iterdir()) == []


def test_calibrate_changes_one_record_and_the_bundle_still_opens(
    report: ExportReport, splits: Splits, quiet: Callable, tmp_path: Path
) -> None:
    target = tmp_path / "colours.bundle"
    shutil.copytree(report.bundle, target)
    before = Bundle.open(target)
    found = command_calibrate.calibrate_bundle(
        target, splits.calibration, "onnxruntime", "int8", Promise(0.2, 0.8), quiet
    )
    after = Bundle.open(target)
    assert set(found) == {"onnxruntime/int8"}
    assert after.calibrations["onnxruntime/int8"].target_risk == 0.2
    assert {key: value for key, value in after.calibrations.items() if key not in found} == {
        key: value for key, value in before.calibrations.items() if key not in found
    }
    assert after.origin == before.origin
    with pytest.raises(CalibrationError):
        command_calibrate.calibrate_bundle(target, splits.calibration, "onnxruntime", "int8", Promise(0.001), quiet)
    with pytest.raises(BundleError, match="bf16"):
        command_calibrate.calibrate_bundle(target, splits.calibration, "onnxruntime", "bf16", PROMISE, quiet)
    assert Bundle.open(target).calibrations == after.calibrations
    assert [path.name for path in tmp_path.iterdir()] == ["colours.bundle"]


def _command(*words: object) -> int:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers()
    command_export.register(commands)
    command_calibrate.register(commands)
    arguments = parser.parse_args([str(word) for word in words])
    return arguments.run(arguments)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (["--target-risk", "1.5"], UsageError, "target risk: 1.5"),
        (["--target-risk", "nan"], UsageError, "target risk: nan"),
        (["--confidence-level", "1"], UsageError, "confidence level: 1"),
        ([], DataError, "no known data set here, found an empty folder"),
    ],
)
def test_bad_input_is_one_clear_error(
    checkpoint: Path, tmp_path: Path, words: list[str], error: type[FramegateError], message: str
) -> None:
    for command in (
        ["export", checkpoint, "--data", tmp_path, "--out", tmp_path / "c.bundle", *words],
        ["calibrate", tmp_path / "c.bundle", "--data", tmp_path, *words],
    ):
        # A calibration needs the bundle's labels before it can read data, and there is no bundle here.
        missing = command[0] == "calibrate" and error is DataError
        with pytest.raises(BundleError if missing else error, match="found nothing there" if missing else message):
            _command(*command)
    assert list(tmp_path.iterdir()) == []


def _photographs(colours: Callable, folder: Path) -> Path:
    """A folder per label, files named PLACE_NUMBER.png: six of one label were taken at one place."""
    split = colours(240, seed=3)
    taken = dict.fromkeys(LABELS, 0)
    for image, number in zip(split.images, split.labels, strict=True):
        label = LABELS[number]
        place = folder / "photographs" / label
        place.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(place / f"{taken[label] // 6:02d}_{taken[label]}.png"), image)
        taken[label] += 1
    return folder / "photographs"


def test_command_prints_tables_and_path_and_groups_reach_the_calibration(
    checkpoint: Path, colours: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder per label, which a checkpoint takes as an ONNX file does; labels are found by their names.

    A place is a unit, and units are what is counted: 240 images were taken at 42 places, 60 % of them calibrate.
    """
    photographs = _photographs(colours, tmp_path)
    target = tmp_path / "c.bundle"
    words = ("--unseen", photographs, "--out", target, "--target-risk", 0.3, "--confidence-level", 0.8)
    options = ("--group", r"(.+)_\d+\.png", "--int8-ranges", "minmax")
    assert _command("export", checkpoint, *words, *options) == 0
    printed = capsys.readouterr().out
    for part in (*KEYS, "torch", "tracks", "not under attack", "100.0%", "model.int8.onnx", f"bundle: {target}"):
        assert part in printed
    assert "have no calibration image" not in printed
    bundle = Bundle.open(target)
    assert bundle.labels == LABELS
    assert {item.groups for item in bundle.calibrations.values()} == {25}


def test_a_missing_checkpoint_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        _command("export", tmp_path / "x.pt", "--data", tmp_path, "--out", tmp_path / "c.bundle")
    assert list(tmp_path.iterdir()) == []


def test_without_a_promise_every_verdict_and_the_banner_say_so(
    report: ExportReport, splits: Splits, quiet: Callable, tmp_path: Path
) -> None:
    target = tmp_path / "c.bundle"
    shutil.copytree(report.bundle, target)
    wish = Promise(0.01, proved=False)  # which could not be proved with 48 images
    found = command_calibrate.calibrate_bundle(target, splits.calibration, "onnxruntime", "fp32", wish, quiet)
    assert not found["onnxruntime/fp32"].proved
    session = Session.open(target, "onnxruntime", "fp32", camera=False)
    assert "NOTHING IS PROMISED" in session.describe()
    verdicts = [session.infer(image) for image in splits.test.images]
    assert any(verdicts)
    assert all("NOTHING IS PROMISED" in verdict.detail for verdict in verdicts)
    assert all("NOTHING IS PROMISED" in str(verdict.to_json()["detail"]) for verdict in verdicts)
    assert not any(verdict.promised_for for verdict in verdicts)
    kept = Session.open(target, "openvino", "fp32", camera=False)
    assert "NOTHING" not in kept.describe() + kept.infer(splits.test.images[0]).detail
    assert kept.infer(splits.test.images[1]).to_json()["promised_for"] == "a random frame"


@pytest.mark.slow
def test_a_folder_of_which_nobody_says_that_it_was_never_seen_proves_nothing(
    network: TrainedCheckpoint, splits: Splits, quiet: Callable, tmp_path: Path
) -> None:
    seen = replace(splits, unseen="")
    found = export_bundle(network, seen, tmp_path / "c.bundle", PROMISE, quiet, int8_ranges="minmax")
    assert found.calibrations == {}
    session = Session.open(tmp_path / "c.bundle", "onnxruntime", "fp32", camera=False)
    assert "NOT CALIBRATED" in session.describe()
    assert not any(session.infer(image) for image in splits.test.images[:5])


def test_images_that_nobody_calls_unseen_are_refused_by_calibrate(
    report: ExportReport, colours: Callable, tmp_path: Path
) -> None:
    target = tmp_path / "c.bundle"
    shutil.copytree(report.bundle, target)
    photographs = _photographs(colours, tmp_path)
    with pytest.raises(UsageError, match="prove nothing: give them as --unseen DIR"):
        _command("calibrate", target, "--data", photographs, "--backend", "onnxruntime", "--precision", "fp32")


def test_the_record_says_whose_word_it_is_and_what_was_asked(report: ExportReport) -> None:
    for calibration in Bundle.open(report.bundle).calibrations.values():
        assert (calibration.unit, calibration.unseen, calibration.division) == ("image", "user", "fingerprint")
        assert (calibration.shares, calibration.attempts) == (2, 1)
        said = " ".join(calibration.explanation())
        for part in (
            "Before calibration",
            "either it refuses",
            "Given that",
            "Not under attack",
            "nothing else before",
        ):
            assert part in said
