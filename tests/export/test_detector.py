"""A detector as ONNX file becomes a bundle by the command line, and the bundle finds what it should."""

from __future__ import annotations

import json
import shutil
import time

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from repository import BUNDLES

from framegate.runtime import Bundle, BundleError, Frame, Reason, Session
from framegate.runtime.bundle.bundle import MANIFEST, manifest_digest
from framegate.runtime.bundle.search import VARIABLE
from framegate.runtime.cli.main import main
from framegate.runtime.errors import BackendError
from framegate.runtime.regions.detector import DetectorRegions
from framegate.runtime.regions.judge import Objects
from framegate.runtime.regions.open import open_regions
from framegate.runtime.regions.tracks import TrackMemory

SIDE = 64
BLUE, GREEN, GREY = (250, 10, 10), (10, 250, 10), (60, 60, 60)


def save_detector(path, outputs=7):
    """FastestDet's head on 64 x 64: how blue and how green a cell of 16 x 16 is; a box as wide as a cell around it."""
    weights = np.zeros((outputs, 3, 1, 1), np.float32)
    bias = np.zeros(outputs, np.float32)
    weights[0, :, 0, 0] = (1.0, 1.0, -1.0)  # BGR: how sure it is that something blue or green is there
    weights[5, 0], weights[6, 1] = 1.0, 1.0
    bias[1:3] = np.arctanh(0.5)  # the middle of the cell
    bias[3:5] = np.log((16 / SIDE) / (1 - 16 / SIDE))
    nodes = [
        helper.make_node("AveragePool", ["image"], ["cells"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Conv", ["cells", "weights", "bias"], ["758"]),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("758", TensorProto.FLOAT, [1, outputs, 4, 4])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(bias, "bias")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("detector")
    save_detector(place / "detector.onnx")
    (place / "labels.txt").write_text("sky\nmeadow\n")
    assert main(words(place)) == 0
    return place


def words(place, *more, model="detector.onnx", out="found.bundle"):
    files = [str(place / model), "--labels", str(place / "labels.txt"), "--out", str(place / out)]
    return ["export", files[0], "--kind", "detector", *files[1:], *more]


def picture(squares):
    image = np.empty((SIDE * 4, SIDE * 4, 3), np.uint8)
    image[:] = np.array(GREY) + np.random.default_rng(0).integers(-4, 5, image.shape)
    for (column, row), colour in squares.items():
        image[row * 64 : row * 64 + 64, column * 64 : column * 64 + 64] = colour
    return image


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_what_is_there_is_found_where_it_is(folder, backend):
    regions = DetectorRegions(Bundle.open(folder / "found.bundle"), backend, 1)
    found = regions.find(Frame(0, time.monotonic_ns(), picture({(1, 2): BLUE, (3, 0): GREEN})))
    boxes = sorted(found.boxes)
    assert [box.label for box in boxes] == ["sky", "meadow"]
    np.testing.assert_allclose([box[:4] for box in boxes], [[64, 128, 64, 64], [192, 0, 64, 64]], atol=0.5)
    assert all(0.9 < box.score <= 1 for box in boxes)
    assert regions.find(Frame(1, time.monotonic_ns(), picture({}))).boxes == ()


def test_what_the_bundle_says_is_what_the_head_asks_for(folder):
    bundle = Bundle.open(folder / "found.bundle")
    assert bundle.detector == {"head": "fastestdet", "fit": "stretch", "score": 0.4, "overlap": 0.45}
    assert (bundle.preprocess.colour, bundle.preprocess.resize) == ("bgr", "area")
    assert bundle.origin["source"] == "detector.onnx"
    assert bundle.digest.startswith(DetectorRegions(bundle, "onnxruntime", 1).identity.partition("(")[2].rstrip(")"))


def test_options_that_were_given_are_kept(folder):
    more = ["--min-score", "0.7", "--overlap", "0.3", "--fit", "letterbox", "--colour", "rgb", "--scaling", "imagenet"]
    assert main(words(folder, *more, out="other.bundle")) == 0
    bundle = Bundle.open(folder / "other.bundle")
    assert bundle.detector == {"head": "fastestdet", "fit": "letterbox", "score": 0.7, "overlap": 0.3}
    assert bundle.preprocess.colour == "rgb"
    assert bundle.preprocess.mean[0] == pytest.approx(123.675)


def test_a_detector_and_a_classifier_give_a_verdict_for_each_object(folder, tiny_bundle):
    session = Session.open(tiny_bundle, "onnxruntime", "fp32", 1, camera=False)
    objects = Objects(open_regions(str(folder / "found.bundle")))
    judge = session.object_judge(objects, TrackMemory(session.stream_policy, objects.rule))
    health = session.camera_health(fixed_size=False)
    frame = Frame(0, time.monotonic_ns(), picture({(1, 2): BLUE, (3, 0): GREEN}))
    _, predictions, _ = judge.judge(frame, health)
    assert {(p.found.detected, p.candidate) for p in predictions} == {("sky", "blue"), ("meadow", "green")}


def test_a_detector_is_no_classifier_and_a_classifier_no_detector(folder, tiny_bundle):
    with pytest.raises(BundleError, match="it holds a detector"):
        Session.open(folder / "found.bundle")
    with pytest.raises(BundleError, match="it holds a classifier"):
        DetectorRegions.open(tiny_bundle)


class Broken:
    """A network whose outputs can be changed."""

    def __init__(self, network, change):
        self.engine, self._network, self._change = network.engine, network, change

    def run(self):
        return {name: self._change(values.copy()) for name, values in self._network.run().items()}


def test_fault_outputs_that_are_not_finite_or_repeat_themselves(folder):
    regions = DetectorRegions(Bundle.open(folder / "found.bundle"), "onnxruntime", 1)
    frames = [Frame(k, time.monotonic_ns(), picture({(k, 1): BLUE})) for k in range(3)]
    network, old = regions._network, {}

    def nan(values):
        values[0, 2, 1, 1] = np.nan
        return values

    regions._network = Broken(network, nan)
    with pytest.raises(BackendError, match="not finite"):
        regions.find(frames[0])
    regions._network = Broken(network, lambda values: old.setdefault("first", values))
    assert regions.find(frames[0]).boxes
    for frame in frames[1:]:
        with pytest.raises(BackendError, match="bit for bit"):
            regions.find(frame)
    regions._network = network
    assert regions.find(frames[1]).boxes


def test_fault_a_detector_that_fails_rejects_the_frame_as_a_whole(folder, tiny_bundle):
    session = Session.open(tiny_bundle, "onnxruntime", "fp32", 1, camera=False)
    regions = DetectorRegions.open(folder / "found.bundle")

    def gone(values):
        raise RuntimeError("the engine is gone")

    regions._network = Broken(regions._network, gone)
    objects = Objects(regions)
    judge = session.object_judge(objects, TrackMemory(session.stream_policy, objects.rule))
    frame = Frame(0, time.monotonic_ns(), picture({(1, 2): BLUE}))
    scene, predictions, _ = judge.judge(frame, session.camera_health(fixed_size=False))
    assert Reason.NO_REGIONS in scene.reasons
    assert predictions == ()


def test_mistakes_are_one_sentence_and_leave_no_bundle(folder, capsys):
    save_detector(folder / "odd.onnx", outputs=9)
    assert main(words(folder, model="odd.onnx", out="odd.bundle")) == 2
    said = capsys.readouterr().err
    assert "758 1x9x4x4 for 2 labels" in said
    assert not (folder / "odd.bundle").exists()
    assert main(words(folder, "--min-score", "7", out="odd.bundle")) == 1
    assert "detector score is 7.0" in capsys.readouterr().err
    assert main(words(folder, "--data", "photos", out="odd.bundle")) == 2
    capsys.readouterr()
    for option in (["--no-int8"], ["--int8-ranges", "percentile"]):
        assert main(words(folder, *option, out="odd.bundle")) == 2
        assert "are for classifiers" in capsys.readouterr().err
    assert main(["export", str(folder / "detector.onnx"), "--out", str(folder / "odd.bundle")]) == 2
    assert "--unseen DIR" in capsys.readouterr().err
    assert main(["export", "x.pt", "--data", "d", "--head", "ssd", "--out", str(folder / "odd.bundle")]) == 2
    assert "--kind detector" in capsys.readouterr().err
    assert not (folder / "odd.bundle").exists()


def test_a_damaged_detector_entry_is_refused(folder):
    path = folder / "found.bundle" / "manifest.json"
    text = path.read_text()
    try:
        path.write_text(json.dumps({**json.loads(text), "detector": {"head": "ssd"}}))
        with pytest.raises(BundleError, match="digest"):
            Bundle.open(folder / "found.bundle")
    finally:
        path.write_text(text)


WEAK = (150, 130, 10)


def test_a_detector_that_is_not_found_names_detectors_and_no_classifier(folder, monkeypatch):
    with pytest.raises(BundleError, match=r"'nosuch': not found: .*no bundle that is found by name is a detector"):
        open_regions("nosuch")
    monkeypatch.setenv(VARIABLE, str(folder))
    with pytest.raises(BundleError, match="detectors found by name: found") as caught:
        open_regions("nosuch")
    assert "hybrid-cifar10" not in str(caught.value)


def test_fault_a_detector_that_nobody_signed_where_a_signature_is_asked_for(folder, tmp_path, capsys):
    """Where it says that there is no object, none is judged."""
    pytest.importorskip("cryptography")
    from framegate.runtime.bundle.signature import new_key, sign

    public = new_key(tmp_path / "own.pem")
    classifier, detector = tmp_path / "classifier.bundle", tmp_path / "detector.bundle"
    for path, copied in ((BUNDLES / "simplecnn-cifar10.bundle", classifier), (folder / "found.bundle", detector)):
        shutil.copytree(path, copied)
    sign(classifier, Bundle.open(classifier).digest, tmp_path / "own.pem")
    cv2.imwrite(str(tmp_path / "picture.png"), picture({(1, 2): BLUE}))
    command = ["run", str(tmp_path / "picture.png"), "--bundle", str(classifier), "--objects", str(detector)]
    command += ["--trust", str(public)]
    assert main(command) == 1
    assert "detector.bundle: it is not signed" in " ".join(capsys.readouterr().err.split())
    sign(detector, Bundle.open(detector).digest, tmp_path / "own.pem")
    assert main(command) == 0


def test_fault_a_label_map_that_names_what_the_detector_never_says(folder, tmp_path, capsys):
    """ "Sky" would rule nothing out of what it calls "sky"."""
    cv2.imwrite(str(tmp_path / "picture.png"), picture({(1, 2): BLUE}))
    command = ["run", str(tmp_path / "picture.png"), "--bundle", "simplecnn-cifar10", "--track-rule", "none"]
    command += ["--objects", str(folder / "found.bundle"), "--label-map", str(tmp_path / "map")]
    (tmp_path / "map").write_text('{"Sky": []}')
    assert main(command) == 2
    assert "the detector found calls nothing 'Sky'" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "map").write_text('{"sky": []}')
    assert main(command) == 0
    assert "NO_AGREEMENT 1" in " ".join(capsys.readouterr().out.split())


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Pictures with a clear object and sometimes a doubtful one, which is never what the detector says."""
    place = tmp_path_factory.mktemp("labelled")
    rng, images, boxes = np.random.default_rng(0), [], []
    for k in range(120):
        colour = (BLUE, GREEN)[k % 2]
        squares = {(0, int(rng.integers(0, 4))): colour}
        if k % 3:
            squares[2, int(rng.integers(0, 4))] = WEAK
        cv2.imwrite(str(place / f"{k}.png"), picture(squares) + rng.integers(0, 3, (256, 256, 3), np.uint8))
        images.append({"id": k, "file_name": f"{k}.png"})
        for (column, row), painted in squares.items():
            category = {BLUE: 1, GREEN: 2}.get(painted, 2)
            boxes.append({"image_id": k, "category_id": category, "bbox": [column * 64, row * 64, 64, 64]})
        if k % 10 == 0:  # an object that no detector sees
            boxes.append({"image_id": k, "category_id": 1, "bbox": [70, 70, 30, 30]})
    names = [{"id": 1, "name": "sky"}, {"id": 2, "name": "meadow"}]
    record = {"images": images, "annotations": boxes, "categories": names}
    (place / "coco.json").write_text(json.dumps(record))
    return place


def test_a_detector_is_calibrated_on_labelled_boxes_and_then_holds_doubtful_ones_back(
    folder, labelled, tiny_bundle, capsys
):
    assert main(words(folder, out="proved.bundle")) == 0
    given = ["calibrate", str(folder / "proved.bundle"), "--unseen", str(labelled)]
    assert main([*given, "--boxes", str(labelled / "coco.json")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "at most 5.00% of accepted boxes are wrong, for a random box of a random new image" in said
    assert "missed 12 of 212 labelled objects, which no promise covers" in said
    bundle = Bundle.open(folder / "proved.bundle")
    for record in bundle.calibrations.values():
        assert record.unit == "image"
        assert record.counts[0] == 0
        assert record.risk_bound <= record.target_risk
    assert main(["info", str(bundle.path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "missed 12 of 212 labelled objects" in said
    assert "rejects every frame" not in said
    # On a frame: both are found and followed, one of them cannot be used.
    session = Session.open(tiny_bundle, "onnxruntime", "fp32", 1, camera=False)
    objects = Objects(DetectorRegions(bundle))
    judge = session.object_judge(objects, TrackMemory(session.stream_policy, objects.rule))
    frame = Frame(0, time.monotonic_ns(), picture({(1, 2): (255, 0, 0), (3, 0): WEAK}))
    sure, doubtful = judge.judge(frame, session.camera_health(fixed_size=False)).predictions
    assert sure.accepted
    assert Reason.HIGH_SCORE in doubtful.reasons
    assert "calibrated at most" in doubtful.detail
    record = doubtful.to_json()
    name = next(iter(bundle.calibrations.values())).score
    assert record[name] > next(iter(bundle.calibrations.values())).threshold >= sure.to_json()[name]
    # The threshold belongs to this head: an edited one is refused.
    manifest = json.loads((bundle.path / MANIFEST).read_text())
    manifest["detector"]["score"] = 0.1
    manifest["digest"] = manifest_digest(manifest)
    (bundle.path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="belongs to other labels"):
        Bundle.open(bundle.path)


def test_what_cannot_calibrate_a_detector_is_one_sentence(folder, labelled, capsys, tmp_path):
    bundle = str(folder / "found.bundle")
    boxes, unseen = ["--boxes", str(labelled / "coco.json")], ["--unseen", str(labelled)]
    record = json.loads((labelled / "coco.json").read_text())
    few = tmp_path / "few.json"
    few.write_text(json.dumps({**record, "images": record["images"][:20], "annotations": record["annotations"][:20]}))
    wrong = [{**each, "category_id": 3 - each["category_id"]} for each in record["annotations"]]
    (tmp_path / "wrong.json").write_text(json.dumps({**record, "annotations": wrong}))
    twice = [{**each, "file_name": "0.png" if each["id"] == 1 else each["file_name"]} for each in record["images"]]
    (tmp_path / "twice.json").write_text(json.dumps({**record, "images": twice}))
    for more, expected in [
        (unseen, "--boxes FILE.json is missing"),
        (boxes, "--unseen DIR is missing"),
        ([*unseen, "--boxes", str(few)], "no threshold keeps"),
        ([*unseen, "--boxes", str(tmp_path / "wrong.json")], "or ask for a larger --target-risk on images"),
        ([*boxes, "--unseen", str(tmp_path)], "0.png: cannot be read"),
        ([*boxes, *unseen, "--backend", "tensorrt"], "a detector runs on"),
        ([*boxes, *unseen, "--score", "shift"], "a detector's boxes have entropy"),
        ([*boxes, *unseen, "--group", "(.)_"], "--group is for classifiers"),
        ([*boxes, *unseen, "--unit", "drive"], "--unit is for classifiers"),
        ([*boxes, *unseen, "--promise", "units"], "--promise is for classifiers"),
        ([*boxes, *unseen, "--method", "geifman-el-yaniv"], "--method is for classifiers"),
        ([*boxes, *unseen, "--window", "30"], "--window is for classifiers"),
        ([*boxes, *unseen, "--limit-share", "0.1"], "--limit-share is for classifiers"),
        ([*boxes, *unseen, "--risk", "sky=0.01"], "--risk is for classifiers"),
        ([*unseen, "--boxes", str(tmp_path / "twice.json")], "0.png is listed twice, or is a copy of 0.png"),
    ]:
        assert main(["calibrate", bundle, *more]) != 0
        error = " ".join(capsys.readouterr().err.split())
        assert expected in error, (more, error)
        assert "Traceback" not in error
    assert not Bundle.open(bundle).calibrations
