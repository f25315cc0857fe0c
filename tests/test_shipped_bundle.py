"""The shipped bundle on the shipped clip: the real model, the real pictures, both engines and precisions."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from repository import CLASSIFIERS, ROOT, SHIPPED

from framegate.runtime import Bundle, Pipeline, Reason, Session, open_source
from framegate.runtime.bundle.calibration import UNPROVED
from framegate.runtime.cli.main import main
from framegate.runtime.faults.inject import FaultInjector, parse_faults
from framegate.runtime.roi import parse_rois

BUNDLE = ROOT / "models" / "bundles" / "hybrid-cifar10.bundle"
CLIP = ROOT / "camera_demo" / "clips" / "highway_1280x720_25fps.mp4"
FRAMES = 38
SETTINGS = [("openvino", "int8"), ("openvino", "fp32"), ("onnxruntime", "int8"), ("onnxruntime", "fp32")]
REPRESENTATIVE = [("openvino", "int8"), ("onnxruntime", "fp32")]


def demo_rois():
    makefile = (ROOT / "Makefile").read_text()
    lines = [line for line in makefile.splitlines() if line.startswith(("REGIONS :=", "SKY_AND_ROAD :="))]
    return parse_rois(sorted(word for line in lines for word in line.split() if "=" in word and "," in word))


def judge(backend, precision, plan=""):
    source = open_source(str(CLIP), realtime=False)
    if plan:
        source = FaultInjector(source, parse_faults(plan))
    with Pipeline(source, Session.open(BUNDLE, backend, precision), rois=demo_rois(), lossless=True) as pipeline:
        predictions = list(pipeline)
    assert pipeline.stats.frames == FRAMES
    return predictions


def test_the_bundles_are_there():
    assert BUNDLE in CLASSIFIERS
    assert len(CLASSIFIERS) == 8


@pytest.mark.parametrize("path", CLASSIFIERS, ids=lambda path: path.stem)
def test_every_setting_is_calibrated(path):
    bundle = Bundle.open(path)
    for backend, precision in SETTINGS:
        calibration = bundle.calibration(backend, precision)
        assert calibration is not None, (backend, precision)
        assert calibration.risk_bound <= calibration.target_risk
    assert set(bundle.models) == {"fp32", "fp16", "int8"}  # the second is for GPUs
    # Of an adversarially trained network the monitor sees little: `framegate monitor` refused that of this one.
    assert (bundle.monitor is None) == (path.stem == "resnet20-robust-cifar10")


# Each engine and each precision once; all four are calibrated, and judged for the records.
@pytest.mark.parametrize(
    ("backend", "precision"),
    [each if each in REPRESENTATIVE else pytest.param(*each, marks=pytest.mark.long) for each in SETTINGS],
)
def test_cars_are_recognised_and_empty_regions_mostly_rejected(backend, precision):
    accepted, labels = Counter(), {}
    for prediction in judge(backend, precision):
        if prediction.accepted:
            accepted[prediction.stream] += 1
            labels.setdefault(prediction.stream, Counter())[prediction.label] += 1
    for car in ("black-car", "white-car"):
        assert accepted[car] >= FRAMES // 2, (accepted, labels)
        assert set(labels[car]) == {"automobile"}
    for empty in ("sky", "road"):
        assert accepted[empty] <= FRAMES // 5, (accepted, labels)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_bundle_runs_from_the_command_line(path, capsys):
    spec = Bundle.open(path).preprocess
    size = f"width={5 * spec.width}&height={5 * spec.depth * spec.height}"  # volumes: a column of slices
    words = ["run", f"synthetic://?frames=4&{size}", "--bundle", str(path), "--as-fast-as-possible", "--json"]
    assert main(words) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["frames"] == 4
    assert not {"BACKEND_FAULT", "NOT_CALIBRATED", "NOT_FINITE", "BAD_INPUT"} & set(record["rejected_by_reason"])


def test_fault_frames_of_the_clip_are_rejected_with_the_right_reason():
    verdicts = judge("openvino", "int8", "black:10-15,freeze:20-25,size:30-32")
    expected = {
        **dict.fromkeys(range(10, 16), Reason.BLACK),
        **dict.fromkeys(range(20, 26), Reason.FROZEN),
        **dict.fromkeys(range(30, 33), Reason.WRONG_SIZE),
    }
    assert {prediction.frame_id for prediction in verdicts} == set(range(FRAMES))
    for prediction in verdicts:
        reason = expected.get(prediction.frame_id)
        if reason is not None:
            assert not prediction.accepted
            assert reason in prediction.reasons
        else:
            assert not {Reason.BLACK, Reason.FROZEN, Reason.WRONG_SIZE} & set(prediction.reasons)


def test_a_verdict_names_what_the_promise_is_about():
    session = Session.open(ROOT / "models" / "bundles" / "hybrid-gtsrb.bundle", "onnxruntime", "fp32", camera=False)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert session.infer(image).promised_for == "a random frame of a random new track"


def test_the_example_of_a_dense_network_uses_a_roadside_without_signs_and_promises_nothing():
    path = ROOT / "models" / "bundles" / "dense-signs.bundle"
    assert path in SHIPPED
    session = Session.open(path, "onnxruntime", "fp32")
    with Pipeline(open_source(str(CLIP), realtime=False), session, lossless=True) as pipeline:
        predictions = list(pipeline)
    accepted = [each for each in predictions if each.accepted_when_decided]
    assert len(accepted) > FRAMES // 2, Counter(reason for each in predictions for reason in each.decided_reasons)
    assert {each.candidate for each in accepted} == {"background"}
    for each in predictions:
        assert (each.stream, each.promised_for) == ("roadside", "")
        assert UNPROVED in each.detail
