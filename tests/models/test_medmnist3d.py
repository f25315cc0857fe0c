from __future__ import annotations

import numpy as np
import pytest

from framegate.models import medmnist3d
from framegate.runtime.errors import DataError

SIZES = {"train": 5, "val": 2, "test": 3}


def write_set(folder, name="adrenalmnist3d", largest=255, **changes):
    """A file in MedMNIST's format; voxels tell split, number and place."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in SIZES.items():
        arrays[f"{split}_images"] = rng.integers(0, largest + 1, (count, 28, 28, 28)).astype(np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2).astype(np.uint8)[:, None]
    arrays.update(changes)
    path = folder / f"{name}.npz"
    np.savez_compressed(path, **arrays)
    return path, arrays


def test_a_volume_travels_as_a_column_of_its_slices(tmp_path):
    path, arrays = write_set(tmp_path)
    train, calibration = medmnist3d.load_training("adrenalmnist3d", tmp_path)
    test = medmnist3d.load_test("adrenalmnist3d", path)  # the file itself will do
    # The last of five training volumes serves for calibration, behind the official validation volumes.
    training = arrays["train_images"]
    held_out = np.concatenate([arrays["val_images"], training[4:]])
    for split, volumes in ((train, training[:4]), (calibration, held_out), (test, arrays["test_images"])):
        assert split.images.shape == (len(volumes), 28 * 28, 28, 3)
        for strip, volume in zip(split.images, volumes, strict=True):
            for channel in range(3):
                np.testing.assert_array_equal(strip[..., channel], np.concatenate(volume, axis=0))
        assert split.labels.dtype == np.int64
    assert train.labels.tolist() == [0, 1, 0, 1]
    assert calibration.labels.tolist() == [0, 1, 0]
    assert [s.name.partition("-")[2] for s in (train, calibration, test)] == ["train", "calibration", "test"]


def test_shapes_stored_as_zero_and_one_become_zero_and_255(tmp_path):
    write_set(tmp_path, largest=1)
    train, _ = medmnist3d.load_training("adrenalmnist3d", tmp_path)
    assert np.unique(train.images).tolist() == [0, 255]
    assert np.unique(medmnist3d.load_test("adrenalmnist3d", tmp_path).images).tolist() == [0, 255]


def test_a_dark_test_split_keeps_the_scale_of_the_training_split(tmp_path):
    write_set(tmp_path, test_images=np.ones((3, 28, 28, 28), np.uint8))
    assert np.unique(medmnist3d.load_test("adrenalmnist3d", tmp_path).images).tolist() == [1]


def test_every_set_by_its_name(tmp_path):
    for name, labels in medmnist3d.LABELS.items():
        last = np.full((2, 1), len(labels) - 1, np.uint8)
        write_set(tmp_path, name, val_labels=last)
        assert medmnist3d.load_training(name, tmp_path)[1].labels.tolist()[:2] == [len(labels) - 1] * 2
        write_set(tmp_path, name, val_labels=last + 1)
        with pytest.raises(DataError, match=rf"{name}\.npz: val_labels has labels outside 0\.\.{len(labels) - 1};"):
            medmnist3d.load_training(name, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_images": np.zeros((5, 28, 28), np.uint8)}, r"expected \(N, 28, 28, 28\) uint8"),
        ({"train_images": np.zeros((5, 64, 64, 64), np.uint8)}, r"\(5, 64, 64, 64\)"),
        ({"train_images": np.zeros((5, 28, 28, 28))}, "float64"),
        ({"train_images": np.zeros((0, 28, 28, 28), np.uint8)}, "train_images is empty"),
        ({"train_labels": np.zeros((4, 1), np.uint8)}, "5 images, but labels of shape"),
        ({"train_labels": np.zeros((5, 2), np.uint8)}, "expected \\(N,\\) whole numbers"),
        ({"train_labels": np.zeros((5, 1))}, "whole numbers"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, change, message):
    write_set(tmp_path, **change)
    with pytest.raises(DataError, match=message):
        medmnist3d.load_training("adrenalmnist3d", tmp_path)


def test_missing_cut_off_and_garbled_files(tmp_path):
    with pytest.raises(DataError, match=r"no adrenalmnist3d\.npz here"):
        medmnist3d.load_test("adrenalmnist3d", tmp_path)
    path, _ = write_set(tmp_path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for data in (whole[: len(whole) // 2], b"", b"hello", bytes(flipped)):
        path.write_bytes(data)
        with pytest.raises(DataError, match="cut off or damaged"):
            medmnist3d.load_training("adrenalmnist3d", tmp_path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match="a single array"):
        medmnist3d.load_test("adrenalmnist3d", tmp_path)
    np.savez(path, images=np.zeros(3))
    with pytest.raises(DataError, match="no array 'train_images' in it, it has images"):
        medmnist3d.load_test("adrenalmnist3d", tmp_path)
