"""Folders of images and label files: read the same everywhere, and mistakes named."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import foreign_onnx
import numpy as np
import pytest

from framegate.export.data import labelled
from framegate.export.data.image_folder import read_image_folder
from framegate.export.data.labelled import (
    TRAINING_RECORD,
    USER,
    Place,
    load_calibration,
    load_comparison,
    load_splits,
    load_training,
    trained_on,
    with_held_out,
)
from framegate.export.data.labels_file import check_count, read_labels
from framegate.models.datasets import DATASETS
from framegate.models.held_out import hold_out
from framegate.models.labelled import LabelledImages, fingerprint
from framegate.runtime.errors import DataError, UsageError
from framegate.runtime.preprocess import Preprocessor, PreprocessSpec

LABELS = foreign_onnx.LABELS
SPEC = PreprocessSpec(20, 20, "bilinear", "stretch", "rgb", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    return foreign_onnx.write_photographs(tmp_path / "photographs", 40)


def test_images_are_what_the_runtime_sees(photographs: Path, quiet) -> None:
    named = read_image_folder(photographs, LABELS, SPEC, None, quiet)
    assert len(named.images) == 40
    preprocess = Preprocessor(SPEC)
    for image, label, name in zip(named.images.images, named.images.labels, named.names, strict=True):
        assert LABELS[label] == name.split("/")[0]
        straight = preprocess(cv2.imread(str(photographs / name))).copy()
        assert np.array_equal(preprocess(image), straight)


def test_order_does_not_depend_on_other_images_and_mixes_the_labels(photographs: Path, quiet) -> None:
    before = read_image_folder(photographs, LABELS, SPEC, None, quiet).names
    assert {name.split("/")[0] for name in before[:12]} == set(LABELS)
    assert read_image_folder(photographs, LABELS, SPEC, 7, quiet).names == before[:7]
    (photographs / before[3]).unlink()
    assert read_image_folder(photographs, LABELS, SPEC, None, quiet).names == before[:3] + before[4:]


def test_what_of_a_folder_is_left_out_is_said(photographs: Path, quiet, capsys) -> None:
    read_image_folder(photographs, LABELS, SPEC, 40, quiet)
    assert capsys.readouterr().err == ""
    (photographs / LABELS[0] / "more").mkdir()
    (photographs / LABELS[0] / "clip.heic").write_bytes(b"x")
    (photographs / LABELS[0] / ".hidden").write_bytes(b"x")
    read_image_folder(photographs, LABELS, SPEC, 7, quiet)
    said = " ".join(capsys.readouterr().err.split())
    assert f"2 entries of its folders are no images and are left out, such as {LABELS[0]}/clip.heic" in said
    assert "7 of its 40 images are used" in said


def test_splits_are_disjoint_and_a_copy_counts_once(photographs: Path, quiet) -> None:
    name = read_image_folder(photographs, LABELS, SPEC, 1, quiet).names[0]
    shutil.copy(photographs / name, photographs / name.replace(".png", "-copy.png"))
    splits = load_splits(Place(photographs), LABELS, SPEC, quiet)
    parts = [splits.train, splits.calibration, splits.test]
    assert [len(part) for part in parts] == [4, 24, 12]
    pixels = [image.tobytes() for part in parts for image in part.images]
    assert len(set(pixels)) == 40
    # The same picture in another file format is no other evidence, either.
    for k, each in enumerate(read_image_folder(photographs, LABELS, SPEC, 12, quiet).names):
        other = photographs / each.replace(".png", (".bmp", ".tiff", ".ppm")[k % 3])
        cv2.imwrite(str(other), cv2.imread(str(photographs / each)))
    splits = load_splits(Place(photographs), LABELS, SPEC, quiet)
    assert len({image.tobytes() for part in parts for image in part.images}) == 40
    assert sum(map(len, (splits.train, splits.calibration, splits.test))) == 40
    again, unseen = load_calibration(Place(None, photographs), LABELS, SPEC, quiet)
    assert (splits.unseen, unseen) == ("", USER)
    assert np.array_equal(again.images, splits.calibration.images)
    assert len(load_comparison(photographs, LABELS, SPEC, None, quiet).images) == 40


def test_grey_pictures_are_taken(photographs: Path, quiet) -> None:
    cv2.imwrite(str(photographs / "red" / "grey.png"), np.full((30, 30), 9, np.uint8))
    named = read_image_folder(photographs, LABELS, SPEC, None, quiet)
    assert (named.images.images[named.names.index("red/grey.png")] == 9).all()


def _unknown(folder: Path) -> None:
    (folder / "red").rename(folder / "crimson")


def _cut(folder: Path) -> None:
    file = next((folder / "red").iterdir())
    file.write_bytes(file.read_bytes()[:200])


def _deep(folder: Path) -> None:
    cv2.imwrite(str(folder / "red" / "deep.png"), np.zeros((30, 30, 3), np.uint16))


def _small(folder: Path) -> None:
    cv2.imwrite(str(folder / "red" / "small.png"), np.zeros((9, 30, 3), np.uint8))


def _two_labels(folder: Path) -> None:
    shutil.copy(next((folder / "red").iterdir()), folder / "blue" / "same.png")


def _few(folder: Path) -> None:
    for file in [*folder.rglob("*.png")][2:]:
        file.unlink()


def _none(folder: Path) -> None:
    for file in folder.rglob("*.png"):
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_unknown, r"folder 'crimson' \(1 of 3 like it\) is no label .* red, green, blue \(3\)"),
        (_cut, "damaged or cut off"),
        (_deep, "uint16 pixels"),
        (_small, "30x9 pixels"),
        (_two_labels, "under another label"),
        (_few, "2 images; give at least a few hundred"),
        (_none, "or a folder with one folder of images per label"),
    ],
)
def test_bad_folders_are_one_clear_line(photographs: Path, quiet, damage, message: str) -> None:
    damage(photographs)
    with pytest.raises(DataError, match=message) as caught:
        load_splits(Place(photographs), LABELS, SPEC, quiet)
    assert len(str(caught.value).splitlines()) == 1


def test_label_files(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeffred\r\ngreen \r\nblé\r\n\r\n".encode())
    assert read_labels(path) == ("red", "green", "blé")
    check_count(path, ("red", "green", "blé"), 3)
    for content, message in (
        ("a\n\nb\n", "line 2 is empty"),
        ("a\nb\na\n", "'a' stands in lines 1, 3"),
        ("a\n", "1 names"),
        ("\xff\xfe", "UTF-8"),
    ):
        path.write_bytes(content.encode("latin-1"))
        with pytest.raises(DataError, match=message):
            read_labels(path)
    with pytest.raises(DataError, match="no such file"):
        read_labels(tmp_path / "x.txt")
    with pytest.raises(DataError, match=r"2 names, but the network has 3 outputs; .*background"):
        check_count(path, ("a", "b"), 3)
    with pytest.raises(DataError, match=r"4 names, but the network has 3 outputs$"):
        check_count(path, ("a", "b", "c", "d"), 3)


@pytest.mark.parametrize("lengths", [(1, 30), (5, 5)], ids=["unequal", "equal"])
def test_no_unit_spans_two_splits(lengths: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    units = np.repeat(np.arange(60), rng.integers(lengths[0], lengths[1] + 1, 60))
    units = units[rng.permutation(len(units))]
    images = LabelledImages("f", np.zeros((len(units), 2, 2, 3), np.uint8), units % 3, units)
    for parts in ([images.subset(part, "p") for part in labelled._cut(images)], labelled._halves(images)):
        assert sum(map(len, parts)) == len(units)
        known = [set(part.groups) for part in parts]
        assert all(known)
        assert len(set.union(*known)) == sum(map(len, known)) == 60


def test_what_training_held_out_joins_the_calibration_in_proportion_and_in_order(quiet, monkeypatch) -> None:
    """Two labels with 10 and 2 tracks of 3 frames: a tenth is one track of the first, and none of the second."""
    tracks = np.repeat(np.arange(12), 3)
    values = np.arange(36, dtype=np.uint8)
    train = LabelledImages(
        "s-train",
        np.broadcast_to(values[:, None, None, None], (36, 20, 20, 3)).copy(),
        (tracks >= 10).astype(np.int64),
        tracks,
        "track",
    )
    calibration = LabelledImages(
        "s-calibration", np.full((6, 20, 20, 3), 99, np.uint8), np.zeros(6, np.int64), np.repeat([20, 21], 3), "track"
    )
    data = replace(
        DATASETS["cifar10"],
        labels=LABELS[:2],
        find=lambda place: place,
        read_training=lambda place: (train, calibration),
    )
    monkeypatch.setattr(labelled, "_known", lambda place, spec: data)
    rest, held = hold_out(train, 0.1)
    assert len(set(held.groups)) == 2  # a label with two tracks gives one, too
    place = Place(Path("x"))
    both = with_held_out(calibration, place, LABELS[:2], SPEC, 0.1)
    joined = both.images[6:, 0, 0, 0]
    assert np.array_equal(both.images[:6], calibration.images)
    assert (np.diff(joined) == 1).all()  # in the order of recording
    assert len(joined) == 3
    assert not set(joined) & set(rest.images[:, 0, 0, 0])
    assert set(both.groups[6:]) < set(held.groups)
    assert both.unit == "track"
    # What sets INT8 ranges is what trained, and nothing that proves.
    for share, left in ((0.1, rest), (0.0, train)):
        ranges = load_training(place, LABELS[:2], SPEC, lambda *told: None, share)
        assert set(ranges.images[:, 0, 0, 0]) == set(left.images[:, 0, 0, 0])
    with pytest.raises(UsageError, match="two places"):
        load_training(Place(Path("x"), Path("y")), LABELS[:2], SPEC, quiet, 0.1)


def test_one_picture_under_two_labels_is_refused_in_whatever_file(photographs: Path, quiet) -> None:
    name = read_image_folder(photographs, LABELS, SPEC, 1, quiet).names[0]
    other = next(label for label in LABELS if not name.startswith(label))
    cv2.imwrite(str(photographs / other / "again.bmp"), cv2.imread(str(photographs / name)))
    with pytest.raises(DataError, match="under another label"):
        read_image_folder(photographs, LABELS, SPEC, None, quiet)


def test_images_that_are_also_given_as_those_that_trained_prove_nothing(photographs: Path, tmp_path, quiet) -> None:
    some = tmp_path / "some"
    foreign_onnx.write_photographs(some, 200, seed=5)
    shutil.copytree(photographs, some, dirs_exist_ok=True)
    for trained in (photographs, some, photographs / "."):
        for load in (load_calibration, load_splits):
            with pytest.raises(DataError, match="lie in"):
                load(Place(trained, some), LABELS, SPEC, quiet)


def test_frames_of_a_track_are_in_the_order_of_their_names_and_tracks_are_not(tmp_path: Path, quiet) -> None:
    """What a rule does on a track, and what a window sees of it, hang on the order of capture."""
    rng = np.random.default_rng(0)
    for track in range(40):
        for k in range(5):
            place = tmp_path / LABELS[track % 3]
            place.mkdir(exist_ok=True)
            pixels = np.full((24, 24, 3), (track, k, 0), np.uint8)
            pixels[:, :, 2] = rng.integers(0, 255, (24, 24))
            cv2.imwrite(str(place / f"t{track:02d}_{k}.png"), pixels)
    place = Place(None, tmp_path, group="(t[0-9]+)_")
    splits = load_splits(place, LABELS, SPEC, quiet)
    seen = []
    for part in (splits.train, splits.calibration, splits.test):
        assert part.group == "(t[0-9]+)_"
        order = part.as_captured()
        shown, units = part.images[order, 0, 0, :2], part.groups[order]
        for unit in np.unique(units):
            assert list(shown[units == unit, 1]) == [0, 1, 2, 3, 4]
        assert list(part.images[:, 0, 0, 1]) != list(shown[:, 1])
        seen += list(shown[::5, 0])
    assert sorted(seen) == list(range(40))


def test_how_images_are_grouped_does_not_change_what_they_are_known_by(tmp_path: Path, quiet) -> None:
    """Else each grouping would be a first question, with a division of its own."""
    foreign_onnx.write_photographs(tmp_path, 60)
    whole = [
        read_image_folder(tmp_path, LABELS, SPEC, None, quiet).images,
        *(
            labelled._with_units(named.images, named.names, Place(None, tmp_path, group=group))
            for named in [read_image_folder(tmp_path, LABELS, SPEC, None, quiet)]
            for group in ("([0-9]{3})[0-9]", "[0-9]{3}([0-9])", "none")
        ),
    ]
    assert len({fingerprint(each) for each in whole}) == 1
    assert len({None if each.groups is None else each.groups.tobytes() for each in whole}) == 3


def _tracks(count: int, first: int) -> LabelledImages:
    """Tracks of three frames, numbered from ``first`` on; a frame shows its number."""
    units = np.repeat(np.arange(first, first + count), 3)
    images = np.zeros((len(units), 20, 20, 3), np.uint8)
    images[:] = np.arange(3 * first, 3 * (first + count), dtype=np.uint8)[:, None, None, None]
    return LabelledImages("s", images, np.zeros(len(units), np.int64), units, "track")


def _of_the_same_name(train: LabelledImages, calibration: LabelledImages):
    return replace(
        DATASETS["cifar10"],
        labels=LABELS[:2],
        find=lambda place: place,
        read_training=lambda place: (train, calibration),
        read_test=lambda place: calibration,
    )


def _calibration(split: LabelledImages, unseen: str) -> SimpleNamespace:
    return SimpleNamespace(fingerprint=fingerprint(split), unseen=unseen)


@pytest.mark.parametrize("recorded", ["by training", "by a calibration"])
def test_another_copy_of_the_data_that_trained_a_network_proves_nothing(quiet, monkeypatch, recorded: str) -> None:
    """It has other tracks, or other pixels, and is divided otherwise: what calibrates there may have trained."""
    train, calibration = _tracks(12, 0), _tracks(4, 20)
    notes = {"data": "cifar10", "settings": {"held_out": 0.1}}
    calibrations = []
    if recorded == "by training":
        notes["held_out_sha256"] = fingerprint(hold_out(train, 0.1)[1])
    else:
        calibrations = [_calibration(calibration, TRAINING_RECORD), _calibration(_tracks(4, 50), USER)]
    known = trained_on({"training": notes}, calibrations)
    others = {
        "fewer tracks": (train.subset(np.arange(33), "s"), _tracks(4, 21)),
        "other pixels": (replace(train, images=train.images + 1), replace(calibration, images=calibration.images + 1)),
        "the user's own": (_tracks(12, 30), _tracks(4, 50)),
    }
    for name, splits in {"the same": (train, calibration), **others}.items():
        monkeypatch.setattr(labelled, "_known", lambda place, spec, splits=splits: _of_the_same_name(*splits))
        for load in (load_calibration, load_splits):
            place = Place(Path("x"), trained_on=known)
            if name == "the same":
                load(place, LABELS[:2], SPEC, quiet)
                continue
            with pytest.raises(DataError, match="another copy"):
                load(place, LABELS[:2], SPEC, quiet)


def test_where_no_record_says_which_copy_trained_any_one_is_believed(quiet, monkeypatch) -> None:
    splits = _tracks(12, 0), _tracks(4, 20)
    monkeypatch.setattr(labelled, "_known", lambda place, spec: _of_the_same_name(*splits))
    for notes in ({"data": "cifar10"}, {"data": "cifar10", "settings": {"held_out": 7.0}, "held_out_sha256": "0" * 64}):
        place = Place(Path("x"), trained_on=trained_on({"training": notes}))
        assert load_calibration(place, LABELS[:2], SPEC, quiet)[1] == TRAINING_RECORD


@pytest.mark.parametrize("training", [None, {}, {"data": 7}, {"data": None}, ["cifar10"]])
def test_an_origin_that_names_no_data_set(training) -> None:
    assert trained_on({"training": training}).data == ""


def test_ranges_need_training_images():
    with pytest.raises(UsageError, match="give them as --data"):
        load_training(Place(None, Path("unseen")), LABELS[:2], SPEC, lambda *told: None)
