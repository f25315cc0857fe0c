"""``framegate run --objects`` as a user types it."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from recordings import mcap_messages

from framegate.runtime.cli.main import main

BLUE = (250, 10, 10)


@pytest.fixture
def place(tmp_path, tiny_bundle):
    structure = cv2.GaussianBlur(np.random.default_rng(0).normal(120, 180, (240, 320, 3)), (0, 0), 3)
    image = np.clip(structure, 0, 255).astype(np.uint8)
    image[20:80, 20:80] = BLUE
    cv2.imwrite(str(tmp_path / "frame.png"), image)
    boxes = [{"box": [20, 20, 60, 60], "label": "sky", "score": 0.9}, {"box": [20, None, 60, 60]}]
    (tmp_path / "boxes.jsonl").write_text(json.dumps({"frame": 0, "boxes": boxes}) + "\n")
    (tmp_path / "map.json").write_text('{"sky": ["blue"]}')
    return tmp_path


def words(place, tiny_bundle, *more):
    first = ["run", str(place / "frame.png"), "--bundle", str(tiny_bundle), "--backend", "onnxruntime"]
    return [*first, "--jsonl", str(place / "out.jsonl"), *more]


def test_each_object_has_a_line_and_so_has_the_frame(place, tiny_bundle, capsys):
    objects = ["--objects", str(place / "boxes.jsonl"), "--label-map", str(place / "map.json")]
    more = ["--track-rule", "none", "--max-objects", "2", "--roi", "low=20,140,100,80"]
    assert main(words(place, tiny_bundle, *objects, *more)) == 0
    scene, *found = [json.loads(line) for line in (place / "out.jsonl").read_text().splitlines()]
    assert (scene["stream"], scene["objects"], scene["regions"]) == ("frame", 1, 1)
    assert scene["left_out"] == {"not_finite": 1}
    by_name = {each["stream"]: each for each in found}
    blue = next(each for each in found if each["detected"] == "sky")
    assert (blue["verdict"], blue["candidate"], blue["box"]) == ("ACCEPT", "blue", [20, 20, 60, 60])
    assert by_name["low"]["verdict"] == "REJECT"
    said = capsys.readouterr().out
    assert "boxes WITHOUT a verdict: not_finite 1" in said
    assert "missed are in none of these figures" in said


def test_fault_fixed_regions_are_no_objects(place, tiny_bundle, capsys):
    """Of a frame without an object it was said that it has one."""
    (place / "boxes.jsonl").write_text(json.dumps({"frame": 0, "boxes": []}) + "\n")
    more = ["--objects", str(place / "boxes.jsonl"), "--roi", "low=20,140,100,80", "--record", str(place / "out.mcap")]
    assert main(words(place, tiny_bundle, *more)) == 0
    scene, low = [json.loads(line) for line in (place / "out.jsonl").read_text().splitlines()]
    assert (scene["objects"], scene["regions"], low["stream"]) == (0, 1, "low")
    recorded = [json.loads(data) for topic, data in mcap_messages(place / "out.mcap") if topic == "/verdict/frame"]
    assert [(each["objects"], each["regions"]) for each in recorded] == [(0, 1)]
    assert "frames without objects: 1;" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (["--max-objects", "3"], 2, "give --objects"),
        (["--track-rule", "1/1/2"], 2, "give --objects"),
        (["--objects", "BOXES", "--max-objects", "17"], 2, "1 to 16"),
        (["--objects", "BOXES", "--track-rule", "often"], 2, "M/N/K"),
        (["--objects", "nobody.jsonl"], 1, "cannot be read"),
        (["--objects", "nobody"], 1, "nobody"),
        (["--objects", "BOXES", "--label-map", "BOXES"], 1, "boxes.jsonl"),
    ],
)
def test_mistakes_are_one_sentence(place, tiny_bundle, capsys, more, code, says):
    given = [str(place / "boxes.jsonl") if each == "BOXES" else each for each in more]
    assert main(words(place, tiny_bundle, *given)) == code
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said
    assert not (place / "out.jsonl").exists()


def test_a_label_of_the_map_that_the_classifier_lacks_is_named(place, tiny_bundle, capsys):
    (place / "map.json").write_text('{"sky": ["azure"]}')
    objects = ["--objects", str(place / "boxes.jsonl"), "--label-map", str(place / "map.json")]
    assert main(words(place, tiny_bundle, *objects)) == 1
    assert "no label 'azure'; it has blue, green, red" in capsys.readouterr().err
