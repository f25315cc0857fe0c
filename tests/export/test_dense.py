"""A segmentation network becomes a dense bundle by the command line, with a promise about its region."""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from dense_network import BLUE, RED, SIDE, picture, save_network, write_pictures

from framegate.runtime import Bundle, BundleError, Frame, Pipeline, Reason, RejectedFrame, Roi, Session, UsageError
from framegate.runtime.backends.choice import open_engine
from framegate.runtime.bundle.bundle import CALIBRATION, MANIFEST, manifest_digest
from framegate.runtime.cli.main import main
from framegate.runtime.dense.scorer import DenseScorer, judge_region
from framegate.runtime.errors import BackendError
from framegate.runtime.sinks.shade import mask_picture, shaded
from framegate.runtime.sources.images import ImageSource

REGION = "middle=0.25,0.25,0.5,0.5"


def words(place, *more, model="dense.onnx", data="pictures", out="colours.bundle"):
    given = ["--labels", str(place / "labels.txt"), "--unseen", str(place / data), "--out", str(place / out)]
    return ["export", str(place / model), "--kind", "dense", "--scaling", "unit", "--region", REGION, *given, *more]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("dense")
    save_network(place / "dense.onnx")
    (place / "labels.txt").write_text("blue\nred\n")
    write_pictures(place / "pictures", 100)
    assert main(words(place)) == 0
    return place


@pytest.fixture
def session(folder):
    return Session.open(folder / "colours.bundle", "onnxruntime", threads=1, camera=False)


def grey(share):
    """A blue frame whose right part is grey: there the network does not know."""
    image = np.full((96, 96, 3), BLUE, np.uint8)
    image[:, round(96 * (1 - share)) :] = 120
    return image + np.random.default_rng(round(100 * share)).integers(0, 3, image.shape, np.uint8)


def test_the_promise_is_about_the_region_and_its_unit_is_an_image(folder, capsys):
    bundle = Bundle.open(folder / "colours.bundle")
    for key in ("onnxruntime/fp32", "openvino/fp32"):
        record = bundle.calibrations[key]
        assert record.unit == "image"
        assert record.counts[0] == 0
        assert record.risk_bound <= record.target_risk == 0.05
        assert record.size == 80
    assert main(["info", str(bundle.path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "of the accepted regions 'middle' at most 5.00% have more than 1.0% of their usable pixels wrong" in said
    assert "nothing is promised about a single pixel" in said


def test_a_region_is_judged_by_the_share_of_its_usable_pixels(session):
    good = session.infer(grey(0.0))
    assert good.accepted
    assert good.label == "blue"
    assert good.stream == "middle"
    assert good.pixels.shape == (8, 8)
    assert (good.pixels == 0).all()
    half = session.infer(grey(0.5))
    assert half.reasons == (Reason.HIGH_SCORE,)
    assert half.dense.usable_share == pytest.approx(0.5, abs=0.13)
    with pytest.raises(RejectedFrame, match=r"\.pixels"):
        _ = half.pixels
    record = half.to_json()
    assert record["usable_share"] == pytest.approx(half.dense.usable_share)
    assert "mask" not in record
    # Outside of the region nothing counts.
    assert session.infer(grey(0.2)).accepted


def test_a_region_that_is_red_is_called_red(session):
    image = np.full((96, 96, 3), BLUE, np.uint8)
    image[20:76, 20:76] = RED
    prediction = session.infer(image + np.random.default_rng(1).integers(0, 3, image.shape, np.uint8))
    assert prediction.label == "red"
    assert prediction.dense.shares["red"] == pytest.approx(1.0)
    for shown in (prediction.dense.mask, prediction.dense.candidates):  # `prediction.pixels` is made of them
        with pytest.raises(ValueError, match="read-only"):
            shown[:] = 1


def test_one_logit_that_is_no_number_rejects_the_region(session):
    logits = np.zeros((2, 16, 16), np.float32)
    logits[0] = 9
    spec = session.scorer.spec
    assert judge_region(logits, spec, ("blue", "red")).scores.finite
    logits[1, 8, 8] = np.nan
    scored = judge_region(logits, spec, ("blue", "red"))
    assert not scored.scores.finite
    found = session.frame_judge.regions.decide({}, scored, None, Frame(0, 0, grey(0)))
    assert Reason.NOT_FINITE in found.findings


@pytest.mark.parametrize("asked", [False, True])
def test_fault_an_engine_that_gives_its_last_map_again(session, asked):
    session.infer(grey(0.0))
    if asked:  # it may stop at a known answer, too
        session.scorer.ask()
    stuck = session.scorer.backend.finish().copy()
    session.scorer.backend.finish = lambda: stuck
    assert session.infer(grey(0.01)).reasons == (Reason.BACKEND_FAULT,)
    assert session.infer(grey(0.02)).reasons == (Reason.BACKEND_FAULT,)


def test_fault_an_engine_that_computes_something_else_is_not_opened(folder):
    bundle = Bundle.open(folder / "colours.bundle")
    engine, _ = open_engine(bundle, "onnxruntime", None, 1)
    answers = bundle.known_answers
    wrong = replace(bundle, known_answers=replace(answers, logits=answers.logits + 5))
    with pytest.raises(BackendError, match="does not compute what was exported"):
        DenseScorer(wrong, engine, "fp32")


def test_a_pipeline_records_shares_and_masks(folder, session, tmp_path):
    pytest.importorskip("mcap")
    from recordings import mcap_messages

    rng = np.random.default_rng(5)
    (tmp_path / "frames").mkdir()
    for k in range(3):
        image, _ = picture(rng)
        cv2.imwrite(str(tmp_path / "frames" / f"{k}.png"), cv2.resize(image, (96, 96)))
    names = {"--jsonl": "v.jsonl", "--record": "v.mcap", "--video": "v.mp4"}
    files = [f"{option}={tmp_path / name}" for option, name in names.items()]
    given = ["--bundle", str(folder / "colours.bundle"), "--backend", "onnxruntime"]
    assert main(["run", str(tmp_path / "frames"), *given, *files]) == 0
    lines = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert [line["stream"] for line in lines] == ["middle"] * 3
    assert all(0 <= line["usable_share"] <= 1 for line in lines)
    topics = [topic for topic, _ in mcap_messages(tmp_path / "v.mcap")]
    assert topics.count("/usable/middle") == topics.count("/verdict/middle") == 3
    with Pipeline(ImageSource(tmp_path / "frames"), session, lossless=True, keep_frames=True) as pipeline:
        result = next(pipeline.results())
    region = result.predictions[0].dense
    found = cv2.imdecode(np.frombuffer(mask_picture(region), np.uint8), cv2.IMREAD_UNCHANGED)
    assert found.shape == (8, 8)
    assert np.count_nonzero(found) / found.size == pytest.approx(region.usable_share)
    drawn = shaded(result.image, result.predictions, session.regions)
    assert (drawn[:20] == result.image[:20]).all()
    assert (drawn[30:60, 30:60] != result.image[30:60, 30:60]).any()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"model": "three.onnx"},
            r"the outputs are logits \(1, 3, 16, 16\); expected one with logits \(1, 2, rows, colu",
        ),
        ({"data": "nothing"}, "expected the folders images and masks"),
        ({"data": "strange"}, "it holds the value 7; there are 2 labels"),
        ({"data": "few"}, "no threshold keeps selective risk <= 0.05"),
        ({"data": "lies"}, "or ask for a larger --target-risk on images of which"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(folder, capsys, changes, said):
    save_network(folder / "three.onnx", classes=3)
    for name, count, wrong in (("strange", 3, 0), ("few", 20, 0), ("lies", 100, 60)):
        if not (folder / name).exists():
            write_pictures(folder / name, count, wrong)
    cv2.imwrite(str(folder / "strange" / "masks" / "001.png"), np.full((SIDE, SIDE), 7, np.uint8))
    assert main(words(folder, **changes, out="no.bundle")) != 0
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(said, error), error
    assert not (folder / "no.bundle").exists()


@pytest.mark.parametrize("more", [["--output-name", "logits"], ["--data", "pictures"]])
def test_options_that_an_export_would_not_heed_are_refused(folder, capsys, more):
    assert main([*words(folder, out="no.bundle"), *more]) == 2
    assert "takes its pictures from one place" in " ".join(capsys.readouterr().err.split())


def test_another_region_objects_or_an_edited_spec_are_refused(folder, session, tmp_path):
    with pytest.raises(UsageError, match=r"about its own region middle=0.25,0.25,0.5,0.5 and no other"):
        session.regions_of((Roi.parse("left=0.0,0.0,0.5,1.0"),))
    with pytest.raises(UsageError, match="objects are judged by a classifier"):
        session.object_judge(None, None)
    copy = tmp_path / "edited.bundle"
    shutil.copytree(folder / "colours.bundle", copy)
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["dense"]["threshold"] = 0.69
    manifest["digest"] = manifest_digest(manifest)
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=rf"{CALIBRATION} belongs to other labels"):
        Bundle.open(copy)


def test_a_dense_bundle_in_a_live_stream_is_late_like_others(session):
    frame = Frame(0, time.monotonic_ns() - 10**9, grey(0))
    judged = session.frame_judge.judge(frame, session.regions, session.camera_health(), deadline_ns=10**8)
    assert judged[0].reasons == (Reason.LATE,)


@pytest.mark.parametrize(("command", "more"), [("evaluate", []), ("verify", ["--backends", "openvino"])])
def test_commands_for_classifiers_refuse_it(folder, capsys, command, more):
    assert main([command, str(folder / "colours.bundle"), "--data", str(folder / "pictures"), *more]) != 0
    error = " ".join(capsys.readouterr().err.split())
    assert f"`framegate {command}` is for classifiers, this one holds a dense network" in error
    assert "Traceback" not in error


def test_it_is_calibrated_again_for_one_engine_and_keeps_its_pixels(folder, tmp_path, capsys):
    path = tmp_path / "again.bundle"
    shutil.copytree(folder / "colours.bundle", path)
    before = Bundle.open(path)
    given = ["calibrate", str(path), "--backend", "onnxruntime"]
    assert main([*given, "--unseen", str(folder / "pictures"), "--target-risk", "0.06"]) == 0
    after = Bundle.open(path)
    assert after.dense == before.dense
    assert {key: each.target_risk for key, each in after.calibrations.items()} == {
        "onnxruntime/fp32": 0.06,
        "openvino/fp32": 0.05,
    }
    capsys.readouterr()
    assert main([*given, "--data", str(folder / "pictures")]) != 0
    assert main([*given, "--unseen", str(folder / "few")]) != 0
    assert "--data is for classifiers" in capsys.readouterr().err
    for more in (["--group", "(.)_"], ["--promise", "units"], ["--score", "margin"]):
        assert main([*given, "--unseen", str(folder / "pictures"), *more]) != 0
        assert f"{more[0]} is for classifiers" in capsys.readouterr().err


@pytest.mark.tensorrt
def test_tensorrt_builds_an_engine_of_it_without_a_gpu(folder, tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundle = str(folder / "colours.bundle")
    assert main(["engine", bundle, "--backend", "tensorrt-rtx", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["engine"].endswith(".engine")
    assert main(["engine", bundle, "--backend", "tensorrt-rtx", "--scores", "function"]) == 2
    assert "come from the kernel" in " ".join(capsys.readouterr().err.split())
