from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framegate.models import gtsrb
from framegate.models.labelled import LabelledImages
from framegate.runtime.errors import DataError

HEAD = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\r\n"
FRAMES = 3


def tracks_of(label):
    return 12 if label == 0 else 1 if label == 42 else 2


def colour(label, track, frame):
    """Blue tells the class, green the track, red the frame."""
    return (label * 5, track * 10, 100 + frame * 50)


def write_official(folder):
    """The layout of the official archives, with small images of one colour; their sizes differ as in reality."""
    for label in range(43):
        place = folder / "GTSRB" / "Final_Training" / "Images" / f"{label:05d}"
        place.mkdir(parents=True)
        lines = [HEAD]
        for track in range(tracks_of(label)):
            for frame in range(FRAMES):
                name = f"{track:05d}_{frame:05d}.ppm"
                image = np.full((20 + 15 * frame, 18 + 20 * frame, 3), colour(label, track, frame), np.uint8)
                cv2.imwrite(str(place / name), image)
                lines.append(f"{name};{image.shape[1]};{image.shape[0]};5;5;12;14;{label}\r\n")
        (place / f"GT-{label:05d}.csv").write_text("".join(lines))
    place = folder / "GTSRB" / "Final_Test" / "Images"
    place.mkdir(parents=True)
    lines = [HEAD]
    for number, label in enumerate((14, 3, 42)):
        cv2.imwrite(str(place / f"{number:05d}.ppm"), np.full((30, 31, 3), colour(label, number, 0), np.uint8))
        lines.append(f"{number:05d}.ppm;31;30;5;5;25;25;{label}\r\n")
    (folder / "GT-final_test.csv").write_text("".join(lines))  # the archive with the truth unpacks beside GTSRB
    return folder


def write_small(path, **changes):
    """The same data as one npz file, in RGB."""
    rows = [(c, t, f) for c in range(43) for t in range(tracks_of(c)) for f in range(FRAMES)]
    train = np.array([np.full((32, 32, 3), colour(*row)[::-1]) for row in rows], np.uint8)
    tests = [np.full((32, 32, 3), colour(label, k, 0)[::-1]) for k, label in enumerate((14, 3, 42))]
    arrays = {
        "x_train": train,
        "y_train": np.array([row[0] for row in rows], np.uint8),
        "track_train": np.array([row[1] for row in rows], np.uint16),
        "x_test": np.array(tests, np.uint8),
        "y_test": np.array([14, 3, 42], np.uint8),
    }
    arrays.update(changes)
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    return write_official(tmp_path_factory.mktemp("gtsrb"))


def keys(split):
    """(class, track, frame) of every image, read from its colours."""
    pixel = split.images[:, 16, 16].astype(int)
    assert (split.images == split.images[:, :1, :1]).all()
    np.testing.assert_array_equal(pixel[:, 0] // 5, split.labels)
    return [(b // 5, g // 10, (r - 100) // 50) for b, g, r in pixel]


def test_splits_hold_whole_tracks_of_every_class(official):
    train, calibration = gtsrb.load_training(official)
    assert train.images.shape[1:] == (32, 32, 3)
    assert (train.name, calibration.name) == ("gtsrb-train", "gtsrb-calibration")
    one, two = keys(train), keys(calibration)
    everything = {(c, t, f) for c in range(43) for t in range(tracks_of(c)) for f in range(FRAMES)}
    assert len(one) + len(two) == len(everything)
    assert set(one) | set(two) == everything
    assert not {key[:2] for key in one} & {key[:2] for key in two}
    # A sixth of twelve tracks; one of two; none of a single one, because then nothing would be left to train on.
    count = {c: len({key[1] for key in two if key[0] == c}) for c in range(43)}
    assert count == {0: 2, 42: 0, **dict.fromkeys(range(1, 42), 1)}


def test_the_small_file_gives_the_same(official, tmp_path):
    small = write_small(tmp_path / "gtsrb32.npz")
    for place in (small, tmp_path):
        for one, two in zip(gtsrb.load_training(official), gtsrb.load_training(place), strict=True):
            np.testing.assert_array_equal(one.images, two.images)
            np.testing.assert_array_equal(one.labels, two.labels)
        np.testing.assert_array_equal(gtsrb.load_test(official).images, gtsrb.load_test(place).images)


def test_the_split_never_changes():
    # Bundles were calibrated on these very tracks.
    labels, tracks = np.repeat([0, 1, 14], 12), np.tile(np.repeat(np.arange(6), 2), 3)
    train, calibration = gtsrb.split_tracks(labels, tracks)
    assert len(train) == 30
    assert sorted(set(zip(labels[calibration].tolist(), tracks[calibration].tolist(), strict=True))) == [
        (0, 1),
        (1, 3),
        (14, 4),
    ]


def test_test_images_are_bgr_in_the_order_of_the_table(official):
    test = gtsrb.load_test(official / "GTSRB")  # the folder inside is found too
    assert test.labels.tolist() == [14, 3, 42]
    assert test.images[0, 3, 3].tolist() == [70, 0, 100]
    assert gtsrb.LABELS[14] == "stop"


def test_images_are_brought_to_size_by_area(official, tmp_path):
    folder = write_official(tmp_path)
    fine = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    cv2.imwrite(str(folder / "GTSRB" / "Final_Test" / "Images" / "00000.ppm"), fine)
    expected = fine.reshape(32, 2, 32, 3, 3).astype(float).mean(axis=(1, 3))
    np.testing.assert_allclose(gtsrb.load_test(folder).images[0], expected, atol=0.51)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 30)), min_size=1, max_size=80))
def test_no_track_is_ever_in_both_splits(frames):
    labels, tracks = (np.array(column, np.int64) for column in zip(*frames, strict=True))
    train, calibration = gtsrb.split_tracks(labels, tracks)
    assert sorted([*train, *calibration]) == list(range(len(frames)))
    one, two = ({frames[k] for k in part} for part in (train, calibration))
    assert not one & two
    for label in set(labels.tolist()):
        total = len({f for f in frames if f[0] == label})
        count = len({f for f in two if f[0] == label})
        assert count == 0 if total == 1 else 1 <= count <= max(1, round(total / 6))


def test_labels_are_the_43_official_classes():
    assert len(gtsrb.LABELS) == len(set(gtsrb.LABELS)) == 43


def break_folder(folder):
    (folder / "GTSRB/Final_Training/Images/00017/GT-00017.csv").unlink()
    (folder / "GTSRB/Final_Training/Images/00017").rename(folder / "GTSRB/away")


def cut_image(folder):
    image = folder / "GTSRB/Final_Training/Images/00003/00001_00002.ppm"
    image.write_bytes(image.read_bytes()[:-50])


def edit(name, old, new):
    def change(folder):
        path = folder / name
        path.write_text(path.read_text().replace(old, new))

    return change


TABLE = "GTSRB/Final_Training/Images/00003/GT-00003.csv"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (break_folder, "1 of 43 class folders are missing, first 00017"),
        (cut_image, r"00001_00002\.ppm: missing or damaged"),
        (lambda f: (f / "GTSRB/Final_Training/Images/00003/00000_00000.ppm").unlink(), "missing or damaged"),
        (lambda f: (f / TABLE).unlink(), "not a GTSRB table"),
        (edit(TABLE, ";", ","), "not a GTSRB table"),
        (edit(TABLE, ";3\n", ";x\n"), "not a GTSRB table"),
        (edit(TABLE, ";3\n", ";4\n"), "'00000_00000.ppm' of class 4, expected TTTTT_FFFFF.ppm of class 3"),
        (edit(TABLE, "00000_0", "../00000_0"), "images in other folders"),
        (lambda f: (f / TABLE).write_text(HEAD), "lists no images"),
    ],
)
def test_a_damaged_training_folder_says_what_is_wrong(tmp_path, change, message):
    folder = write_official(tmp_path)
    change(folder)
    with pytest.raises(DataError, match=message):
        gtsrb.load_training(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "GT-final_test.csv").unlink(), r"no GT-final_test\.csv; unpack"),
        (lambda f: (f / "GTSRB/Final_Test/Images").rename(f / "away"), "no Final_Test/Images; unpack"),
        (edit("GT-final_test.csv", ";42\n", ";43\n"), r"labels outside 0\.\.42"),
        (lambda f: (f / "GTSRB/Final_Test/Images/00001.ppm").unlink(), r"00001\.ppm: missing"),
    ],
)
def test_a_damaged_test_folder_says_what_is_wrong(tmp_path, change, message):
    folder = write_official(tmp_path)
    change(folder)
    with pytest.raises(DataError, match=message):
        gtsrb.load_test(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_train": None}, "no array 'y_train' in it, it has x_train"),
        ({"y_train": np.full(285, 43)}, r"labels outside 0\.\.42"),
        ({"y_train": np.zeros(5, int)}, "images, but labels of shape"),
        ({"y_train": np.zeros(285)}, "whole numbers"),
        ({"track_train": np.zeros(5, int)}, "track_train does not hold one whole number for each of 285"),
        ({"x_train": np.zeros((285, 28, 28, 3), np.uint8)}, r"expected \(N, 32, 32, 3\) uint8"),
        ({"x_train": np.zeros((285, 32, 32, 3), np.float32)}, "float32"),
        ({"x_train": np.array([{}, 1], object)}, "cut off or damaged"),  # a pickle could run code
    ],
)
def test_an_unusable_small_file_says_what_is_wrong(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        gtsrb.load_training(write_small(tmp_path / "gtsrb32.npz", **change))


def test_a_small_file_that_was_cut_off(tmp_path):
    path = write_small(tmp_path / "gtsrb32.npz")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match="cut off or damaged"):
        gtsrb.load_test(path)


def test_no_gtsrb_there(tmp_path):
    with pytest.raises(DataError, match="no GTSRB here"):
        gtsrb.load_test(tmp_path)
    with pytest.raises(DataError, match="no GTSRB here"):
        gtsrb.load_training(tmp_path / "nowhere")


def test_mirror_images_of_signs_train_under_the_sign_that_they_show(official):
    train, _ = gtsrb.load_training(official)
    # A picture whose left half is brighter, so that a mirrored one is told from it.
    images = train.images.copy()
    images[:, :, :16, 0] //= 2
    split = LabelledImages("gtsrb-train", images, train.labels, train.groups, train.unit, train.sequence)
    both = gtsrb.with_mirror_images(split)

    assert np.array_equal(both.images[: len(split)], split.images)
    assert np.array_equal(both.labels[: len(split)], split.labels)
    source = np.flatnonzero(np.isin(split.labels, list(gtsrb.MIRROR_LABELS)))
    assert len(both) == len(split) + len(source)
    assert np.array_equal(both.images[len(split) :], split.images[source][:, :, ::-1])
    assert np.array_equal(both.groups[len(split) :], split.groups[source])
    names = {gtsrb.LABELS[old]: gtsrb.LABELS[new] for old, new in gtsrb.MIRROR_LABELS.items()}
    assert names["turn right ahead"] == "turn left ahead"
    assert names["yield"] == "yield"
    assert not any("speed" in name for name in names)
    assert [gtsrb.MIRROR_LABELS[int(k)] for k in split.labels[source]] == both.labels[len(split) :].tolist()


def test_twice_mirrored_is_the_same_sign():
    assert all(gtsrb.MIRROR_LABELS[mirror] == label for label, mirror in gtsrb.MIRROR_LABELS.items())
