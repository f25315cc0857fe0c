"""The frames most worth a label go out, not all of one scene, and come back with labels."""

from __future__ import annotations

import csv
import errno
import json
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from drive_files import LABELS, colour, record_drive

from framegate.evaluation.drives.labelling import read_labels
from framegate.evaluation.drives.mine import CRITERIA, choose, draw, mine
from framegate.evaluation.drives.table import DriveTable
from framegate.export.data.drives import read_drives
from framegate.runtime.cli import main as cli
from framegate.runtime.errors import DataError
from framegate.runtime.preprocess import PreprocessSpec
from framegate.runtime.session import Session


def listed(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def fill(path, label_of):
    rows = listed(path)
    for row in rows:
        row["label"] = label_of(row)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return rows


def truth(row):
    return LABELS[colour(int(row["drive"][1:]))]


def test_what_is_chosen_fits_the_criterion(table):
    whole = DriveTable(table)
    near = mine(whole, ["near"], 20).rows
    assert near.num_rows == 20
    distance = abs(near["score"].to_numpy() - near["threshold"].to_numpy()) / near["threshold"].to_numpy()
    assert np.median(distance) < 0.25
    assert mine(whole, ["changed"], 10).rows["why"].to_pylist() == ["changed"] * 10
    assert not mine(whole, ["disagree"], 10).rows.num_rows
    both = mine(whole, CRITERIA, 15)
    assert len(set(zip(*(both.rows[name].to_pylist() for name in ("drive", "region", "frame_id")), strict=True))) == 15
    assert len(set(both.rows["drive"].to_pylist())) == 6  # not one scene
    assert both.unseen > 0


def test_random_ones_are_samples_alone(table):
    rows = draw(DriveTable(table), 1000).rows.to_pylist()
    assert all("sample" in row["events"].split() for row in rows)
    assert len(rows) == 6 * 2 * 2  # every ten of twelve seconds, two regions


def test_the_choice_spreads():
    worth = np.ones(200)
    features = np.concatenate([np.zeros((190, 2)), np.arange(20).reshape(10, 2) * 3.0])
    found = choose(worth, features, np.zeros(200, np.int64), np.zeros(200), 11)
    assert set(range(190, 200)) <= set(found)
    assert choose(np.array([0.1, 1.0]), np.zeros((2, 0)), np.zeros(2, np.int64), np.zeros(2), 5) == [1, 0]


def test_labels_go_out_and_come_back(table, tmp_path, capsys):
    out = tmp_path / "m"
    assert cli.main(["drives", "mine", str(table), "--out", str(out), "--budget", "6", "--near-threshold"]) == 0
    rows = fill(out / "frames.csv", truth)
    assert len(rows) == 6
    for row in rows:
        assert cv2.imread(str(out / "images" / row["image"])).shape == (96, 160, 3)
        assert (row["x"], row["width"]) == (("0", "80") if row["region"] == "left" else ("80", "80"))
    labelled = tmp_path / "labelled.parquet"
    assert cli.main(["drives", "labels", str(table), str(out / "frames.csv"), "--out", str(labelled)]) == 0
    found = DriveTable(labelled).read(["drive", "region", "frame_id", "label"]).to_pylist()
    got = {(each["drive"], each["region"], str(each["frame_id"])): each["label"] for each in found if each["label"]}
    assert got == {(row["drive"], row["region"], row["frame_id"]): truth(row) for row in rows}
    again = tmp_path / "again"
    assert cli.main(["drives", "mine", str(labelled), "--out", str(again), "--budget", "6", "--near-threshold"]) == 0
    chosen = {(row["drive"], row["region"], row["frame_id"]) for row in listed(again / "frames.csv")}
    assert not chosen & set(got)  # what has a label is not asked again
    assert cli.main(["drives", "mine", str(table), "--out", str(out)]) == 1
    assert "it is there already" in capsys.readouterr().err
    page = tmp_path / "r.html"
    assert cli.main(["drives", "report", str(labelled), "--out", str(page)]) == 0
    text = page.read_text()
    assert "Coverage of each drive" in text
    assert "HIGH_SCORE" in text
    assert "<svg" in text


@pytest.mark.parametrize("how", ["--random", "--rare"])
def test_fault_what_was_mined_is_never_taken_for_drawn(table, tmp_path, how):
    out, labelled = tmp_path / "m", tmp_path / "labelled.parquet"
    assert cli.main(["drives", "mine", str(table), "--out", str(out), "--budget", "1000", how]) == 0
    sampled = DriveTable(table).read(["drive", "region", "frame_id", "events"]).to_pylist()
    samples = {(row["drive"], row["region"], str(row["frame_id"])) for row in sampled if "sample" in row["events"]}

    def label_of(row):  # those whose time had come anyway, of which one looks as good as a drawn one
        if (row["drive"], row["region"], row["frame_id"]) not in samples:
            return ""
        return "gren" if row["drive"] == "d01" else truth(row)

    rows = fill(out / "frames.csv", label_of)
    given = [row for row in rows if row["label"]]
    with (out / "frames.csv").open("a") as file:
        file.write("," * (len(rows[0]) - 1) + "\n")  # as a spreadsheet leaves it
    assert cli.main(["drives", "labels", str(table), str(out / "frames.csv"), "--out", str(labelled)]) == 0
    spec = PreprocessSpec(8, 8, "bilinear", "stretch", "rgb", (0.0,) * 3, (1.0,) * 3)
    found = read_drives(labelled, LABELS, spec, lambda *_: None)
    assert found.picked == (0 if how == "--random" else len(found.images))
    assert any("were not drawn at random" in each for each in found.remarks()) == (how == "--rare")
    wrong = sum(row["label"] == "gren" for row in given)
    assert len(found.images) == len(given) - wrong > 0 < wrong
    assert any(f"('gren' {wrong}): a misspelt label hides" in each for each in found.remarks())


def test_label_studio_and_cvat(table, tmp_path):
    for form in ("label-studio", "cvat"):
        assert (
            cli.main(["drives", "mine", str(table), "--out", str(tmp_path / form), "--budget", "3", "--format", form])
            == 0
        )
    tasks = json.loads((tmp_path / "label-studio" / "label_studio.json").read_text())
    names = [task["data"]["image"].rpartition("=images/")[2] for task in tasks]
    assert names == [row["image"] for row in listed(tmp_path / "label-studio" / "frames.csv")]
    choice = {"type": "choices", "value": {"choices": ["red"]}}
    box = {"type": "rectanglelabels", "value": {}}
    tasks[0]["annotations"] = [{"result": [box, choice]}]
    tasks[1]["annotations"] = [{"was_cancelled": True, "result": [choice]}]
    back = tmp_path / "label-studio" / "export.json"
    back.write_text(json.dumps(tasks))
    assert list(read_labels(back).values()) == ["red"]
    tasks[0]["annotations"] += [{"result": [{"type": "choices", "value": {"choices": ["green"]}}]}]  # somebody else's
    back.write_text(json.dumps(tasks))
    with pytest.raises(DataError, match="is labelled 'red' and 'green'; leave one"):
        read_labels(back)
    assert ElementTree.parse(tmp_path / "label-studio" / "label_studio.xml").find("Choices/Choice") is not None

    path = tmp_path / "cvat" / "cvat.xml"
    assert read_labels(path) == {}  # nobody has looked yet
    root = ElementTree.parse(path).getroot()
    assert {each.text for each in root.iter("name")} >= {"unlabelled", "other", "blue"}
    root.find("image/box").set("label", "green")
    (tmp_path / "elsewhere.xml").write_bytes(ElementTree.tostring(root))
    found = read_labels(tmp_path / "elsewhere.xml", tmp_path / "cvat" / "frames.csv")
    assert list(found.values()) == ["green"]
    ElementTree.SubElement(root.find("image"), "box", label="red")  # which of the two is meant?
    (tmp_path / "elsewhere.xml").write_bytes(ElementTree.tostring(root))
    with pytest.raises(DataError, match="is labelled 'green' and 'red'; leave one"):
        read_labels(tmp_path / "elsewhere.xml", tmp_path / "cvat" / "frames.csv")
    lines = (tmp_path / "cvat" / "frames.csv").read_text().splitlines(keepends=True)
    (tmp_path / "twice.csv").write_text("".join([*lines, lines[1]]))
    with pytest.raises(DataError, match="stands in two lines"):
        read_labels(tmp_path / "twice.csv")


def test_fault_nothing_is_written_over_labels_table_or_calibration(table, tiny_bundle, tmp_path, capsys):
    mine, labels = tmp_path / "t.parquet", tmp_path / "m" / "frames.csv"
    mine.write_bytes(table.read_bytes())
    assert cli.main(["drives", "mine", str(mine), "--out", str(labels.parent), "--budget", "2"]) == 0
    fill(labels, truth)
    calibration = tmp_path / "calibration.json"
    calibration.write_bytes((tiny_bundle / "calibration.json").read_bytes())
    before = [path.read_bytes() for path in (mine, labels, calibration)]
    for arguments, sentence in (
        (["labels", mine, labels, "--out", labels], "expected a file that ends in .parquet"),
        (["labels", mine, labels, "--out", tmp_path / "labelled"], "expected a file that ends in .parquet"),
        (["report", mine, "--out", mine], "expected a file that ends in .html"),
        (["what-if", mine, "--calibration", calibration, "--out", calibration], "is also an input"),
    ):
        assert cli.main(["drives", *map(str, arguments)]) == 2
        assert sentence in capsys.readouterr().err
    assert [path.read_bytes() for path in (mine, labels, calibration)] == before


def test_fault_a_drive_that_was_started_again_has_its_numbers_twice(tmp_path, tiny_bundle):
    session = Session.open(tiny_bundle, "onnxruntime", "fp32", 1)
    for _ in range(2):  # the box goes on with the drive that is there, and counts frames from 0 again
        record_drive(tmp_path / "box", session, 0)
    table, out = tmp_path / "t.parquet", tmp_path / "m"
    assert cli.main(["drives", "index", str(tmp_path / "box"), "--out", str(table), "--workers", "1"]) == 0
    assert cli.main(["drives", "mine", str(table), "--out", str(out), "--random"]) == 0
    rows = fill(out / "frames.csv", lambda row: "red" if row["file"] == "d00.front.000000.mcap" else "green")
    assert len(rows) == 2 * len({(row["region"], row["frame_id"]) for row in rows}) == 8
    labelled = tmp_path / "labelled.parquet"
    assert cli.main(["drives", "labels", str(table), str(out / "frames.csv"), "--out", str(labelled)]) == 0
    found = DriveTable(labelled).read(["file", "label"]).to_pylist()
    given = [(each["file"].endswith("000000.mcap"), each["label"]) for each in found if each["label"]]
    assert sorted(given) == [(False, "green")] * 4 + [(True, "red")] * 4

    again = mine(DriveTable(table), ["changed"], 100).rows.to_pylist()
    one = [(row["region"], row["frame_id"]) for row in again if row["file"].endswith("000000.mcap")]
    other = [(row["region"], row["frame_id"]) for row in again if row["file"].endswith("000001.mcap")]
    # Two equal runs change at the same frames, whatever their clock says; the second begins behind another frame.
    assert set(one) == set(other) - {("left", 0), ("right", 0)}


@pytest.mark.parametrize("there", [False, True])
def test_fault_a_folder_in_which_nothing_came_can_be_given_again(table, tmp_path, monkeypatch, capsys, there):
    out = tmp_path / "m"
    if there:
        out.mkdir()
    command = ["drives", "mine", str(table), "--budget", "3", "--format", "cvat", "--out", str(out)]
    assert cli.main([*command, "--disagree"]) == 1
    said = capsys.readouterr()
    assert "no frame to label was found (disagree); nothing was written" in said.err
    assert not said.out
    assert list(out.parent.rglob("*")) == [out] * there

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("framegate.evaluation.drives.labelling._write_cvat", full)
        assert cli.main(command) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert list(out.parent.rglob("*")) == [out] * there
    assert cli.main(command) == 0


def test_a_list_of_an_older_version_says_what_it_lacks(table, tmp_path):
    out = tmp_path / "m"
    assert cli.main(["drives", "mine", str(table), "--out", str(out), "--budget", "2"]) == 0
    rows = listed(out / "frames.csv")
    with (out / "frames.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [name for name in rows[0] if name != "file"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(DataError, match="an older version wrote no column 'file', the name of the recording: add it"):
        read_labels(out / "frames.csv")


def test_labels_for_frames_that_do_not_exist_are_refused(table, tmp_path, capsys):
    out = tmp_path / "m"
    assert cli.main(["drives", "mine", str(table), "--out", str(out), "--budget", "2"]) == 0
    fill(out / "frames.csv", truth)
    text = (out / "frames.csv").read_text().replace(",d0", ",e0")
    (out / "frames.csv").write_text(text)
    target = tmp_path / "x.parquet"
    assert cli.main(["drives", "labels", str(table), str(out / "frames.csv"), "--out", str(target)]) == 1
    assert "2 labels are for frames that" in capsys.readouterr().err
    assert not target.exists()
    assert not list(tmp_path.glob(".*"))
    said = {"result": [{"type": "choices", "value": {"choices": ["a"]}}]}
    for name, content, sentence in (
        ("a.json", "[{}]", "no export of Label Studio"),
        ("a.xml", "<annotations>", "no export of Label Studio"),
        ("a.json", json.dumps([{"data": {"image": "x.jpg"}, "annotations": [said]}]), "does not list it"),
    ):  # fmt: skip
        (out / name).write_text(content)
        with pytest.raises(DataError, match=sentence):
            read_labels(out / name)
    (out / "frames.csv").write_text("image,drive\n")
    with pytest.raises(DataError, match="no column 'camera'"):
        read_labels(out / "frames.csv")
