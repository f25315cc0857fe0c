from __future__ import annotations

import json
import math
import shutil

import cv2
import numpy as np
import pytest

from framegate.evaluation.boxes import count_image, figures, judge_images, sentences
from framegate.export.data.coco import LabelledBox, LabelledImage, read_coco
from framegate.runtime import Bundle, Session
from framegate.runtime.bundle.object_promises import BOXES
from framegate.runtime.cli.main import main
from framegate.runtime.errors import DataError
from framegate.runtime.regions.function import FunctionRegions
from framegate.runtime.regions.judge import Objects
from framegate.runtime.regions.label_map import LabelMap
from framegate.runtime.verdict import FoundObject, Prediction, Reason


def verdict(box, label, accepted=True):
    nan = math.nan
    reasons = () if accepted else (Reason.HIGH_SCORE,)
    return Prediction(0, "object", reasons, label, nan, nan, nan, nan, nan, nan, 0, 0, found=FoundObject(box))


CAR, TREE = LabelledBox((0, 0, 40, 40), "car"), LabelledBox((100, 0, 40, 40), "tree")


def test_a_box_is_right_where_place_and_label_are():
    judged = [
        verdict((2, 0, 40, 40), "car"),  # right
        verdict((0, 2, 40, 40), "car"),  # a second one on the same car
        verdict((100, 0, 40, 40), "car"),  # a tree
        verdict((30, 0, 40, 40), "car"),  # overlaps by less than one half
        verdict((100, 1, 40, 40), "tree", accepted=False),
    ]
    found = count_image(judged, [CAR, TREE], None)
    assert found.accepted == (False, True, True, True)
    assert (found.judged, found.truths, found.found, found.used) == (5, 2, 2, 1)


def test_missed_objects_are_counted_beside_the_promise():
    found = count_image([verdict((0, 0, 40, 40), "car")], [CAR, TREE, TREE], None)
    assert (found.truths, found.found, found.used) == (3, 1, 1)
    record = figures([found] * 100, 0.05, 0.95)
    assert record["one_box_of_each_image"]["wrong"] == 0
    assert record["one_box_of_each_image"]["kept"]
    assert (record["labelled_objects"], record["missed_by_the_detector"]) == (300, 200)
    assert "200 MISSED by the detector" in " ".join(sentences(record))


def test_the_bound_counts_images_and_not_boxes():
    """A hundred right boxes on each of ten images are ten pieces of evidence."""
    one = count_image([verdict((0, 0, 40, 40), "car")], [CAR], None)
    many = type(one)(100, (False,) * 100, 100, 100, 100)
    assert not figures([many] * 10, 0.05, 0.95)["one_box_of_each_image"]["kept"]
    assert figures([], 0.05, 0.95)["one_box_of_each_image"]["bound"] == 1.0


def test_the_label_map_says_which_labels_are_right_for_a_category():
    names = LabelMap({"car": ["automobile", "truck"]})
    assert count_image([verdict((0, 0, 40, 40), "truck")], [CAR], names).accepted == (False,)
    assert count_image([verdict((0, 0, 40, 40), "bird")], [CAR], names).accepted == (True,)
    assert count_image([verdict((100, 0, 40, 40), "tree")], [TREE], names).accepted == (False,)


def coco(tmp_path, **changed):
    record = {
        "images": [{"id": 5, "file_name": "a.png"}, {"id": 7, "file_name": "b.png"}],
        "categories": [{"id": 1, "name": "blue"}, {"id": 2, "name": "red"}],
        "annotations": [
            {"image_id": 5, "category_id": 1, "bbox": [10, 10, 50, 50]},
            {"image_id": 5, "category_id": 2, "bbox": [100, 10, 50, 50]},
            {"image_id": 5, "category_id": 2, "bbox": [0, 0, 200, 90], "iscrowd": 1},
        ],
    }
    path = tmp_path / "coco.json"
    path.write_text(json.dumps({**record, **changed}))
    return path


def test_images_are_judged_as_they_would_be_in_the_vehicle(tmp_path, tiny_bundle):
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        image = np.clip(cv2.GaussianBlur(rng.normal(120, 180, (120, 200, 3)), (0, 0), 3), 0, 255).astype(np.uint8)
        if name == "a.png":
            image[10:60, 10:60], image[10:60, 100:150] = (250, 10, 10), (10, 10, 250)
        cv2.imwrite(str(tmp_path / name), image)
    images = read_coco(coco(tmp_path))
    assert images[1] == LabelledImage("b.png", ())
    session = Session.open(tiny_bundle, "onnxruntime", "fp32", 1, camera=False)
    objects = Objects(FunctionRegions(lambda image: [(10, 10, 50, 50), (100, 60, 50, 50)]))
    first, second = judge_images(session, objects, images, tmp_path, None)
    assert first.accepted[:1] == (False,)
    assert (first.truths, first.found, first.used) == (2, 1, 1)
    assert second.truths == 0
    with pytest.raises(DataError, match="none"):
        judge_images(session, objects, [LabelledImage("none.png", ())], tmp_path, None)


@pytest.mark.parametrize(
    "changed",
    [
        {"images": []},
        {"annotations": [{"image_id": 99, "category_id": 1, "bbox": [1, 2, 3, 4]}]},
        {"annotations": [{"image_id": 5, "category_id": 1, "bbox": [1, 2, 3]}]},
        {"annotations": [{"image_id": 5, "category_id": 9, "bbox": [1, 2, 3, 4]}]},
        {"categories": None},
    ],
)
def test_fault_annotations_that_are_none_are_refused(tmp_path, changed):
    with pytest.raises(DataError, match=r"coco\.json"):
        read_coco(coco(tmp_path, **changed))
    (tmp_path / "coco.json").write_text("[")
    with pytest.raises(DataError, match="JSON"):
        read_coco(tmp_path / "coco.json")


def test_what_boxes_prove_is_stored_in_the_bundle_and_nothing_else(tmp_path, tiny_bundle, capsys):
    """From pictures, labels and recorded boxes to the line of ``framegate info``, by the command line."""
    rng, images, labelled, lines = np.random.default_rng(0), [], [], []
    for k in range(66):
        image = np.clip(cv2.GaussianBlur(rng.normal(120, 180, (90, 120, 3)), (0, 0), 3), 0, 255).astype(np.uint8)
        image[10:60, 10:60] = (250, 10, 10)
        cv2.imwrite(str(tmp_path / f"{k}.png"), image)
        images.append({"id": k, "file_name": f"{k}.png"})
        labelled.append({"image_id": k, "category_id": 1, "bbox": [10, 10, 50, 50]})
        lines.append(json.dumps({"frame": k, "boxes": [{"box": [10, 10, 50, 50], "label": "blue", "score": 0.9}]}))
    labelled.append({"image_id": 3, "category_id": 2, "bbox": [70, 30, 40, 40]})  # nobody finds it
    (tmp_path / "boxes.jsonl").write_text("\n".join(lines) + "\n")
    bundle = shutil.copytree(tiny_bundle, tmp_path / "tiny.bundle")
    given = ["evaluate", str(bundle), "--data", str(tmp_path), "--objects", str(tmp_path / "boxes.jsonl"), "--store"]
    given += ["--out", str(tmp_path / "figures"), "--boxes"]
    few = coco(tmp_path, images=images[:5], annotations=labelled[:5])
    assert main([*given, str(few)]) == 2
    assert "nothing was stored, for nothing is promised" in " ".join(capsys.readouterr().err.split())
    assert not Bundle.open(bundle).object_promises
    assert main([*given, str(coco(tmp_path, images=images, annotations=labelled))]) == 0
    assert "1 MISSED by the detector" in " ".join(capsys.readouterr().out.split())
    ((stored,),) = Bundle.open(bundle).object_promises.values()
    assert (stored.about, stored.wrong, stored.counted) == (BOXES, 0, 66)
    assert (stored.labelled, stored.missed) == (67, 1)
    assert stored.bound <= stored.target_risk == 0.05
    assert main(["info", str(bundle)]) == 0
    assert stored.describe() in " ".join(capsys.readouterr().out.split())
